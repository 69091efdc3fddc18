"""What the lists of an index change for those who use them, at one k.

Density estimates and HDBSCAN use the distance to the k-th neighbor, dimension estimates the LID,
retrieval the members of a list, clustering on graphs what the lists connect, and k-NN
classification the labels of the neighbors. Neighbor lists are those of `drift.metrics`.
"""

import itertools
import random
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from drift import InputError
from drift.curves import estimate_curve
from drift.intervals import Estimate, estimate_mean, groups_where
from drift.neighbor_lists import checked_ids
from drift.vectors import row_blocks

BADLY_SERVED = 0.9  # is a query that gets less of its neighbors
MOST_EDGES = 10_000_000  # of a graph that is partitioned
N_PARTITIONS = 3
# By use and measure.
Uses = dict[tuple[str, str], Estimate]


def estimate_uses(
    values: Mapping[str, np.ndarray], groups: np.ndarray | None = None, side: str = "ann"
) -> Uses:
    """What lists change for densities and dimensions.

    `values` are metrics of a run at one k, (Q,) each, by name; `side` is ``reported`` for the
    distances as the index reported them. `groups` are as in `drift.intervals.estimate_mean`.

    A k-NN density estimate is k over the volume within the k-th distance. With m neighbors, the
    last of them at r_m, it is typically multiplied by the ``factor`` exp of the mean of
    ln(m / k) - L ln(r_m / r_k), L being the pooled exact LID, of which the interval knows nothing.
    """
    inverse = values["lid_inverse_exact"]
    both = ~np.isnan(inverse) & ~np.isnan(values["lid_inverse_ann"])
    pooled = 1 / inverse[both].mean() if both.any() else np.nan
    names = ("kth_distance", "lid", "lid_inverse")
    values = {**values, **{f"{name}_ann": values[f"{name}_{side}"] for name in names}}
    kth, kth_ann = values["kth_distance_exact"], values["kth_distance_ann"]
    is_apart = (kth > 0) & (kth_ann > 0)
    logs = np.full(len(kth), np.nan)
    farther = np.log(kth_ann[is_apart]) - np.log(kth[is_apart])
    logs[is_apart] = np.log(values["found"][is_apart]) - pooled * farther
    factor = estimate_mean(logs, groups, no_loss=0)
    errors = ("lid_error", "lid_cut_error", "lid_pooled_error")
    return {
        ("density", "kth_distance_error"): estimate_curve(values, "kth_distance_error", groups),
        ("density", "factor"): Estimate(*np.exp(factor[:3]), *factor[3:]),
        **{("dimension", name): estimate_curve(values, name, groups) for name in errors},
    }


def estimate_retrieval(values: Mapping[str, np.ndarray], groups: np.ndarray | None = None) -> Uses:
    """The shares of queries with less than `BADLY_SERVED` overlap and recall, as above."""
    below = {name: (values[name] < BADLY_SERVED).astype(float) for name in ("overlap", "recall")}
    return {
        ("retrieval", f"below_{name}"): estimate_share(shares, groups, 0)
        for name, shares in below.items()
    }


def estimate_classes(exact: np.ndarray, ann: np.ndarray, groups: np.ndarray | None = None) -> Uses:
    """The accuracies of `classification` (Q,) by exact lists and those returned, paired."""
    difference = estimate_mean(ann - exact, groups, no_loss=0, bounds=(-1, 1))
    return {
        ("classes", "accuracy_exact"): estimate_share(exact, groups),
        ("classes", "accuracy_ann"): estimate_share(ann, groups),
        ("classes", "accuracy_difference"): difference,
    }


def estimate_share(
    shares: np.ndarray, groups: np.ndarray | None = None, no_loss: float | None = None
) -> Estimate:
    """`drift.intervals.estimate_mean` of shares (Q,), not too sure of what never happened.

    Where more than half of the G groups are all 0, or all 1, the far end of the interval is at
    least 1 - .025^(1/G) away from that.

    References
    ----------
    Clopper and Pearson (1934), The use of confidence or fiducial limits illustrated in the case of
    the binomial.
    """
    estimate = estimate_mean(shares, groups, no_loss, bounds=(0, 1))
    n_groups, above_0, below_1 = (
        int(groups_where(is_so, groups)) for is_so in (~np.isnan(shares), shares > 0, shares < 1)
    )
    reach = 1 - 0.025 ** (1 / max(1, n_groups))
    low, high = estimate.ci_low, estimate.ci_high
    return estimate._replace(
        ci_low=min(low, 1 - reach) if 2 * below_1 < n_groups else low,
        ci_high=max(high, reach) if 2 * above_0 < n_groups else high,
    )


def leiden_partitions(indices: ArrayLike, seed: int = 0) -> list[np.ndarray]:
    """Three partitions of the simple undirected k-NN graph of all N rows, by modularity.

    Rows i and j are joined if either is in the other's list, (N, k). They differ by their seed
    alone; each is the cluster of each row, (N,). An `InputError` says why there are none: igraph is
    not installed, or there are more than `MOST_EDGES`.

    References
    ----------
    Traag, Waltman and van Eck (2019), From Louvain to Leiden: guaranteeing well-connected
    communities.
    """
    try:
        import igraph
    except ImportError:
        message = "igraph is not installed: pip install -r requirements-leiden.txt"
        raise InputError(message) from None
    edges = knn_edges(indices)
    # igraph makes lists of lists out of arrays; among pairs that come one by one, of numbers that
    # are made once, Python's collector finds nothing to look through.
    names = np.arange(len(indices)).astype(object)
    pairs = zip(*(names[side].tolist() for side in edges.T), strict=True)
    graph, partitions = igraph.Graph(len(indices), pairs), []
    for one in range(seed, seed + N_PARTITIONS):
        # igraph has one generator for all graphs: afterwards Python's own again.
        igraph.set_random_number_generator(random.Random(one))
        found = graph.community_leiden(objective_function="modularity", n_iterations=-1)
        igraph.set_random_number_generator(random)
        partitions.append(np.array(found.membership))
    return partitions


def estimate_clusters(exact: list[np.ndarray], ann: list[np.ndarray]) -> Uses:
    """How many clusters there are, and how far those by the lists returned are the exact ones.

    From `leiden_partitions` of both sides; the adjusted Rand index of two exact partitions, which
    differ by their seed alone, is the yardstick. Each is the median over what there is.
    """
    pairs = itertools.product(exact, ann), itertools.combinations(exact, 2)
    ari, yardstick = ([adjusted_rand_index(*pair) for pair in some] for some in pairs)
    counts = ([one.max() + 1 for one in partitions] for partitions in (exact, ann))
    names = ("clusters_exact", "clusters_ann", "ari", "ari_yardstick")
    unknown = np.nan, np.nan, len(exact[0]), -1
    return {
        ("clusters", name): Estimate(float(np.median(numbers)), *unknown)
        for name, numbers in zip(names, (*counts, ari, yardstick), strict=True)
    }


def knn_edges(indices: ArrayLike) -> np.ndarray:
    """The edges i < j of the graph of `leiden_partitions`, int64 (E, 2), or its InputError."""
    ids = checked_ids(indices, n=len(indices))
    n = len(ids)
    is_other = (ids >= 0) & (ids != np.arange(n)[:, None])
    if np.count_nonzero(is_other) <= 2 * MOST_EDGES:  # each edge is in two lists at most
        rows, others = np.nonzero(is_other)[0], ids[is_other].astype(np.int64)
        keys = np.sort(np.minimum(rows, others) * n + np.maximum(rows, others))
        keys = keys[np.diff(keys, prepend=-1) > 0]  # np.unique hashes them, in ten times the time
        if len(keys) <= MOST_EDGES:
            return np.column_stack(np.divmod(keys, n))
    raise InputError(f"the k-NN graph has more than {MOST_EDGES:,} edges")


def adjusted_rand_index(first: np.ndarray, second: np.ndarray) -> float:
    """How far two partitions agree, from the cluster of each row, int (N,), in both.

    The pairs of rows that are together in both, over how many there could be, both less what is to
    be expected by chance: 1 for the same partition, about 0 for one that is drawn at random.

    References
    ----------
    Hubert and Arabie (1985), Comparing partitions, formula 5.

    Examples
    --------
    >>> adjusted_rand_index([0, 0, 1, 1], [5, 5, 3, 3])
    1.0
    """
    of_rows = np.stack([first, second]), np.asarray(first), np.asarray(second)
    sizes = (np.unique(rows, axis=-1, return_counts=True)[1] for rows in of_rows)
    together, *alone = (float((n * (n - 1) / 2).sum()) for n in sizes)
    expected = alone[0] * alone[1] / max(1, len(first) * (len(first) - 1) / 2)
    most = sum(alone) / 2
    # Both are all in one, or each row by itself.
    return (together - expected) / (most - expected) if most > expected else 1.0


def classification(indices: ArrayLike, labels: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Whether each query's label is the most frequent one among its neighbors, float64 (Q,).

    If it is one of t that are as frequent: 1 / t, as often as a draw among them is right. Missing
    neighbors in the lists (Q, k) have no vote, nor rows whose label in `labels` (N,) is negative,
    nor the `queries` (Q,) about themselves; without any vote it is 0. NaN for queries without a
    label. An `InputError` says when a list holds what cannot be.
    """
    ids = checked_ids(indices, n=len(labels))
    names = np.unique(labels[labels >= 0])
    places = np.where(labels >= 0, np.searchsorted(names, labels), -1)
    own, right = places[queries], np.full(len(ids), np.nan)
    bytes_per_row = 8 * (len(names) + 4 * ids.shape[1])
    for start, stop in row_blocks(len(ids), bytes_per_row) if len(names) else ():
        block, mine = ids[start:stop], own[start:stop]
        votes = np.where((block >= 0) & (block != queries[start:stop, None]), places[block], -1)
        rows, columns = np.nonzero(votes >= 0)
        cells = rows * len(names) + votes[rows, columns]
        counts = np.bincount(cells, minlength=len(block) * len(names)).reshape(len(block), -1)
        most = counts.max(axis=1)
        is_right = (counts[np.arange(len(block)), mine] == most) & (most > 0)
        right[start:stop] = is_right / (counts == most[:, None]).sum(axis=1)
    right[own < 0] = np.nan
    return right
