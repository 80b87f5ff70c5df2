"""What makes Winograd layers right where numbers are infinite, NaN or nearly too large.

A tile mixes its inputs: one that is not finite, or that the transforms overflow, would reach all outputs of its tiles,
not only those whose windows it is in. What goes wrong in this way leaves outputs that are not finite, before the
activation. So the output transform watches its sums, and a layer with such sums is computed once more, by direct
convolution, from the same weights: their transform is undone.

The layer as a whole is computed again, so that results have the same bits for any number of threads.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import arith, math, scf

from patc.dialects.attributes import Layout
from patc.dialects.schedules import Schedule
from patc.passes.ir.windows import Window
from patc.passes.kernels import tiling
from patc.passes.kernels.builder import Builder, Index, Vectors
from patc.passes.kernels.host.kernel import Tile
from patc.passes.kernels.host.loops import Loops
from patc.passes.kernels.host.winograd import Strip, TiledLayer
from patc.passes.kernels.host.winograd_transforms import TILE, weight_matrix

ALGORITHM = "winograd-repair"  # of the kernels; they are compiled for little code
ROWS = 4  # of a tile of direct convolution
LEAST_TAP = 2.0**-20  # of the largest of a kernel; what is less is what rounding left of zero
READ = (0, 1, 2, 5)  # of the points of an axis: 0, 1, -1 and infinity say all of a kernel


def watched_lanes(layer: TiledLayer) -> int:
    """Return the elements of the vector that `watch` keeps."""
    return max(strip.lanes for strip in layer.strips())


def nothing_seen(b: Builder, layer: TiledLayer) -> ir.Value:
    """Return what `watch` starts with."""
    return b.splat(0.0, watched_lanes(layer))


def watch(b: Builder, strip: Strip, rows: Sequence[Vectors], seen: ir.Value) -> ir.Value:
    """Return `seen` with NaN added if sums of a vector of tiles are not finite.

    Args:
        rows: of outputs, each with a vector for each of the four columns of the tiles.
        seen: zeros so far.
    """
    zero = b.splat(0.0, strip.lanes)
    found = zero
    for row in rows:
        # Whatever is wrong in a row is so in its first or last output.
        for value in (row[0], row[-1]):
            found = b.fma(value, zero, found)
    tiles = strip.rows * strip.columns
    if tiles < strip.lanes:
        found = arith.SelectOp(b.mask(tiles, strip.lanes), found, zero).result
    lanes = seen.type.shape[0]
    if strip.lanes < lanes:
        found = b.shuffle(found, zero, [*range(strip.lanes), *[strip.lanes] * (lanes - strip.lanes)])
    return b.plus(seen, found)


def report(b: Builder, seen: ir.Value, status: ir.Value) -> None:
    """Emit a store of 1 to `status` if a sum was not finite; other threads may store the same."""
    bad = arith.CmpFOp(arith.CmpFPredicate.UNO, b.sum_lanes(seen), b.scalar(0.0)).result
    with ir.InsertionPoint(scf.IfOp(bad).then_block):
        b.store(b.scalar(1.0), status, 0, 0)
        scf.YieldOp([])


def repair_schedule(layer: TiledLayer, schedule: Schedule) -> Schedule:
    """Return how the layer is computed again: in little code rather than in little time. All vectors of a row have the
    same length where one divides it."""
    rows, width = min(ROWS, layer.height), layer.width
    lengths = [schedule.lanes, max(schedule.lanes // 2, tiling.NARROWEST)]
    lanes = next((length for length in lengths if width <= length or width % length == 0), lengths[0])
    return Schedule(ALGORITHM, rows, lanes, lanes, 1, threads=schedule.threads, split="filters")


def restoring_matrices(layer: TiledLayer) -> np.ndarray:
    """Return what makes kernels again of their transforms: taps, phase after phase, x the 16 products of READ."""
    found = []
    for phase in layer.phases:
        down, across = (
            np.linalg.pinv(weight_matrix(positions - TILE + 1)[READ, :taps])
            for positions, taps in ((phase.lines, phase.height), (phase.shifts, phase.width))
        )
        found.append(np.kron(down, across))
    return np.concatenate(found).astype(np.float32)


def places(layer: TiledLayer, source: Layout, window: Window) -> np.ndarray:
    """Return where things are, in three parts.

    Returns:
        the number of taps before each phase, and of all; where in the transformed weights the products of READ are;
        where each tap is in the plane of an input channel, phase after phase.
    """
    counts = [phase.height * phase.width for phase in layer.phases]
    products = [
        (layer.read * line + shift) * layer.blocks * layer.summed * layer.block
        for line, shift in itertools.product(READ, READ)
    ]
    taps = []
    for phase in layer.phases:
        for dy in range(phase.row, layer.kernel, layer.stride):
            for dx in range(phase.column, layer.kernel, layer.stride):
                position, part = divmod(dx - window.left + source.left, source.phases)
                taps.append((dy - window.top + source.top) * source.pitch + part * source.row + position)
    return np.array([0, *itertools.accumulate(counts), *products, *taps], np.int32)


@dataclass(frozen=True)
class Weights:
    """Kernels in memory.

    Attributes:
        transformed: [position][block][phase][channel][filter of the block].
        matrices: `restoring_matrices`.
        places: as of the function `places`.
    """

    transformed: ir.Value
    matrices: ir.Value
    places: ir.Value


@dataclass(frozen=True)
class Repair:
    """Direct convolution of the whole layer, to be done if `status` says so."""

    loops: Loops
    layer: TiledLayer
    weights: Weights
    status: ir.Value

    def emit(self) -> None:
        """Emit the loops for the kernel's share of filters."""
        b, layer, work = self.loops.b, self.layer, self.loops.kernel.work
        kernels = b.scratch(layer.channels // layer.groups * layer.kernel**2)

        def one_filter(filter_: ir.Value) -> None:
            _Restoration(b, layer, self.weights, kernels).emit(filter_)
            one = replace(work, first_filter=filter_, last_filter=b.add(filter_, 1))
            loops = replace(self.loops, kernel=replace(self.loops.kernel, work=one))
            loops.for_work(lambda tile, _: self._one_tile(tile, filter_, kernels))

        found = arith.CmpFOp(arith.CmpFPredicate.UNE, b.load_scalar(self.status, 0), b.scalar(0.0)).result
        with ir.InsertionPoint(scf.IfOp(found).then_block):
            b.each(work.first_filter, work.last_filter, one_filter)
            scf.YieldOp([])

    def _one_tile(self, tile: Tile, filter_: ir.Value, kernels: ir.Value) -> None:
        b, source = self.loops.b, self.loops.source
        taps, first_tap = self.layer.kernel**2, len(self.layer.phases) + 1 + len(READ) ** 2
        channels, filters = (count // self.layer.groups for count in (self.layer.channels, self.layer.filters))
        base = self.loops.base(tile)
        if self.layer.groups > 1:
            base = b.add(base, b.mul(b.divide(filter_, filters)[0], channels * source.layout.plane))
        pitch = self.loops.window.strides[0] * source.layout.pitch

        def one_channel(channel: ir.Value, accumulators: Vectors) -> Vectors:
            plane, first = b.add(base, b.mul(channel, source.layout.plane)), b.mul(channel, taps)

            def one_tap(entry: ir.Value, accumulators: Vectors) -> Vectors:
                address = b.add(plane, b.load_index(self.weights.places, b.add(entry, first_tap)))
                scalar = b.load_scalar(kernels, b.add(first, entry))
                found = []
                for row, total in enumerate(accumulators):
                    lanes = total.type.shape[0]
                    vector = b.load(source.memory, address, row * pitch, lanes)
                    found.append(b.fma(b.broadcast(scalar, lanes), vector, total))
                return found

            return b.loop(0, taps, accumulators, one_tap)

        accumulators = b.loop(0, channels, self.loops.first_accumulators(tile, filter_), one_channel)
        self.loops.store_rows(tile, tile.by_row(accumulators), filter_)


@dataclass(frozen=True)
class _Restoration:
    """The kernels of a filter in memory, [channel][tap], phase after phase."""

    b: Builder
    layer: TiledLayer
    weights: Weights
    kernels: ir.Value

    def emit(self, filter_: ir.Value) -> None:
        """Emit the loops."""
        b, layer = self.b, self.layer
        # The last block of filters may overlap its neighbour.
        block = b.divide(filter_, layer.block)[0]
        member = b.subtract(filter_, b.index(b.minimum(b.mul(block, layer.block), layer.filters - layer.block)))
        base = b.add(b.mul(block, layer.summed * layer.block), member)
        read = b.scratch(len(READ) ** 2)

        def one_channel(channel: ir.Value) -> None:
            target = b.mul(channel, layer.kernel**2)

            def one_phase(phase: ir.Value) -> None:
                first = b.add(base, b.mul(b.add(channel, b.mul(phase, layer.channels)), layer.block))
                self._one_phase(phase, self._products(first, read), target)

            b.each(0, len(layer.phases), one_phase)

        b.each(0, layer.channels // layer.groups, one_channel)

    def _products(self, first: Index, read: ir.Value) -> ir.Value:
        """Return the products of READ as a vector, collected in the memory `read`."""
        b, count = self.b, len(READ) ** 2

        def one_product(place: ir.Value) -> None:
            position = b.load_index(self.weights.places, b.add(place, len(self.layer.phases) + 1))
            b.store(b.load_scalar(self.weights.transformed, b.add(first, position)), read, place, 0)

        b.each(0, count, one_product)
        return b.load(read, 0, 0, count)

    def _one_phase(self, phase: ir.Value, products: ir.Value, target: Index) -> None:
        """Store the taps of a phase, to the channel at `target`."""
        b, count = self.b, len(READ) ** 2
        start, end = (b.load_index(self.weights.places, place) for place in (phase, b.add(phase, 1)))

        def one_tap(entry: ir.Value, largest: Vectors) -> Vectors:
            factors = b.load(self.weights.matrices, b.mul(entry, count), 0, count)
            tap = b.sum_lanes(b.times(factors, products))
            b.store(tap, self.kernels, b.add(target, entry), 0)
            return [b.at_least(largest[0], math.AbsFOp(tap).result)]

        (largest,) = b.loop(start, end, [b.scalar(0.0)], one_tap)
        least = b.times(largest, b.scalar(LEAST_TAP))

        def round_tap(entry: ir.Value) -> None:
            tap = b.load_scalar(self.kernels, b.add(target, entry))
            is_zero = arith.CmpFOp(arith.CmpFPredicate.OLT, math.AbsFOp(tap).result, least).result
            b.store(arith.SelectOp(is_zero, b.scalar(0.0), tap).result, self.kernels, b.add(target, entry), 0)

        b.each(start, end, round_tap)
