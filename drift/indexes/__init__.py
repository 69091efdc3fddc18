"""Approximate neighbors by indexes of several libraries.

A `Run` says how one is built and searched; `registry` has a class for each library. HNSW graphs
(Malkov and Yashunin 2018) are built by the same rules in all of them, which read efSearch
differently when a list longer than efSearch is asked for: `Index.stop_rule`.
"""
