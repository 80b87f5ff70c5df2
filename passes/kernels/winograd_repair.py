"""What makes Winograd layers right where numbers are infinite, NaN or nearly too large.

A tile mixes its inputs: one that is not finite, or that the transforms overflow, would reach all outputs of its tiles,
not only those whose windows it is in. What goes wrong in this way leaves outputs that are not finite, before the
activation. So the output transform watches its sums, and a layer with such sums is computed once more, by direct
convolution, from the same weights: their transform is undone.

The layer as a whole is computed again, so that results have the same bits for any number of threads.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import arith, math, scf

from patc.dialects.attributes import Schedule
from patc.passes.kernels import convolution, tiling
from patc.passes.kernels.builder import Builder, Index, Vectors
from patc.passes.kernels.convolution import Epilogue, Tile, Window, Work
from patc.passes.kernels.tiling import Tensor
from patc.passes.kernels.winograd import Layer, Phase, Strip
from patc.passes.kernels.winograd_transforms import TILE, weight_matrix

LEAST_TAP = 2.0**-20  # of the largest of a kernel; what is less is what rounding left of zero
CODE = 40  # multiply-adds of the loop's body

# Transformed kernels are read at the points 0, 1, -1 and infinity alone.
_READ = (0, 1, 2, 5)


def watched_lanes(layer: Layer) -> int:
    """Return the elements of the vector that `watch` keeps."""
    return max(strip.lanes for strip in layer.strips())


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


def repair_schedule(layer: Layer, schedule: Schedule) -> Schedule:
    """Return how the layer is computed again: in little code rather than in little time."""
    rows = max(1, min(layer.height, CODE // layer.kernel**2))
    return Schedule(
        "winograd-repair", rows, schedule.lanes, schedule.lanes, 1, threads=schedule.threads, split="filters"
    )


def repair(
    b: Builder,
    work: Work,
    layer: Layer,
    source: Tensor,
    weights: ir.Value,
    status: ir.Value,
    output: Tensor,
    epilogue: Epilogue,
    window: Window,
    schedule: Schedule,
) -> None:
    """Emit direct convolution for the filters of `work`, to be done if `status` says so.

    Args:
        weights: [position][block][phase][channel][filter of the block], transformed.
    """
    entries = layer.kernel**2
    kernels = b.scratch(layer.channels * entries)
    taps = tuple((0, dy, dx) for dy in range(layer.kernel) for dx in range(layer.kernel))

    def one_filter(filter_: ir.Value, _: Vectors) -> Vectors:
        for number, phase in enumerate(layer.phases):
            _restore_kernels(b, layer, number, phase, filter_, weights, kernels)

        def one_tile(tile: Tile, strip: tiling.Strip, index: Index, _: ir.Value) -> None:
            base = tile.base(b, source, window.strides)

            def one_channel(channel: ir.Value, sums: Vectors) -> Vectors:
                first = b.mul(channel, entries)
                scalars = [b.load_scalar(kernels, b.add(first, entry)) for entry in range(entries)]
                plane = b.add(base, b.mul(channel, source.layout.plane))
                return convolution.accumulate(b, tile, sums, source, plane, window, taps, scalars)

            first_sums = convolution.first_sums(b, tile, epilogue.bias, filter_)
            sums = convolution.by_row(b.loop(0, layer.channels, first_sums, one_channel), tile)
            convolution.store_tile(b, tile, strip, index, sums, filter_, output, epilogue, schedule)

        one = Work(work.first_tile, work.last_tile, filter_, b.add(filter_, 1))
        convolution.for_work(b, one, output, schedule, one_tile)
        return []

    found = arith.CmpFOp(arith.CmpFPredicate.UNE, b.load_scalar(status, 0), b.scalar(0.0)).result
    with ir.InsertionPoint(scf.IfOp(found).then_block):
        b.loop(work.first_filter, work.last_filter, [], one_filter)
        scf.YieldOp([])


def restoring_matrix(phase_taps: int, lines: int) -> np.ndarray:
    """Return the inverse of G as far as it is read, taps x 4.

    Args:
        phase_taps: of the phase.
        lines: positions of the phase.
    """
    return np.linalg.pinv(weight_matrix(lines - TILE + 1)[_READ, :phase_taps])


def _restore_kernels(
    b: Builder, layer: Layer, number: int, phase: Phase, filter_: ir.Value, weights: ir.Value, kernels: ir.Value
) -> None:
    """Emit the kernels of a filter, [channel][tap], as far as they belong to a phase.

    Args:
        number: of the phase.
    """
    down, across = restoring_matrix(phase.height, phase.lines), restoring_matrix(phase.width, phase.shifts)
    # The last block of filters may overlap its neighbour.
    block = b.divide(filter_, layer.block)[0]
    member = b.subtract(filter_, b.index(b.minimum(b.mul(block, layer.block), layer.filters - layer.block)))
    pitch = layer.depth * layer.block

    def one_channel(channel: ir.Value, _: Vectors) -> Vectors:
        first = b.add(b.mul(block, pitch), b.mul(b.add(channel, number * layer.channels), layer.block))
        first = b.add(first, member)
        rows = []
        for line in _READ:
            places = [b.add(first, (layer.read * line + shift) * layer.blocks * pitch) for shift in _READ]
            rows.append(_weighted(b, across, [b.load_scalar(weights, place) for place in places]))
        columns = [_weighted(b, down, [row[place] for row in rows]) for place in range(phase.width)]
        sizes = [math.AbsFOp(tap).result for column in columns for tap in column]
        least = b.times(functools.reduce(b.at_least, sizes), b.scalar(LEAST_TAP))
        target = b.mul(channel, layer.kernel**2)
        for dx, column in enumerate(columns):
            for dy, tap in enumerate(column):
                is_zero = arith.CmpFOp(arith.CmpFPredicate.OLT, math.AbsFOp(tap).result, least).result
                value = arith.SelectOp(is_zero, b.scalar(0.0), tap).result
                place = (phase.row + layer.stride * dy) * layer.kernel + phase.column + layer.stride * dx
                b.store(value, kernels, target, place)
        return []

    b.loop(0, layer.channels, [], one_channel)


def _weighted(b: Builder, matrix: np.ndarray, values: Vectors) -> Vectors:
    """Return the product of a matrix and a vector of scalars."""
    found = []
    for row in matrix:
        total = b.times(b.scalar(float(row[0])), values[0])
        for factor, value in zip(row[1:], values[1:], strict=True):
            total = b.plus(total, b.times(b.scalar(float(factor)), value))
        found.append(total)
    return found
