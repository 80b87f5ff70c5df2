"""Cycles of the direct kernels on one core, modelled.

The constants were fitted to measured tiles of 3x3 layers (64 channels at 56x56 to 512 at 2x2, stride 1 and 2) on a
core with two 256-bit multiply-add units; the median error over those tiles is 8%. What differs between machines is in
`Target`. On AArch64 nothing was measured: there, instructions that enter the core and pipes that they occupy are
counted, as `patc bench --model-cycles` does for the code that comes out.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from patc.integers import ceil_div
from patc.passes.kernels import tiling
from patc.passes.kernels.tiling import Chunk
from patc.targets import Target

Place: TypeAlias = tuple[int, int, int]  # channel, row and column of an input element

FMA_LATENCY = 4.0
LOOP_ENTRY_CYCLES = 3.0  # entering a loop whose length the branch predictor does not know
MISPREDICTED_CYCLES = 30.0  # leaving such a loop, unless that much work is waiting
KERNEL_CYCLES = 1.0  # index, address and weights of one kept kernel, beside its multiply-adds
STORE_CYCLES = 2.0  # one vector through the epilogue
WIDE_SHIFT_CYCLES = 0.15  # what a shift of two full vectors takes from the multiply-adds
NARROW_SHIFT_CYCLES = 0.5
LINE_CYCLES = 1.3  # one cache line from the second-level cache
STREAMED_LINES = 0.5  # of them, where planes are read in order: the core fetches those ahead
STATIONARY_FMA = 0.92  # input-stationary: of the cycles that multiply-adds would take alone; the rest overlaps
STATIONARY_SUMS = 0.35  # of the loads of accumulators and weights
STATIONARY_INPUTS = 0.06  # of the loads of a pattern's inputs
STATIONARY_ENDS_CYCLES = 11.0  # one vector of accumulators from its bias to the output
DISTANT_LINE_CYCLES = 38.0  # one cache line from behind the second-level cache
PREFETCHED_LINE_CYCLES = 4.0  # the same, asked for in time
WRITTEN_LINE_CYCLES = 8.0  # the same, to be written (or to be added to what is written)
NEON_LOOP_INSTRUCTIONS = 7  # index, address and weights of one kept kernel, and the end of the loop
NEON_ENDS_CYCLES = 3.0  # as STATIONARY_ENDS_CYCLES
SECOND_LEVEL_BYTES = 1 << 20
LINE_BYTES = 64
FIRST_LEVEL_BYTES = 20 * 1024  # of 32 KB, the rest is for weights and outputs


@dataclass(frozen=True)
class Geometry:
    """How a window meets its input.

    Attributes:
        strides, dilations: vertical and horizontal.
        phases, pitch: of the input's layout.
        gathered: columns `stride` apart are picked from a row that is not split into phases.
        channels: input channels that a tile reads.
        plane_bytes: of the input.
        element_bytes: of all tensors.
    """

    strides: tuple[int, int]
    dilations: tuple[int, int]
    phases: int
    pitch: int
    channels: int
    plane_bytes: int
    element_bytes: int = 4

    @property
    def gathered(self) -> bool:
        return self.phases != self.strides[1]


def vector_cycles(lanes: int, target: Target) -> float:
    """Cycles of one multiply-add instruction: several start in a cycle if their lanes fit the units."""
    return max(1 / target.pipes, lanes / target.fma_lanes)


def load_cycles(lanes: int, aligned: bool, target: Target, element_bytes: int = 4) -> float:
    """Cycles of one vector load: at most two a cycle; one that crosses a cache line counts twice."""
    bytes_ = element_bytes * lanes
    crossing = 1.0 if aligned else 1.0 + bytes_ / LINE_BYTES
    return max(min(0.5, 1 / target.pipes), bytes_ / target.load_bytes) * crossing


@dataclass(frozen=True)
class Cost:
    """Cycles, and what most of them are spent on."""

    cycles: float
    bound: str


def _cost(multiply: float, loads: float, wait: float, lines: float, overhead: float) -> Cost:
    """Combine what runs side by side. Waiting for memory is hidden in part, the better the less there is of it."""
    compute = max(multiply, loads, wait)
    parts = {"multiply-adds": multiply, "loads": loads, "latency": wait, "second-level cache": lines}
    return Cost(math.hypot(compute, lines) + overhead, max(parts, key=lambda name: parts[name]))


@functools.lru_cache(maxsize=65536)
def sparse_kernel_cost(
    taps: tuple[tuple[int, int, int], ...],
    rows: int,
    chunks: tuple[Chunk, ...],
    sums: int,
    geometry: Geometry,
    target: Target,
) -> Cost:
    """Return the cost of one kept kernel on a tile of `rows` x `chunks`."""
    multiply = len(taps) * rows * sum(vector_cycles(chunk.lanes, target) for chunk in chunks)
    needed = _needed(taps, rows, geometry)
    loads, shifts = _loads_and_shifts(needed, chunks, geometry, target)
    wait = FMA_LATENCY * ceil_div(len(taps), sums)
    if target.is_aarch64:
        instructions = len(taps) * rows * len(chunks) + NEON_LOOP_INSTRUCTIONS + _neon_loads(needed, chunks, geometry)
        multiply = max(multiply, instructions / target.decoded)
    return _cost(multiply + shifts, loads, wait, line_cycles(needed, chunks, geometry), KERNEL_CYCLES)


def _neon_loads(needed: set[Place], chunks: Sequence[Chunk], geometry: Geometry) -> int:
    """Return the instructions that load what a tile reads: one loads two neighbouring vectors."""
    rows = _offsets_by_row(needed, geometry)
    bases = len({offset for offsets in rows.values() for offset in offsets})
    if geometry.gathered:  # two vectors are loaded for one, and picked from
        return bases + 2 * geometry.strides[1] * len(chunks) * sum(map(len, rows.values()))
    return bases + ceil_div(len(chunks), 2) * sum(map(len, rows.values()))


def _loads_and_shifts(
    needed: set[Place], chunks: Sequence[Chunk], geometry: Geometry, target: Target
) -> tuple[float, float]:
    """Return the cycles of the loads, and what shifts take from the multiply-adds (see `pattern-vectorize`)."""
    wide = [chunk for chunk in chunks if chunk.lanes == target.lanes]
    narrow = [chunk for chunk in chunks if chunk.lanes < target.lanes]
    size = geometry.element_bytes
    aligned_load = load_cycles(target.lanes, True, target, size)
    loads = shifts = 0.0
    for offsets in _offsets_by_row(needed, geometry).values():
        if geometry.gathered:
            vectors = len(offsets) * geometry.strides[1]
            loads += vectors * sum(load_cycles(chunk.lanes, False, target, size) for chunk in chunks)
            shifts += vectors * WIDE_SHIFT_CYCLES * len(chunks)
            continue
        shifted = target.cheap_shift and 1 in offsets and bool(wide)
        if shifted:
            loads += aligned_load * (len(wide) + 1)
            shifts += WIDE_SHIFT_CYCLES * len(wide) + NARROW_SHIFT_CYCLES * len(narrow) * len(offsets - {0})
        for offset in offsets:
            if not (shifted and offset <= 1):
                loads += len(wide) * load_cycles(target.lanes, offset == 0, target, size)
            if not shifted:
                loads += sum(load_cycles(chunk.lanes, offset == 0, target, size) for chunk in narrow)
    return loads, shifts


def _offsets_by_row(needed: set[Place], geometry: Geometry) -> dict[Place, set[int]]:
    """Return for each sub-row, by (channel, y, phase), the offsets at which vectors start."""
    rows: dict[Place, set[int]] = {}
    for channel, y, x in needed:
        offset, phase = divmod(x, geometry.phases)
        rows.setdefault((channel, y, phase), set()).add(offset)
    return rows


def line_cycles(needed: set[Place], chunks: Sequence[Chunk], geometry: Geometry) -> float:
    """Return the cycles to bring one channel's lines from the second-level cache.

    None when the lines of all channels stay in the first-level cache from one filter to the next.
    """
    lines = _lines(needed, chunks, geometry)
    of_one_channel = lines / len({channel for channel, _, _ in needed})
    stays = of_one_channel * LINE_BYTES * geometry.channels <= FIRST_LEVEL_BYTES
    return 0.0 if stays else lines * LINE_CYCLES


def _lines(needed: set[Place], chunks: Sequence[Chunk], geometry: Geometry) -> float:
    """Return the cache lines that the input elements for `chunks` lie in."""
    rows = _offsets_by_row(needed, geometry)
    columns = sum(chunk.lanes for chunk in chunks) * (geometry.strides[1] if geometry.gathered else 1)
    apart = sum(ceil_div(geometry.element_bytes * (columns + max(offsets)), LINE_BYTES) for offsets in rows.values())
    read = geometry.element_bytes * len({(channel, y) for channel, y, _ in rows}) * geometry.pitch
    contiguous = read / LINE_BYTES + 1
    return min(float(apart), contiguous)


@functools.lru_cache(maxsize=65536)
def distant_cycles(
    taps: tuple[Place, ...], rows: int, chunks: tuple[Chunk, ...], geometry: Geometry, prefetched: bool
) -> float:
    """Return the cycles in which a tile waits for inputs that no cache near the core holds.

    Args:
        taps: all that any pattern reads.
        prefetched: whether the lines of a channel are asked for while the one before is worked on.
    """
    if geometry.channels * geometry.plane_bytes <= SECOND_LEVEL_BYTES:
        return 0.0
    needed = _needed(taps, rows, geometry)
    depth = len({channel for channel, _, _ in needed})
    lines = _lines(needed, chunks, geometry) * geometry.channels / depth
    return lines * (PREFETCHED_LINE_CYCLES if prefetched else DISTANT_LINE_CYCLES)


def written_cycles(rows: int, chunks: Sequence[Chunk], phases: int, element_bytes: int = 4) -> float:
    """Return the cycles in which a tile of one filter waits for the lines that it writes.

    A line at either end of a row is written again by the next tile.

    Args:
        phases: of the output's layout.
    """
    columns = chunks[-1].column + chunks[-1].lanes
    return rows * (element_bytes * columns / LINE_BYTES + phases) * WRITTEN_LINE_CYCLES


def loop_cycles(work: float) -> float:
    """Return what a loop over kept kernels costs beside its turns.

    Args:
        work: cycles of all turns.
    """
    return LOOP_ENTRY_CYCLES + max(0.0, MISPREDICTED_CYCLES - work)


@dataclass(frozen=True)
class StationaryCost:
    """Cycles of the input-stationary loops on one tile.

    Attributes:
        kernel: of one kept kernel.
        cell: of one pattern of one input channel, beside its kernels and the loop over them.
        filter: of one filter, beside its kernels.
        inputs: vectors that stay in registers.
    """

    kernel: float
    cell: float
    filter: float
    inputs: int


@functools.lru_cache(maxsize=65536)
def stationary_cost(
    taps: tuple[Place, ...], rows: int, chunks: tuple[Chunk, ...], geometry: Geometry, target: Target
) -> StationaryCost:
    """Return the costs of one pattern on a tile of `rows` x `chunks`.

    Fitted to 110 tiles of 1x1 and 3x3 layers (64 channels at 56x56 to 2048 at 7x7); the median error is 5%.
    """
    packs = tiling.packs(rows, chunks, target.lanes)
    multiply = len(taps) * sum(vector_cycles(pack.lanes, target) for pack in packs)
    size = geometry.element_bytes
    sums = sum(load_cycles(pack.lanes, True, target, size) for pack in packs) + 0.5 * (len(taps) + 1)
    needed = _needed(taps, rows, geometry)
    loads, shifts = _loads_and_shifts(needed, chunks, geometry, target)
    vectors = rows * len(chunks)
    if target.is_aarch64:
        return _neon_stationary_cost(len(taps), needed, vectors, loads, target)
    packed = len(taps) * (vectors - len(packs))
    return StationaryCost(
        kernel=STATIONARY_FMA * multiply + STATIONARY_SUMS * sums,
        cell=STATIONARY_INPUTS * (loads + shifts) + packed,
        filter=STATIONARY_ENDS_CYCLES * vectors,
        inputs=len(taps) * len(packs) if packed else len(needed) * len(chunks),
    )


def _neon_stationary_cost(taps: int, needed: set[Place], vectors: int, loads: float, target: Target) -> StationaryCost:
    """Return what `stationary_cost` does where a store occupies a pipe that multiplies."""
    pipe = vector_cycles(target.lanes, target)
    instructions = vectors * (taps + 1) + NEON_LOOP_INSTRUCTIONS  # sums are loaded and stored in pairs
    return StationaryCost(
        kernel=max(vectors * (taps + 1) * pipe, instructions / target.decoded) + KERNEL_CYCLES,
        cell=loads,
        filter=NEON_ENDS_CYCLES * vectors,
        inputs=taps * vectors,
    )


def _needed(taps: Sequence[Place], rows: int, geometry: Geometry) -> set[Place]:
    """Return the input elements that the first column of a tile reads."""
    return {
        (channel, row * geometry.strides[0] + dy * geometry.dilations[0], dx * geometry.dilations[1])
        for row in range(rows)
        for channel, dy, dx in taps
    }


@functools.lru_cache(maxsize=65536)
def dense_channel_cost(
    kernel: tuple[int, int],
    rows: int,
    chunks: tuple[Chunk, ...],
    filters: int,
    geometry: Geometry,
    target: Target,
) -> Cost:
    """Return the cost of one input channel for a block of filters on a tile of `rows` x `chunks`."""
    taps = list(itertools.product(range(kernel[0]), range(kernel[1])))
    multiply = len(taps) * filters * rows * sum(vector_cycles(chunk.lanes, target) for chunk in chunks)
    weights = filters / target.lanes if target.is_aarch64 else filters  # by element there, and broadcast elsewhere
    loads = 0.5 * weights * len(taps)
    copies, size = geometry.strides[1] if geometry.gathered else 1, geometry.element_bytes
    for _, dx in taps:
        aligned = dx * geometry.dilations[1] // geometry.phases == 0
        loads += copies * rows * sum(load_cycles(chunk.lanes, aligned, target, size) for chunk in chunks)
    needed = _needed([(0, dy, dx) for dy, dx in taps], rows, geometry)
    wait = FMA_LATENCY * len(taps)
    if target.is_aarch64:
        vectors = rows * len(chunks)
        instructions = len(taps) * (filters * vectors + weights + copies * vectors) + NEON_LOOP_INSTRUCTIONS
        multiply = max(multiply, instructions / target.decoded)
    lines = line_cycles(needed, chunks, geometry) * (STREAMED_LINES if geometry.strides[0] == 1 else 1.0)
    return _cost(multiply, loads, wait, lines, overhead=1.0)
