"""How far outputs are from what they should be."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def largest_error(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """Return the largest error of any output, of that output's largest magnitude; infinite where one is not finite.

    Integers, as the places of largest elements are, count only where there is nothing else: sums in another order may
    choose another one of two nearly equal elements.
    """
    pairs = list(zip(found, expected, strict=True))
    floats = [pair for pair in pairs if pair[1].dtype.kind == "f"]
    return max((error_of(*pair) for pair in floats or pairs), default=0.0)


def error_of(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest error of an output, of its largest magnitude."""
    with np.errstate(invalid="ignore"):  # NaN whose bits signal, as in memory that nothing was written to
        one, other = found.astype(np.float64), expected.astype(np.float64)
    if one.shape != other.shape:
        return math.inf
    finite = np.isfinite(other)
    # What is NaN or infinite in both is right.
    if not np.array_equal(np.where(finite, 0.0, one), np.where(finite, 0.0, other), equal_nan=True):
        return math.inf
    if not finite.any():
        return 0.0
    difference = np.abs(one - other, where=finite, out=np.zeros_like(one))
    largest = float(np.abs(other[finite]).max())
    worst = float(difference.max())
    if math.isnan(worst):
        return math.inf
    return worst / largest if largest else worst and math.inf
