"""Linear layers whose weights are bands: columns of neighbouring filters, one of them in each lane.

for each band of filters:
  for some rows of the input:
    for each column of the band:
      w = the weights of the column                 # a vector, or several
      sums of each row += w * the row's element     # in all lanes
    store activation(sums + bias + residual)
"""

from __future__ import annotations

from dataclasses import dataclass

from torch_mlir import ir

from patc.integers import ceil_div
from patc.passes.kernels.builder import Builder, Index, Vectors
from patc.passes.kernels.host.loops import Loops


@dataclass(frozen=True)
class BandVector:
    """The loops of output[n, f] = activation(bias[f] + sum over columns of values * source[n, index] + residual[n, f]).

    `schedule.filters` are the rows of a band, which `schedule.lanes` divide; `schedule.rows` the rows of the input that
    share a column's weights. Those at the end start early and may overlap their neighbours.

    Attributes:
        loops: source and output are N x C and N x F, each row a channel of one element high.
        values: K x rows of a band, a stream through memory.
        index: K, the column of each.
        offset: the first column of each band, and K.
        chains: sums of one output in flight, of columns in turn.
    """

    loops: Loops
    values: ir.Value
    index: ir.Value
    offset: ir.Value
    chains: int

    @property
    def _b(self) -> Builder:
        return self.loops.b

    @property
    def _rows(self) -> int:
        return min(self.loops.schedule.rows, self.loops.source.channels)

    @property
    def _vectors(self) -> int:
        return self.loops.schedule.filters // self.loops.schedule.lanes

    def emit(self) -> None:
        """Emit all loops."""
        b, work, count = self._b, self.loops.kernel.work, self.loops.source.channels

        def one_band(number: ir.Value) -> None:
            first, last = (b.load_index(self.offset, b.add(number, place)) for place in (0, 1))

            def some_rows(group: Index) -> None:
                row = b.minimum(b.mul(group, self._rows), count - self._rows)
                self._finish(row, b.mul(number, self.loops.schedule.filters), self._sums(row, first, last))

            b.repeat(ceil_div(count, self._rows), some_rows)

        b.each(work.first_filter, work.last_filter, one_band)

    def _sums(self, row: Index, first: ir.Value, last: ir.Value) -> Vectors:
        """Return the sums of a band's columns, row by row."""
        b, lanes, size = self._b, self.loops.schedule.lanes, self._rows * self._vectors
        starts = [b.mul(b.add(row, member), self.loops.source.width) for member in range(self._rows)]
        zeros = [b.splat(0.0, lanes, b.accumulator)] * size

        def columns(place: Index, sums: Vectors, count: int) -> Vectors:
            made: Vectors = []
            for number in range(count):
                made += self._column(b.add(place, number), starts, sums[number * size : (number + 1) * size])
            return made

        whole = b.mul(b.divide(b.subtract(last, first), self.chains)[0], self.chains)
        middle = b.add(first, whole)
        sums = b.loop(first, middle, zeros * self.chains, lambda k, sums: columns(k, sums, self.chains), self.chains)
        total = sums[:size]
        for chain in range(1, self.chains):
            total = [b.plus(one, other) for one, other in zip(total, sums[chain * size :][:size], strict=True)]
        return b.loop(middle, last, total, lambda k, sums: columns(k, sums, 1)) if self.chains > 1 else total

    def _column(self, place: Index, starts: list[Index], sums: Vectors) -> Vectors:
        """Add the products of one column to the sums of each row."""
        b, lanes, filters = self._b, self.loops.schedule.lanes, self.loops.schedule.filters
        column, made = b.load_index(self.index, place), []
        weights = [
            b.convert(b.load(self.values, b.mul(place, filters), vector * lanes, lanes), b.accumulator)
            for vector in range(self._vectors)
        ]
        for member, start in enumerate(starts):
            given = b.convert(b.load_scalar(self.loops.source.memory, b.add(start, column)), b.accumulator)
            factor = b.broadcast(given, lanes)
            for vector, weight in enumerate(weights, member * self._vectors):
                made.append(b.fma(factor, weight, sums[vector]))
        return made

    def _finish(self, row: Index, filter_: Index, sums: Vectors) -> None:
        """Add the bias, let the residual join, apply the activation, and store."""
        b, epilogue, output, lanes = self._b, self.loops.epilogue, self.loops.output, self.loops.schedule.lanes
        for vector in range(self._vectors):
            first = b.add(filter_, vector * lanes)
            bias = None if epilogue.bias is None else b.convert(b.load(epilogue.bias, first, 0, lanes), b.accumulator)
            tables = range(len(epilogue.activation.arrays))
            constants = [b.load(epilogue.table, first, number * output.width, lanes) for number in tables]
            for member in range(self._rows):
                value = sums[member * self._vectors + vector]
                value = value if bias is None else b.plus(value, bias)
                address, residual = b.add(b.mul(b.add(row, member), output.width), first), epilogue.residual
                joined = None if residual is None else b.load(residual.memory, address, 0, lanes)
                b.store(b.convert(epilogue.finish(b, value, joined, constants), b.element), output.memory, address, 0)
