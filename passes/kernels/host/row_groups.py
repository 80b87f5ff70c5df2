"""What the loops of linear layers have in common: rows of the input that share what is loaded of the weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from patc.passes.kernels.builder import Builder, Index
from patc.passes.kernels.host.loops import Loops


@dataclass(frozen=True)
class RowGroups:
    """Loops over groups of up to `schedule.rows` rows; tiles of the work are such groups.

    Attributes:
        loops: source and output are N x C and N x F, each row a channel of one element high.
    """

    loops: Loops

    @property
    def _b(self) -> Builder:
        return self.loops.b

    @property
    def _rows(self) -> int:
        """Rows of a group."""
        return min(self.loops.schedule.rows, self.loops.source.channels)

    def _first_row(self, group: Index) -> Index:
        """Return the first row of a group: the last one starts early and may overlap its neighbour."""
        return self._b.minimum(self._b.mul(group, self._rows), self.loops.source.channels - self._rows)

    def _each_group(self, body: Callable[[Index], None]) -> None:
        """Emit the loop over the groups of the work, if there are several; `body(first row)`."""
        if self._rows == self.loops.source.channels:
            body(self._first_row(0))
        else:
            work = self.loops.kernel.work
            self._b.each(work.first_tile, work.last_tile, lambda group: body(self._first_row(group)))
