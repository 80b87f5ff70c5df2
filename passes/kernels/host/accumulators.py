"""Of a sum of many products, a narrow accumulator loses most bits: such a sum is made in parts, which are added up
apart."""

from __future__ import annotations

from torch_mlir import ir

from patc.passes.ir.elements import numerics_of
from patc.passes.kernels.builder import Builder, Vectors


def longest_part(element: ir.Type, products: float) -> int | None:
    """Return how many products each part of a sum of so many should have; None for a sum in one piece."""
    numerics = numerics_of(element)
    longest = None if numerics is None else numerics.longest_sum
    return longest if longest is not None and products > 2 * longest else None


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
