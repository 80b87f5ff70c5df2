"""How a plane is cut for `pattern_packed`, and where its parts lie when they are packed.

Vectors of a strip that is narrower than they are hold several rows: the columns 0, 1, ... of rows y and z lie as

    (y, 0) (z, 0) (y, 1) (z, 1) ...

so that what lies one column further is one vector load, `groups` elements further.
"""

from __future__ import annotations

from dataclasses import dataclass

from patc.integers import ceil_div
from patc.passes.kernels.tiling import NARROWEST, Chunk, Strip


@dataclass(frozen=True)
class PackedStrip:
    """A strip, as tiles of it are packed.

    Attributes:
        strip: one chunk wide.
        groups: of rows, that share vectors.
        rows: of a group, each of which is a vector of sums.
        starts: first row of each group in the tile.
        tiles: in a row tile, one above the other.
        pitch: elements from one packed row to the next.
    """

    strip: Strip
    groups: int
    rows: int
    starts: tuple[int, ...]
    tiles: int
    pitch: int

    @property
    def chunk(self) -> Chunk:
        return self.strip.chunks[0]

    @property
    def height(self) -> int:
        """Output rows of a tile."""
        return self.starts[-1] + self.rows


def packed_strips(
    plane: tuple[int, int], lanes: int, tallest: int, window: tuple[int, int], line: int
) -> list[PackedStrip]:
    """Cut row tiles into packed strips.

    Args:
        plane: rows of a row tile and columns of a plane.
        tallest: rows of a group at most.
        window: rows and columns of the kernels.
        line: elements of a cache line.
    """
    found = []
    for strip in _strips(plane[1], lanes):
        chunk = strip.chunks[0]
        groups = min(lanes // chunk.lanes, 1 << plane[0].bit_length() - 1)
        tiles = ceil_div(plane[0], tallest * groups)
        rows = ceil_div(plane[0], tiles * groups)
        height = min(plane[0], rows * groups)
        starts = tuple(min(group * rows, height - rows) for group in range(groups))
        pitch = ceil_div((chunk.valid + window[1] - 1) * groups, line) * line
        found.append(PackedStrip(strip, groups, rows, starts, tiles, pitch))
    return found


def _strips(width: int, lanes: int) -> list[Strip]:
    """Cover a row with whole vectors, and the rest with the fewest lanes."""
    count, rest = divmod(width, lanes)
    found = [Strip(0, count, lanes, (Chunk(0, lanes, lanes),))] if count else []
    while rest:
        size = 1 << (ceil_div(rest, NARROWEST) * NARROWEST).bit_length() - 1
        valid = min(size, rest)
        found.append(Strip(width - rest, 1, valid, (Chunk(0, size, valid),)))
        rest -= valid
    return found
