"""Dense-direct and depthwise-direct convolution; see `passes/kernels/host/dense_direct.py`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from patc.dialects.schedules import Schedule
from patc.integers import ceil_div
from patc.passes.algorithms.host.base import HostAlgorithm
from patc.passes.algorithms.host.site import HostSite
from patc.passes.algorithms.host.tiles import RegisterTile, TileCost, TiledConvolution, tile_limits
from patc.passes.algorithms.limits import Limit, block_of
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.formats.layer_weights import groups_of, read_dense_weight
from patc.passes.kernels.host import dense_direct
from patc.passes.kernels.host.dense_direct import DenseWeights
from patc.passes.kernels.host.kernel import Kernel
from patc.passes.kernels.host.loops import Loops
from patc.passes.kernels.host.weights import pack_filters
from patc.targets import Target

BLOCKS = (1, 2, 3, 4, 6, 8, 12, 16)  # filters of a tile


class DenseDirect(HostAlgorithm):
    """Filters x outputs of a tile in registers; sparse weights are decoded."""

    name: ClassVar[str] = "dense-direct"
    runs_in_bands: ClassVar[bool] = True
    is_depthwise: ClassVar[bool] = False

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        channels, filters, groups = op.input.type.shape[1], op.result.type.shape[1], groups_of(op)
        if (channels == filters == groups) != self.is_depthwise:
            return
        layer = TiledConvolution.of(op, target, channels // groups, threads)
        group = filters // groups
        blocks = [size for size in BLOCKS if size <= group and (groups == 1 or group % size == 0)]
        yield from candidates_of_blocks(self.name, layer, op.kernel_size, blocks)

    def filter_blocks(self, op: Any, schedule: Schedule) -> int:
        return ceil_div(op.result.type.shape[1], schedule.filters)

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        yield block_of("filters", schedule.filters, op.result.type.shape[1], groups_of(op))
        yield from tile_limits(op, schedule, target, schedule.filters)

    def emit(self, site: HostSite) -> None:
        call_with_packed(site, lambda loops, weights: dense_direct.DenseDirect(loops, weights).emit())


class DepthwiseDirect(DenseDirect):
    """The same for filters that have one channel each, of their own."""

    name: ClassVar[str] = "depthwise-direct"
    is_depthwise: ClassVar[bool] = True


def call_with_packed(site: HostSite, write: Callable[[Loops, DenseWeights], None]) -> None:
    """Call the kernel that `write` writes with a layer's weights, dense and packed in blocks of filters."""
    source, output, block = site.source, site.output, site.schedule.filters
    weight = read_dense_weight(site.op, site.state)
    filters, channels = weight.array.shape[:2]
    packed = site.constant(pack_filters(weight.array, block), weight.origin, f"packed{block}")

    def emit(kernel: Kernel, arguments: list[Any]) -> None:
        given, values, made, epilogue = arguments
        weights = DenseWeights(values, channels, filters // weight.groups)
        write(Loops(kernel, made, epilogue, given), weights)

    site.call([source, packed, output, site.epilogue], emit, [1.0] * ceil_div(filters, block), any_part=True)


def candidates_of_blocks(
    name: str,
    layer: TiledConvolution,
    kernel: tuple[int, int],
    blocks: Sequence[int],
    most_taps: int = Loops.most_taps,
) -> Iterator[Candidate]:
    """Yield the register tiles of a layer with blocks of so many filters; for `most_taps` see `Loops`."""
    taps = math.prod(kernel)
    written = taps if taps <= most_taps else kernel[1]
    lanes, registers = layer.model.lanes, layer.model.registers
    for tile in layer.tiles():
        for block in blocks:
            # Beside the accumulators: the input vectors of one tap and a weight.
            if (block + 1) * tile.vectors + tile.widths <= registers or tile.vectors * block == 1:
                schedule = Schedule(name, tile.rows, tile.columns, lanes, block)
                cost = replace(_cost(layer, kernel, tile, block), instructions=written * block)
                yield layer.candidate(schedule, tile, cost)


def _cost(layer: TiledConvolution, kernel: tuple[int, int], tile: RegisterTile, block: int) -> TileCost:
    """Return what a tile of a block of filters costs."""
    model, geometry, rows = layer.model, layer.geometry, tile.rows
    cycles = 0.0
    for strip in tile.strips:
        channel = model.dense_channel_cost(kernel, rows, strip.chunks, block, geometry)
        stores = block * rows * len(strip.chunks) * model.costs.store_cycles
        stores += block * layer.written_cycles(tile, strip)
        cycles += strip.count * (geometry.channels * channel.cycles + stores + model.costs.loop_entry_cycles)
    blocks, taps, size = ceil_div(layer.filters, block), math.prod(kernel), geometry.element_bytes
    weights = float(size * layer.filters * geometry.channels * taps)
    filters_first = not layer.is_far(layer.inputs) or weights * layer.batch * ceil_div(layer.height, rows) > (
        layer.inputs * blocks
    )
    streamed = layer.streamed(tile, weights, blocks, filters_first, cycles)
    return TileCost(cycles, taps * block, channel.bound, blocks, streamed=streamed)
