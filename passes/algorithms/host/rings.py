"""Layers that run band by band: which rows of each a band computes, and which rows of what lies between them are kept.

    for band of rows of the last layer:
      for layer: the row tiles that the layers behind need for the band, and that are not there yet
      for tensor between layers: move the rows that the next band still reads to the front of its ring

A ring holds some rows of all planes of a tensor: small enough to stay in a cache, where the tensor would go out to
memory and come back. Rows are counted in memory, with the halo, and no row is computed twice but for those that the
last tile of a plane shares with the one before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from patc.integers import ceil_div

Range = tuple[int, int]  # the first one, and the one after the last


@dataclass(frozen=True)
class Read:
    """What a layer reads of another one's result: for output row y, rows stride * y + first .. stride * y + last.

    Attributes:
        maker: number of the layer that makes it.
    """

    maker: int
    stride: int
    first: int
    last: int


@dataclass(frozen=True)
class Tiled:
    """A layer of a stream.

    Attributes:
        rows: of a row tile.
        height: of the result.
        top: halo rows above it.
        total: rows of a plane in memory.
        reads: of results of layers before.
    """

    rows: int
    height: int
    top: int
    total: int
    reads: tuple[Read, ...] = ()

    @property
    def tiles(self) -> int:
        """Row tiles of a plane."""
        return ceil_div(self.height, self.rows)

    def tiles_until(self, row: int) -> int:
        """Return after how many tiles a row is there: the first one writes what is above, the last one the rest."""
        return min(self.tiles, max(0, row - self.top) // self.rows + 1)

    def written(self, tiles: Range) -> Range:
        """Return the rows that some tiles write."""
        first, last = tiles
        if first == last:
            return self.total, 0
        start = self.top + self._start(first) if first else 0
        return start, self.total if last == self.tiles else self.top + last * self.rows

    def read(self, read: Read, tiles: Range) -> Range:
        """Return the rows that some tiles read."""
        first, last = tiles
        if first == last:
            return self.total * read.stride, 0
        end = self._start(last - 1) + self.rows - 1
        return read.stride * self._start(first) + read.first, read.stride * end + read.last + 1

    def _start(self, tile: int) -> int:
        return min(tile * self.rows, self.height - self.rows)


@dataclass(frozen=True)
class Ring:
    """The rows of a tensor that memory holds.

    Attributes:
        rows: how many.
        starts: the first one in each band.
        kept: how many rows before those that the band computes are there, in each band.
    """

    rows: int
    starts: tuple[int, ...]
    kept: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """What each band does.

    Attributes:
        tiles: for each band the row tiles of each layer.
        rings: of the result of each layer but the last.
    """

    tiles: tuple[tuple[Range, ...], ...]
    rings: tuple[Ring, ...]

    @property
    def bands(self) -> int:
        return len(self.tiles)


def plan(layers: Sequence[Tiled], step: int) -> Plan:
    """Divide layers into bands of `step` row tiles of the last one."""
    done, tiles = [0] * len(layers), []
    for band in range(ceil_div(layers[-1].tiles, step)):
        last = min(layers[-1].tiles, (band + 1) * step)
        now = [*done[:-1], last] if last < layers[-1].tiles else [layer.tiles for layer in layers]
        for number in reversed(range(len(layers))):
            for read in layers[number].reads:
                _, end = layers[number].read(read, (0, now[number]))
                if end:
                    now[read.maker] = max(now[read.maker], layers[read.maker].tiles_until(end - 1))
        tiles.append(tuple(zip(done, now, strict=True)))
        done = now
    return Plan(tuple(tiles), tuple(_ring(layers, number, tiles) for number in range(len(layers) - 1)))


def _ring(layers: Sequence[Tiled], number: int, tiles: Sequence[Sequence[Range]]) -> Ring:
    own = layers[number]
    reads = [(place, read) for place, layer in enumerate(layers) for read in layer.reads if read.maker == number]
    starts, ends, end = [], [], 0
    for band in tiles:
        first, last = own.written(band[number])
        starts.append(min([first, *(layers[place].read(read, band[place])[0] for place, read in reads)]))
        end = max(end, last)
        ends.append(end)
    for place in reversed(range(len(starts) - 1)):  # what a later band reads has to stay
        starts[place] = min(starts[place], starts[place + 1])
    rows = max(end - start for start, end in zip(starts, ends, strict=True))
    kept = [max(0, end - start) for start, end in zip(starts, [0, *ends[:-1]], strict=True)]
    return Ring(rows, tuple(starts), tuple(kept))
