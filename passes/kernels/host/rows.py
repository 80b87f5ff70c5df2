"""Tensors in planar layouts, and their rows: how vectors of columns meet phases, halos and the ends of memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import arith

from patc.dialects.attributes import Layout
from patc.dialects.quantised import Quantisation
from patc.integers import ceil_div
from patc.passes.ir.elements import element_bytes
from patc.passes.kernels.builder import Builder, Index, Vectors
from patc.passes.kernels.tiling import Chunk
from patc.passes.kernels.values import fill_value


@dataclass(frozen=True)
class Tensor:
    """A rank 4 tensor in memory: the flat memref, its shape and layout.

    Attributes:
        planes: from one image to the next: its channels, or those of the tensor that it lies in.
        end: where a plane ends, counted from its first element; behind `layout.plane` where memory holds some rows.
        quantisation: what its numbers stand for; then elements are words, and channels are those of words.
    """

    memory: ir.Value
    images: int
    channels: int
    height: int
    width: int
    layout: Layout
    planes: int
    end: int
    quantisation: Quantisation | None = None

    @property
    def fill(self) -> float:
        """What the halo holds."""
        return fill_value(self.layout, self.quantisation)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.images, self.channels, self.height, self.width

    @property
    def pixel(self) -> int:
        """The place of the first element of a plane."""
        position, phase = divmod(self.layout.left, self.layout.phases)
        return self.layout.top * self.layout.pitch + phase * self.layout.row + position

    @property
    def image(self) -> int:
        """Elements from one image to the next."""
        return self.planes * self.layout.plane

    @property
    def bytes(self) -> int:
        """Bytes of all images."""
        return self.images * self.channels * self.layout.plane * element_bytes(self.memory.type)


@dataclass(frozen=True)
class Rows:
    """Rows of a plane; `base` is the address of the place that rows and columns are counted from."""

    b: Builder
    tensor: Tensor
    base: Index

    def load(self, row: int, chunk: Chunk) -> ir.Value:
        """Load a chunk.

        Packed tensors may end with the memory that a caller owns, so nothing behind a row's last element is read.
        """
        b, memory, layout = self.b, self.tensor.memory, self.tensor.layout
        start = self._start(row)
        if layout.phases == 1:
            offset = start + layout.left + chunk.column
            if layout.is_packed(self.tensor.height, self.tensor.width):
                return b.load_bounded(memory, self.base, offset, chunk.lanes, chunk.valid)
            return b.load(memory, self.base, offset, chunk.lanes)
        half = chunk.lanes // 2
        even, odd = (b.load(memory, self.base, start + place, half) for place in _phases(layout, chunk))
        return b.shuffle(even, odd, [lane // 2 + half * (lane % 2) for lane in range(chunk.lanes)])

    def store(self, values: Vectors, row: int, chunks: Sequence[Chunk]) -> None:
        """Store the chunks of a row. Where columns alternate between two phases, two whole vectors are picked apart
        together: that makes whole vectors again."""
        place = 0
        while place < len(chunks):
            first, *others = chunks[place : place + 2]
            are_whole = all(chunk.valid == chunk.lanes == first.lanes for chunk in (first, *others))
            if self.tensor.layout.phases == 2 and others and are_whole:
                self._store_pair(values[place : place + 2], row, first)
                place += 2
            else:
                self._store_chunk(values[place], row, first)
                place += 1

    def _store_pair(self, pair: Vectors, row: int, first: Chunk) -> None:
        """Store two neighbouring chunks, of which `first` is one."""
        for lane, place in enumerate(_phases(self.tensor.layout, first)):
            columns = self.b.shuffle(pair[0], pair[1], range(lane, 2 * first.lanes, 2))
            self.b.store(columns, self.tensor.memory, self.base, self._start(row) + place)

    def _store_chunk(self, value: ir.Value, row: int, chunk: Chunk) -> None:
        """Store a chunk. Lanes beyond the row's last column become halo, or are left out where there is no room."""
        b, memory, layout = self.b, self.tensor.memory, self.tensor.layout
        cut_off = chunk.valid < chunk.lanes and not _has_room(layout, self.tensor.width + chunk.lanes - chunk.valid)
        if chunk.valid < chunk.lanes and not cut_off:
            fill = b.splat(self.tensor.fill, chunk.lanes)
            value = arith.SelectOp(b.mask(chunk.valid, chunk.lanes), value, fill).result
        start = self._start(row)
        if layout.phases == 1:
            valid = chunk.valid if cut_off else chunk.lanes
            b.store_masked(value, memory, self.base, start + layout.left + chunk.column, valid)
            return
        for lane, place in enumerate(_phases(layout, chunk)):
            half = b.shuffle(value, value, range(lane, chunk.lanes, 2))
            valid = (chunk.valid - lane + 1) // 2 if cut_off else chunk.lanes // 2
            b.store_masked(half, memory, self.base, start + place, valid)

    def fill_sides(self, row: int, end: int, lanes: int) -> None:
        """Fill the halo left of column 0 and from column `end` on; columns are counted from the plane's first one.

        With one phase all of a row is filled, as its lines are then written as a whole, which is faster. With two
        phases that takes up to twice as long on a Zen 5 (24 to 144 channels at 56x56: 209 us, 112 without): of these
        only what layers ask for is filled.
        """
        b, memory, layout = self.b, self.tensor.memory, self.tensor.layout
        end += layout.left
        halo = layout.left + self.tensor.width + layout.right if layout.phases > 1 else layout.row
        for phase in range(layout.phases):
            start = self._start(row) + phase * layout.row
            first = ceil_div(layout.left - phase, layout.phases)
            last, stop = (min(layout.row, ceil_div(place - phase, layout.phases)) for place in (end, halo))
            b.fill(self.tensor.fill, memory, self.base, start, start + max(first, 0), lanes)
            b.fill(self.tensor.fill, memory, self.base, start + last, start + stop, lanes)

    def _start(self, row: int) -> int:
        """Return where a row starts, with its halo."""
        return (row + self.tensor.layout.top) * self.tensor.layout.pitch


def _has_room(layout: Layout, end: int) -> bool:
    """Whether columns up to `end` fit the row, or the left halo of the next one, which holds the same."""
    if layout.phases == 1:
        return end <= layout.row
    return ceil_div(layout.left + end, layout.phases) <= layout.row


def written(tensor: Tensor, end: int) -> int:
    """Columns that the chunks of a row write, halo included, where their lanes end at `end`."""
    return end if _has_room(tensor.layout, end) else tensor.width


def _phases(layout: Layout, chunk: Chunk) -> list[int]:
    """Return where in a row are the first and the second lane; every other lane follows one of them."""
    places = []
    for lane in (0, 1):
        position, phase = divmod(chunk.column + layout.left + lane, 2)
        places.append(phase * layout.row + position)
    return places


def fill_top(b: Builder, tensor: Tensor, plane: Index, lanes: int) -> None:
    """Fill the halo rows above a plane."""
    b.fill(tensor.fill, tensor.memory, plane, 0, tensor.layout.top * tensor.layout.pitch, lanes)


def fill_bottom(b: Builder, tensor: Tensor, plane: Index, lanes: int) -> None:
    """Fill the halo rows below a plane, and what rounds the plane up."""
    start = (tensor.layout.top + tensor.height) * tensor.layout.pitch
    b.fill(tensor.fill, tensor.memory, plane, start, tensor.end, lanes)
