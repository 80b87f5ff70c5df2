"""Copies of matrices whose rows become columns, a square of vectors at a time."""

from __future__ import annotations

from dataclasses import dataclass

from torch_mlir import ir

from patc.passes.kernels.builder import Builder, Index
from patc.passes.kernels.host.panels import transpose


@dataclass(frozen=True)
class Transposition:
    """The loops of output[j * output_step + i] = source[i * source_step + j].

    Attributes:
        rows, columns: extents of i and j.
        lanes: of a vector.
    """

    b: Builder
    source: ir.Value
    output: ir.Value
    rows: int
    columns: int
    source_step: int
    output_step: int
    lanes: int

    def emit(self, source: Index, output: Index, bands: tuple[Index, Index]) -> None:
        """Copy some bands of `lanes` rows, the last of which may have fewer; the matrices begin at two addresses."""
        b, (whole, rest) = self.b, divmod(self.rows, self.lanes)
        last = b.minimum(bands[1], whole)
        b.each(bands[0], last, lambda band: self._band(source, output, band, self.lanes))
        if rest:
            b.each(b.maximum_index(bands[0], whole), bands[1], lambda band: self._band(source, output, band, rest))

    def _band(self, source: Index, output: Index, band: ir.Value, height: int) -> None:
        b, (whole, rest) = self.b, divmod(self.columns, self.lanes)
        first = b.mul(band, self.lanes)
        given, made = b.add(source, b.mul(first, self.source_step)), b.add(output, first)
        b.each(0, whole, lambda block: self._square(given, made, b.mul(block, self.lanes), (height, self.lanes)))
        if rest:
            self._square(given, made, whole * self.lanes, (height, rest))

    def _square(self, source: Index, output: Index, column: Index, size: tuple[int, int]) -> None:
        b, (height, width) = self.b, size
        rows = [min(row, height - 1) * self.source_step for row in range(self.lanes)]
        at = b.add(source, column)
        loaded = [b.load_bounded(self.source, at, row, self.lanes, width) for row in rows]
        to = b.add(output, b.mul(column, self.output_step))
        for number, value in enumerate(transpose(b, loaded)[:width]):
            b.store_masked(value, self.output, to, number * self.output_step, height)
