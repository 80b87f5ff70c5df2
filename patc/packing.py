"""Rows of a sparse matrix that have weights in the same places; what pruning and formats of weights share."""

from __future__ import annotations

import numpy as np


def alike(counts: np.ndarray, rows: int) -> np.ndarray:
    """Return an order of rows in which so many neighbours have about as many weights in each tile.

    Args:
        counts: weights of each row in each tile, (rows, tiles).
    """
    counts = counts.astype(np.int32)
    left = np.argsort(-counts.sum(1), kind="stable")
    found = []
    while left.size:
        # The fullest that is left, and those whose weights are where it has some.
        distance = np.abs(counts[left] - counts[left[0]]).sum(1)
        nearest = np.argsort(distance, kind="stable")
        found.append(left[nearest[:rows]])
        left = left[np.sort(nearest[rows:])]
    return np.concatenate(found)
