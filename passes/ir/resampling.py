"""Rows or columns that are weighted sums of others: one axis of a resampled plane."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from patc.dialects.attributes import Activation


def is_copy(op: Any) -> bool:
    """Return whether a layer that resamples makes copies of elements alone, of one each."""
    weights = op.row_weights, op.column_weights, op.residual
    return all(each is None for each in weights) and Activation.of(op) == Activation()


@dataclass(frozen=True)
class Axis:
    """What each place of the result is made of, along one axis.

    Attributes:
        places: taps x size, of the input.
        weights: taps x size; None where each place is a copy of one of the input.
    """

    places: np.ndarray
    weights: np.ndarray | None

    @staticmethod
    def of(matrix: np.ndarray) -> Axis:
        """Return the axis whose result is matrix . input; no row of the matrix is all zeros."""
        taps = int(np.count_nonzero(matrix, axis=1).max())
        order = np.argsort(matrix == 0, axis=1, kind="stable")[:, :taps]  # what is not zero comes first, in its order
        weights = np.take_along_axis(matrix, order, axis=1)
        places = np.where(weights == 0, order[:, :1], order)
        is_copy = taps == 1 and bool(np.all(weights == 1))
        return Axis(places.T.astype(np.int32), None if is_copy else weights.T.astype(np.float32))

    @property
    def size(self) -> int:
        return int(self.places.shape[1])

    @property
    def span(self) -> int:
        """The most places from the first that one of the result is made of to the last."""
        return int((self.places.max(axis=0) - self.places.min(axis=0)).max()) + 1

    @property
    def is_monotone(self) -> bool:
        """Whether no place of the result is made of earlier ones than the place before it."""
        ends = self.places.min(axis=0), self.places.max(axis=0)
        return all(bool(np.all(np.diff(end) >= 0)) for end in ends)
