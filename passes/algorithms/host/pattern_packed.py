"""Pattern-packed sparse convolution; see `passes/kernels/host/pattern_packed.py`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from patc.costs import CoreCosts
from patc.dialects.attributes import FkwAttr, Layout, Library
from patc.dialects.schedules import Schedule
from patc.integers import ceil_div
from patc.passes.algorithms.host.base import HostAlgorithm
from patc.passes.algorithms.host.patterns import Patterns
from patc.passes.algorithms.host.site import HostSite
from patc.passes.algorithms.host.tiles import RegisterTile, TileCost, TiledConvolution
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.cost.core import CoreModel
from patc.passes.formats.block_major import by_blocks
from patc.passes.formats.layer_weights import read_fkw
from patc.passes.ir.elements import compute_type, element_bytes
from patc.passes.ir.planes import is_flat
from patc.passes.ir.windows import Tap
from patc.passes.kernels.host import pattern_packed
from patc.passes.kernels.host.accumulators import longest_part
from patc.passes.kernels.host.kernel import Kernel
from patc.passes.kernels.host.loops import Loops
from patc.passes.kernels.host.packed_tiles import PackedStrip, packed_strips
from patc.passes.kernels.host.pattern_packed import BlockMajorWeights
from patc.targets import Target

LEAST_ROWS = 4  # of a tile that is worth packing


class PatternPacked(HostAlgorithm):
    """Packed inputs stay in the first-level cache, accumulators in registers."""

    name: ClassVar[str] = "pattern-packed"
    runs_in_bands: ClassVar[bool] = True
    skips_zeros: ClassVar[bool] = True

    def applies(self, op: Any) -> bool:
        if not isinstance(op.format, FkwAttr) or is_flat(op):
            return False
        library, layout, element = Library.from_attr(op.format), Layout.of(op.input.type), op.result.type.element_type
        products = math.prod(op.array("values").type.shape) / op.result.type.shape[1]
        steps = [*op.strides, *op.dilations, layout.phases, library.depth]
        is_whole = compute_type(element) == element and longest_part(element, products) is None
        return is_whole and library.entries > 1 and all(step == 1 for step in steps)

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        layer, patterns = TiledConvolution.of(op, target, op.input.type.shape[1], threads), Patterns.of(op, state)
        lanes, costs = layer.model.lanes, layer.model.costs
        if 2 * lanes * layer.geometry.element_bytes != costs.line_bytes:
            return  # longer vectors take two lines a row, and blocks get too small; of shorter ones lines stay empty
        for rows in sorted({ceil_div(layer.height, parts) for parts in range(1, layer.height + 1)}):
            schedule = Schedule(self.name, rows, lanes, lanes)
            packing = Packing.of(op, schedule, target.registers, costs)
            parked = packing.parked(lanes) * layer.filters * layer.geometry.element_bytes
            if rows >= min(LEAST_ROWS, layer.height) and parked <= costs.second_level_bytes // 2:
                tile = RegisterTile(rows, lanes, [packing.strips[0].strip])
                yield layer.candidate(schedule, tile, _cost(layer, patterns, packing))

    def emit(self, site: HostSite) -> None:
        op, source, output = site.op, site.source, site.output
        library, fkw = Library.from_attr(op.format), read_fkw(op, site.state)
        packing = Packing.of(op, site.schedule, site.target.registers, site.costs)
        shapes = Shapes.of([library.places(pattern) for pattern in range(len(library.masks))])
        arrays = by_blocks(fkw, op.input.type.shape[1], packing.block, shapes.numbers)
        values, index, _, bounds, reorder = op.arrays
        weights = [
            site.constant(arrays.values, values, f"values.{packing.block}"),
            site.constant(arrays.bounds, bounds, f"bounds.{packing.block}"),
            site.constant(fkw.reorder, reorder, ""),
        ]
        for strip in packing.strips:
            steps = packing.block, packing.step, strip.pitch, strip.groups
            places = arrays.places(packing.step, shapes.firsts @ np.array([strip.pitch, strip.groups]))
            weights.append(site.constant(places, index, ".".join(map(str, ["places", *steps]))))

        def emit(kernel: Kernel, arguments: list[Any]) -> None:
            given, values, bounds, reorder, *places, made, epilogue = arguments
            held = BlockMajorWeights(shapes.taps, values, bounds, places, reorder)
            loops = Loops(kernel, made, epilogue, given)
            pattern_packed.PatternPacked(loops, held, packing.strips, packing.block, packing.step).emit()

        kept = (fkw.pattern_offsets[:, -1] - fkw.pattern_offsets[:, 0] + len(library.masks)).astype(float)
        site.call([source, *weights, output, site.epilogue], emit, list(kept))


@dataclass(frozen=True)
class Packing:
    """How inputs are packed.

    Attributes:
        strips: of a row tile.
        block: channels that are packed together.
        step: elements of one packed channel.
    """

    strips: list[PackedStrip]
    block: int
    step: int

    @staticmethod
    def of(op: Any, schedule: Schedule, registers: int, costs: CoreCosts) -> Packing:
        channels, (height, width), kernel = op.input.type.shape[1], op.result.type.shape[2:], op.kernel_size
        size, rows = element_bytes(op.result.type), min(schedule.rows, height)
        tallest = registers // 2
        strips = packed_strips((rows, width), schedule.lanes, tallest, kernel, costs.line_bytes // size)
        # The same for all heights of tiles, so that sums have the same order for any number of threads.
        highest = max((min(tallest, ceil_div(height, strip.groups)) + kernel[0] - 1) * strip.pitch for strip in strips)
        blocks = ceil_div(channels * highest * size, costs.first_level_bytes)
        step = max((strip.rows + kernel[0] - 1) * strip.pitch for strip in strips)
        return Packing(strips, ceil_div(channels, blocks), step)

    def parked(self, lanes: int) -> int:
        """Return the accumulators that a filter leaves for the next block."""
        return lanes * max(strip.rows for strip in self.strips)


@dataclass(frozen=True)
class Shapes:
    """Patterns that are translations of each other share a shape.

    Attributes:
        taps: of each shape.
        numbers: the shape of each pattern.
        firsts: P x 2, the first row and column of each pattern.
    """

    taps: list[tuple[Tap, ...]]
    numbers: list[int]
    firsts: np.ndarray

    @staticmethod
    def of(patterns: list[tuple[Tap, ...]]) -> Shapes:
        firsts = [(min(dy for _, dy, _ in taps), min(dx for _, _, dx in taps)) for taps in patterns]
        moved = [
            tuple((channel, dy - first[0], dx - first[1]) for channel, dy, dx in taps)
            for taps, first in zip(patterns, firsts, strict=True)
        ]
        shapes = list(dict.fromkeys(moved))
        return Shapes(shapes, [shapes.index(taps) for taps in moved], np.array(firsts))


def _cost(layer: TiledConvolution, patterns: Patterns, packing: Packing) -> TileCost:
    """Return what a row tile costs. Packed inputs do not come from behind the first-level cache."""
    model, costs, geometry = layer.model, layer.model.costs, layer.geometry
    shapes, blocks = Shapes.of(patterns.taps), ceil_div(geometry.channels, packing.block)
    visits, cycles, kept = layer.filters * blocks, 0.0, 0.0
    for strip in packing.strips:
        tiles, chunks = strip.strip.count * strip.tiles, strip.strip.chunks
        pairs = zip(patterns.counts, shapes.numbers, strict=True)
        kernels = sum(count * _kernel_cycles(model, shapes.taps[number], strip) for count, number in pairs)
        loops = len(shapes.taps) * model.loop_cycles(kernels / (visits * len(shapes.taps)))
        stores = strip.rows * strip.groups * costs.store_cycles + layer.written_cycles(
            RegisterTile(strip.height, strip.strip.columns, [strip.strip]), strip.strip
        )
        parked = 2 * strip.rows * (blocks > 1)
        needed = geometry.needed(patterns.places, strip.height)
        copied = 2 * len({y for _, y, _ in needed}) * strip.groups
        lines = geometry.lines(needed, chunks, costs.line_bytes) * costs.line_cycles
        packed = geometry.channels * (copied + lines)
        distant = model.distant_cycles(patterns.places, strip.height, chunks, geometry, prefetched=True)
        cycles += tiles * (kernels + visits * (loops + parked) + layer.filters * stores + packed + distant)
        kept += tiles * kernels
    return TileCost(cycles, patterns.entries * len(shapes.taps), "multiply-adds", kept=kept)


def _kernel_cycles(model: CoreModel, taps: tuple[Tap, ...], strip: PackedStrip) -> float:
    """Return the cycles of a kept kernel. One addition a row joins its multiply-adds: half of one in time, measured."""
    lanes = strip.chunk.lanes * strip.groups
    multiply = (len(taps) + 0.5) * strip.rows * model.vector_cycles(lanes)
    vectors = {(row + dy, dx) for row in range(strip.rows) for _, dy, dx in taps}
    loads = len(vectors) * model.load_cycles(lanes, aligned=True)
    return max(model.beside(multiply, loads), model.costs.fma_latency_cycles) + model.costs.kernel_cycles
