"""Convolutions of packs; see `passes/kernels/host/pack_direct.py`."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from patc.dialects.attributes import Layout, PacksAttr
from patc.dialects.schedules import Schedule
from patc.integers import ceil_div
from patc.passes.algorithms.host.base import MOST_SUMS, HostAlgorithm
from patc.passes.algorithms.host.input_stationary import CACHE_PER_SUM
from patc.passes.algorithms.host.site import HostSite
from patc.passes.algorithms.host.tiles import RegisterTile, TileCost, TiledConvolution, core_model, tile_limits
from patc.passes.algorithms.limits import Limit, at_most, multiple_of
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.cost.geometry import Place
from patc.passes.formats.layer_weights import read_arrays
from patc.passes.formats.packs import PacksFormat
from patc.passes.formats.packs_by_part import by_part
from patc.passes.ir.planes import kernel_plane
from patc.passes.kernels import tiling
from patc.passes.kernels.host import pack_direct
from patc.passes.kernels.host.accumulators import longest_part
from patc.passes.kernels.host.kernel import Kernel
from patc.passes.kernels.host.loops import Loops, place_of
from patc.passes.kernels.host.pack_direct import PackedFilters
from patc.passes.kernels.tiling import Strip
from patc.targets import Target

_MOST_TOGETHER = 16  # vectors of filters that are computed together: as many multiply-adds are under way, and more


class PackDirect(HostAlgorithm):
    """Weights of a bundle's filters one by one, as often for each of them; accumulators of a tile stay in registers.

    Schedules have the filters of a block, whole bundles, and in `sums` the parts of the input channels, between which
    accumulators lie in a scratch array.
    """

    name: ClassVar[str] = "pack-direct"
    runs_in_bands: ClassVar[bool] = True
    skips_zeros: ClassVar[bool] = True

    def applies(self, op: Any) -> bool:
        if not isinstance(op.format, PacksAttr):
            return False
        products = math.prod(op.array("values").type.shape) / op.result.type.shape[1]
        # It cannot pick columns of the input, nor sum in parts.
        return Layout.of(op.input.type).phases == op.strides[1] and longest_part(op.result.type, products) is None

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        layer, packs = TiledConvolution.of(op, target, op.input.type.shape[1], threads), _Packs.of(op)
        costs, registers = layer.model.costs, layer.model.registers
        for tile in layer.tiles():
            # Beside the accumulators: a weight, for each vector length, and an input vector.
            if tile.vectors + tile.widths + 1 > registers and tile.vectors > 1:
                continue
            area = tile.vectors * layer.model.lanes
            most = max(packs.slots, costs.second_level_bytes // CACHE_PER_SUM // area)
            blocks = ceil_div(layer.filters, most)
            for filters in sorted({packs.block(layer.filters, parts) for parts in (blocks, 2 * blocks, 4 * blocks)}):
                for parts in _parts(layer, packs, tile):
                    schedule = Schedule(self.name, tile.rows, tile.columns, layer.model.lanes, filters, parts)
                    yield layer.candidate(schedule, tile, _cost(layer, packs, tile, schedule))

    def filter_blocks(self, op: Any, schedule: Schedule) -> int:
        return ceil_div(op.result.type.shape[1], schedule.filters)

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        packs = _Packs.of(op)
        yield multiple_of("filters", schedule.filters, packs.slots, packs.bundles * packs.slots)
        yield at_most("sums", schedule.sums, packs.tiles)
        yield from tile_limits(op, schedule, target)

    def emit(self, site: HostSite) -> None:
        op, schedule, source = site.op, site.schedule, site.source
        read = read_arrays(op, site.state)
        stored, (values, _, counts, reorder) = PacksFormat.from_attr(op.format), read
        slots, taps, (height, width) = values.shape[1], _Packs.of(op).taps, kernel_plane(op, schedule.row_parts)
        vectors = min(schedule.rows, height) * tiling.vectors(min(schedule.columns, width), schedule.lanes)
        together = _together(slots, len(reorder), vectors, core_model(op, site.target).registers)
        packs = by_part(read, len(taps), schedule.sums, together)
        layout = source.layout or Layout.packed(*source.shape[2:])
        places = np.array([place_of(tap, 0, site.window, layout) for tap in taps])
        firsts = places[:, None] + stored.first_columns(op.input.type.shape[1]) * layout.plane
        starts = firsts.ravel()[packs.tiles].astype(np.int32)
        cut = f"{schedule.sums}.{together}"
        # Of layers that share their weights, those that read them alike share their starts too.
        given = {
            f"values{cut}": packs.values,
            f"index{cut}": packs.index,
            f"starts{zlib.crc32(starts.tobytes()):x}": starts,
            f"offset{cut}": packs.offset,
            "reorder": reorder,
        }
        arrays = [site.constant(array, op.array("values"), role) for role, array in given.items()]

        def emit(kernel: Kernel, arguments: list[Any]) -> None:
            given, *arrays, made, epilogue = arguments
            weights = PackedFilters(slots, together, schedule.sums, *arrays)
            pack_direct.PackDirect.of(Loops(kernel, made, epilogue, given), weights, vectors).emit()

        by_bundle = counts.sum(1, dtype=np.float64) + schedule.sums
        group = schedule.filters // slots
        costs = [float(by_bundle[first : first + group].sum()) for first in range(0, len(counts), group)]
        site.call([source, *arrays, site.output, site.epilogue], emit, costs, any_part=True)


@dataclass(frozen=True)
class _Packs:
    """The packs of a layer: how many there are, filters of a bundle, bundles, tiles of a tap, and taps."""

    count: int
    slots: int
    bundles: int
    tiles: int
    taps: tuple[Place, ...]

    @staticmethod
    def of(op: Any) -> _Packs:
        (count, slots), (bundles, tiles) = op.array("values").type.shape, op.array("counts").type.shape
        height, width = op.format.kernel_size()
        taps = tuple((0, y, x) for y in range(height) for x in range(width))
        return _Packs(count, slots, bundles, tiles // len(taps), taps)

    def read(self, layer: TiledConvolution, tile: RegisterTile) -> list[Place]:
        """Return places as far from the beginning of a line as what the taps read; loads at places of weights' own are
        not made of others."""
        geometry, lanes = layer.geometry, layer.model.lanes
        columns = tile.columns >= layer.width or tile.columns % lanes == 0
        rows = layer.height == 1 or geometry.pitch % lanes == 0
        are_aligned = columns and rows and geometry.plane_bytes % layer.model.costs.line_bytes == 0
        return [(0, y, 0 if are_aligned and x == 0 else 2 * geometry.phases) for _, y, x in self.taps]

    def block(self, filters: int, blocks: int) -> int:
        """Return the filters of so many blocks, or more, of whole bundles."""
        return ceil_div(ceil_div(filters, blocks), self.slots) * self.slots


def _together(slots: int, filters: int, vectors: int, registers: int) -> int:
    """Return how many filters are computed together on tiles of so many vectors."""
    most = min(_MOST_TOGETHER, registers - 4) // vectors
    return next(count for count in (4, 2, 1) if count == 1 or (count <= most and math.gcd(slots, filters) % count == 0))


def _parts(layer: TiledConvolution, packs: _Packs, tile: RegisterTile) -> list[int]:
    """Return into how many parts channels may be cut: one, and so many that the inputs of one stay in the first-level
    cache."""
    size = max(_bytes(layer, packs, tile, strip) for strip in tile.strips)
    parts = math.ceil(size / layer.model.costs.first_level_bytes)
    return sorted({1, min(packs.tiles, MOST_SUMS, parts)})


def _bytes(layer: TiledConvolution, packs: _Packs, tile: RegisterTile, strip: Strip) -> float:
    """Return the bytes of the cache lines that a tile reads."""
    costs, geometry = layer.model.costs, layer.geometry
    lines = geometry.lines(geometry.needed(packs.taps, tile.rows), strip.chunks, costs.line_bytes)
    return lines * costs.line_bytes * geometry.channels


def _cost(layer: TiledConvolution, packs: _Packs, tile: RegisterTile, schedule: Schedule) -> TileCost:
    """Return what a tile costs."""
    model, costs, parts, rows = layer.model, layer.model.costs, schedule.sums, tile.rows
    together = _together(packs.slots, layer.filters, tile.vectors, model.registers)
    groups, blocks = parts * layer.filters / together, ceil_div(layer.filters, schedule.filters)
    near = replace(layer.geometry, channels=1)
    cycles = kept = 0.0
    bound = ""
    for strip in tile.strips:
        given = _bytes(layer, packs, tile, strip)
        taps = packs.read(layer, tile)
        found = [model.sparse_kernel_cost((tap,), rows, strip.chunks * together, 1, near) for tap in taps]
        weights = together / costs.loads_per_cycle
        turn, bound = sum(cost.cycles for cost in found) / len(taps) + weights, found[0].bound
        if given / parts > costs.first_level_bytes:
            read = near.lines(near.needed(taps[:1], rows), strip.chunks, costs.line_bytes)
            far = together * read * costs.line_cycles
            turn, bound = math.hypot(turn, far), "second-level cache" if far > turn else bound
        products = packs.count * packs.slots / together * turn
        loops = groups * model.loop_cycles(products / groups)
        vectors = rows * len(strip.chunks)
        stores = layer.filters * (vectors * costs.store_cycles + layer.written_cycles(tile, strip))
        distant = model.distant_cycles(packs.taps, rows, strip.chunks, layer.geometry, prefetched=False)
        cycles += strip.count * (products + loops + stores + distant)
        kept += strip.count * products
        if parts > 1:
            inputs = blocks * given / costs.line_bytes * costs.line_cycles * costs.streamed_lines
            cycles += strip.count * (inputs + layer.filters * (parts + 1) * vectors * costs.parked_cycles)
    return TileCost(cycles, together, bound, kept=kept)
