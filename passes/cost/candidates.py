"""How each kind of layer could be computed: every algorithm and register tile that is worth a thought, and its cost.

A new algorithm is one more generator here and its loops in `passes/kernels/`; `pattern-schedule` chooses.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np

from patc.dialects import pattern
from patc.dialects.attributes import FkwAttr, Layout, Library, Schedule
from patc.integers import ceil_div
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.cost.core import CoreModel
from patc.passes.cost.geometry import Geometry, Place
from patc.passes.cost.models import cost_model
from patc.passes.cost.winograd import winograd_cycles
from patc.passes.formats.layer_weights import read_dense_weight
from patc.passes.ir.constants import read_constant
from patc.passes.ir.elements import element_bytes, vector_lanes
from patc.passes.ir.planes import as_planes, is_flat, is_global_pool, kernel_plane
from patc.passes.kernels import tiling
from patc.passes.kernels.host import convolution, winograd
from patc.passes.kernels.host.winograd_transforms import TILE
from patc.targets import Target


def candidates(op: Any, target: Target, state: PassState, threads: int = 1) -> list[Candidate]:
    """Return the ways to compute a layer, always in the same order; none for an op that computes nothing.

    Args:
        threads: that the layer will be divided among.
    """
    generate = _GENERATORS.get(type(op))
    if generate is None:
        return []
    return list(generate(op, cost_model(_for_elements(target, op.result.type)), state, threads))


def _for_elements(target: Target, type_: Any) -> Target:
    """Return the target with its lanes counted in elements of a tensor: of f16 a register holds twice as many."""
    lanes = vector_lanes(type_, target)
    return replace(target, lanes=lanes, fma_lanes=target.fma_lanes * lanes // target.lanes)


def shortlist(found: Sequence[Candidate], limit: int = 10) -> list[Candidate]:
    """Return the `limit` candidates that are worth measuring.

    The model errs most between algorithms and between tiles of different widths. So half of the places go to the best
    tiles of every algorithm, evenly, and the others to the best tiles of widths that are not among those. The order is
    that of the schedules: layers of nearly equal costs have equal lists.
    """
    ranked = sorted(found, key=lambda candidate: candidate.cost)
    algorithms: dict[str, list[Candidate]] = {}
    widths: dict[tuple[str, int], Candidate] = {}
    for candidate in ranked:
        algorithms.setdefault(candidate.schedule.algorithm, []).append(candidate)
        widths.setdefault((candidate.schedule.algorithm, candidate.schedule.columns), candidate)
    share = max(1, limit // 2 // max(1, len(algorithms)))
    firsts = [candidate for group in algorithms.values() for candidate in group[:share]]
    kept = list(dict.fromkeys([*firsts, *widths.values(), *ranked]))[:limit]
    return sorted(kept, key=lambda candidate: astuple(candidate.schedule))


def without_inaccurate(found: list[Candidate], op: Any, state: PassState) -> list[Candidate]:
    """Return the candidates without those of Winograd convolution if one of them may be chosen and the layer's weights
    make its errors too large."""
    others = [candidate for candidate in found if candidate.schedule.algorithm != "winograd"]
    if len(others) == len(found):
        return found
    best = min(found, key=lambda candidate: candidate.cost)
    if state.measure is None and best.schedule.algorithm != "winograd":
        return found
    weights = [op.weight] if isinstance(op, pattern.Conv2dOp) else op.arrays
    if any(read_constant(weight, state) is None for weight in weights):
        return found  # a layer without its weights can be scheduled, but not compiled
    return others if winograd.cancels(read_dense_weight(op, state).array, op.strides[0]) else found


def _sparse_candidates(op: Any, model: CoreModel, state: PassState, threads: int) -> Iterator[Candidate]:
    if isinstance(op.format, FkwAttr):
        layer = _Sparse.of(op, model, state, threads)
        yield from _pattern_tiles(layer, model)
        products = math.prod(op.array("values").type.shape) / layer.filters
        if not convolution.is_long_sum(op.result.type.element_type, products):
            yield from _stationary_tiles(layer, model)  # it cannot sum in parts
    if "grouped" in op.attributes:
        return  # dense weights would have zeros between the groups, which make NaN of another group's infinity
    # Where little was pruned, the same layer computed dense may take less time.
    kernel = op.kernel_size
    yield from _dense_tiles(op, kernel, op.input.type.shape[1], 1, model, threads)
    yield from _winograd_bands(op, kernel, 1, model)


def _dense_candidates(op: Any, model: CoreModel, state: PassState, threads: int) -> Iterator[Candidate]:
    _, channels, height, width = op.weight.type.shape
    yield from _dense_tiles(op, (height, width), channels, op.groups.value, model, threads)
    yield from _winograd_bands(op, (height, width), op.groups.value, model)


@dataclass(frozen=True)
class _Sparse:
    """A sparse convolution, as its tiles are costed.

    Attributes:
        batch, filters, height, width: of the result as the kernel sees it.
        taps: of each pattern.
        places: all that any pattern reads.
        counts: kept kernels of each pattern.
        cells: (first) input channels that the kept kernels have.
    """

    batch: int
    filters: int
    height: int
    width: int
    library: Library
    taps: list[tuple[Place, ...]]
    places: tuple[Place, ...]
    counts: list[float]
    cells: int
    geometry: Geometry
    written: _Written

    @staticmethod
    def of(op: Any, model: CoreModel, state: PassState, threads: int) -> _Sparse:
        library = Library.from_attr(op.format)
        taps = [library.places(pattern) for pattern in range(len(library.masks))]
        batch, filters = op.result.type.shape[:2]
        height, width = kernel_plane(op, threads)
        return _Sparse(
            batch=batch,
            filters=filters,
            height=height,
            width=width,
            library=library,
            taps=taps,
            places=tuple(sorted(set(itertools.chain.from_iterable(taps)))),
            counts=pattern_counts(op, library, state),
            cells=_channels_read(op, state),
            geometry=_geometry(op, op.input.type.shape[1]),
            written=_Written.of(op, model),
        )


def _pattern_tiles(layer: _Sparse, model: CoreModel) -> Iterator[Candidate]:
    """Yield the tiles of "pattern-direct"."""
    commonest = layer.counts.index(max(layer.counts))
    for columns, strips in _column_choices(layer.width, model.lanes):
        # Beside the accumulators: a kernel's weights, for each vector length, and the vectors of one input row.
        spare = model.registers - layer.library.entries * _widths(strips) - _widest(strips) - 1
        for rows, sums in itertools.product(_row_choices(layer.height), (1, 2, 4)):
            smallest = rows == sums == 1
            if (rows * _widest(strips) * sums > spare or sums > layer.library.entries) and not smallest:
                continue
            cycles = 0.0
            for strip in strips:
                costs = [
                    model.sparse_kernel_cost(shape, rows, strip.chunks, sums, layer.geometry) for shape in layer.taps
                ]
                kernels = sum(count * cost.cycles for count, cost in zip(layer.counts, costs, strict=True))
                loops = len(layer.taps) * model.loop_cycles(kernels / (layer.filters * len(layer.taps)))
                stores = rows * len(strip.chunks) * sums * model.costs.store_cycles
                distant = model.distant_cycles(layer.places, rows, strip.chunks, layer.geometry, prefetched=False)
                stores += layer.written.cycles(rows, strip, model)
                cycles += strip.count * (kernels + layer.filters * (loops + stores) + distant)
            cycles *= layer.batch * ceil_div(layer.height, rows)
            cost = cycles * _code_cost(model, layer.library.entries * len(layer.taps) * rows, strips)
            schedule = Schedule("pattern-direct", rows, columns, model.lanes, sums=sums)
            yield Candidate(schedule, cycles, cost, costs[commonest].bound)


def _stationary_tiles(layer: _Sparse, model: CoreModel) -> Iterator[Candidate]:
    """Yield the tiles of "input-stationary"."""
    for columns, strips in _column_choices(layer.width, model.lanes):
        for rows in _row_choices(layer.height):
            if rows * _widest(strips) > model.registers:
                break
            area = rows * max(sum(chunk.lanes for chunk in strip.chunks) for strip in strips)
            blocks = ceil_div(layer.filters * area, model.costs.scratch_sums)
            cycles, inputs = 0.0, 0
            for strip in strips:
                costs = [model.stationary_cost(shape, rows, strip.chunks, layer.geometry) for shape in layer.taps]
                kernels = sum(count * cost.kernel for count, cost in zip(layer.counts, costs, strict=True))
                entered = blocks * layer.cells
                loops = len(layer.taps) * model.loop_cycles(kernels / (entered * len(layer.taps)))
                inputs_loaded = sum(cost.cell for cost in costs)
                distant = model.distant_cycles(layer.places, rows, strip.chunks, layer.geometry, prefetched=True)
                ends = layer.filters * (costs[0].filter + layer.written.cycles(rows, strip, model))
                cycles += strip.count * (kernels + entered * (loops + inputs_loaded) + ends + distant)
                inputs = max(inputs, *(cost.inputs for cost in costs))
            others = model.stationary_registers(layer.library.entries, _widths(strips))
            if inputs + others > model.registers and rows * _widest(strips) > 1:
                continue
            cycles *= layer.batch * ceil_div(layer.height, rows)
            cost = cycles * _code_cost(model, layer.library.entries * len(layer.taps) * rows, strips)
            schedule = Schedule("input-stationary", rows, columns, model.lanes, ceil_div(layer.filters, blocks))
            yield Candidate(schedule, cycles, cost, "multiply-adds")


def _channels_read(op: Any, state: PassState) -> int:
    """Return how many (first) input channels the kept kernels have."""
    index = read_constant(op.array("index"), state)
    return op.input.type.shape[1] if index is None else len(np.unique(index))


def pattern_counts(op: Any, library: Library, state: PassState) -> list[float]:
    """Return how many kept kernels have each pattern; equally many where that is not known."""
    patterns = len(library.masks)
    stride = read_constant(op.array("stride"), state)
    if stride is None:
        return [op.array("values").type.shape[0] / patterns] * patterns
    return [float(count) for count in np.diff(stride.astype(np.int64), axis=1).sum(axis=0)]


def _dense_tiles(
    op: Any, kernel: tuple[int, int], channels: int, groups: int, model: CoreModel, threads: int
) -> Iterator[Candidate]:
    """Yield the tiles of "dense-direct", or of "depthwise-direct" where each filter has one channel of its own.

    Args:
        channels: that each filter reads.
    """
    batch, filters = op.result.type.shape[:2]
    height, width = kernel_plane(op, threads)
    group = filters // groups
    name = "depthwise-direct" if channels == 1 and group == 1 else "dense-direct"
    geometry = _geometry(op, channels)
    written = _Written.of(op, model)
    blocks = [size for size in (1, 2, 3, 4, 6, 8, 12, 16) if size <= group and (groups == 1 or group % size == 0)]
    for columns, strips in _column_choices(width, model.lanes):
        for rows, block in itertools.product(_row_choices(height), blocks):
            vectors = rows * _widest(strips)
            # Beside the accumulators: the input vectors of one tap and a weight.
            if (block + 1) * vectors + _widths(strips) > model.registers and vectors * block > 1:
                continue
            cycles = 0.0
            for strip in strips:
                channel = model.dense_channel_cost(kernel, rows, strip.chunks, block, geometry)
                stores = block * rows * len(strip.chunks) * model.costs.store_cycles
                stores += block * written.cycles(rows, strip, model)
                cycles += strip.count * (channels * channel.cycles + stores + model.costs.loop_entry_cycles)
            cycles *= batch * ceil_div(height, rows) * ceil_div(filters, block)
            cost = cycles * _code_cost(model, math.prod(kernel) * block * rows, strips)
            yield Candidate(Schedule(name, rows, columns, model.lanes, block), cycles, cost, channel.bound)


def _winograd_bands(op: Any, kernel: tuple[int, int], groups: int, model: CoreModel) -> Iterator[Candidate]:
    """Yield the bands and register tiles of "winograd"."""
    if element_bytes(op.result.type) < 4:  # the transforms would lose most of the bits
        return
    if not winograd.applies(kernel, op.strides, op.dilations, groups, Layout.of(op.input.type).phases):
        return
    batch, filters, height, width = op.result.type.shape
    shape = (batch, op.input.type.shape[1], filters, height, width)
    for layer in winograd.layers(*shape, model.target, kernel[0], op.strides[0]):
        cycles = winograd_cycles(layer, model)
        schedule = Schedule("winograd", TILE * layer.band, layer.strip, layer.lanes, layer.block)
        yield Candidate(schedule, cycles, cycles, "multiply-adds")


def _plane_candidates(op: Any, model: CoreModel, state: PassState, threads: int) -> Iterator[Candidate]:
    """Yield the tile of a pooling or elementwise layer: four vectors or so in flight."""
    *_, height, width = as_planes(op.result.type.shape)
    tensors = [value.type for value in (*op.operands, op.result)]
    moved = float(sum(element_bytes(type_) * math.prod(type_.shape) for type_ in tensors))
    if is_global_pool(op):
        yield _memory_bound(model, Schedule("global-pool", 1, 1, model.lanes), moved)
        return
    columns = max(columns for columns, strips in _column_choices(width, model.lanes) if _widest(strips) <= 4)
    windowed = isinstance(op, (pattern.MaxPool2dOp, pattern.AvgPool2dOp))
    vectors = 8 if windowed else 4
    rows = max(1, min(height, vectors // tiling.vectors(columns, model.lanes)))
    yield _memory_bound(model, Schedule("pool" if windowed else "elementwise", rows, columns, model.lanes), moved)


def _linear_candidates(op: Any, model: CoreModel, state: PassState, threads: int) -> Iterator[Candidate]:
    images, features = op.input.type.shape
    filters = op.weight.type.shape[0]
    rows = min(images, 4)
    block = min(filters, 4 if rows > 1 else 8)
    size = element_bytes(op.weight.type)
    lanes = model.lanes * size // 4  # it sums in f32
    yield _memory_bound(model, Schedule("gemv", rows, 1, lanes, block), float(size * features * filters))


def _memory_bound(model: CoreModel, schedule: Schedule, moved_bytes: float) -> Candidate:
    cycles = moved_bytes / model.costs.memory_bytes_per_cycle
    return Candidate(schedule, cycles, cycles, "memory")


def _column_choices(width: int, lanes: int) -> Iterator[tuple[int, list[tiling.Strip]]]:
    """Yield the tile widths that cut a row into vectors without gaps between the strips."""
    half = max(lanes // 2, 4)
    for columns in sorted({min(width, step * half) for step in range(1, 15)}):
        strips = tiling.strips(width, columns, lanes)
        if strips[0].columns == width or all(chunk.valid == chunk.lanes for chunk in strips[0].chunks):
            yield columns, strips


def _row_choices(height: int) -> list[int]:
    """Return the heights of tiles, up to 16; of those that make equally many tiles, the least."""
    return sorted({ceil_div(height, tiles) for tiles in range(ceil_div(height, 16), height + 1)})


@dataclass(frozen=True)
class _Written:
    """What a layer writes, and a residual that it reads there.

    Attributes:
        tensors: how many of them are behind the caches of a core.
        phases: of the result's layout.
        element_bytes: of the result.
    """

    tensors: int
    phases: int
    element_bytes: int

    @staticmethod
    def of(op: Any, model: CoreModel) -> _Written:
        layout = Layout.of(op.result.type)
        size = element_bytes(op.result.type)
        is_distant = size * math.prod(op.result.type.shape[:2]) * layout.plane > model.costs.second_level_bytes
        return _Written((1 if op.residual is None else 2) * is_distant, layout.phases, size)

    def cycles(self, rows: int, strip: tiling.Strip, model: CoreModel) -> float:
        """Return the cycles in which one filter of a tile waits for these lines."""
        return self.tensors * model.written_cycles(rows, strip.chunks, self.phases, self.element_bytes)


def _geometry(op: Any, channels: int) -> Geometry:
    layout = Layout.of(op.input.type)
    size = element_bytes(op.input.type)
    pitch = kernel_plane(op)[1] if is_flat(op) else layout.pitch
    window = tuple(op.strides), tuple(op.dilations)
    return Geometry(*window, layout.phases, pitch, channels, size * layout.plane, size)


def _widest(strips: Sequence[tiling.Strip]) -> int:
    return max(len(strip.chunks) for strip in strips)


def _widths(strips: Sequence[tiling.Strip]) -> int:
    """Return the largest number of different vector lengths in a strip."""
    return max(len({chunk.lanes for chunk in strip.chunks}) for strip in strips)


def _code_cost(model: CoreModel, instructions: int, strips: Sequence[tiling.Strip]) -> float:
    """Return a factor that prefers less code among tiles of nearly equal speed: caches and compile time count too.

    Args:
        instructions: multiply-adds for one column of vectors.
    """
    return 1.0 + model.costs.code_cost * instructions * sum(len(strip.chunks) for strip in strips)


_GENERATORS: dict[type, Callable[[Any, CoreModel, PassState, int], Iterator[Candidate]]] = {
    pattern.SparseConv2dOp: _sparse_candidates,
    pattern.Conv2dOp: _dense_candidates,
    pattern.MaxPool2dOp: _plane_candidates,
    pattern.AvgPool2dOp: _plane_candidates,
    pattern.AddOp: _plane_candidates,
    pattern.ActivateOp: _plane_candidates,
    pattern.RelayoutOp: _plane_candidates,
    pattern.LinearOp: _linear_candidates,
}
