"""Convolutions of quantised planes with few weights; see `passes/kernels/host/block_words.py`."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from patc.dialects.schedules import Schedule
from patc.integers import ceil_div
from patc.passes.algorithms.host.base import HostAlgorithm
from patc.passes.algorithms.host.dots import (
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
from patc.passes.algorithms.limits import Limit, at_most, multiple_of
from patc.passes.algorithms.quantised import padded_filters, residual_factor
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.cost.core import CoreModel
from patc.passes.formats.layer_weights import groups_of, require_array
from patc.passes.ir.constants import read_constant
from patc.passes.ir.elements import WORD
from patc.passes.ir.windows import Window
from patc.passes.kernels.dots import SMALL, Dots, dots_of
from patc.passes.kernels.host.block_words import LARGEST_PLACE, Cover, Entries, Words, entries_of_a_turn
from patc.passes.kernels.host.block_words import BlockWords as Kernels
from patc.passes.kernels.host.kernel import Kernel
from patc.passes.kernels.host.quantised import QuantisedLoops
from patc.passes.kernels.tiling import Strip
from patc.targets import Target

_MOST_KEPT = 0.5  # of the weights: beyond it, dense loops multiply less
# Registers, by entries that are loaded together: a vector and the next one, to be shifted, and weights; or two vectors
# and the weights of two entries.
_BESIDE = {1: 6, 2: 4}
_EXPANSION = 18  # instructions for four vectors of words


class BlockWords(HostAlgorithm):
    """Sums of a tile in registers, for one filter after the other; `schedule.filters` are the channels of a block,
    whose words are in memory together."""

    name: ClassVar[str] = "block-words"
    reaches: ClassVar[Reach] = Reach.NONE
    skips_zeros: ClassVar[bool] = True

    def applies(self, op: Any) -> bool:
        return groups_of(op) == 1 and list(op.dilations) == [1, 1] and min(op.kernel_size) > 1

    def filter_blocks(self, op: Any, schedule: Schedule) -> int:
        return 1

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        weight = read_constant(op.weight, state)
        if weight is None or np.count_nonzero(weight) > _MOST_KEPT * weight.size:
            return
        dots, cover = products_of(target, weight)
        layer = layer_of(op, target, threads, dots)
        costs = _Costs(target, cover, padded_filters(op), dots)
        channels, model, largest = op.weight.type.shape[1], layer.model, _largest(dots)
        for tile in layer.tiles():
            columns = min(tile.columns, layer.width)
            one = Words(Window.of(op), tile.rows, columns, model.lanes, WORD, target.cheap_shift)
            for block in _blocks(one, channels, model):
                words = replace(one, channels=block)
                if words.size > largest:
                    continue
                vectors = words.vectors * tile.widest
                for sets in (1, 2, 4):
                    fills = sets == 1 or vectors * sets // 2 < model.costs.sums_in_flight
                    if fills and vectors * sets + _BESIDE[dots.words_at_once] <= model.registers:
                        schedule = Schedule(self.name, tile.rows, tile.columns, model.lanes, block, sets)
                        yield layer.candidate(schedule, tile, costs.of(layer, tile, words, sets))

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        yield multiple_of("filters", schedule.filters, WORD)
        yield at_most("words of a block", _words(op, schedule, target).size, _largest(dots_of(target)))
        yield dot_lanes(schedule, target)
        yield from tile_limits(op, schedule, target, schedule.sums)

    def emit(self, site: HostSite) -> None:
        op, filters, schedule = site.op, padded_filters(site.op), site.schedule
        weight = require_array(op, op.weight, "weight", site.state)
        words = _words(op, schedule, site.target)
        blocks = ceil_div(weight.shape[1], words.channels)
        dots, cover = products_of(site.target, weight)
        at_once = dots.words_at_once
        arrays = cover.entries(words, filters, weight.shape[1], schedule.sums, at_once, dots.together)
        pairs, ends = (own_constant(site, *each) for each in zip(("entries", "ends"), arrays, strict=True))
        small = are_small(site)
        sums, factors = sums_and_factors(site, filters, are_floats=small)
        size = Kernels.memory_size(words, filters, blocks)
        memory = site.memory.allocate(schedule.threads * size, sums.type.element_type)
        residual, narrowing, epilogue = residual_factor(op), narrowing_for(site), site.epilogue_with(sums)

        def emit(kernel: Kernel, arguments: list[Any]) -> None:
            given, pairs, ends, scale, memory, made, epilogue = arguments
            loops = QuantisedLoops(
                kernel, made, epilogue, given, dots, scale, residual, filters, False, small, narrowing
            )
            start = kernel.b.mul(kernel.thread(loops.row_tiles), size)
            Kernels(loops, words, blocks, memory, start, Entries(pairs, ends, at_once)).emit()

        site.call([site.source, pairs, ends, factors, memory, site.output, epilogue], emit, [1.0])


def _words(op: Any, schedule: Schedule, target: Target) -> Words:
    """Return the words of a tile."""
    height, width = op.result.type.shape[2:]
    rows, columns = min(schedule.rows, height), min(schedule.columns, width)
    channels = min(schedule.filters, ceil_div(op.weight.type.shape[1], WORD) * WORD)
    return Words(Window.of(op), rows, columns, schedule.lanes, channels, target.cheap_shift)


def products_of(target: Target, weight: np.ndarray) -> tuple[Dots, Cover]:
    """Return how products are made, and the blocks that cover weights, small ones where that is faster."""
    dots, cover = dots_of(target), Cover.of(weight)
    if dots.of_small_weights is None:
        return dots, cover
    dots, cover = dots.of_small_weights, cover.split(SMALL)
    pairs = dots.of_partners
    if pairs is not None and cover.slots(len(weight)) * pairs.instructions < len(cover.weights) * dots.instructions:
        return pairs, cover
    return dots, cover


def _largest(dots: Dots) -> int:
    """Return how many words of a block may have a place in an entry."""
    return sys.maxsize if dots.words_at_once == 1 else LARGEST_PLACE


def _blocks(one: Words, channels: int, model: CoreModel) -> list[int]:
    """Return how many channels the words of a block may be of: all, and those that fill the first-level cache or a part
    of it.

    Args:
        one: words of four channels.
    """
    found = {ceil_div(channels, WORD) * WORD}
    for size in (_first_level(model) / part for part in (1.0, 1.5, 2.0)):
        blocks = ceil_div(channels, max(1, int(size / (WORD * 4 * one.plane))) * WORD)
        found.add(ceil_div(ceil_div(channels, blocks), WORD) * WORD)
    return sorted(found)


def _first_level(model: CoreModel) -> int:
    """Return the bytes of the first-level cache."""
    return model.costs.first_level_ways * model.costs.way_bytes


class _Costs:
    """What tiles of a layer cost.

    Args:
        cover: of its weights.
        filters: that are computed.
        dots: how products are made.
    """

    def __init__(self, target: Target, cover: Cover, filters: int, dots: Dots) -> None:
        self._target, self._cover, self._filters, self._products = target, cover, filters, dots
        self._counts: dict[tuple[int, int], np.ndarray] = {}

    def of(self, layer: TiledConvolution, tile: RegisterTile, words: Words, sets: int) -> TileCost:
        """Return the cost of a row of tiles, with so many sets of sums."""
        dots = sum(strip.count * self._dots(layer.model, words, len(strip.chunks), sets) for strip in tile.strips)
        other = sum(strip.count * self._others(layer, words, strip) for strip in tile.strips)
        written = sum(strip.count * layer.written_cycles(tile, strip) for strip in tile.strips) * layer.filters
        return TileCost(dots + other + written, words.vectors, "multiply-adds", kept=dots)

    def _dots(self, model: CoreModel, words: Words, columns: int, sets: int) -> float:
        """Return the cycles of the products of all entries of a tile."""
        costs, vectors, own = model.costs, words.vectors * columns, self._products
        entries = entries_of_a_turn(sets, own.words_at_once, own.together)
        multiply, total = entries * vectors * model.vector_cycles(model.lanes), 0.0
        missing = max(0.0, 1.0 - _first_level(model) / (4.0 * words.size))
        turns = -(-self._count(words) // entries)
        latency = costs.fma_latency_cycles * entries / sets / own.together
        for shift in range(words.loops):
            is_shifted = words.are_shifted and shift == 1
            # Neighbouring vectors share one of the two that they are shifted from.
            apart = 1 if words.pitch == columns * words.lanes else words.vectors
            loaded = vectors + apart if is_shifted else vectors
            beside = 2 / own.words_at_once / costs.loads_per_cycle  # places and weights
            loads = entries * (loaded * model.load_cycles(model.lanes, words.are_shifted and shift <= 1) + beside)
            shifts = entries * vectors * costs.wide_shift_cycles if is_shifted else 0.0
            work = max(model.beside(multiply + shifts, loads), latency) + costs.kernel_cycles
            turn = math.hypot(work, entries * vectors * missing * costs.line_cycles)
            lengths, loops = np.unique(turns[:, shift], return_counts=True)
            pairs = zip(lengths.tolist(), loops.tolist(), strict=True)
            total += sum(count * (model.loop_cycles(work * length) + turn * length) for length, count in pairs)
        return total

    def _others(self, layer: TiledConvolution, words: Words, strip: Strip) -> float:
        """Return the cycles of words, of sums that wait between blocks, and of the ends of a tile."""
        model, vectors = layer.model, words.vectors * len(strip.chunks)
        blocks = len(self._count(words)) // self._filters
        made = words.parities[0] * words.parities[1] * words.depth * ceil_div(strip.columns + words.shifts, words.lanes)
        expansion = blocks * words.channels * made * words.packed * _EXPANSION / WORD / self._target.pipes
        waits = (blocks - 1) * vectors * (1.0 + model.costs.line_cycles) / 2
        return expansion + self._filters * (waits + vectors * model.costs.store_cycles)

    def _count(self, words: Words) -> np.ndarray:
        """Return the entries of each block of channels and filter, by loops."""
        key = words.channels, words.loops
        if key not in self._counts:
            channels = int(self._cover.channels.max(initial=0)) + 1
            counts = self._cover.counts(words, self._filters, channels)
            self._counts[key] = counts.reshape(-1, words.loops)
        return self._counts[key]
