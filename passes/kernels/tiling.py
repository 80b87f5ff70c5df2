"""How a row of outputs is cut into vectors, and how those meet a planar layout.

A row of W outputs is covered by strips of `columns` elements, each strip by chunks: vectors of `lanes` elements and,
at the end, a narrower one. Only the last chunk of a row may have more lanes than columns are left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import arith

from patc.dialects.attributes import Activation, Layout
from patc.integers import ceil_div
from patc.passes.ir.elements import element_bytes
from patc.passes.kernels.builder import Builder, Index, element_type

LOWEST = float("-inf")
LINE_BYTES = 64  # of a cache line
NARROWEST = 4  # lanes of the narrowest vector


def line(type_: ir.Type) -> int:
    """Return how many elements a cache line holds; `type_` as in `element_bytes`."""
    return LINE_BYTES // element_bytes(type_)


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


@dataclass(frozen=True)
class Tensor:
    """A rank 4 tensor in memory: the flat memref, its shape and layout."""

    memory: ir.Value
    images: int
    channels: int
    height: int
    width: int
    layout: Layout

    @property
    def image(self) -> int:
        """Elements of one image."""
        return self.channels * self.layout.plane

    @property
    def bytes(self) -> int:
        """Bytes of all images."""
        return self.images * self.image * element_bytes(self.memory.type)


def load_chunk(b: Builder, tensor: Tensor, base: Index, row: int, chunk: Chunk) -> ir.Value:
    """Load the chunk of output row `row`; `base` is the address of the tile's strip in the plane.

    Packed tensors may end with the memory that a caller owns, so nothing behind a row's last element is read.
    """
    layout = tensor.layout
    start = (row + layout.top) * layout.pitch
    if layout.phases == 1:
        offset = start + layout.left + chunk.column
        if layout.is_packed(tensor.height, tensor.width):
            return b.load_bounded(tensor.memory, base, offset, chunk.lanes, chunk.valid)
        return b.load(tensor.memory, base, offset, chunk.lanes)
    even, odd = (
        b.load(tensor.memory, base, start + phase * layout.row + position, chunk.lanes // 2)
        for phase, position in _phases(layout, chunk)
    )
    half = chunk.lanes // 2
    return b.shuffle(even, odd, [lane // 2 + half * (lane % 2) for lane in range(chunk.lanes)])


def store_chunk(b: Builder, value: ir.Value, tensor: Tensor, base: Index, row: int, chunk: Chunk) -> None:
    """Store a chunk. Lanes beyond the row's last column become halo, or are left out where there is no room."""
    layout = tensor.layout
    start = (row + layout.top) * layout.pitch
    cut_off = chunk.valid < chunk.lanes and not _has_room(layout, tensor.width + chunk.lanes - chunk.valid)
    if chunk.valid < chunk.lanes and not cut_off:
        fill = b.splat(fill_value(layout), chunk.lanes)
        value = arith.SelectOp(b.mask(chunk.valid, chunk.lanes), value, fill).result
    if layout.phases == 1:
        valid = chunk.valid if cut_off else chunk.lanes
        b.store_masked(value, tensor.memory, base, start + layout.left + chunk.column, valid)
        return
    for lane, (phase, position) in enumerate(_phases(layout, chunk)):
        half = b.shuffle(value, value, range(lane, chunk.lanes, 2))
        valid = (chunk.valid - lane + 1) // 2 if cut_off else chunk.lanes // 2
        b.store_masked(half, tensor.memory, base, start + phase * layout.row + position, valid)


def store_chunks(
    b: Builder, values: Sequence[ir.Value], tensor: Tensor, base: Index, row: int, chunks: Sequence[Chunk]
) -> None:
    """Store the chunks of a row. Where columns alternate between two phases, two whole vectors are picked apart
    together: that makes whole vectors again."""
    place = 0
    while place < len(chunks):
        first, *others = chunks[place : place + 2]
        are_whole = all(chunk.valid == chunk.lanes == first.lanes for chunk in (first, *others))
        if tensor.layout.phases == 2 and others and are_whole:
            _store_pair(b, values[place], values[place + 1], tensor, base, row, first)
            place += 2
        else:
            store_chunk(b, values[place], tensor, base, row, first)
            place += 1


def _store_pair(
    b: Builder, one: ir.Value, other: ir.Value, tensor: Tensor, base: Index, row: int, first: Chunk
) -> None:
    layout = tensor.layout
    start = (row + layout.top) * layout.pitch
    for lane, (phase, position) in enumerate(_phases(layout, first)):
        columns = b.shuffle(one, other, range(lane, 2 * first.lanes, 2))
        b.store(columns, tensor.memory, base, start + phase * layout.row + position)


def store_pixel(b: Builder, value: ir.Value, tensor: Tensor, plane: Index) -> None:
    """Store the only element of a 1x1 plane, and the halo around it."""
    layout = tensor.layout
    if not layout.is_packed(1, 1):
        b.fill(fill_value(layout), tensor.memory, plane, 0, layout.plane, line(tensor.memory.type))
    position, phase = divmod(layout.left, layout.phases)
    b.store(value, tensor.memory, plane, layout.top * layout.pitch + phase * layout.row + position)


def _has_room(layout: Layout, end: int) -> bool:
    """Whether columns up to `end` fit the row, or the left halo of the next one, which holds the same."""
    if layout.phases == 1:
        return end <= layout.row
    return ceil_div(layout.left + end, layout.phases) <= layout.row


def written(tensor: Tensor, found: list[Strip]) -> int:
    """Columns that the chunks of a row write, halo included."""
    end = covered_by(found)
    return end if _has_room(tensor.layout, end) else tensor.width


def _phases(layout: Layout, chunk: Chunk) -> list[tuple[int, int]]:
    """Return sub-row and position of the first and the second lane; every other lane follows one of them."""
    places = []
    for lane in (0, 1):
        position, phase = divmod(chunk.column + layout.left + lane, 2)
        places.append((phase, position))
    return places


def fill_value(layout: Layout) -> float:
    """What the halo holds."""
    return LOWEST if layout.fill == "lowest" else 0.0


def fill_sides(b: Builder, tensor: Tensor, base: Index, row: int, end: int, lanes: int) -> None:
    """Fill the halo left of column 0 and from column `end` on; `base` is the address of the tile's row 0."""
    layout = tensor.layout
    end += layout.left
    for phase in range(layout.phases):
        start = (row + layout.top) * layout.pitch + phase * layout.row
        first = ceil_div(layout.left - phase, layout.phases)
        last = min(layout.row, ceil_div(end - phase, layout.phases))
        b.fill(fill_value(layout), tensor.memory, base, start, start + max(first, 0), lanes)
        b.fill(fill_value(layout), tensor.memory, base, start + last, start + layout.row, lanes)


def fill_top(b: Builder, tensor: Tensor, plane: Index, lanes: int) -> None:
    """Fill the halo rows above a plane."""
    b.fill(fill_value(tensor.layout), tensor.memory, plane, 0, tensor.layout.top * tensor.layout.pitch, lanes)


def fill_bottom(b: Builder, tensor: Tensor, plane: Index, lanes: int) -> None:
    """Fill the halo rows below a plane, and what rounds the plane up."""
    start = (tensor.layout.top + tensor.height) * tensor.layout.pitch
    b.fill(fill_value(tensor.layout), tensor.memory, plane, start, tensor.layout.plane, lanes)


def apply_activation(b: Builder, value: ir.Value, activation: Activation, lanes: int) -> ir.Value:
    """Return the activation of a vector, or of a scalar for one lane."""
    element = element_type(value)
    if activation.kind == "relu":
        return b.at_least(value, b.splat(0.0, lanes, element))
    if activation.kind == "clamp":
        value = b.at_least(value, b.splat(activation.minimum, lanes, element))
        return b.at_most(value, b.splat(activation.maximum, lanes, element))
    return value
