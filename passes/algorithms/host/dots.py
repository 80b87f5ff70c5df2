"""Layers with dense weights on quantised activations: the loops of floats, with dot products of words for products.

A word is the same place of four channels, so that a layer has a quarter of its channels.
"""

from __future__ import annotations

import abc
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from torch_mlir import ir

from patc.dialects.attributes import Activation, Layout
from patc.dialects.quantised import Quantisation
from patc.dialects.schedules import Schedule
from patc.integers import ceil_div
from patc.passes.algorithms.host.base import HostAlgorithm
from patc.passes.algorithms.host.dense_direct import BLOCKS, candidates_of_blocks
from patc.passes.algorithms.host.filter_lanes import LEAST_LANES, MOST_TAPS, candidates_of_vectors, filter_limits
from patc.passes.algorithms.host.images import Reach
from patc.passes.algorithms.host.site import HostSite
from patc.passes.algorithms.host.tiles import TiledConvolution, core_model, memory_bound, register_limit, tile_limits
from patc.passes.algorithms.limits import Limit, block_of, multiple_of, power_of_two
from patc.passes.algorithms.quantised import (
    as_words,
    first_sums,
    has_whole_words,
    own_role,
    padded,
    padded_filters,
    residual_factor,
    unit_of,
    word_groups,
    words_of,
    words_read,
)
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.formats.layer_weights import require_array
from patc.passes.ir.constants import read_constant
from patc.passes.ir.elements import WORD
from patc.passes.ir.quantised import largest_sums, only_limits, sum_factors
from patc.passes.kernels.dots import Dots, dots_of
from patc.passes.kernels.host import dot_direct, dot_rows, filter_lanes
from patc.passes.kernels.host.dense_direct import DenseWeights
from patc.passes.kernels.host.dot_direct import Extras
from patc.passes.kernels.host.kernel import Kernel
from patc.passes.kernels.host.loops import Loops, place_of
from patc.passes.kernels.host.quantised import QuantisedLoops
from patc.passes.kernels.host.weights import pack_filters
from patc.passes.kernels.host.words import EXACT_SUMS, NARROW, ROUNDING
from patc.passes.kernels.narrowing import Narrowing, narrowing_of
from patc.passes.kernels.tiling import NARROWEST
from patc.targets import Target

_ROUNDED = 5  # vector instructions that make a vector of sums a quarter of a vector of words


class DotConvolution(HostAlgorithm):
    """What these convolutions have in common.

    Attributes:
        filters_are_lanes: whether the lanes of sums are filters, or places.
        role: of the words of weights, which say how they are made.
    """

    filters_are_lanes: ClassVar[bool]
    role: ClassVar[str] = "words"
    reaches: ClassVar[Reach] = Reach.NONE

    def applies(self, op: Any) -> bool:
        return has_whole_words(op)

    def filter_blocks(self, op: Any, schedule: Schedule) -> int:
        return ceil_div(padded_filters(op), schedule.filters)

    def emit(self, site: HostSite) -> None:
        op, block = site.op, site.schedule.filters
        filters, groups = padded_filters(op), word_groups(op)
        words = padded(self.words(op, require_array(op, op.weight, "weight", site.state)), filters)
        products = Products.of(site.target, words, self._places(site, words.shape[1:]))
        kind = self.role if products.words is words else f"{self.role}.small"
        values = site.constant(pack_filters(products.words, block), op.weight, f"{kind}{block}")
        small = are_small(site)
        lanes = 1 if self.filters_are_lanes else products.dots.first_lanes
        sums, factors = sums_and_factors(site, filters, are_floats=small, lanes=lanes)
        residual, narrowing = residual_factor(op), narrowing_for(site)
        epilogue, dots, extras = site.epilogue_with(sums), products.dots, products.stored(site)

        def emit(kernel: Kernel, arguments: list[Any]) -> None:
            given, weights, scale, made, epilogue, *lists = arguments
            loops = QuantisedLoops(
                kernel, made, epilogue, given, dots, scale, residual, filters, self.filters_are_lanes, small, narrowing
            )
            dense = DenseWeights(weights, words.shape[1], filters // groups)
            self.write(loops, dense, Extras(*lists) if lists else None)

        parts = [1.0] * ceil_div(filters, block)
        site.call([site.source, values, factors, site.output, epilogue, *extras], emit, parts, any_part=True)

    def words(self, op: Any, weight: np.ndarray) -> np.ndarray:
        """Return the weights of a layer as F x words x KH x ... of i32."""
        return words_of(op, weight)

    def _places(self, site: HostSite, shape: tuple[int, ...]) -> np.ndarray | None:
        """Return where the words of a filter, channels x height x width, meet the input, counted from a tile's base;
        None where a constant does not say it, or the loops have no use for it."""
        return None

    @abc.abstractmethod
    def write(self, loops: QuantisedLoops, weights: DenseWeights, extras: Extras | None) -> None:
        """Write the kernel."""


class DotDirect(DotConvolution):
    """Filters x outputs of a tile in registers, places in the lanes."""

    name: ClassVar[str] = "dot-direct"
    filters_are_lanes = False

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        groups, filters = word_groups(op), padded_filters(op)
        weight, can_split = read_constant(op.weight, state), Layout.of(op.input.type).phases == op.strides[1]
        words = np.zeros((1, 1), np.int32) if weight is None else self.words(op, weight)
        products = Products.of(target, words, np.zeros(words.shape[1:], int) if can_split else None)
        layer, group, unit = (
            layer_of(op, target, threads, products.dots, products.instructions),
            filters // groups,
            unit_of(op),
        )
        blocks = [size for size in BLOCKS if size <= group and size % unit == 0 and (groups == 1 or group % size == 0)]
        yield from candidates_of_blocks(self.name, layer, op.kernel_size, blocks, QuantisedLoops.most_taps)

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        filters, groups = padded_filters(op), word_groups(op)
        yield block_of("filters", schedule.filters, filters, groups)
        yield multiple_of("filters", schedule.filters, unit_of(op), filters)
        yield dot_lanes(schedule, target)
        yield from tile_limits(op, schedule, target, schedule.filters)

    def _places(self, site: HostSite, shape: tuple[int, ...]) -> np.ndarray | None:
        layout, window = site.source.layout or Layout.packed(*site.source.shape[2:]), site.window
        if layout.phases != window.strides[1]:
            return None
        places = [place_of(tap, 0, window, layout) for tap in np.ndindex(*shape)]
        return np.array(places).reshape(shape)

    def write(self, loops: QuantisedLoops, weights: DenseWeights, extras: Extras | None) -> None:
        dot_direct.DotDirect(loops, weights, extras).emit()


class DotLanes(DotConvolution):
    """Outputs of a tile in registers, filters in the lanes."""

    name: ClassVar[str] = "dot-lanes"
    filters_are_lanes = True

    def applies(self, op: Any) -> bool:
        if not super().applies(op) or math.prod(op.kernel_size) > MOST_TAPS:
            return False
        fills_a_vector = padded_filters(op) // word_groups(op) >= LEAST_LANES
        return fills_a_vector and op.strides[1] % Layout.of(op.input.type).phases == 0

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        layer = layer_of(op, target, threads)
        yield from candidates_of_vectors(self.name, layer, op.kernel_size, (padded_filters(op), word_groups(op)))

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        yield dot_lanes(schedule, target, 2)
        yield from filter_limits(op, schedule, target, padded_filters(op), word_groups(op))

    def write(self, loops: QuantisedLoops, weights: DenseWeights, extras: Extras | None) -> None:
        filter_lanes.FilterLanes.of(loops, weights).emit()


def dot_lanes(schedule: Schedule, target: Target, parts: int = 1) -> Limit:
    """Return the limit of lanes, so many parts of those of dot products, for which there are instructions."""
    return power_of_two("lanes", schedule.lanes, NARROWEST // parts, target.lanes // parts)


@dataclass(frozen=True)
class Products:
    """How the products of a layer are made.

    Attributes:
        words: F x ... of i32 that all filters go through.
        extras: pairs and ends of those that a filter goes through alone, see `Extras`; None where there are none.
    """

    dots: Dots
    words: np.ndarray
    extras: tuple[np.ndarray, np.ndarray] | None = None

    @staticmethod
    def of(target: Target, words: np.ndarray, places: np.ndarray | None) -> Products:
        """Return the fastest way for a layer's words, F x ...

        Args:
            places: where the words of a filter meet the input; None if these cannot be gone through alone.
        """
        dots = dots_of(target)
        small = dots.of_small_weights
        if small is None:
            return Products(dots, words)
        first, pairs, ends = Extras.of(words, np.zeros(words.shape[1:], int) if places is None else places)
        if not ends[-1]:
            return Products(small, words)
        made = Products(small, first, (pairs, ends))
        return Products(dots, words) if places is None or made.instructions > dots.instructions else made

    @property
    def instructions(self) -> float:
        """Of a product of words that all filters go through, extras included; see `Dots`."""
        more = 0.0 if self.extras is None else self.extras[1][-1] / self.words.size
        return self.dots.instructions * (1.0 + more)

    def stored(self, site: HostSite) -> list[ir.Value]:
        """Return the extras in memory."""
        return [own_constant(site, *each) for each in zip(("pairs", "ends"), self.extras or (), strict=False)]


@functools.lru_cache(maxsize=64)
def with_dots(target: Target, dots: Dots, instructions: float | None = None) -> Target:
    """Return a CPU as cost models see it whose multiply-adds are dot products of words, and whose sums are rounded.

    Args:
        instructions: of a product; None for those of `dots`.
    """
    costs = target.core_costs()
    latency = dots.latency_cycles or costs.fma_latency_cycles
    stores = costs.store_cycles + _ROUNDED / target.pipes
    lanes = max(1, round(target.fma_lanes / (instructions or dots.instructions)))
    return replace(target, fma_lanes=lanes, costs=replace(costs, fma_latency_cycles=latency, store_cycles=stores))


def layer_of(
    op: Any, target: Target, threads: int, dots: Dots | None = None, instructions: float | None = None
) -> TiledConvolution:
    """Return a layer as its tiles are costed: with the words that each filter reads for channels.

    Args:
        dots: how products are made; None for what the CPU does best with any weights.
        instructions: see `with_dots`.
    """
    cpu = with_dots(target, dots or dots_of(target), instructions)
    return TiledConvolution.of(op, cpu, words_read(op), threads)


def sums_and_factors(site: HostSite, filters: int, *, are_floats: bool = False, lanes: int = 1) -> list[ir.Value]:
    """Return what the sums of a layer begin with, and what they are multiplied with, in memory; zeros behind them.

    Args:
        are_floats: see `QuantisedLoops`.
        lanes: see `Dots.first_lanes`.
    """
    first = first_sums(site.op, site.state)
    if are_floats:
        first = first + np.float32(ROUNDING).view(np.int32)
    arrays = {"sums": np.repeat(padded(first, filters), lanes), "factors": padded(sum_factors(site.op), filters)}
    return [own_constant(site, role, array) for role, array in arrays.items()]


def are_small(site: HostSite) -> bool:
    """Return whether no sum of a layer reaches `EXACT_SUMS`."""
    return bool(_largest_sums(site).max(initial=0) < EXACT_SUMS)


def narrowing_for(site: HostSite) -> Narrowing | None:
    """Return how the results of a layer become bytes; None where one may reach `NARROW` before it is limited."""
    op, result = site.op, Quantisation.of(site.op.result.type)
    if result is None or not only_limits(Activation.of(op)):
        return None
    largest = (_largest_sums(site) * sum_factors(op).astype(np.float64)).max(initial=0)
    fits = largest + 255.0 * residual_factor(op) < NARROW
    return narrowing_of(site.target, signed=result.signed) if fits else None


def _largest_sums(site: HostSite) -> np.ndarray:
    """Return what the sums of each filter stay within for any input."""
    op, state, given = site.op, site.state, Quantisation.of(site.op.input.type)
    assert given is not None, "a layer with scales has a quantised input"
    bias = None if op.bias is None else require_array(op, op.bias, "bias", state)
    return largest_sums(require_array(op, op.weight, "weight", state), bias, given)


def own_constant(site: HostSite, role: str, array: np.ndarray) -> ir.Value:
    """Return in memory what is made of a layer's weights, and of more than them."""
    return site.constant(array, site.op.weight, own_role(role, array))


class DotRows(HostAlgorithm):
    """Fully connected layers."""

    name: ClassVar[str] = "dot-rows"
    reaches: ClassVar[Reach] = Reach.NONE

    def applies(self, op: Any) -> bool:
        return op.residual is None and not Activation.of(op).arrays

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        model, images, filters = (
            core_model(op, with_dots(target, dots_of(target))),
            op.input.type.shape[0],
            padded_filters(op),
        )
        lanes = next((size for size in (model.lanes, model.lanes // 2, 4) if 4 <= size <= filters), 4)
        vectors = max(1, min(4, filters // lanes))
        rows = min(images, max(1, (model.registers - vectors - 1) // (vectors + 1)))
        schedule = Schedule(self.name, rows, 1, lanes, vectors * lanes)
        words = ceil_div(op.input.type.shape[1], WORD)
        streamed = memory_bound(model, schedule, 4.0 * words * filters)
        computed = images * words * ceil_div(filters, lanes) * model.vector_cycles(lanes)
        yield max(streamed, Candidate(schedule, computed, computed, "arithmetic"), key=lambda each: each.cycles)

    def filter_blocks(self, op: Any, schedule: Schedule) -> int:
        return ceil_div(padded_filters(op), schedule.filters)

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        yield dot_lanes(schedule, target)
        yield multiple_of("filters", schedule.filters, schedule.lanes, max(padded_filters(op), schedule.lanes))
        rows = min(schedule.rows, op.input.type.shape[0])
        yield register_limit(rows * schedule.filters // schedule.lanes, schedule, target)

    def emit(self, site: HostSite) -> None:
        op, block, dots = site.op, site.schedule.filters, dots_of(site.target)
        filters = max(padded_filters(op), block)
        words = padded(as_words(require_array(op, op.weight, "weight", site.state)), filters)
        values = site.constant(pack_filters(words[:, :, None], block), op.weight, f"words{block}")
        sums, factors = sums_and_factors(site, filters)
        epilogue, results = site.epilogue_with(sums), op.result.type.shape[1]

        def emit(kernel: Kernel, arguments: list[Any]) -> None:
            given, weights, scale, made, epilogue = arguments
            loops = Loops(kernel, made, epilogue, given)
            dot_rows.DotRows(loops, dots, weights, scale, results).emit()

        parts = [1.0] * ceil_div(filters, block)
        site.call([site.source, values, factors, site.output, epilogue], emit, parts)
