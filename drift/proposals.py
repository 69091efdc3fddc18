"""Candidates for the exact search, by the product of two float32 matrices and a partial sort."""

import threading
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from drift import InputError
from drift.vectors import row_blocks, vector_norms

ROWS = 4096  # that points are multiplied with at a time: 8 MB of products of 512 points
STRIP = 64  # rows of products that are partially sorted together, in the processor's cache
# What the system shows where there is a driver of a GPU: NVIDIA's, AMD's, Windows's under Linux.
DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


class Proposals(NamedTuple):
    """Rows proposed for each point, int64 (P, c) in no order, with their squared distances.

    `squared`, float64 (P, c), are |x|^2 - 2 (xy - |y|^2 / 2), off by `product_error` at most. No
    row that was not proposed has a smaller one.
    """

    indices: np.ndarray
    squared: np.ndarray


class NumpyProduct:
    """Proposes among float32 rows (N, d), on the processor.

    The memory it takes beside them does not grow with N: points are multiplied by 4096 rows at a
    time, and the best so far of each are kept.
    """

    def __init__(self, rows: np.ndarray):
        self.rows, self._halves = rows, half_squares(rows)

    def propose(self, points: np.ndarray, count: int) -> Proposals:
        """The `count` rows nearest to each of the float32 points (P, d), by their products."""
        n = len(self.rows)
        scores = np.empty((len(points), count), np.float32)
        indices = np.empty((len(points), count), np.int64)
        width = min(n, max(ROWS, count))  # the first block holds enough rows to choose from
        buffer = np.empty(len(points) * width, np.float32)
        for start, stop in row_blocks(n, 1, budget=width):
            shape = len(points), stop - start
            product = buffer[: shape[0] * shape[1]].reshape(shape)
            np.matmul(points, self.rows[start:stop].T, out=product)
            for first, past in row_blocks(len(points), 1, budget=STRIP):
                strip = slice(first, past)
                values = product[strip]
                values -= self._halves[start:stop]
                if start == 0:
                    keep_largest(values, None, scores[strip], indices[strip])
                else:
                    merge_larger(values, start, scores[strip], indices[strip])
        return from_scores(points, scores, indices)


class TorchProduct:
    """Proposes among float32 rows (N, d) by the same products on a device of PyTorch.

    The rows are sent to the device once if they fit in half of its free memory, else in blocks for
    each block of points. Threads take turns.
    """

    ROWS = 65536  # that points are multiplied with at a time: 128 MB of products of 512 points

    def __init__(self, rows: np.ndarray, device: str = "cuda"):
        import torch

        # No TensorFloat-32: the bound is that of float32 products.
        torch.set_float32_matmul_precision("highest")
        self.device, self._turn = torch.device(device), threading.Lock()
        self.rows, self.halves = torch.from_numpy(rows), torch.from_numpy(half_squares(rows))
        free = torch.cuda.mem_get_info(self.device)[0] if self.device.type == "cuda" else np.inf
        if rows.nbytes < free / 2:
            self.rows, self.halves = self.rows.to(self.device), self.halves.to(self.device)

    def propose(self, points: np.ndarray, count: int) -> Proposals:
        """The `count` rows nearest to each of the float32 points (P, d), by their products."""
        with self._turn:
            scores, indices = (part.cpu().numpy() for part in self._best(points, count))
        return from_scores(points, scores, indices)

    def _best(self, points: np.ndarray, count: int) -> list[Any]:
        import torch

        some, best = torch.from_numpy(points).to(self.device), None
        for start, stop in row_blocks(len(self.rows), 1, max(self.ROWS, count)):
            rows, halves = (part[start:stop].to(self.device) for part in (self.rows, self.halves))
            block = torch.topk(some @ rows.T - halves, min(count, stop - start), sorted=False)
            found = [block.values, block.indices + start]
            if best is not None:
                both = [torch.cat(pair, dim=1) for pair in zip(best, found, strict=True)]
                kept = torch.topk(both[0], count, sorted=False)
                found = [kept.values, both[1].gather(1, kept.indices)]
            best = found
        return best


def choose_product(device: str) -> Callable[[np.ndarray], NumpyProduct | TorchProduct]:
    """Who proposes on a device: ``auto`` is a GPU if PyTorch has one, else the processor.

    PyTorch, which takes seconds to import, is asked only where a driver of a GPU is. An
    `InputError` says that there is no GPU for ``cuda``.
    """
    has_gpu = False
    if device != "cpu" and any(Path(driver).exists() for driver in DRIVERS) and find_spec("torch"):
        import torch

        has_gpu = torch.cuda.is_available()
    if device == "cuda" and not has_gpu:
        raise InputError("--device cuda: PyTorch finds no GPU on this machine; take --device cpu")
    return partial(TorchProduct, device="cuda") if has_gpu else NumpyProduct


def keep_largest(
    values: np.ndarray, names: np.ndarray | None, scores: np.ndarray, indices: np.ndarray
) -> None:
    """Put the largest `values` (P, n) of each point, and their names, into the other two (P, c)."""
    count = scores.shape[1]
    order = np.argpartition(values, values.shape[1] - count, axis=1)[:, -count:]
    scores[:] = np.take_along_axis(values, order, axis=1)
    indices[:] = order if names is None else np.take_along_axis(names, order, axis=1)


def merge_larger(values: np.ndarray, start: int, scores: np.ndarray, indices: np.ndarray) -> None:
    """Take what is larger among values (P, n) of the rows from `start` on into the kept (P, c)."""
    larger = values > scores.min(axis=1, keepdims=True)
    point, row = np.divmod(np.flatnonzero(larger), values.shape[1])  # far faster than nonzero
    if not len(point):
        return
    more = np.bincount(point, minlength=len(values))
    place = np.arange(len(point)) - np.repeat(np.cumsum(more) - more, more)
    shape = len(values), scores.shape[1] + more.max()
    wider, names = np.full(shape, -np.inf, np.float32), np.empty(shape, np.int64)
    wider[:, : scores.shape[1]], names[:, : scores.shape[1]] = scores, indices
    place += scores.shape[1]
    wider[point, place], names[point, place] = values[point, row], start + row
    keep_largest(wider, names, scores, indices)


def half_squares(rows: np.ndarray) -> np.ndarray:
    """|y|^2 / 2 of each row, rounded once; float32 (N,)."""
    return (vector_norms(rows) ** 2 / 2).astype(np.float32)


def from_scores(points: np.ndarray, scores: np.ndarray, indices: np.ndarray) -> Proposals:
    """Squared distances |x|^2 - 2 (xy - |y|^2 / 2) of what has the scores xy - |y|^2 / 2."""
    return Proposals(indices, vector_norms(points)[:, None] ** 2 - 2 * scores.astype(np.float64))
