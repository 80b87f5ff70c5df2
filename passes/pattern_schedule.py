"""`pattern-schedule`: choose for each layer the register tile and the split over threads.

The choice minimises modelled cycles on one core: multiply-adds (with the columns computed and thrown away),
loads, and the cost of entering loops. The model knows the target's vectors, registers and ports, not its caches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from torch_mlir import ir

from patc.dialects import pattern
from patc.dialects.attributes import Layout, Library, Schedule
from patc.passes.base import Pass, PassState, fail
from patc.passes.constants import read_constant
from patc.passes.kernels import tiling
from patc.passes.pattern_layout import is_global_pool
from patc.targets import Target, get_target

LOOP_ENTRY_CYCLES = 10.0  # entering a loop whose length the branch predictor does not know
KERNEL_CYCLES = 1.5  # index, address and weights of one kept kernel, beside its multiply-adds
STORE_CYCLES = 2.0  # one vector through the epilogue
MEMORY_BYTES_PER_CYCLE = 6.0


@dataclass(frozen=True)
class PatternSchedule(Pass):
    """Choose algorithm, register tile and thread split of every layer.

    Requires: pattern ops with layouts (`pattern-layout`).
    Ensures: every pattern op that computes has a `schedule` and a `reason` attribute.

        "pattern.sparse_conv2d"(...) {...}
      becomes
        "pattern.sparse_conv2d"(...) {reason = "...", schedule = #pattern.schedule<{algorithm = "pattern-direct", ...}>}

    Idempotent: an op that has a schedule keeps it.
    """

    name: ClassVar[str] = "pattern-schedule"

    target: str = field(default="host", metadata={"help": "machine to schedule for"})
    threads: int = field(default=1, metadata={"help": "threads to divide each layer among", "minimum": 1})

    def run(self, module: ir.Module, state: PassState) -> None:
        target = get_target(self.target)
        for function in module.body.operations:
            if function.operation.name != "func.func" or not function.regions[0].blocks:
                continue
            for op in function.regions[0].blocks[0].operations:
                choose = _CHOOSERS.get(type(op))
                if choose is None or "schedule" in op.attributes:
                    continue
                choice = choose(op, target, state)
                schedule = _split(choice.schedule, op, self.threads)
                op.attributes["schedule"] = schedule.to_attr()
                op.attributes["reason"] = ir.StringAttr.get(f"{choice.cycles / 1e3:.1f} thousand cycles modelled")
                op.attributes["cycles"] = ir.IntegerAttr.get(ir.IntegerType.get_signless(64), round(choice.cycles))


@dataclass(frozen=True)
class _Choice:
    schedule: Schedule
    cycles: float


def _split(schedule: Schedule, op: Any, threads: int) -> Schedule:
    """Divide by rows where that gives every thread the same number of tiles or many, else by filters."""
    shape = list(op.result.type.shape)
    if len(shape) != 4:
        return replace(schedule, split="filters", threads=threads)
    tiles = shape[0] * -(-shape[2] // schedule.rows)
    even = tiles % threads == 0 or tiles >= 8 * threads
    return replace(schedule, split="rows" if even else "filters", threads=threads)


def _vector_cycles(lanes: int, target: Target) -> float:
    """Cycles of one multiply-add instruction: two start in a cycle, if their lanes fit the units."""
    return max(0.5, lanes / target.fma_lanes)


def _load_cycles(chunk: tiling.Chunk, aligned: bool, target: Target) -> float:
    """Cycles of one vector load: at most two a cycle; one that crosses a cache line counts twice."""
    crosses = not aligned and chunk.lanes * 4 >= 32
    return max(0.5, chunk.lanes * 4 / target.load_bytes) * (2.0 if crosses and chunk.lanes * 4 >= 64 else 1.25 if crosses else 1.0)


def _column_choices(width: int, lanes: int) -> Iterator[tuple[int, list[tiling.Strip]]]:
    """Return the tile widths whose strips leave no gap and fit the layout's rows."""
    limit = tiling.covered(width, lanes)
    half = lanes // 2 if lanes >= 8 else lanes
    for columns in sorted({min(width, step * half) for step in range(1, 13)}):
        strips = tiling.strips(width, columns, lanes)
        exact = strips[0].count == 1 or all(chunk.valid == chunk.lanes for chunk in strips[0].chunks)
        if exact and tiling.covered_by(strips) <= limit:
            yield columns, strips


def _strip_chunks(strips: list[tiling.Strip]) -> Iterator[tuple[int, tuple[tiling.Chunk, ...]]]:
    for strip in strips:
        yield strip.count, strip.chunks


def _schedule_sparse(op: Any, target: Target, state: PassState) -> _Choice:
    batch, filters, height, width = op.result.type.shape
    library = Library.from_attr(op.library)
    shares = _pattern_shares(op, library, state)
    kept = op.values.type.shape[0]
    patterns = len(library.masks)
    best: _Choice | None = None
    for columns, strips in _column_choices(width, target.lanes):
        widest = max(len(chunks) for _, chunks in _strip_chunks(strips))
        for rows in range(1, min(height, 16) + 1):
            if rows * widest + library.entries + 2 > target.registers:
                break
            tiles = batch * -(-height // rows)
            cycles = 0.0
            for count, chunks in _strip_chunks(strips):
                kernel = sum(
                    share * _sparse_kernel_cycles(op, library.taps(number), rows, chunks, target)
                    for number, share in enumerate(shares)
                )
                per_filter = patterns * LOOP_ENTRY_CYCLES + rows * len(chunks) * STORE_CYCLES
                cycles += tiles * count * (kept * kernel + filters * per_filter)
            if best is None or cycles < best.cycles:
                best = _Choice(Schedule("pattern-direct", rows, columns, target.lanes), cycles)
    assert best is not None  # one row of one vector always fits
    return best


def _pattern_shares(op: Any, library: Library, state: PassState) -> list[float]:
    """Return the share of each pattern among the kept kernels; equal shares where they are not known."""
    patterns = len(library.masks)
    stride = read_constant(op.stride, state)
    if stride is None or op.values.type.shape[0] == 0:
        return [1.0 / patterns] * patterns
    counts = np.diff(stride.astype(np.int64), axis=1).sum(axis=0)
    return [float(count) for count in counts / max(1, counts.sum())]


def _sparse_kernel_cycles(
    op: Any, taps: tuple[tuple[int, int], ...], rows: int, chunks: tuple[tiling.Chunk, ...], target: Target
) -> float:
    """Return the cycles of one kept kernel on one tile."""
    multiply = len(taps) * rows * sum(_vector_cycles(chunk.lanes, target) for chunk in chunks)
    needed = {
        (row * op.strides[0] + dy * op.dilations[0], dx) for row in range(rows) for dy, dx in taps
    }
    loads = shifts = 0.0
    gather = _gathers(op)
    for chunk in chunks:
        for _, dx in needed:
            aligned = dx % 2 == 0 if op.strides[1] == 1 else dx < 2
            if gather:
                loads += gather * _load_cycles(chunk, False, target)
                shifts += 0.5 * (gather - 1)
            elif not aligned and target.cheap_shift:
                loads += _load_cycles(chunk, True, target)
                shifts += 0.25
            else:
                loads += _load_cycles(chunk, dx == 0, target)
    return max(multiply + shifts, loads) + KERNEL_CYCLES


def _gathers(op: Any) -> int:
    """Return the loads that one strided vector takes when the input's columns are not split in phases, else 0."""
    layout = Layout.of(op.input.type)
    return op.strides[1] if layout.phases != op.strides[1] else 0


def _schedule_dense(op: Any, target: Target, state: PassState) -> _Choice:
    batch, filters, height, width = op.result.type.shape
    _, channels, *kernel = op.weight.type.shape
    group = filters // op.groups.value
    taps = kernel[0] * kernel[1]
    gather = max(1, _gathers(op))
    depthwise = channels == 1 and group == 1
    best: _Choice | None = None
    for block in [size for size in (1, 2, 3, 4, 6, 8, 12, 16) if size <= group and (op.groups.value == 1 or group % size == 0)]:
        for columns, strips in _column_choices(width, target.lanes):
            widest = max(len(chunks) for _, chunks in _strip_chunks(strips))
            for rows in range(1, min(height, 16) + 1):
                if block * rows * widest + rows * widest + 2 > target.registers and (block, rows, widest) != (1, 1, 1):
                    break
                blocks = -(-filters // block)
                tiles = batch * -(-height // rows)
                cycles = 0.0
                for count, chunks in _strip_chunks(strips):
                    multiply = block * rows * sum(_vector_cycles(chunk.lanes, target) for chunk in chunks)
                    aligned = taps == 1
                    loads = rows * gather * sum(_load_cycles(chunk, aligned, target) for chunk in chunks) + block * 0.5
                    body = channels * (taps * max(multiply, loads) + 1.0)
                    cycles += tiles * count * blocks * (body + block * rows * len(chunks) * STORE_CYCLES + LOOP_ENTRY_CYCLES)
                if best is None or cycles < best.cycles:
                    name = "depthwise-direct" if depthwise else "dense-direct"
                    best = _Choice(Schedule(name, rows, columns, target.lanes, block), cycles)
    assert best is not None
    return best


def _schedule_planes(op: Any, target: Target, state: PassState) -> _Choice:
    """Schedule pooling and elementwise layers: four vectors or so in flight."""
    batch, channels, height, width = op.result.type.shape
    inputs = sum(math.prod(value.type.shape) for value in op.operands)
    cycles = 4.0 * (inputs + batch * channels * height * width) / MEMORY_BYTES_PER_CYCLE
    if is_global_pool(op):
        return _Choice(Schedule("global-pool", 1, 1, target.lanes), cycles)
    columns = max(columns for columns, strips in _column_choices(width, target.lanes) if len(strips[0].chunks) <= 4)
    rows = max(1, min(height, 4 // tiling.vectors(columns, target.lanes)))
    windowed = isinstance(op, (pattern.MaxPool2dOp, pattern.AvgPool2dOp))
    return _Choice(Schedule("pool" if windowed else "elementwise", rows, columns, target.lanes), cycles)


def _schedule_linear(op: Any, target: Target, state: PassState) -> _Choice:
    images, features = op.input.type.shape
    filters = op.weight.type.shape[0]
    rows = min(images, 4)
    block = min(filters, 4 if rows > 1 else 8)
    cycles = 4.0 * features * filters / MEMORY_BYTES_PER_CYCLE
    return _Choice(Schedule("gemv", rows, 1, target.lanes, block), cycles)



_CHOOSERS = {
    pattern.SparseConv2dOp: _schedule_sparse,
    pattern.Conv2dOp: _schedule_dense,
    pattern.MaxPool2dOp: _schedule_planes,
    pattern.AvgPool2dOp: _schedule_planes,
    pattern.AddOp: _schedule_planes,
    pattern.ActivateOp: _schedule_planes,
    pattern.RelayoutOp: _schedule_planes,
    pattern.LinearOp: _schedule_linear,
}
