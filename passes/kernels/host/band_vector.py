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

from patc.passes.kernels.builder import Builder, Index, Vectors
from patc.passes.kernels.host.columns import Columns
from patc.passes.kernels.host.loops import Loops


@dataclass(frozen=True)
class BandVector:
    """The loops of output[n, f] = activation(bias[f] + sum over columns of values * source[n, index] + residual[n, f]).

    `schedule.filters` are the rows of a band, which `schedule.lanes` divide; `schedule.rows` the rows of the input that
    share a column's weights. Those at the end start early and may overlap their neighbours; tiles of the work are as
    many rows.

    Attributes:
        loops: source and output are N x C and N x F, each row a channel of one element high.
        columns: of each band.
        chains: sums of one output in flight, of columns in turn.
    """

    loops: Loops
    columns: Columns
    chains: int

    @property
    def _b(self) -> Builder:
        return self.loops.b

    @property
    def _rows(self) -> int:
        return min(self.loops.schedule.rows, self.loops.source.channels)

    def emit(self) -> None:
        """Emit all loops."""
        b, work, count = self._b, self.loops.kernel.work, self.loops.source.channels

        def one_band(number: ir.Value) -> None:
            def some_rows(group: Index) -> None:
                row = b.minimum(b.mul(group, self._rows), count - self._rows)
                self._finish(row, b.mul(number, self.loops.schedule.filters), self._sums(row, number))

            if self._rows == count:
                some_rows(0)
            else:
                b.each(work.first_tile, work.last_tile, some_rows)

        b.each(work.first_filter, work.last_filter, one_band)

    def _sums(self, row: Index, number: ir.Value) -> Vectors:
        """Return the sums of a band's columns, row by row."""
        b, width = self._b, self.loops.source.width
        rows = [b.mul(b.add(row, member), width) for member in range(self._rows)]
        zeros = [b.splat(0.0, self.loops.schedule.lanes, b.accumulator)] * (self._rows * self.columns.vectors)
        return self.columns.sums(number, (self.loops.source.memory, rows), zeros, self.chains)

    def _finish(self, row: Index, filter_: Index, sums: Vectors) -> None:
        """Add the bias, let the residual join, apply the activation, and store."""
        b, epilogue, output, lanes = self._b, self.loops.epilogue, self.loops.output, self.loops.schedule.lanes
        for vector in range(self.columns.vectors):
            first = b.add(filter_, vector * lanes)
            bias = None if epilogue.bias is None else b.convert(b.load(epilogue.bias, first, 0, lanes), b.accumulator)
            tables = range(len(epilogue.activation.arrays))
            constants = [b.load(epilogue.table, first, number * output.width, lanes) for number in tables]
            for member in range(self._rows):
                value = sums[member * self.columns.vectors + vector]
                value = value if bias is None else b.plus(value, bias)
                address, residual = b.add(b.mul(b.add(row, member), output.width), first), epilogue.residual
                joined = None if residual is None else b.load(residual.memory, address, 0, lanes)
                b.store(b.convert(epilogue.finish(b, value, joined, constants), b.element), output.memory, address, 0)
