"""Cycles of the direct kernels on one core, modelled: what all CPUs have in common."""

from __future__ import annotations

import abc
import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from patc.integers import ceil_div
from patc.passes.cost.geometry import Geometry, Place
from patc.passes.kernels.tiling import Chunk
from patc.targets import Target

CACHED = 65536  # costs that are kept of each kind: neighbouring tiles, and layers, share most of theirs


@dataclass(frozen=True)
class Cost:
    """Cycles, and what most of them are spent on."""

    cycles: float
    bound: str


@dataclass(frozen=True)
class StationaryCost:
    """Cycles of the input-stationary loops on one tile.

    Attributes:
        kernel: of one kept kernel.
        cell: of one pattern of one input channel, beside its kernels and the loop over them.
        filter: of one filter, beside its kernels.
        registers: that inputs, and what goes with them, take.
        lines: of the caches, that the accumulators of one filter lie in.
    """

    kernel: float
    cell: float
    filter: float
    registers: int
    lines: int


class CoreModel(abc.ABC):
    """Models one core of a target. All costs are in cycles.

    Args:
        element_bytes: of the tensors.

    Attributes:
        lanes, fma_lanes, pipe_lanes: of the target, in elements of the tensors: of f16 a register holds twice as many.
        registers: of the target.
        costs: of the target.

    Raises:
        PatcError: the target's costs are not those of a core.
    """

    def __init__(self, target: Target, element_bytes: int = 4) -> None:
        self.target, self.costs = target, target.core_costs()
        self.lanes, self.fma_lanes = target.lanes * 4 // element_bytes, target.fma_lanes * 4 // element_bytes
        self.pipe_lanes = target.pipe_lanes * 4 // element_bytes
        self.registers = target.registers
        # Kept for each model, as models live as long as the process.
        self.sparse_kernel_cost = functools.lru_cache(CACHED)(self._sparse_kernel_cost)
        self.stationary_cost = functools.lru_cache(CACHED)(self._stationary_cost)
        self.dense_channel_cost = functools.lru_cache(CACHED)(self._dense_channel_cost)
        self.distant_cycles = functools.lru_cache(CACHED)(self._distant_cycles)

    @property
    def looks_ahead(self) -> bool:
        """Whether the core starts on the next filter of one channel while it waits for the sums of one."""
        return False

    def vector_cycles(self, lanes: int) -> float:
        """Return the cycles of one multiply-add instruction: several start in a cycle if their lanes fit the units."""
        return max(1 / self.target.pipes, lanes / self.fma_lanes) / self.costs.sustained_fma

    def load_cycles(self, lanes: int, aligned: bool, element_bytes: int = 4) -> float:
        """Return the cycles of one vector load, on average over where it starts if it is not aligned."""
        bytes_, more = element_bytes * lanes, self.costs.crossing_loads - 1.0
        crossing = 1.0 if aligned else 1.0 + more * bytes_ / self.costs.line_bytes
        start = min(1 / self.costs.loads_per_cycle, 1 / self.target.pipes)
        return max(start, bytes_ / self.target.load_bytes) * crossing

    def loop_cycles(self, work: float) -> float:
        """Return what a loop over kept kernels costs beside its turns.

        Args:
            work: cycles of all turns.
        """
        return self.costs.loop_entry_cycles + max(0.0, self.costs.mispredicted_cycles - work)

    def far_sums_cycles(self, lines: int, filters: int) -> float:
        """Return the cycles in which one kept kernel waits for accumulators that lie in memory, `lines` of each of so
        many filters: kernels come upon filters in any order, so that the first-level cache has a part of them."""
        costs = self.costs
        far = max(0.0, 1.0 - costs.first_level_bytes / (costs.line_bytes * lines * filters))
        return costs.stationary_far * far * lines * costs.line_cycles

    def written_cycles(self, rows: int, chunks: Sequence[Chunk], phases: int, element_bytes: int = 4) -> float:
        """Return the cycles in which a tile of one filter waits for the lines that it writes.

        A line at either end of a row is written again by the next tile.

        Args:
            phases: of the output's layout.
        """
        columns = chunks[-1].column + chunks[-1].lanes
        lines = element_bytes * columns / self.costs.line_bytes + phases
        return rows * lines * self.costs.written_line_cycles

    @abc.abstractmethod
    def _stationary_cost(
        self, taps: tuple[Place, ...], rows: int, chunks: tuple[Chunk, ...], sums: int, geometry: Geometry
    ) -> StationaryCost:
        """Return the costs of one pattern on a tile of `rows` x `chunks`, of which `sums` taps at most lie side by
        side."""

    @abc.abstractmethod
    def _issued_by_sparse(self, multiply_adds: int, needed: set[Place], chunks: Sequence[Chunk], on: Geometry) -> float:
        """Return the cycles in which the instructions of one kept kernel enter the core; 0 where that binds nothing."""

    @abc.abstractmethod
    def _issued_by_dense(self, multiply_adds: int, loads: float) -> float:
        """Return the cycles in which the instructions of one input channel enter the core, as above."""

    @abc.abstractmethod
    def _weight_loads(self, filters: int) -> float:
        """Return the loads of the weights of one tap of a dense kernel."""

    def _sparse_kernel_cost(
        self, taps: tuple[Place, ...], rows: int, chunks: tuple[Chunk, ...], sums: int, geometry: Geometry
    ) -> Cost:
        """Return the cost of one kept kernel on a tile of `rows` x `chunks`."""
        multiply = len(taps) * rows * sum(self.vector_cycles(chunk.lanes) for chunk in chunks)
        needed = geometry.needed(taps, rows)
        loads, shifts = self._loads_and_shifts(needed, chunks, geometry)
        wait = self.costs.fma_latency_cycles * ceil_div(len(taps), sums)
        multiply = max(multiply, self._issued_by_sparse(len(taps) * rows * len(chunks), needed, chunks, geometry))
        lines = self._line_cycles(needed, chunks, geometry)
        return self._sum_up(multiply + shifts, loads, wait, lines, self.costs.kernel_cycles)

    def _dense_channel_cost(
        self, kernel: tuple[int, int], rows: int, chunks: tuple[Chunk, ...], filters: int, geometry: Geometry
    ) -> Cost:
        """Return the cost of one input channel for a block of filters on a tile of `rows` x `chunks`."""
        taps = list(itertools.product(range(kernel[0]), range(kernel[1])))
        multiply = len(taps) * filters * rows * sum(self.vector_cycles(chunk.lanes) for chunk in chunks)
        weights = self._weight_loads(filters)
        loads = weights * len(taps) / self.costs.loads_per_cycle
        copies = geometry.strides[1] if geometry.gathered else 1
        needed = geometry.needed([(0, dy, dx) for dy, dx in taps], rows)
        vectors = rows * len(chunks)
        is_alone = filters == geometry.channels == 1 and self.looks_ahead
        loads += copies * self._input_loads(kernel, rows, chunks, geometry, len(needed) if is_alone else 0)
        wait = 0.0 if is_alone else self.costs.fma_latency_cycles * len(taps)
        loaded = len(taps) * (weights + copies * vectors)
        multiply = max(multiply, self._issued_by_dense(len(taps) * filters * vectors, loaded))
        streamed = self.costs.streamed_lines if geometry.strides[0] == 1 else 1.0
        return self._sum_up(multiply, loads, wait, self._line_cycles(needed, chunks, geometry) * streamed, overhead=1.0)

    def _input_loads(
        self, kernel: tuple[int, int], rows: int, chunks: Sequence[Chunk], geometry: Geometry, needed: int
    ) -> float:
        """Return the cycles of the loads of one input channel, for each tap.

        Args:
            needed: vectors of a column of chunks that a filter of one channel reads, each of them once; 0 for others.
        """
        size, often = geometry.element_bytes, needed / kernel[1] if needed else float(kernel[0] * rows)
        offsets = [dx * geometry.dilations[1] // geometry.phases for dx in range(kernel[1])]
        loads = [self.load_cycles(chunk.lanes, offset == 0, size) for offset in offsets for chunk in chunks]
        return often * sum(loads)

    def _distant_cycles(
        self, taps: tuple[Place, ...], rows: int, chunks: tuple[Chunk, ...], geometry: Geometry, prefetched: bool
    ) -> float:
        """Return the cycles in which a tile waits for inputs that no cache near the core holds.

        Args:
            taps: all that any pattern reads.
            prefetched: whether the lines of a channel are asked for while the one before is worked on.
        """
        if geometry.channels * geometry.plane_bytes <= self.costs.second_level_bytes:
            return 0.0
        needed = geometry.needed(taps, rows)
        depth = len({channel for channel, _, _ in needed})
        lines = geometry.lines(needed, chunks, self.costs.line_bytes) * geometry.channels / depth
        return lines * (self.costs.prefetched_line_cycles if prefetched else self.costs.distant_line_cycles)

    def _loads_and_shifts(self, needed: set[Place], chunks: Sequence[Chunk], geometry: Geometry) -> tuple[float, float]:
        """Return the cycles of the loads, and what shifts take from the multiply-adds (see `pattern-vectorize`)."""
        lanes, costs = self.lanes, self.costs
        wide = [chunk for chunk in chunks if chunk.lanes == lanes]
        narrow = [chunk for chunk in chunks if chunk.lanes < lanes]
        size = geometry.element_bytes
        loads = shifts = 0.0
        for offsets in geometry.offsets_by_row(needed).values():
            if geometry.gathered:
                vectors = len(offsets) * geometry.strides[1]
                loads += vectors * sum(self.load_cycles(chunk.lanes, False, size) for chunk in chunks)
                shifts += vectors * costs.wide_shift_cycles * len(chunks)
                continue
            shifted = self.target.cheap_shift and 1 in offsets and bool(wide)
            if shifted:
                loads += self.load_cycles(lanes, True, size) * (len(wide) + 1)
                narrow_shifts = costs.narrow_shift_cycles * len(narrow) * len(offsets - {0})
                shifts += costs.wide_shift_cycles * len(wide) + narrow_shifts
            for offset in offsets:
                if not (shifted and offset <= 1):
                    loads += len(wide) * self.load_cycles(lanes, offset == 0, size)
                if not shifted:
                    loads += sum(self.load_cycles(chunk.lanes, offset == 0, size) for chunk in narrow)
        return loads, shifts

    def _line_cycles(self, needed: set[Place], chunks: Sequence[Chunk], geometry: Geometry) -> float:
        """Return the cycles to bring one channel's lines from the second-level cache.

        None when the lines of all channels stay in the first-level cache from one filter to the next.
        """
        line_bytes = self.costs.line_bytes
        lines = geometry.lines(needed, chunks, line_bytes)
        of_one_channel = lines / len({channel for channel, _, _ in needed})
        stays = of_one_channel * line_bytes * geometry.channels <= self.costs.first_level_bytes
        return 0.0 if stays else lines * self.costs.line_cycles

    def beside(self, multiply: float, loads: float) -> float:
        """Return the cycles of multiply-adds and loads that run side by side."""
        return max(multiply, loads) + self.costs.contention * min(multiply, loads)

    def beside_aligned(self, multiply: float, loads: float) -> float:
        """Return the same where no load crosses a line: the fewer there are, the fewer of them are in the way."""
        longer, shorter = max(multiply, loads), min(multiply, loads)
        return longer + self.costs.contention * shorter * shorter / longer

    def _sum_up(self, multiply: float, loads: float, wait: float, lines: float, overhead: float) -> Cost:
        """Combine what runs side by side. Waiting for memory is hidden in part, the better the less there is of it."""
        compute = max(self.beside(multiply, loads), wait)
        parts = {"multiply-adds": multiply, "loads": loads, "latency": wait, "second-level cache": lines}
        return Cost(math.hypot(compute, lines) + overhead, max(parts, key=lambda name: parts[name]))
