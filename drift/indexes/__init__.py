"""Approximate neighbors by indexes of several libraries.

A `Run` says how one is built and searched. `registry` has a class for each library, and
`search` gets neighbor lists from it; `targets` chooses the setting that is just good enough.
Another library is a module with a class like those here, and a line of `registry.LIBRARIES`.

HNSW graphs (Malkov and Yashunin 2018) are built by the same rules in all libraries, which read
efSearch differently when a list longer than efSearch is asked for: `Index.stop_rule`.
"""
