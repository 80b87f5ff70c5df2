"""Tap-direct sparse convolution: bands of one filter; see `passes/kernels/host/band_direct.py`."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from patc.dialects.attributes import FkwAttr, Layout, Library
from patc.dialects.schedules import Schedule
from patc.passes.algorithms.host.base import HostAlgorithm
from patc.passes.algorithms.host.patterns import Patterns
from patc.passes.algorithms.host.site import HostSite
from patc.passes.algorithms.host.tiles import RegisterTile, TileCost, TiledConvolution, tile_limits
from patc.passes.algorithms.limits import Limit, one_of
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.formats.fkw import Fkw
from patc.passes.formats.layer_weights import groups_of, read_fkw
from patc.passes.ir.constants import read_constant
from patc.passes.kernels.host.accumulators import longest_part
from patc.passes.kernels.host.band_direct import BandDirect, BandWeights
from patc.passes.kernels.host.kernel import Kernel
from patc.passes.kernels.host.loops import Loops, place_of
from patc.targets import Target


class TapDirect(HostAlgorithm):
    """Kept weights one by one, where a kernel has one, spans channels alone, or is all of its filter."""

    name: ClassVar[str] = "tap-direct"
    runs_in_bands: ClassVar[bool] = True
    skips_zeros: ClassVar[bool] = True

    def applies(self, op: Any) -> bool:
        if not isinstance(op.format, FkwAttr):
            return False
        library = Library.from_attr(op.format)
        if library.entries > 1 and library.kernel != (1, 1) and groups_of(op) == 1:
            return False
        products = math.prod(op.array("values").type.shape) / op.result.type.shape[1]
        is_split = Layout.of(op.input.type).phases == op.strides[1]
        return is_split and longest_part(op.result.type, products) is None  # it cannot pick columns, nor sum in parts

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        layer, patterns = TiledConvolution.of(op, target, op.input.type.shape[1], threads), Patterns.of(op, state)
        values = read_constant(op.array("values"), state)
        kept = 1.0 if values is None else np.count_nonzero(values) / max(1, values.size)
        for tile in layer.tiles():
            # Beside the accumulators: a weight, for each vector length, and an input vector.
            if tile.vectors + tile.widths + 1 <= layer.model.registers or tile.vectors == 1:
                schedule = Schedule(self.name, tile.rows, tile.columns, layer.model.lanes)
                yield layer.candidate(schedule, tile, _cost(layer, patterns, tile, kept))

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        yield one_of("filters", schedule.filters, [1])
        yield from tile_limits(op, schedule, target)

    def emit(self, site: HostSite) -> None:
        op, source, output = site.op, site.source, site.output
        arrays = _scatter(read_fkw(op, site.state), Library.from_attr(op.format), site)
        origin, filters_first = op.array("values"), groups_of(op) == op.input.type.shape[1]
        # Of layers that share their weights, those that read them alike share their order and places too.
        read = f"{zlib.crc32(arrays[1].tobytes()):x}"
        roles = f"kept{read}", f"places{read}", "starts", "reorder"
        weights = [site.constant(array, origin, role) for array, role in zip(arrays, roles, strict=True)]

        def emit(kernel: Kernel, arguments: list[Any]) -> None:
            given, *arrays, made, epilogue = arguments
            loops = Loops(kernel, made, epilogue, given)
            BandDirect(loops, BandWeights(1, *arrays), filters_first).emit()

        site.call([source, *weights, output, site.epilogue], emit, list(np.diff(arrays[2]) + 1.0), any_part=True)


def _scatter(fkw: Fkw, library: Library, site: HostSite) -> tuple[np.ndarray, ...]:
    """Return the weights that are not zero, the places that they read, the first one of each stored filter, and each
    one's output channel."""
    layout = site.source.layout or Layout.packed(*site.source.shape[2:])
    patterns = [library.places(number) for number in range(len(library.masks))]
    taps = np.array([[place_of(tap, 0, site.window, layout) for tap in pattern] for pattern in patterns])
    owner, pattern = fkw.owners()
    places = taps[pattern] + fkw.index.astype(np.int64)[:, None] * layout.plane
    kept = fkw.values != 0
    owners = np.broadcast_to(owner[:, None], kept.shape)[kept]
    order = np.lexsort((places[kept], owners))
    offset = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=len(fkw.reorder)))])
    return fkw.values[kept][order], places[kept][order].astype(np.int32), offset.astype(np.int32), fkw.reorder


def _cost(layer: TiledConvolution, patterns: Patterns, tile: RegisterTile, share: float) -> TileCost:
    """Return what a tile costs; `share` of the stored weights are not zero."""
    model, geometry, rows = layer.model, layer.geometry, tile.rows
    cycles = kept = 0.0
    bound = ""
    for strip in tile.strips:
        weights = 0.0
        for taps, count in zip(patterns.taps, patterns.counts, strict=True):
            costs = [model.sparse_kernel_cost((tap,), rows, strip.chunks, 1, geometry) for tap in taps]
            weights, bound = weights + share * count * sum(cost.cycles for cost in costs), costs[0].bound
        loops = model.loop_cycles(weights / layer.filters)
        stores = rows * len(strip.chunks) * model.costs.store_cycles + layer.written_cycles(tile, strip)
        distant = model.distant_cycles(patterns.places, rows, strip.chunks, geometry, prefetched=False)
        cycles += strip.count * (weights + layer.filters * (loops + stores) + distant)
        kept += strip.count * weights
    return TileCost(cycles, 1, bound, kept=kept)
