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

from patc.passes.kernels.builder import Index, Vectors
from patc.passes.kernels.host.columns import Columns
from patc.passes.kernels.host.row_ends import finish_rows
from patc.passes.kernels.host.row_groups import RowGroups


@dataclass(frozen=True)
class BandVector(RowGroups):
    """The loops of output[n, f] = activation(bias[f] + sum over columns of values * source[n, index] + residual[n, f]).

    `schedule.filters` are the rows of a band, which `schedule.lanes` divide; `schedule.rows` the rows of the input that
    share a column's weights. Those at the end start early and may overlap their neighbours; tiles of the work are as
    many rows.

    Attributes:
        columns: of each band.
        chains: sums of one output in flight, of columns in turn.
    """

    columns: Columns
    chains: int

    def emit(self) -> None:
        """Emit all loops."""
        b, work = self._b, self.loops.kernel.work

        def one_band(number: ir.Value) -> None:
            def some_rows(row: Index) -> None:
                first = b.mul(number, self.loops.schedule.filters)
                finish_rows(self.loops, row, first, self._sums(row, number), self.columns.vectors)

            self._each_group(some_rows)

        b.each(work.first_filter, work.last_filter, one_band)

    def _sums(self, row: Index, number: ir.Value) -> Vectors:
        """Return the sums of a band's columns, row by row."""
        b, width = self._b, self.loops.source.width
        rows = [b.mul(b.add(row, member), width) for member in range(self._rows)]
        zeros = [b.splat(0.0, self.loops.schedule.lanes, b.accumulator)] * (self._rows * self.columns.vectors)
        return self.columns.sums(number, (self.loops.source.memory, rows), zeros, self.chains)
