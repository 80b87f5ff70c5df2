"""Input-stationary sparse convolution; see `passes/kernels/host/input_stationary.py`."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from typing import Any, ClassVar

import numpy as np

from patc.dialects.attributes import FkwAttr, Library
from patc.dialects.schedules import Schedule
from patc.integers import ceil_div
from patc.passes.algorithms.host.base import HostAlgorithm
from patc.passes.algorithms.host.patterns import Patterns
from patc.passes.algorithms.host.site import HostSite
from patc.passes.algorithms.host.tiles import RegisterTile, TileCost, TiledConvolution, core_model, tile_limits
from patc.passes.algorithms.limits import Limit, at_most, divisor_of
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.formats.channel_major import by_channel
from patc.passes.formats.layer_weights import read_fkw
from patc.passes.ir.constants import read_constant
from patc.passes.ir.planes import kernel_plane
from patc.passes.kernels import tiling
from patc.passes.kernels.host import input_stationary
from patc.passes.kernels.host.accumulators import longest_part
from patc.passes.kernels.host.input_stationary import ChannelMajorWeights
from patc.passes.kernels.host.kernel import Kernel
from patc.passes.kernels.host.loops import Loops
from patc.targets import Target

ROLES = ("values", "place", "bounds", "channels", "firsts", "reorder", "count")
CACHE_PER_SUM = 32  # bytes of the second-level cache for each accumulator of a block of filters


class InputStationary(HostAlgorithm):
    """The inputs of a pattern stay in registers."""

    name: ClassVar[str] = "input-stationary"
    runs_in_bands: ClassVar[bool] = True
    skips_zeros: ClassVar[bool] = True

    def applies(self, op: Any) -> bool:
        if not isinstance(op.format, FkwAttr) or Library.from_attr(op.format).entries == 1:
            return False  # of one entry: each multiply-add would load and store its sum
        products = math.prod(op.array("values").type.shape) / op.result.type.shape[1]
        return longest_part(op.result.type, products) is None  # it cannot sum in parts

    def order(self, op: Any, schedule: Schedule, target: Target) -> Hashable:
        beside = _taps_beside(kernel_plane(op, schedule.row_parts), schedule, core_model(op, target).pipe_lanes)
        assert beside is not None, "beyond the limits"
        return beside.tobytes()

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        layer, patterns = TiledConvolution.of(op, target, op.input.type.shape[1], threads), Patterns.of(op, state)
        lanes, registers = layer.model.lanes, layer.model.registers
        channels = _channels_read(op, state)
        for tile in layer.tiles():
            if tile.vectors > registers:
                continue
            area = tile.rows * max(sum(chunk.lanes for chunk in strip.chunks) for strip in tile.strips)
            blocks = ceil_div(layer.filters * area, max(1, layer.model.costs.second_level_bytes // CACHE_PER_SUM))
            block = ceil_div(layer.filters, blocks)
            for sums in sorted({1, patterns.entries & -patterns.entries}):
                schedule = Schedule(self.name, tile.rows, tile.columns, lanes, block, sums)
                beside = _taps_beside((layer.height, layer.width), schedule, layer.model.pipe_lanes)
                if beside is None or (sums > 1 and beside.max() == 1):
                    continue
                cost, taken = _cost(layer, patterns, tile, blocks * channels, schedule)
                if taken <= registers or tile.vectors == 1:
                    yield layer.candidate(schedule, tile, cost)

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        yield at_most("filters", schedule.filters, op.result.type.shape[1])
        yield divisor_of("sums", schedule.sums, Library.from_attr(op.format).entries)
        yield from tile_limits(op, schedule, target)
        beside = _taps_beside(kernel_plane(op, schedule.row_parts), schedule, core_model(op, target).pipe_lanes)
        wanted = "a number that lets tiles add up alike what two of them compute"
        yield Limit("rows", schedule.rows, wanted, beside is not None)

    def emit(self, site: HostSite) -> None:
        op, source, output, schedule = site.op, site.source, site.output, site.schedule
        library = Library.from_attr(op.format)
        blocks = ceil_div(output.shape[1], schedule.filters)
        if schedule.split == "filters":
            blocks = ceil_div(blocks, schedule.threads) * schedule.threads
        arrays = by_channel(read_fkw(op, site.state), blocks)
        weights = [site.constant(getattr(arrays, role), op.array("values"), f"{role}{blocks}") for role in ROLES]
        pipe_lanes = core_model(op, site.target).pipe_lanes
        block = ceil_div(arrays.block, 64) * 64  # the same for layers that are alike, so that they share a kernel

        def emit(kernel: Kernel, arguments: list[Any]) -> None:
            given, *arrays, made, epilogue = arguments
            held = ChannelMajorWeights(library, block, *arrays)
            input_stationary.InputStationary.of(Loops(kernel, made, epilogue, given), held, pipe_lanes).emit()

        site.call([source, *weights, output, site.epilogue], emit, arrays.kept(), any_part=True)


def _cost(
    layer: TiledConvolution, patterns: Patterns, tile: RegisterTile, entered: int, schedule: Schedule
) -> tuple[TileCost, int]:
    """Return what a tile costs, and the registers that it takes.

    Args:
        entered: channels of all blocks of filters.
    """
    model, geometry, taps, rows = layer.model, layer.geometry, patterns.taps, tile.rows
    cycles, kept, taken = 0.0, 0.0, 0
    for strip in tile.strips:
        costs = [model.stationary_cost(shape, rows, strip.chunks, schedule.sums, geometry) for shape in taps]
        far = model.far_sums_cycles(costs[0].lines, schedule.filters)
        kernels = sum(count * (cost.kernel + far) for count, cost in zip(patterns.counts, costs, strict=True))
        loops = len(taps) * model.loop_cycles(kernels / (entered * len(taps)))
        inputs_loaded = sum(cost.cell for cost in costs)
        distant = model.distant_cycles(patterns.places, rows, strip.chunks, geometry, prefetched=True)
        ends = layer.filters * (costs[0].filter + layer.written_cycles(tile, strip))
        cycles += strip.count * (kernels + entered * (loops + inputs_loaded) + ends + distant)
        kept += strip.count * kernels
        taken = max(taken, *(cost.registers for cost in costs))
    return TileCost(cycles, patterns.instructions, "multiply-adds", kept=kept), taken


def _taps_beside(plane: tuple[int, int], schedule: Schedule, pipe_lanes: int) -> np.ndarray | None:
    """Return how many taps' products lie side by side in the sums of each output of a plane; None if that is not the
    same for rows that two tiles compute, of which either may come last."""
    (height, width), rows = plane, min(schedule.rows, plane[0])
    strips = tiling.strips(width, schedule.columns, schedule.lanes)
    packings = [tiling.packing(rows, strip.chunks, schedule.lanes, pipe_lanes, schedule.sums) for strip in strips]
    if all(pack.taps == 1 for packing in packings for pack in packing.packs):
        return np.ones(1, np.uint8)  # of any plane
    parts = []
    for strip, packing in zip(strips, packings, strict=True):
        part = np.ones((rows, strip.columns), np.uint8)
        for pack in packing.packs:
            for row, position in pack.pieces:
                chunk = packing.chunks[position]
                part[row, chunk.column : chunk.column + chunk.valid] = pack.taps
        parts.append(np.tile(part, strip.count))
    beside = np.concatenate(parts, axis=1)
    twice = -height % rows  # the last tile begins so many rows early
    if (beside[rows - twice :] != beside[:twice]).any():
        return None
    return np.concatenate([np.tile(beside, (height // rows, 1)), beside[rows - height % rows :]])


def _channels_read(op: Any, state: PassState) -> int:
    """Return how many (first) input channels the kept kernels have."""
    index = read_constant(op.array("index"), state)
    return op.input.type.shape[1] if index is None else len(np.unique(index))
