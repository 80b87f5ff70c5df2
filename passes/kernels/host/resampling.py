"""Planes resampled: rows of the result are weighted sums of rows of the input, whose columns are resampled before.

for channel, for tile of rows of the result:
  for row of the tile:
    for each row of the input that it is made of, and that is not there yet:
      resample its columns into a buffer on the stack       # vectors of the input, shuffled by constants, with weights
    store activation(sum of weights x rows in the buffer + residual)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import arith

from patc.integers import ceil_div
from patc.passes.ir.resampling import Axis
from patc.passes.kernels import tiling
from patc.passes.kernels.builder import Builder, Index, Vectors
from patc.passes.kernels.host.kernel import Tile
from patc.passes.kernels.host.loops import Loops
from patc.passes.kernels.host.rows import Rows
from patc.passes.kernels.tiling import Chunk


def row_table(rows: Axis) -> np.ndarray:
    """Return, for each row of the result, the first row of the input that it is made of, the one behind the last, and
    where in the buffer each of its taps is."""
    ends = rows.places.min(axis=0), rows.places.max(axis=0) + 1
    return np.stack([*ends, *(rows.places % rows.span)], axis=1).astype(np.int32)


@dataclass(frozen=True)
class _Run:
    """Vectors of a resampled row that are made in the same way.

    Attributes:
        column: of the first.
        count: of vectors.
        source: the first column of the input that the first vector reads.
        step: from there to what the next vector reads.
        picks: for each tap, the place of each lane behind the first column that is read.
    """

    column: int
    count: int
    source: int
    step: int
    picks: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Resampling:
    """The loops of one layer.

    Attributes:
        rows, columns: how the result is made along either axis.
        table: see `row_table`.
        row_weights, column_weights: in memory; those of columns go on to whole vectors.
    """

    loops: Loops
    rows: Axis
    columns: Axis
    table: ir.Value
    row_weights: ir.Value | None
    column_weights: ir.Value | None

    @property
    def b(self) -> Builder:
        return self.loops.b

    @property
    def lanes(self) -> int:
        return self.loops.schedule.lanes

    @property
    def covered(self) -> int:
        """Columns of a row in the buffer."""
        return ceil_div(self.columns.size, self.lanes) * self.lanes

    @cached_property
    def _buffer(self) -> ir.Value:
        return self.b.scratch(self.rows.span * self.covered)

    def emit(self) -> None:
        """Emit all loops."""
        b, output, work, source = self.b, self.loops.output, self.loops.kernel.work, self.loops.source
        count = min(self.loops.schedule.rows, output.height)
        tiles = ceil_div(output.height, count)

        def one_tile(channel: Index, number: Index) -> None:
            image, index = b.divide(number, tiles) if output.images > 1 else (0, number)
            first = b.minimum(b.mul(index, count), output.height - count)
            plane = b.add(b.mul(image, source.image), b.mul(channel, source.layout.plane))

            def one_row(step: Index, held: Vectors) -> Vectors:
                row = b.add(first, step)
                end = self._fill(plane, row, held[0])
                self._write(image, channel, row)
                return [end]

            b.loop(0, count, [b.index(0)], one_row)

        def one_channel(channel: Index) -> None:
            b.each(work.first_tile, work.last_tile, lambda number: one_tile(channel, number))

        b.each(work.first_filter, work.last_filter, one_channel)

    # Rows of the input, to the buffer.

    def _fill(self, plane: Index, row: Index, held: ir.Value) -> ir.Value:
        """Resample the columns of what a row is made of, and return the row of the input behind the last of it.

        Args:
            held: what this returned for the row before.
        """
        b, entry = self.b, _entry(self.b, row, self.rows)
        first, end = (b.load_index(self.table, b.add(entry, number)) for number in (0, 1))
        start = first
        if self.rows.is_monotone:
            start = arith.MaxUIOp(first, held).result
        elif self.rows.span == 1:
            is_there = arith.CmpIOp(arith.CmpIPredicate.eq, end, held).result
            start = arith.SelectOp(is_there, end, first).result
        b.each(start, end, lambda number: self._resample_row(plane, number))
        return end

    def _resample_row(self, plane: Index, number: ir.Value) -> None:
        b, source = self.b, self.loops.source
        base = b.add(plane, b.mul(number, source.layout.pitch))
        slot = b.mul(b.divide(number, self.rows.span)[1], self.covered) if self.rows.span > 1 else 0
        for run in self._runs():

            def one_vector(position: Index, run: _Run = run) -> None:
                read = Rows(b, source, b.add(base, b.mul(position, run.step)))
                column = b.mul(position, self.lanes)
                b.store(self._vector(run, read, column), self._buffer, b.add(slot, column), run.column)

            b.repeat(run.count, one_vector)

    def _vector(self, run: _Run, read: Rows, column: Index) -> ir.Value:
        """Return one vector of a run; `column` is where it begins, counted from the first one."""
        b, width, lanes = self.b, self.loops.source.width, self.lanes
        parts = []
        for number in range(1 + max(map(max, run.picks)) // lanes):
            first = run.source + number * lanes
            parts.append(read.load(0, Chunk(first, lanes, min(lanes, width - first))))
        total: ir.Value | None = None
        for tap, picks in enumerate(run.picks):
            value = pick(b, parts, picks)
            if self.column_weights is not None:
                weight = b.load(self.column_weights, column, tap * self.covered + run.column, lanes)
                value = b.times(value, weight) if total is None else b.fma(value, weight, total)
            total = value
        assert total is not None
        return total

    def _runs(self) -> Iterator[_Run]:
        """Yield the vectors of a row, those that are made in the same way at equal distances together."""
        width, lanes = self.loops.source.width, self.lanes
        places = np.pad(self.columns.places, [(0, 0), (0, self.covered - self.columns.size)], mode="edge")
        found: list[_Run] = []
        for column in range(0, self.covered, lanes):
            taps = places[:, column : column + lanes]
            # Memory of a caller may end with the last row: whole vectors are read where there are any.
            first = int(min(taps.min(), max(width - lanes, 0)))
            run = _Run(column, 1, first, 0, tuple(tuple(tap) for tap in (taps - first).tolist()))
            found.append(run)
        pending: _Run | None = None
        for run in found:
            grown = None if pending is None else _grown(pending, run, self.loops.source.layout.phases)
            if grown is None and pending is not None:
                yield pending
            pending = grown or run
        if pending is not None:
            yield pending

    # Rows of the result, from the buffer.

    def _write(self, image: Index, channel: Index, row: Index) -> None:
        b, loops, output, taps = self.b, self.loops, self.loops.output, len(self.rows.places)
        entry = _entry(b, row, self.rows)
        slots = [b.mul(b.load_index(self.table, b.add(entry, 2 + tap)), self.covered) for tap in range(taps)]
        weights = []
        if self.row_weights is not None:
            weights = [b.load_scalar(self.row_weights, b.add(row, tap * output.height)) for tap in range(taps)]
        for strip in tiling.strips(output.width, loops.schedule.columns, self.lanes):
            ends_row = strip.start + strip.count * strip.columns >= output.width

            def one_strip(position: Index, strip: tiling.Strip = strip, ends_row: bool = ends_row) -> None:
                column = b.add(b.mul(position, strip.columns), strip.start)
                tile = Tile(image, row, column, 1, strip.chunks, row, ends_row)
                loops.store_tile(tile, [[self._sum(slots, weights, column, chunk) for chunk in strip.chunks]], channel)

            b.repeat(strip.count, one_strip)

    def _sum(self, slots: list[Index], weights: Vectors, column: Index, chunk: Chunk) -> ir.Value:
        """Return a chunk of a row of the result."""
        b = self.b
        vectors = [b.load(self._buffer, b.add(slot, column), chunk.column, chunk.lanes) for slot in slots]
        if not weights:
            return vectors[0]
        factors = [b.broadcast(weight, chunk.lanes) for weight in weights]
        total = b.times(vectors[0], factors[0])
        for value, factor in zip(vectors[1:], factors[1:], strict=True):
            total = b.fma(value, factor, total)
        return total


def _entry(b: Builder, row: Index, rows: Axis) -> Index:
    """Return where a row of the result is in the table."""
    return b.mul(row, 2 + len(rows.places))


def _grown(run: _Run, other: _Run, phases: int) -> _Run | None:
    """Return a run with the next vector; None where that is made in another way, or read from another phase."""
    step = other.source - (run.source + (run.count - 1) * run.step)
    fits = other.picks == run.picks and (run.count == 1 or step == run.step) and (phases == 1 or step == 0)
    return _Run(run.column, run.count + 1, run.source, step, run.picks) if fits else None


def pick(b: Builder, parts: Vectors, picks: tuple[int, ...]) -> ir.Value:
    """Return the elements of some places in concatenated vectors."""
    lanes = parts[0].type.shape[0]
    places = [divmod(each, lanes) for each in picks]  # part and position in it
    used = sorted({part for part, _ in places})
    made = b.shuffle(parts[used[0]], parts[used[0]], [position if part == used[0] else 0 for part, position in places])
    for number in used[1:]:
        turns = [lanes + position if part == number else lane for lane, (part, position) in enumerate(places)]
        made = b.shuffle(made, parts[number], turns)
    return made
