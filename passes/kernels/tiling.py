"""How a row of outputs is cut into vectors.

A row of W outputs is covered by strips of `columns` elements, each strip by chunks: vectors of `lanes` elements and,
at the end, a narrower one. Only the last chunk of a row may have more lanes than columns are left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NARROWEST = 4  # lanes of the narrowest vector


@dataclass(frozen=True)
class Chunk:
    """One vector of a strip: first column within the strip, lanes, and how many of them are real columns."""

    column: int
    lanes: int
    valid: int


@dataclass(frozen=True)
class Strip:
    """`count` equal strips, the first at column `start`, `columns` apart."""

    start: int
    count: int
    columns: int
    chunks: tuple[Chunk, ...]


def covered(width: int, lanes: int) -> int:
    """Columns that vectors cover when a row of `width` is cut: `width` and what the last vector adds."""
    return sum(chunk.lanes for chunk in cut(width, lanes))


def cut(width: int, lanes: int) -> tuple[Chunk, ...]:
    """Cut `width` columns into vectors; the last has the least power of two lanes (four or more) that suffices."""
    chunks = [Chunk(column, lanes, lanes) for column in range(0, width - lanes + 1, lanes)]
    rest = width % lanes
    if rest:
        tail = min(lanes, NARROWEST)
        while tail < rest:
            tail *= 2
        chunks.append(Chunk(width - rest, tail, rest))
    return tuple(chunks)


def strips(width: int, columns: int, lanes: int) -> list[Strip]:
    """Cover `width` columns with strips of `columns`, the rest with one narrower strip."""
    count, rest = divmod(width, columns)
    found = [Strip(0, count, columns, cut(columns, lanes))] if count else []
    if rest:
        found.append(Strip(count * columns, 1, rest, cut(rest, lanes)))
    return found


def cuts_no_vector(columns: int, width: int, lanes: int) -> bool:
    """Whether strips of `columns` of a row of `width` have whole vectors, but for the last one of the row."""
    return columns >= width or all(chunk.valid == chunk.lanes for chunk in cut(columns, lanes))


def covered_by(found: list[Strip]) -> int:
    """Columns that the vectors of all strips cover."""
    last = found[-1]
    return last.start + (last.count - 1) * last.columns + sum(chunk.lanes for chunk in last.chunks)


def vectors(columns: int, lanes: int) -> int:
    """Vector registers that one row of a tile needs."""
    return len(cut(columns, lanes))


@dataclass(frozen=True)
class Pack:
    """Chunks of several rows, (row, number of the chunk), in one vector.

    Attributes:
        lanes: of the vector.
        taps: of a kernel whose products lie side by side there, each with all pieces: they are added up at the end.
    """

    lanes: int
    pieces: tuple[tuple[int, int], ...]
    taps: int = 1

    @property
    def part(self) -> int:
        """Lanes of one tap."""
        return self.lanes // self.taps


@dataclass(frozen=True)
class Packing:
    """How the rows of a tile share vectors: its chunks anew, and the vectors."""

    chunks: tuple[Chunk, ...]
    packs: tuple[Pack, ...]

    @property
    def lanes(self) -> int:
        """Of all vectors."""
        return sum(pack.lanes for pack in self.packs)


def packing(rows: int, chunks: tuple[Chunk, ...], lanes: int, pipe_lanes: int, sums: int) -> Packing:
    """Put the chunks of a tile into as few vectors of up to `lanes` elements as can be, so that they take few
    multiply-adds. A last chunk of which a quarter is empty is cut in two where that makes fewer; a vector that would
    leave half of a pipe empty takes several taps side by side.

    Args:
        pipe_lanes: that one multiply-add multiplies in the time of fewer.
        sums: taps side by side at most.
    """
    ways = (Packing(cut, _packs(rows, cut, lanes, pipe_lanes, sums)) for cut in (chunks, _cut_last(chunks)))
    return min(ways, key=lambda way: sum(max(pack.lanes, pipe_lanes) / pack.taps for pack in way.packs))


def _cut_last(chunks: tuple[Chunk, ...]) -> tuple[Chunk, ...]:
    *others, last = chunks
    half, quarter = last.lanes // 2, last.lanes // 4
    if quarter < NARROWEST or not half < last.valid <= half + quarter:
        return chunks
    return (*others, Chunk(last.column, half, half), Chunk(last.column + half, quarter, last.valid - half))


def _packs(rows: int, chunks: Sequence[Chunk], lanes: int, pipe_lanes: int, sums: int) -> tuple[Pack, ...]:
    """Put wide chunks alone, the narrowest together, and others that would leave a part of a pipe empty."""
    found = []
    for number, chunk in enumerate(chunks):
        most = lanes // chunk.lanes if chunk.lanes < max(pipe_lanes, 2 * NARROWEST) else 1
        for first in range(0, rows, most):
            pieces = tuple((row, number) for row in range(first, min(first + most, rows)))
            room = 1
            while room < len(pieces):
                room *= 2
            beside = 1
            while sums % (2 * beside) == 0 and 2 * beside * chunk.lanes * room <= min(lanes, pipe_lanes):
                beside *= 2
            found.append(Pack(beside * chunk.lanes * room, pieces, beside))
    return tuple(found)
