"""The notebook's way through the study, in plain loops over queries, to compare with.

    python benchmarks/notebook.py EMBEDDINGS.npy

One process: exact search, an HNSW index, a search for each k, and three metrics of every query. The
last line holds the seconds that FAISS took and those of the loops.
"""

import sys
import time
from pathlib import Path

import faiss
import numpy as np

GRID = list(range(10, 251, 10))

Lists = tuple[np.ndarray, np.ndarray]


def loops(x: np.ndarray, exact: Lists, ann: dict[int, Lists]) -> None:
    """Overlap, barycenter shift and LID of every query at every k."""
    for k in GRID:
        ann_ids, ann_distances = ann[k]
        for query in range(len(x)):
            e, a = exact[0][query, :k], ann_ids[query]
            a = a[a >= 0]
            len(set(e) & set(a)) / k
            np.linalg.norm(x[e].mean(axis=0) - x[a].mean(axis=0))
            for r in (exact[1][query, :k], ann_distances[query, : len(a)]):
                s = r**2
                -1 / np.mean(np.log(s[:-1] / (s[-1] + 1e-12) + 1e-12))


def main() -> None:
    x = np.load(Path(sys.argv[1]))
    start = time.perf_counter()
    flat = faiss.IndexFlatL2(x.shape[1])
    flat.add(x)
    exact = flat.search(x, GRID[-1])[::-1]
    index = faiss.IndexHNSWFlat(x.shape[1], 32)
    index.hnsw.efConstruction = 200
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # as the pipeline builds it: else the graph depends on chance
    index.add(x)
    faiss.omp_set_num_threads(threads)
    index.hnsw.efSearch = 50
    ann = {k: index.search(x, k)[::-1] for k in GRID}
    searched = time.perf_counter()
    loops(x, exact, ann)
    print(searched - start, time.perf_counter() - searched)


if __name__ == "__main__":
    main()
