"""The cost model "gpu": a throughput machine, whose threads advance at the same time.

Each thread issues so many instructions, and some threads are idle where a layer has less outputs. It knows nothing of
one GPU in particular.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from patc.costs import GpuCosts
from patc.diagnostics import PatcError
from patc.passes.kernels.gpu.kernel import LANES
from patc.targets import Target

PARTS = (1, 2, 4, 8)


class GpuModel:
    """Models a GPU. All costs are in cycles, those of a multiply-add of one vector in one thread.

    Raises:
        PatcError: the target's costs are not those of a GPU, or its vectors are longer than those of the kernels.
    """

    def __init__(self, target: Target, element_bytes: int = 4) -> None:
        if not isinstance(target.costs, GpuCosts):
            found = type(target.costs).__name__
            raise PatcError(f"target '{target.name}' expected GpuCosts for cost model '{target.model}', got {found}")
        if target.lanes != LANES:
            raise PatcError(
                f"target '{target.name}' expected {LANES} lanes for cost model '{target.model}', got {target.lanes}"
            )
        self.target, self.costs = target, target.costs

    def workgroups(self) -> Iterator[tuple[int, int]]:
        """Yield threads of a workgroup, and the parts that they divide sums into."""
        for threads, parts in itertools.product(self.costs.workgroups, PARTS):
            if threads // parts >= 8:
                yield threads, parts

    def fits(self, sums: int, threads: int, parts: int) -> bool:
        """Return whether a thread can hold so many vectors of sums, and a workgroup add up their parts."""
        shared = sums * threads * self.target.lanes * 4 if parts > 1 else 0
        return sums <= self.costs.accumulators and shared <= self.costs.shared_bytes

    def turn_cycles(self, uniform: int, loads: int, operations: float) -> float:
        """Return the cycles of one turn of a loop in a thread.

        Args:
            uniform: loads that are the same for a whole workgroup.
            loads: of vectors.
            operations: multiply-adds and shuffles of vectors.
        """
        costs = self.costs
        own = costs.load_cycles * loads + operations
        return costs.loop_cycles + costs.uniform_cycles * uniform + own

    def layer_cycles(self, cycles: float, sums: int, threads: int, parts: int = 1) -> float:
        """Return the cycles of the busiest thread: the turns of its loops, its ends, and what its parts cost.

        Args:
            cycles: of one thread's sums.
            sums: vectors of them.
            threads: that are started.
        """
        added = self.costs.barrier_cycles + parts * sums if parts > 1 else 0.0
        return (cycles + self.costs.start_cycles * sums + added) * max(1.0, threads / self.costs.resident_threads)

    def bound(self, threads: int) -> str:
        """Return what a convolution is bound by that starts so many threads."""
        return "threads" if threads < self.costs.resident_threads else "multiply-adds"

    def moved_cycles(self, elements: int) -> float:
        """Return the cycles in which all threads load so many elements."""
        loads = self.costs.load_cycles * elements / self.target.lanes
        return self.costs.start_cycles + loads / self.costs.resident_threads
