"""Filter-lanes convolution; see `passes/kernels/host/filter_lanes.py`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

from patc.dialects.attributes import Layout
from patc.dialects.schedules import Schedule
from patc.integers import ceil_div
from patc.passes.algorithms.host.base import HostAlgorithm
from patc.passes.algorithms.host.dense_direct import call_with_packed
from patc.passes.algorithms.host.site import HostSite
from patc.passes.algorithms.host.tiles import RegisterTile, TileCost, TiledConvolution, register_limit, tile_limits
from patc.passes.algorithms.limits import Limit, block_of, multiple_of
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.formats.layer_weights import groups_of
from patc.passes.ir.elements import element_bytes
from patc.passes.ir.planes import kernel_plane
from patc.passes.kernels import tiling
from patc.passes.kernels.host import filter_lanes
from patc.targets import Target

MOST_TAPS = 25  # that have code of their own
LEAST_LANES = 8  # of a vector: half of it is still one


class FilterLanes(HostAlgorithm):
    """Filters in the lanes of vectors, outputs of a tile in registers; sparse weights are decoded."""

    name: ClassVar[str] = "filter-lanes"

    def applies(self, op: Any) -> bool:
        if element_bytes(op.result.type) != 4 or math.prod(op.kernel_size) > MOST_TAPS:
            return False
        fills_a_vector = op.result.type.shape[1] // groups_of(op) >= LEAST_LANES
        return fills_a_vector and op.strides[1] % Layout.of(op.input.type).phases == 0

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        channels, filters, groups = op.input.type.shape[1], op.result.type.shape[1], groups_of(op)
        layer = TiledConvolution.of(op, target, channels // groups, threads)
        yield from candidates_of_vectors(self.name, layer, op.kernel_size, (filters, groups))

    def filter_blocks(self, op: Any, schedule: Schedule) -> int:
        return ceil_div(op.result.type.shape[1], schedule.filters)

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        yield from filter_limits(op, schedule, target, op.result.type.shape[1], groups_of(op))

    def emit(self, site: HostSite) -> None:
        call_with_packed(site, lambda loops, weights: filter_lanes.FilterLanes.of(loops, weights).emit())


def filter_limits(op: Any, schedule: Schedule, target: Target, filters: int, groups: int) -> Iterator[Limit]:
    """Yield the limits of whole vectors of filters, twice as many as columns have lanes."""
    yield multiple_of("filters", schedule.filters, 2 * schedule.lanes, filters)
    yield block_of("filters", schedule.filters, filters, groups)
    yield from tile_limits(op, schedule, target)
    (height, width), vectors = kernel_plane(op, schedule.row_parts), schedule.filters // (2 * schedule.lanes)
    outputs = min(schedule.rows, height) * min(schedule.columns, width)
    yield register_limit(outputs * vectors, schedule, target)


def candidates_of_vectors(
    name: str, layer: TiledConvolution, kernel: tuple[int, int], size: tuple[int, int]
) -> Iterator[Candidate]:
    """Yield the register tiles of a layer; `size` is its filters and groups."""
    filters, groups = size
    lanes, registers, group = layer.model.lanes, layer.model.registers, filters // groups
    if lanes < LEAST_LANES:
        return
    for vectors in (1, 2, 3, 4):
        block = vectors * lanes
        if block > group or (groups > 1 and group % block):
            continue
        # Beside the sums of a tile's outputs the weights of a row of taps are in registers, and an input; or two, which
        # several taps read.
        most = (registers - kernel[1] * vectors - (1 if kernel[1] == 1 else 2)) // vectors
        for tile in _tiles(layer, lanes // 2, most):
            schedule = Schedule(name, tile.rows, tile.columns, lanes // 2, block)
            yield layer.candidate(schedule, tile, _cost(layer, kernel, tile, vectors))


def _tiles(layer: TiledConvolution, lanes: int, most: int) -> Iterator[RegisterTile]:
    """Yield the tiles of up to `most` outputs: parts of a row that end with a vector of columns, or whole rows."""
    half = lanes // 2
    for columns in sorted({min(layer.width, step * half) for step in range(1, most // half + 1)} | {layer.width}):
        strips = tiling.strips(layer.width, columns, lanes)
        if columns > most or not tiling.cuts_no_vector(columns, layer.width, lanes):
            continue
        heights = {
            ceil_div(layer.height, tiles) for tiles in range(ceil_div(layer.height, most // columns), layer.height + 1)
        }
        for rows in sorted(heights) if columns == layer.width else [1]:
            yield RegisterTile(rows, columns, strips)


def _inputs_read(layer: TiledConvolution, kernel: tuple[int, int], rows: int, columns: int) -> float:
    """Return the cycles in which a channel's inputs of a tile come from the second level: what all channels have there
    does not stay in the first one until the next block of filters."""
    costs, geometry = layer.model.costs, layer.geometry
    (down, right), bytes_ = geometry.strides, geometry.element_bytes
    lines = ((rows - 1) * down + kernel[0]) * (1 + bytes_ * ((columns - 1) * right + kernel[1]) / costs.line_bytes)
    far = 1.0 - costs.first_level_bytes / (costs.line_bytes * lines * geometry.channels)
    return max(0.0, far) * lines * costs.line_cycles


def _cost(layer: TiledConvolution, kernel: tuple[int, int], tile: RegisterTile, vectors: int) -> TileCost:
    """Return what a tile of a block of filters costs."""
    model, geometry, costs, taps = layer.model, layer.geometry, layer.model.costs, math.prod(kernel)
    lanes, cycles, bound = layer.model.lanes, 0.0, ""
    stays = 4 * geometry.channels * taps * vectors * lanes <= costs.first_level_bytes  # the weights of a block
    weights_read = 0.0 if stays else taps * vectors * costs.line_cycles
    for strip in tile.strips:
        columns = sum(chunk.valid for chunk in strip.chunks)
        lines = weights_read + _inputs_read(layer, kernel, tile.rows, columns)
        inputs = kernel[0] * tile.rows * geometry.columns_read(columns, kernel[1])
        products = taps * tile.rows * columns * vectors * model.vector_cycles(lanes)
        loads = (inputs + taps * vectors) / costs.loads_per_cycle
        channel = math.hypot(model.beside_aligned(products, loads), lines * (1 - costs.exposed_weights))
        channel += lines * costs.exposed_weights + 1.0
        slots = tile.rows * sum(chunk.lanes for chunk in strip.chunks)
        shuffles = vectors * ceil_div(slots, lanes) * lanes * (lanes.bit_length() + 1)
        stored = vectors * lanes * tile.rows * len(strip.chunks)
        ends = shuffles + 2 * stored * costs.store_cycles + vectors * lanes * layer.written_cycles(tile, strip)
        cycles += strip.count * (geometry.channels * channel + ends + costs.loop_entry_cycles)
        bound = "multiply-adds" if products >= loads else "loads"
    blocks = ceil_div(layer.filters, vectors * lanes)
    weights = 4.0 * layer.filters * geometry.channels * taps
    streamed = layer.streamed(tile, weights, blocks, True, cycles)
    return TileCost(cycles, taps * vectors * lanes // 2, bound, blocks, streamed=streamed)
