"""Convolution as a product of matrices whose right one, what taps see, is made in panels and never as a whole.

    for tile of `rows` x `columns` outputs:       # n of them, one behind the other, in panels of a few vectors
      for group of filters:
        sums = bias                               # of the group and the tile: parked in the second-level cache
        for range of channels and taps:
          panels = what the taps see in the channels, [panel][channel and tap][output of the panel]
          for panel:                              # it stays in the first-level cache
            for block of filters:
              accumulators = 0                    # filters x vectors of the panel, in registers
              for channel and tap: accumulators += weight * vector of the panel
              sums += accumulators
        store activation(sums + residual)

Sums of many products are made in parts, one a range, so that few bits are lost. No lane is wasted where planes are
narrow, strides and dilations cost no more than the copy, and inputs whose channels lie far apart are read once for all
filters of a group. Where windows reach far beyond planes a range has one tap, and tiles leave out those that see none.

Here is how layers are cut; the loops are in `implicit_gemm_loops`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from patc.costs import CoreCosts
from patc.dialects.schedules import Schedule
from patc.integers import ceil_div
from patc.passes.ir.windows import Window
from patc.passes.kernels.host.panels import Cuts

_LEAST_SEEN = 0.85  # of taps that see inputs: if fewer do, they are left out
_GROUP_PART = 4  # one part in so many of the second-level cache is for the sums of a group


@dataclass(frozen=True)
class Depth:
    """How the products of a sum are cut into ranges.

    Attributes:
        channels: of the input.
        taps: of a window.
        part: channels of a range.
        by_tap: whether a range has one tap; else all.
    """

    channels: int
    taps: int
    part: int
    by_tap: bool

    @staticmethod
    def of(window: Window, size: tuple[int, int], channels: int, longest: int) -> Depth:
        """Return the ranges, of about `longest` products at most, for planes of a height and width."""
        taps = math.prod(window.kernel)
        seen = window.taps_inside(size).mean() / taps
        by_tap = taps > 1 and (taps > longest // 4 or (seen < _LEAST_SEEN and channels >= longest // 4))
        most = max(1, longest // (1 if by_tap else taps))
        return Depth(channels, taps, ceil_div(channels, ceil_div(channels, most)), by_tap)

    @property
    def together(self) -> int:
        """Taps of a range."""
        return 1 if self.by_tap else self.taps

    @property
    def longest(self) -> int:
        """Products of a range; the last one of a tap may have fewer."""
        return self.part * self.together

    @property
    def parts(self) -> int:
        """Ranges of a tap, or of all."""
        return ceil_div(self.channels, self.part)

    @property
    def ranges(self) -> int:
        return self.parts * self.taps // self.together


@dataclass(frozen=True)
class Plan:
    """How a layer is cut.

    Attributes:
        schedule: of the layer; `rows` x `columns` are the outputs of a tile, `filters` those of a block.
        filters: of the layer.
        vectors: of a panel, at most.
        pixels: outputs of the largest tile.
    """

    schedule: Schedule
    filters: int
    vectors: int
    pixels: int
    depth: Depth
    costs: CoreCosts

    @staticmethod
    def of(
        schedule: Schedule,
        window: Window,
        shapes: tuple[tuple[int, ...], tuple[int, ...]],
        registers: int,
        costs: CoreCosts,
    ) -> Plan:
        """Return the plan for shapes of the input and the output as the kernel sees them."""
        (_, channels, *size), (_, filters, height, width) = shapes
        pixels = min(schedule.rows, height) * min(schedule.columns, width)
        vectors = max(1, min((registers - 1) // (schedule.filters + 1), ceil_div(pixels, schedule.lanes)))
        longest = costs.first_level_bytes // (4 * vectors * schedule.lanes)
        depth = Depth.of(window, (size[0], size[1]), channels, longest)
        return Plan(schedule, filters, vectors, pixels, depth, costs)

    @property
    def blocks(self) -> int:
        return ceil_div(self.filters, self.schedule.filters)

    @property
    def line(self) -> int:
        """Elements from the sums of one filter to the next: an odd number of cache lines."""
        line = self.costs.line_bytes // 4
        vectors = ceil_div(self.pixels, self.schedule.lanes) + 1
        return (ceil_div(vectors * self.schedule.lanes, line) | 1) * line

    @property
    def group(self) -> int:
        """Blocks of filters whose sums are parked together."""
        bytes_ = 4 * self.line * self.schedule.filters
        most = max(1, self.costs.second_level_bytes // _GROUP_PART // bytes_)
        return ceil_div(self.blocks, ceil_div(self.blocks, most))

    @property
    def groups(self) -> int:
        return ceil_div(self.blocks, self.group)

    @property
    def sizes(self) -> tuple[int, int]:
        """Elements of the panels of a range, and of the parked sums, of one thread."""
        panels = self.depth.longest * ceil_div(self.pixels, self.schedule.lanes) * self.schedule.lanes
        return ceil_div(panels, 64) * 64, self.group * self.schedule.filters * self.line

    def cuts(self, pixels: int) -> Cuts:
        """Return how the vectors of a tile are cut into panels."""
        return Cuts.evenly(ceil_div(pixels, self.schedule.lanes), 1, self.vectors)


@dataclass(frozen=True)
class Run:
    """Neighbouring outputs of a row that one vector of a panel's holds a part of.

    Attributes:
        row, column: of the first one in the tile.
        panel: its number.
        vectors: of the panel.
        first: vector of the tile with which the panel starts.
        place: of the first output in the panel.
        lanes: of the vector.
        stored: lanes that there is room for; those behind the run are overwritten by the next one.
    """

    row: int
    column: int
    vectors: int
    first: int
    place: int
    lanes: int
    stored: int


def runs(rows: int, columns: int, cuts: Cuts, lanes: int) -> list[Run]:
    """Return what has to be copied for a tile, in this order."""
    found = []
    for first, vectors in cuts.firsts():
        start, end = first * lanes, (first + vectors) * lanes
        pixel = start
        while pixel < min(end, rows * columns):
            row, column = divmod(pixel, columns)
            count = min(columns - column, end - pixel, lanes)
            found.append(Run(row, column, vectors, first, pixel - start, lanes, min(lanes, end - pixel)))
            pixel += count
    return found
