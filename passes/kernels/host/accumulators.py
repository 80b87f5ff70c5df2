"""Accumulators of f16 hold 11 bits, so a sum of many products loses most of them. Such a sum is made in parts, which
are added up apart."""

from __future__ import annotations

from torch_mlir import ir

from patc.passes.kernels.builder import Builder, Vectors

LONGEST_HALF_SUM = 256  # products that accumulators of f16 take before they are added to a total


def is_long_sum(element: ir.Type, products: float) -> bool:
    """Whether a sum of so many products should be made in parts."""
    return isinstance(element, ir.F16Type) and products > 2 * LONGEST_HALF_SUM


def zeros_like(b: Builder, accumulators: Vectors) -> Vectors:
    """Return accumulators before the first product."""
    return [b.splat(0.0, value.type.shape[0]) for value in accumulators]


def join(b: Builder, accumulators: Vectors, sets: int) -> Vectors:
    """Add the sets of accumulators together."""
    size = len(accumulators) // sets
    joined = accumulators[:size]
    for first in range(size, len(accumulators), size):
        joined = [b.plus(total, part) for total, part in zip(joined, accumulators[first : first + size], strict=True)]
    return joined
