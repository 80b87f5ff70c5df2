"""Convolutions of quantised planes with less than four channels; see `passes/kernels/host/window_words.py`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from patc.dialects.schedules import Schedule
from patc.integers import ceil_div
from patc.passes.algorithms.host.base import HostAlgorithm
from patc.passes.algorithms.host.dense_direct import BLOCKS, candidates_of_blocks
from patc.passes.algorithms.host.dots import (
    Products,
    are_small,
    dot_lanes,
    layer_of,
    narrowing_for,
    own_constant,
    sums_and_factors,
)
from patc.passes.algorithms.host.images import Reach
from patc.passes.algorithms.host.site import HostSite
from patc.passes.algorithms.host.tiles import RegisterTile, TileCost, TiledConvolution, tile_limits
from patc.passes.algorithms.limits import Limit, multiple_of
from patc.passes.algorithms.quantised import padded, padded_filters, residual_factor, unit_of
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.cost.geometry import Geometry
from patc.passes.formats.layer_weights import groups_of, require_array
from patc.passes.ir.constants import read_constant
from patc.passes.ir.elements import WORD
from patc.passes.ir.windows import Window
from patc.passes.kernels import tiling
from patc.passes.kernels.host import window_words
from patc.passes.kernels.host.dense_direct import DenseWeights
from patc.passes.kernels.host.dot_direct import Extras
from patc.passes.kernels.host.kernel import Kernel
from patc.passes.kernels.host.quantised import QuantisedLoops
from patc.passes.kernels.host.weights import pack_filters
from patc.passes.kernels.tiling import Strip
from patc.targets import Target

_MOST_WORDS = 128  # of a window: each has code of its own
_MADE = 7  # instructions for a vector of words


class WindowWords(HostAlgorithm):
    """Filters x outputs of a tile in registers, places in the lanes."""

    name: ClassVar[str] = "window-words"
    reaches: ClassVar[Reach] = Reach.NONE

    def applies(self, op: Any) -> bool:
        channels = op.input.type.shape[1]
        if groups_of(op) > 1 or channels >= WORD:
            return False
        words = window_words.WindowWords.of(Window.of(op), channels)
        return words.count <= _MOST_WORDS and words.count < words.places

    def filter_blocks(self, op: Any, schedule: Schedule) -> int:
        return 1

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        words, weight = (
            window_words.WindowWords.of(Window.of(op), op.input.type.shape[1]),
            read_constant(op.weight, state),
        )
        if weight is None:
            return
        products = Products.of(target, words.pack(weight), np.arange(words.count))
        plain = layer_of(op, target, threads, products.dots, products.instructions)
        geometry = Geometry((1, 1), (1, 1), 1, plain.width, words.count, int(plain.given) // words.count)
        layer = _Layer(**{**vars(plain), "geometry": geometry}, pipes=target.pipes)
        blocks = [size for size in BLOCKS if size <= padded_filters(op) and size % unit_of(op) == 0]
        yield from candidates_of_blocks(self.name, layer, (1, 1), blocks)

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        yield multiple_of("filters", schedule.filters, unit_of(op), padded_filters(op))
        yield dot_lanes(schedule, target)
        yield from tile_limits(op, schedule, target, schedule.filters)

    def emit(self, site: HostSite) -> None:
        op, schedule, filters = site.op, site.schedule, padded_filters(site.op)
        words = window_words.WindowWords.of(site.window, op.input.type.shape[1])
        weight = words.pack(require_array(op, op.weight, "weight", site.state))
        height, width = op.result.type.shape[2:]
        rows = min(schedule.rows, height)
        pitch = max(_pitch(strip) for strip in tiling.strips(width, schedule.columns, schedule.lanes))
        products = Products.of(site.target, padded(weight, filters), np.arange(words.count) * rows * pitch)
        packed = pack_filters(products.words, schedule.filters)
        values = own_constant(site, "windows", packed)
        small = are_small(site)
        sums, factors = sums_and_factors(site, filters, are_floats=small, lanes=products.dots.first_lanes)
        size = window_words.WindowDirect.memory_size(words, rows, pitch)
        memory = site.memory.allocate(schedule.threads * size, sums.type.element_type)
        residual, narrowing, epilogue, extras = (
            residual_factor(op),
            narrowing_for(site),
            site.epilogue_with(sums),
            products.stored(site),
        )

        def emit(kernel: Kernel, arguments: list[Any]) -> None:
            given, values, scale, memory, made, epilogue, *lists = arguments
            loops = QuantisedLoops(
                kernel, made, epilogue, given, products.dots, scale, residual, filters, False, small, narrowing
            )
            start = kernel.b.mul(kernel.thread(loops.row_tiles), size)
            window_words.WindowDirect(
                loops,
                words,
                pitch,
                DenseWeights(values, words.count, filters),
                Extras(*lists) if lists else None,
                ceil_div(filters, schedule.filters),
                memory,
                start,
            ).emit()

        site.call([site.source, values, factors, memory, site.output, epilogue, *extras], emit, [1.0])


def _pitch(strip: Strip) -> int:
    """Return the elements of a row of words."""
    return strip.chunks[-1].column + strip.chunks[-1].lanes


@dataclass(frozen=True)
class _Layer(TiledConvolution):
    """A convolution whose tiles have their words made first, once for all blocks of filters.

    Attributes:
        pipes: of the core.
    """

    pipes: int

    def candidate(self, schedule: Schedule, tile: RegisterTile, cost: TileCost) -> Candidate:
        vectors = tile.rows * sum(strip.count * len(strip.chunks) for strip in tile.strips)
        made = self.geometry.channels * vectors * _MADE / self.pipes
        return super().candidate(schedule, tile, replace(cost, cycles=cost.cycles + made / cost.repeats))
