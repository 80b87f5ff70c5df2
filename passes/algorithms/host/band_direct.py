"""Convolutions of bands; see `passes/kernels/host/band_direct.py`."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from patc.dialects.attributes import BandsAttr, Layout
from patc.dialects.schedules import Schedule
from patc.integers import ceil_div
from patc.passes.algorithms.host.base import HostAlgorithm
from patc.passes.algorithms.host.site import HostSite
from patc.passes.algorithms.host.tiles import RegisterTile, TileCost, TiledConvolution, tile_limits
from patc.passes.algorithms.limits import Limit, divisor_of
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.formats.layer_weights import read_arrays
from patc.passes.kernels.host.accumulators import longest_part
from patc.passes.kernels.host.band_direct import BandDirect as Kernels
from patc.passes.kernels.host.band_direct import BandWeights
from patc.passes.kernels.host.kernel import Kernel
from patc.passes.kernels.host.loops import Loops, place_of
from patc.targets import Target


class BandDirect(HostAlgorithm):
    """Columns of neighbouring filters, whose inputs are loaded once for all of them."""

    name: ClassVar[str] = "band-direct"
    runs_in_bands: ClassVar[bool] = True
    skips_zeros: ClassVar[bool] = True

    def applies(self, op: Any) -> bool:
        if not isinstance(op.format, BandsAttr):
            return False
        columns, rows = op.array("values").type.shape
        is_split = Layout.of(op.input.type).phases == op.strides[1]
        # It cannot pick columns of the input, nor sum in parts.
        return is_split and longest_part(op.result.type, columns * rows / op.result.type.shape[1]) is None

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        layer = TiledConvolution.of(op, target, op.input.type.shape[1], threads)
        columns, rows = op.array("values").type.shape
        for block in (count for count in (16, 8, 4, 2, 1) if rows % count == 0):
            for tile in layer.tiles():
                # Beside the accumulators: the input vectors, and a weight for each vector length.
                used = block * tile.vectors + tile.vectors + tile.widths
                if used <= layer.model.registers or block * tile.vectors == 1:
                    schedule = Schedule(self.name, tile.rows, tile.columns, layer.model.lanes, block)
                    yield layer.candidate(schedule, tile, _cost(layer, tile, (block, rows, columns)))

    def filter_blocks(self, op: Any, schedule: Schedule) -> int:
        return int(op.result.type.shape[1]) // schedule.filters

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        yield divisor_of("filters", schedule.filters, op.array("values").type.shape[1])
        yield from tile_limits(op, schedule, target, schedule.filters)

    def emit(self, site: HostSite) -> None:
        op, block = site.op, site.schedule.filters
        values, index, offset, reorder = read_arrays(op, site.state)
        layout, (height, width) = site.source.layout or Layout.packed(*site.source.shape[2:]), op.format.kernel_size()
        taps = np.array([place_of((0, y, x), 0, site.window, layout) for y in range(height) for x in range(width)])
        channels, tap = np.divmod(index.astype(np.int64), height * width)
        places = (taps[tap] + channels * layout.plane).astype(np.int32)
        # Of layers that share their weights, those that read them alike share their places too.
        roles = "columns", f"places{zlib.crc32(places.tobytes()):x}", "starts", "reorder"
        arrays = zip((values, places, offset, reorder), roles, strict=True)
        weights = [site.constant(array, op.array("values"), role) for array, role in arrays]

        def emit(kernel: Kernel, arguments: list[Any]) -> None:
            given, *stored, made, epilogue = arguments
            Kernels(Loops(kernel, made, epilogue, given), BandWeights(values.shape[1], *stored)).emit()

        costs = np.repeat(np.diff(offset) + 1.0, values.shape[1] // block)
        site.call([site.source, *weights, site.output, site.epilogue], emit, list(costs))


def _cost(layer: TiledConvolution, tile: RegisterTile, sizes: tuple[int, int, int]) -> TileCost:
    """Return what a tile costs.

    Args:
        sizes: filters that share inputs, filters of a band, columns of all bands.
    """
    model, (block, rows, columns) = layer.model, sizes
    cycles = kept = 0.0
    turns = columns * rows / block
    for strip in tile.strips:
        lanes = [chunk.lanes for chunk in strip.chunks] * tile.rows
        multiplied = block * sum(model.vector_cycles(count) for count in lanes)
        loaded = sum(model.load_cycles(count, aligned=False) for count in lanes) + block / model.costs.loads_per_cycle
        products = turns * (model.beside(multiplied, loaded) + 1.0)
        loops = layer.filters / block * model.loop_cycles(columns / layer.filters * rows)
        stores = layer.filters * (len(lanes) * model.costs.store_cycles + layer.written_cycles(tile, strip))
        cycles += strip.count * (products + loops + stores)
        kept += strip.count * products
    blocks = ceil_div(layer.filters, block)
    streamed = layer.streamed(tile, 4.0 * columns * rows, blocks, False, cycles / blocks)
    return TileCost(cycles, block, "arithmetic", kept=kept, streamed=streamed)
