"""Matrices in panels: some rows at a time, for each column one vector or a few, which a product reads as one stream."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from torch_mlir import ir

from patc.integers import ceil_div
from patc.passes.kernels.builder import Builder, Index, Vectors


@dataclass(frozen=True)
class Cuts:
    """How `size` lines are cut into `count` panels: `many` of `longest` units, then others of one unit less.

    Attributes:
        size: lines of all panels.
        unit: lines that stay together; the last unit may be incomplete.
        longest: units of the longest panel.
        count: panels.
    """

    size: int
    unit: int
    longest: int
    count: int

    @staticmethod
    def evenly(size: int, unit: int, most: int) -> Cuts:
        """Return panels of at most so many units, of nearly equal size."""
        units = ceil_div(size, unit)
        count = ceil_div(units, most)
        return Cuts(size, unit, ceil_div(units, count), count)

    @property
    def many(self) -> int:
        """Panels of the longest sort."""
        return ceil_div(self.size, self.unit) - self.count * (self.longest - 1)

    def kinds(self) -> Iterator[tuple[int, int, int, int]]:
        """Yield first panel, the one after the last, units, and the lines that count of those that are alike."""
        whole = self.count - bool(self.size % self.unit)
        for first, last, units in ((0, self.many, self.longest), (self.many, self.count, self.longest - 1)):
            if min(last, whole) > first:
                yield first, min(last, whole), units, units * self.unit
            if last == self.count > whole and last > first:
                yield whole, last, units, units * self.unit - self.unit + self.size % self.unit

    def units_before(self, b: Builder, panel: Index, units: int) -> Index:
        """Return the units in front of a panel that has so many."""
        if units == self.longest:
            return b.mul(panel, units)
        return b.add(b.mul(panel, units), self.many)

    def panels_of(self, lines: int) -> int:
        """Return the panels that the first lines are in."""
        return sum(first * self.unit < lines for first, _ in self.firsts())

    def firsts(self) -> list[tuple[int, int]]:
        """Return the first unit and the units of each panel."""
        sizes = [self.longest if panel < self.many else self.longest - 1 for panel in range(self.count)]
        return list(zip(itertools.accumulate(sizes, initial=0), sizes, strict=False))


def pack_lines(matrix: np.ndarray, cuts: Cuts) -> np.ndarray:
    """Return lines x depth as [panel][depth][line of the panel], with zeros behind the last line; flat."""
    padded = np.pad(matrix, ((0, -len(matrix) % cuts.unit), (0, 0)))
    parts = [padded[first * cuts.unit : (first + units) * cuts.unit].T.ravel() for first, units in cuts.firsts()]
    return np.concatenate(parts)


@dataclass(frozen=True)
class Lines:
    """A matrix to be packed.

    Attributes:
        memory: that it is in.
        depth: elements of a line.
        step: elements from one line to the next.
        depth_step: elements from one element of a line to the next.
    """

    memory: ir.Value
    depth: int
    step: int
    depth_step: int


@dataclass(frozen=True)
class Packing:
    """The loops that write panels of a matrix: [depth][line of the panel] each.

    Attributes:
        cuts: of the lines.
        pitch: elements from one element of a line to the next in a panel; None for the lines of the panel, in whole
            units.
        lanes: of a vector.
    """

    b: Builder
    lines: Lines
    packed: ir.Value
    cuts: Cuts
    pitch: int | None
    lanes: int

    def emit(self, source: Index, target: Index, panels: tuple[Index, Index]) -> None:
        """Write some panels of the matrix that begins at `source`; all panels begin at `target`."""
        b, unit = self.b, self.cuts.unit
        for first, last, units, valid in self.cuts.kinds():
            pitch = self.pitch or units * unit

            def one_panel(panel: ir.Value, units: int = units, valid: int = valid, pitch: int = pitch) -> None:
                line = b.mul(self.cuts.units_before(b, panel, units), unit)
                start = b.mul(panel, pitch) if self.pitch else line
                at = b.add(target, b.mul(start, self.lines.depth))
                self._panel(b.add(source, b.mul(line, self.lines.step)), at, valid, pitch)

            b.each(b.maximum_index(panels[0], first), b.minimum(panels[1], last), one_panel)

    def _panel(self, source: Index, target: Index, valid: int, pitch: int) -> None:
        b, depth = self.b, self.lines.depth
        if self.lines.step == 1:
            b.each(0, depth, lambda k: self._copy(source, target, k, valid, pitch))
        elif self.lines.depth_step == 1 and depth >= self.lanes:
            blocks, rest = divmod(depth, self.lanes)
            each_block = self._transposing(source, target, valid, pitch)
            b.each(0, blocks, lambda block: each_block(b.mul(block, self.lanes), self.lanes))
            if rest:
                each_block(blocks * self.lanes, rest)
        else:

            def one_column(k: ir.Value) -> None:
                for line in range(valid):
                    at = b.add(source, b.mul(k, self.lines.depth_step))
                    value = b.load_scalar(self.lines.memory, b.add(at, line * self.lines.step))
                    b.store(value, self.packed, b.add(target, b.mul(k, pitch)), line)

            b.each(0, depth, one_column)

    def _copy(self, source: Index, target: Index, k: ir.Value, valid: int, pitch: int) -> None:
        b = self.b
        for lane in range(0, valid, self.lanes):
            counted = min(self.lanes, valid - lane)
            at = b.add(source, b.mul(k, self.lines.depth_step))
            value = b.load_bounded(self.lines.memory, at, lane, self.lanes, counted)
            b.store(value, self.packed, b.add(target, b.mul(k, pitch)), lane)

    def _transposing(self, source: Index, target: Index, valid: int, pitch: int) -> Callable[[Index, int], None]:
        b, lanes = self.b, self.lanes

        def one_block(k: Index, columns: int) -> None:
            for lane in range(0, valid, lanes):
                places = [min(lane + line, valid - 1) * self.lines.step for line in range(lanes)]
                at = b.add(source, k)
                loaded = [b.load_bounded(self.lines.memory, at, place, lanes, columns) for place in places]
                to = b.add(target, b.mul(k, pitch))
                for column, value in enumerate(transpose(b, loaded)[:columns]):
                    b.store(value, self.packed, to, column * pitch + lane)

        return one_block


def transpose(b: Builder, rows: Vectors) -> Vectors:
    """Return the columns of a square of vectors."""
    lanes = len(rows)
    rows, distance = list(rows), lanes // 2
    while distance:
        lower = [lane if not lane & distance else lanes + lane - distance for lane in range(lanes)]
        upper = [lane + distance if not lane & distance else lanes + lane for lane in range(lanes)]
        for number in range(lanes):
            if not number & distance:
                first, second = rows[number], rows[number + distance]
                rows[number], rows[number + distance] = b.shuffle(first, second, lower), b.shuffle(first, second, upper)
        distance //= 2
    return rows
