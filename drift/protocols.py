"""What counts as the k neighbors of a query: the protocols of the study and the publications."""

from enum import StrEnum

import numpy as np


class Protocol(StrEnum):
    """How many neighbors a search is asked for, and which of them are left.

    ``study`` asks for k + 1 and drops the query by its id, or the last one where the list lacks it.
    ``notebook`` asks for k and drops nothing. ``paper`` asks for k + 1 and drops the first one,
    whatever it is. The exact distances of the two publications are expanded ones in float32.
    ``outside`` is the study's own for queries that are no rows: it drops nothing.
    """

    STUDY = "study"
    NOTEBOOK = "notebook"
    PAPER = "paper"
    OUTSIDE = "outside"

    @property
    def is_published(self) -> bool:
        """Whether the exact distances are expanded ones in float32, with what that rounds off."""
        return self in (Protocol.NOTEBOOK, Protocol.PAPER)

    @property
    def drops_nothing(self) -> bool:
        return self in (Protocol.NOTEBOOK, Protocol.OUTSIDE)

    def list_length(self, k: int) -> int:
        """How many neighbors to ask for."""
        return k if self.drops_nothing else k + 1

    def policy_length(self, k: int) -> int:
        """What an efSearch policy calls k: the list's length, in the paper's code k itself."""
        return k + 1 if self is Protocol.STUDY else k

    def leave_k(
        self, indices: np.ndarray, distances: np.ndarray, queries: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k neighbors of each list that was asked for, from ids of the queries (Q,)."""
        if self.drops_nothing:
            return indices, distances
        if self is Protocol.PAPER:
            return indices[:, 1:], distances[:, 1:]
        keep = indices != queries[:, None]
        keep[keep.all(axis=1), -1] = False
        shape = (len(indices), indices.shape[1] - 1)
        return indices[keep].reshape(shape), distances[keep].reshape(shape)
