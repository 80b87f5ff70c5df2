"""Sums over the lanes of a vector and over the threads of a workgroup."""

from __future__ import annotations

from collections.abc import Callable

from torch_mlir import ir

from patc.passes.kernels.gpu.kernel import LANES, Kernel


def sum_lanes(k: Kernel, value: ir.Value) -> ir.Value:
    """Return the sum of a vector's elements."""
    total = k.extract(value, 0)
    for lane in range(1, LANES):
        total = k.plus(total, k.extract(value, lane))
    return total


def sum_threads(k: Kernel, value: ir.Value, threads: int) -> ir.Value:
    """Return the sum of what the threads of the workgroup have; `threads` is a power of two."""
    return combine_threads(k, value, threads, k.plus)


def combine_threads(
    k: Kernel, value: ir.Value, threads: int, combine: Callable[[ir.Value, ir.Value], ir.Value]
) -> ir.Value:
    """Return what `combine` makes of the values of all threads, two by two; `threads` is a power of two."""
    shared = k.shared(threads, value.type)
    thread = k.thread()
    k.store_element(value, shared, thread)
    half = threads // 2
    while half:
        k.barrier()

        def add(half: int = half) -> None:
            parts = [k.load_scalar(shared, k.add(thread, shift)) for shift in (0, half)]
            k.store_element(combine(*parts), shared, thread)

        k.when(k.less(thread, half), add)
        half //= 2
    k.barrier()
    return k.load_scalar(shared, 0)
