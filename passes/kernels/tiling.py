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


def covered_by(found: list[Strip]) -> int:
    """Columns that the vectors of all strips cover."""
    last = found[-1]
    return last.start + (last.count - 1) * last.columns + sum(chunk.lanes for chunk in last.chunks)


def vectors(columns: int, lanes: int) -> int:
    """Vector registers that one row of a tile needs."""
    return len(cut(columns, lanes))


@dataclass(frozen=True)
class Pack:
    """Chunks of several rows, (row, number of the chunk), in one vector: with fewer lanes than half a register holds a
    multiply-add takes as long as with half of them."""

    lanes: int
    pieces: tuple[tuple[int, int], ...]


def packs(rows: int, chunks: Sequence[Chunk], lanes: int) -> list[Pack]:
    """Put the chunks of a tile into vectors of up to `lanes` elements: wide ones alone, the narrowest together."""
    found = []
    for number, chunk in enumerate(chunks):
        most = lanes // chunk.lanes if chunk.lanes == NARROWEST else 1
        for first in range(0, rows, most):
            pieces = tuple((row, number) for row in range(first, min(first + most, rows)))
            room = 1
            while room < len(pieces):
                room *= 2
            found.append(Pack(chunk.lanes * room, pieces))
    return found
