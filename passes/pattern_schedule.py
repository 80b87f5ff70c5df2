"""`pattern-schedule`: choose for each layer the register tile and the split over threads.

The choice minimises modelled cycles on one core: multiply-adds (with the columns computed and thrown away),
loads, and the cost of entering loops. The model knows the target's vectors, registers and ports, not its caches.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from torch_mlir import ir

from patc.dialects import pattern
from patc.dialects.attributes import Layout, Library, Schedule
from patc.passes import cost_model
from patc.passes.base import Pass, PassState
from patc.passes.constants import read_constant
from patc.passes.functions import defined_functions, top_level_ops
from patc.passes.kernels import tiling
from patc.passes.pattern_layout import is_global_pool
from patc.targets import Target, get_target

MEMORY_BYTES_PER_CYCLE = 6.0
CODE_COST = 1.2e-4  # for each multiply-add instruction of a kernel


@dataclass(frozen=True)
class PatternSchedule(Pass):
    """Choose algorithm, register tile and thread split of every layer.

    Requires: pattern ops with layouts (`pattern-layout`).
    Ensures: every pattern op that computes has the attributes `schedule`, `reason` and `cycles` (modelled, of one
        thread).

        "pattern.sparse_conv2d"(...) {...}
      becomes
        "pattern.sparse_conv2d"(...) {cycles = 997811 : i64, reason = "best of 211 tiles, bound by ...",
          schedule = #pattern.schedule<{algorithm = "pattern-direct", ...}>}

    Idempotent: an op that has a schedule keeps it.
    """

    name: ClassVar[str] = "pattern-schedule"

    target: str = field(default="host", metadata={"help": "machine to schedule for"})
    threads: int = field(default=1, metadata={"help": "threads to divide each layer among", "minimum": 1})

    def run(self, module: ir.Module, state: PassState) -> None:
        target = get_target(self.target)
        for function in defined_functions(module):
            for op in top_level_ops(function):
                choose = _CHOOSERS.get(type(op))
                if choose is None or "schedule" in op.attributes:
                    continue
                choice = choose(op, target, state)
                schedule = _split(choice.schedule, op, self.threads)
                op.attributes["schedule"] = schedule.to_attr()
                op.attributes["reason"] = ir.StringAttr.get(choice.reason)
                op.attributes["cycles"] = ir.IntegerAttr.get(ir.IntegerType.get_signless(64), round(choice.cycles))


@dataclass(frozen=True)
class _Choice:
    """A schedule, its modelled cycles on one core, and why it was chosen."""

    schedule: Schedule
    cycles: float
    reason: str


def _split(schedule: Schedule, op: Any, threads: int) -> Schedule:
    """Divide by rows where that gives every thread the same number of tiles or many, else by filters."""
    shape = list(op.result.type.shape)
    if len(shape) != 4:
        return replace(schedule, split="filters", threads=threads)
    tiles = shape[0] * -(-shape[2] // schedule.rows)
    even = tiles % threads == 0 or tiles >= 8 * threads
    return replace(schedule, split="rows" if even else "filters", threads=threads)


def _column_choices(width: int, lanes: int) -> Iterator[tuple[int, list[tiling.Strip]]]:
    """Return the tile widths that cut a row into vectors without gaps between the strips."""
    half = max(lanes // 2, 4)
    for columns in sorted({min(width, step * half) for step in range(1, 13)}):
        strips = tiling.strips(width, columns, lanes)
        if strips[0].columns == width or all(chunk.valid == chunk.lanes for chunk in strips[0].chunks):
            yield columns, strips


def _geometry(op: Any, channels: int) -> cost_model.Geometry:
    layout = Layout.of(op.input.type)
    return cost_model.Geometry(tuple(op.strides), tuple(op.dilations), layout.phases, layout.pitch, channels)


def _widest(strips: list[tiling.Strip]) -> int:
    return max(len(strip.chunks) for strip in strips)


def _widths(strips: list[tiling.Strip]) -> int:
    """Return the largest number of different vector lengths in a strip."""
    return max(len({chunk.lanes for chunk in strip.chunks}) for strip in strips)


def _code_cost(instructions: int, strips: list[tiling.Strip]) -> float:
    """Return a factor that prefers less code among tiles of nearly equal speed: caches and compile time count too.

    Args:
        instructions: multiply-adds for one column of vectors.
    """
    return 1.0 + CODE_COST * instructions * sum(len(strip.chunks) for strip in strips)


def _schedule_sparse(op: Any, target: Target, state: PassState) -> _Choice:
    batch, filters, height, width = op.result.type.shape
    library = Library.from_attr(op.library)
    taps = [library.places(pattern) for pattern in range(len(library.masks))]
    counts = _pattern_counts(op, library, state)
    entries = library.entries * len(taps)
    geometry = _geometry(op, op.input.type.shape[1])
    best, best_cost, choices = None, math.inf, 0
    for columns, strips in _column_choices(width, target.lanes):
        # Beside the accumulators: a kernel's weights, for each vector length, and the vectors of one input row.
        spare = target.registers - library.entries * _widths(strips) - _widest(strips) - 1
        for rows, sums in itertools.product(range(1, min(height, 16) + 1), (1, 2, 4)):
            smallest = rows == sums == 1
            if (rows * _widest(strips) * sums > spare or sums > library.entries) and not smallest:
                continue
            cycles = 0.0
            for strip in strips:
                costs = [
                    cost_model.sparse_kernel_cost(shape, rows, strip.chunks, sums, geometry, target) for shape in taps
                ]
                kernels = sum(count * cost.cycles for count, cost in zip(counts, costs, strict=True))
                loops = len(taps) * cost_model.LOOP_ENTRY_CYCLES
                stores = rows * len(strip.chunks) * sums * cost_model.STORE_CYCLES
                cycles += strip.count * (kernels + filters * (loops + stores))
            cycles *= batch * -(-height // rows)
            cost = cycles * _code_cost(entries * rows, strips)
            choices += 1
            if cost < best_cost:
                bound = costs[counts.index(max(counts))].bound
                schedule = Schedule("pattern-direct", rows, columns, target.lanes, sums=sums)
                best, best_cost = _Choice(schedule, cycles, f"bound by {bound}"), cost
    assert best is not None  # one row of the narrowest strip is always a choice
    return replace(best, reason=f"best of {choices} tiles, {best.reason}")


def _pattern_counts(op: Any, library: Library, state: PassState) -> list[float]:
    """Return how many kept kernels have each pattern; equally many where that is not known."""
    patterns = len(library.masks)
    stride = read_constant(op.stride, state)
    if stride is None:
        return [op.values.type.shape[0] / patterns] * patterns
    return [float(count) for count in np.diff(stride.astype(np.int64), axis=1).sum(axis=0)]


def _schedule_dense(op: Any, target: Target, state: PassState) -> _Choice:
    batch, filters, height, width = op.result.type.shape
    _, channels, *kernel = op.weight.type.shape
    group = filters // op.groups.value
    depthwise = channels == 1 and group == 1
    geometry = _geometry(op, channels)
    sizes = [size for size in (1, 2, 3, 4, 6, 8, 12, 16) if size <= group and (group == filters or group % size == 0)]
    best, best_cost, choices = None, math.inf, 0
    for columns, strips in _column_choices(width, target.lanes):
        for rows, block in itertools.product(range(1, min(height, 16) + 1), sizes):
            vectors = rows * _widest(strips)
            # Beside the accumulators: the input vectors of one tap and a weight.
            if (block + 1) * vectors + _widths(strips) > target.registers and vectors * block > 1:
                continue
            cycles = 0.0
            for strip in strips:
                channel = cost_model.dense_channel_cost(
                    (kernel[0], kernel[1]), rows, strip.chunks, block, geometry, target
                )
                stores = block * rows * len(strip.chunks) * cost_model.STORE_CYCLES
                cycles += strip.count * (channels * channel.cycles + stores + cost_model.LOOP_ENTRY_CYCLES)
            cycles *= batch * -(-height // rows) * -(-filters // block)
            cost = cycles * _code_cost(kernel[0] * kernel[1] * block * rows, strips)
            choices += 1
            if cost < best_cost:
                name = "depthwise-direct" if depthwise else "dense-direct"
                schedule = Schedule(name, rows, columns, target.lanes, block)
                best, best_cost = _Choice(schedule, cycles, f"bound by {channel.bound}"), cost
    assert best is not None  # one filter and one row of the narrowest strip is always a choice
    return replace(best, reason=f"best of {choices} tiles, {best.reason}")


def _schedule_planes(op: Any, target: Target, state: PassState) -> _Choice:
    """Schedule pooling and elementwise layers: four vectors or so in flight."""
    batch, channels, height, width = tiling.as_planes(op.result.type.shape)
    inputs = sum(math.prod(value.type.shape) for value in op.operands)
    cycles = 4.0 * (inputs + batch * channels * height * width) / MEMORY_BYTES_PER_CYCLE
    if is_global_pool(op):
        return _Choice(Schedule("global-pool", 1, 1, target.lanes), cycles, "bound by memory")
    columns = max(columns for columns, strips in _column_choices(width, target.lanes) if _widest(strips) <= 4)
    windowed = isinstance(op, (pattern.MaxPool2dOp, pattern.AvgPool2dOp))
    vectors = 8 if windowed else 4
    rows = max(1, min(height, vectors // tiling.vectors(columns, target.lanes)))
    schedule = Schedule("pool" if windowed else "elementwise", rows, columns, target.lanes)
    return _Choice(schedule, cycles, "bound by memory")


def _schedule_linear(op: Any, target: Target, state: PassState) -> _Choice:
    images, features = op.input.type.shape
    filters = op.weight.type.shape[0]
    rows = min(images, 4)
    block = min(filters, 4 if rows > 1 else 8)
    cycles = 4.0 * features * filters / MEMORY_BYTES_PER_CYCLE
    return _Choice(Schedule("gemv", rows, 1, target.lanes, block), cycles, "bound by memory")


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
