"""Convolution by panels of what its taps see; see `passes/kernels/host/implicit_gemm.py`."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from typing import Any, ClassVar

import numpy as np

from patc.dialects.attributes import Layout
from patc.dialects.schedules import Schedule
from patc.integers import ceil_div
from patc.passes.algorithms.host.base import HostAlgorithm
from patc.passes.algorithms.host.site import HostSite
from patc.passes.algorithms.host.tiles import RegisterTile, TileCost, TiledConvolution, core_model, tile_limits
from patc.passes.algorithms.limits import Limit, at_most
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.cost.core import CoreModel
from patc.passes.formats.layer_weights import groups_of, read_dense_weight
from patc.passes.ir.elements import element_bytes
from patc.passes.ir.planes import kernel_plane
from patc.passes.ir.windows import Window
from patc.passes.kernels import tiling
from patc.passes.kernels.host import implicit_gemm_loops
from patc.passes.kernels.host.implicit_gemm import Plan, runs
from patc.passes.kernels.host.kernel import Kernel
from patc.passes.kernels.host.loops import Loops, first_of
from patc.passes.kernels.host.weights import pack_filters
from patc.targets import Target

_LEAST_PRODUCTS = 64  # of a sum: of fewer the copies cost more than they gain
_LEAST_FILTERS = 32  # that share a copy
_PIXELS = (96, 192, 384)  # outputs of a tile, about
_MOST_RUNS = 48  # vectors of a tile that are copied: each has code of its own
_BLOCKS = {2: (12, 14), 3: (4, 8), 4: (6,)}  # filters whose accumulators fill registers, by vectors of a panel


class ImplicitGemm(HostAlgorithm):
    """Filters x outputs of a panel in registers, sums of long depth parked in a cache."""

    name: ClassVar[str] = "implicit-gemm"

    def applies(self, op: Any) -> bool:
        products = op.input.type.shape[1] * math.prod(op.kernel_size)
        is_large = products >= _LEAST_PRODUCTS and op.result.type.shape[1] >= _LEAST_FILTERS
        is_plain = element_bytes(op.result.type) == 4 and groups_of(op) == 1
        return is_plain and is_large and Layout.of(op.input.type).phases in (1, op.strides[1])

    def order(self, op: Any, schedule: Schedule, target: Target) -> Hashable:
        return _plan(op, schedule, core_model(op, target), kernel_plane(op, schedule.row_parts)).depth

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        channels, filters = op.input.type.shape[1], op.result.type.shape[1]
        layer, window = TiledConvolution.of(op, target, channels, threads), Window.of(op)
        lanes, registers = layer.model.lanes, layer.model.registers
        for tile in _tiles(layer, lanes):
            for vectors, blocks in _BLOCKS.items():
                for block in blocks:
                    if (
                        (block + 1) * vectors + 1 > registers
                        or block > filters
                        or (registers - 1) // (block + 1) != vectors
                    ):
                        continue
                    schedule = Schedule(self.name, tile.rows, tile.columns, lanes, block)
                    plan = _plan(op, schedule, layer.model, (layer.height, layer.width))
                    yield layer.candidate(schedule, tile, _cost(layer, plan, window, tile, op.input.type.shape[2:]))

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        yield at_most("filters", schedule.filters, min(op.result.type.shape[1], target.registers - 2))
        yield from tile_limits(op, schedule, target)

    def emit(self, site: HostSite) -> None:
        source, output, schedule = site.source, site.output, site.schedule
        plan = _plan(site.op, schedule, core_model(site.op, site.target), kernel_plane(site.op, schedule.row_parts))
        weight = read_dense_weight(site.op, site.state)
        array = weight.array.reshape(*weight.array.shape[:2], -1)
        order = "by_tap" if plan.depth.by_tap else "packed"
        array = array.swapaxes(1, 2) if plan.depth.by_tap else array
        packed = site.constant(pack_filters(array, schedule.filters), weight.origin, f"{order}{schedule.filters}")
        height, width = site.window.kernel
        layout = source.layout or Layout.packed(*source.shape[2:])
        taps = [first_of((0, y, x), site.window, layout) for y in range(height) for x in range(width)]
        places = site.constant(np.array(taps, np.int32), site.op.result, "taps")
        memory = site.memory.allocate(schedule.threads * sum(plan.sizes), site.element)

        def emit(kernel: Kernel, arguments: list[Any]) -> None:
            given, *memories, made, epilogue, tiles = arguments
            loops = Loops(kernel, made, epilogue, given)
            implicit_gemm_loops.ImplicitGemm.of_thread(loops, plan, memories, tiles).emit()

        given = [source, packed, places, memory, output, site.epilogue, site.of_call(site.tiles[1])]
        site.call(given, emit, [1.0] * plan.blocks)


def _plan(op: Any, schedule: Schedule, model: CoreModel, plane: tuple[int, int]) -> Plan:
    """Return how a layer is cut whose result the kernel sees as such a plane."""
    shapes = tuple(op.input.type.shape), (*op.result.type.shape[:2], *plane)
    return Plan.of(schedule, Window.of(op), shapes, model.registers, model.costs)


def _tiles(layer: TiledConvolution, lanes: int) -> Iterator[RegisterTile]:
    """Yield tiles of whole rows, and of halves and quarters of rows, of about the sizes that are worth a thought."""
    found = set()
    for pixels in _PIXELS:
        for part in (1, 2, 4):
            columns = ceil_div(layer.width, part)
            columns = min(
                layer.width, ceil_div(columns, 8) * 8 if part > 1 else columns, ceil_div(pixels, lanes) * lanes
            )
            rows = min(layer.height, max(1, pixels // columns))
            rows = ceil_div(layer.height, ceil_div(layer.height, rows))
            if rows * ceil_div(columns, lanes) <= _MOST_RUNS:
                found.add((rows, columns))
    for rows, columns in sorted(found):
        if tiling.cuts_no_vector(columns, layer.width, lanes):
            yield RegisterTile(rows, columns, tiling.strips(layer.width, columns, lanes))


def _cost(layer: TiledConvolution, plan: Plan, window: Window, tile: RegisterTile, size: tuple[int, int]) -> TileCost:
    """Return what a tile costs, for all filters."""
    model, costs, depth = layer.model, layer.model.costs, plan.depth
    block, lanes, products = plan.schedule.filters, plan.schedule.lanes, depth.channels * depth.taps
    cycles, picked = 0.0, layer.geometry.strides[1] if layer.geometry.gathered else 1
    seen = _seen(layer, plan, window, size) if depth.by_tap else 1.0
    for strip in tile.strips:
        columns = sum(chunk.valid for chunk in strip.chunks)
        cuts, multiplied, parked = plan.cuts(tile.rows * columns), 0.0, 0.0
        for _, vectors in cuts.firsts():
            multiply = block * vectors * model.vector_cycles(lanes)
            loads = (block + vectors) / costs.loads_per_cycle
            product = max(model.beside(multiply, loads), costs.fma_latency_cycles) + costs.panel_cycles
            multiplied += products * product
            parked += depth.ranges * (block * vectors * costs.parked_cycles + costs.mispredicted_cycles / 2)
        copied = products * plan.groups * len(runs(tile.rows, columns, cuts, lanes)) * costs.copied_cycles * picked
        stored = tile.rows * len(strip.chunks) * (costs.store_cycles + costs.parked_cycles)
        stored += layer.written_cycles(tile, strip)
        work = seen * (plan.blocks * (multiplied + parked) + copied) + plan.blocks * block * stored
        cycles += strip.count * work
    weights = 4.0 * products * plan.blocks * block
    streams = sum(strip.count for strip in tile.strips)
    if layer.is_far(weights):  # they are asked for in time
        cycles = math.hypot(cycles, seen * streams * weights / costs.stream_bytes_per_cycle)
    return TileCost(cycles, block * plan.vectors, "multiply-adds", streamed=plan.groups * layer.read_ahead(tile))


def _seen(layer: TiledConvolution, plan: Plan, window: Window, size: tuple[int, int]) -> float:
    """Return which part of all tiles and taps there is something to compute for."""
    found = 1.0
    starts = (range(0, layer.height, plan.schedule.rows), range(0, layer.width, plan.schedule.columns))
    extents = (plan.schedule.rows, plan.schedule.columns)
    for axis, first in enumerate(starts):
        offsets = np.arange(window.kernel[axis]) * window.dilations[axis] - window.pads[axis]
        low = np.array(first)[:, None] * window.strides[axis] + offsets
        high = low + (extents[axis] - 1) * window.strides[axis]
        found *= float(((low < size[axis]) & (high >= 0)).mean())
    return found
