"""How a kernel on a GPU reads and writes tensors: four neighbouring columns of a row at a time.

Rows of tensors inside a net start on a vector (see `pattern-layout`), so that four outputs are one aligned store and a
tap is one or two aligned loads and a shuffle. Packed tensors, at the boundary of a net, may have rows of any width:
those are read and written element by element.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from torch_mlir import ir

from patc.dialects.attributes import Layout
from patc.dialects.quantised import Quantisation
from patc.integers import ceil_div
from patc.passes.kernels.builder import Index
from patc.passes.kernels.gpu.kernel import LANES, Kernel, Memory
from patc.passes.kernels.values import fill_value


def has_vector_rows(layout: Layout) -> bool:
    """Return whether each row starts on a vector, also behind its left halo."""
    return layout.phases == 1 and not any(size % LANES for size in (layout.left, layout.row, layout.plane))


@dataclass(frozen=True)
class GpuTensor:
    """A tensor in one of the net's buffers.

    Attributes:
        start: its first byte there, a multiple of 64.
        element: what lies in memory: words of i32 where it is quantised.
        channels: planes of such elements; and so on.
        planes: from one image to the next: its channels, or those of the tensor that it lies in.
        quantisation: what the bytes of words stand for; None for other elements.
    """

    memory: Memory
    start: int
    element: ir.Type
    images: int
    channels: int
    height: int
    width: int
    layout: Layout
    planes: int
    quantisation: Quantisation | None = None

    @property
    def is_aligned(self) -> bool:
        """Whether each row starts on a vector, also behind its left halo."""
        return has_vector_rows(self.layout)

    @property
    def vectors(self) -> int:
        """Vectors that cover a row, without its halo."""
        return ceil_div(self.width, LANES)

    @property
    def has_halo(self) -> bool:
        """Whether there are elements around the rows that others read."""
        layout = self.layout
        return bool(layout.top or layout.left or layout.bottom or layout.right or layout.row > LANES * self.vectors)


class View:
    """A tensor as a kernel sees it: buffer, and the numbers that addresses are made of, in vectors or in elements.

    Args:
        top: rows above row 0 that addresses start at.
    """

    def __init__(self, k: Kernel, tensor: GpuTensor, top: int = 0) -> None:
        layout = tensor.layout
        self.tensor = tensor
        self._k = k
        self._unit = LANES if tensor.is_aligned else 1
        self._element = k.vector_type(tensor.element) if tensor.is_aligned else tensor.element
        first = (layout.top - top) * layout.pitch
        if not tensor.is_aligned:
            first += layout.left
        self.memory, self.start = k.elements(tensor.memory, tensor.start, self._element, first // self._unit)
        self.row = k.number(layout.pitch // self._unit)
        self.plane = k.number(layout.plane // self._unit)
        self._images = tensor.images

    def channel(self, image: ir.Value, channel: Index) -> Index:
        """Return the address of row 0 of a plane; of its left halo where rows are aligned."""
        k = self._k
        plane = k.add(self.start, k.mul(self.plane, channel))
        if self._images == 1:
            return plane
        image_size = k.mul(self.plane, self.tensor.planes)
        return k.add(plane, k.mul(image_size, image))

    def at(self, plane: Index, y: Index, x: ir.Value) -> Index:
        """Return the address of vector `x` of row `y`, counted from column 0."""
        k = self._k
        address = k.add(plane, k.mul(self.row, y))
        if not self.tensor.is_aligned:
            return k.add(address, k.mul(x, LANES))
        return k.add(k.add(address, x), self.tensor.layout.left // LANES)

    def spread(self, place: Place, channel: Index, row: int) -> ir.Value:
        """Load four columns of one of the rows at a place; what has one channel, row and column has them for all."""
        k, tensor = self._k, self.tensor
        plane = self.channel(place.image, 0 if tensor.channels == 1 else channel)
        if tensor.height == tensor.width == 1:
            return k.broadcast(k.extract(self.load(self.at(plane, 0, k.index(0))), 0), LANES)
        return self.load(self.at(plane, k.add(place.row, row), place.vector))

    def load(self, address: Index) -> ir.Value:
        """Load four columns; what is behind the row's last one does not matter."""
        k = self._k
        if self.tensor.is_aligned:
            return k.load_scalar(self.memory, address)
        return k.compose([k.load_scalar(self.memory, k.add(address, lane)) for lane in range(LANES)])


@dataclass(frozen=True)
class Place:
    """The outputs that a thread computes: some rows of four columns.

    Attributes:
        image, row: of the first output.
        vector: number of the four columns.
        computes: whether there is anything to compute for this thread.
    """

    image: ir.Value
    row: Index
    vector: ir.Value
    computes: ir.Value


class Output(View):
    """A tensor that a kernel writes, its halo included.

    Args:
        rows: that each thread writes.
    """

    def __init__(self, k: Kernel, tensor: GpuTensor, rows: int) -> None:
        super().__init__(k, tensor)
        layout = tensor.layout
        self._rows = rows
        self._exact = tensor.height % rows == 0
        self._partial = tensor.width % LANES != 0
        self._vectors = k.number(tensor.vectors)
        self._height = k.number(tensor.height)
        self._width = k.number(tensor.width) if self._partial else None
        self._halo = tensor.is_aligned and tensor.has_halo
        self._filler = self._fill_vector() if self._halo or self._partial else None
        if self._halo:
            row, vectors = layout.row // LANES, tensor.vectors
            left = layout.left // LANES
            self._above = layout.top * row + left
            self._gap = row > vectors
            # From the end of a row to the start of the next one, and from the end of the last one to that of the plane.
            self._gap_size = k.number(row - vectors)
            self._above_size = k.number(self._above)
            self._below = k.number(self._above + (tensor.height - 1) * row + vectors)

    def _fill_vector(self) -> ir.Value:
        """Return what the halo holds; words are a number of the launch."""
        k, tensor = self._k, self.tensor
        value = fill_value(tensor.layout, tensor.quantisation)
        if tensor.quantisation is None:
            return k.splat(value, LANES, tensor.element)
        return k.broadcast(k.integer(int(value)), LANES)

    def place(self, number: ir.Value, image: ir.Value) -> Place:
        """Return what the thread `number` of a plane computes; threads too many repeat the last one's work."""
        k = self._k
        tiles = k.divide(k.add(self._height, self._rows - 1), self._rows)[0]
        total = k.mul(tiles, self._vectors)
        computes = k.less(number, total)
        last = k.subtract(k.index(total), k.index(1))
        tile, vector = k.quotient(k.smaller(number, last), self._vectors)
        return Place(image, k.mul(tile, self._rows), vector, computes)

    def store(self, place: Place, channel: Index, values: list[ir.Value]) -> None:
        """Store one vector a row, and the halo that is next to them. Inside `if place.computes`."""
        k = self._k
        plane = self.channel(place.image, channel)
        is_last = k.equal(k.add(place.vector, 1), self._vectors) if self._halo and self._gap else None
        for number, value in enumerate(values):
            y = k.add(place.row, number)

            def one_row(value: ir.Value = value, y: Index = y) -> None:
                self._store_row(place, self.at(plane, y, place.vector), value)
                if is_last is not None:
                    inner = k.less(k.add(y, 1), self._height)
                    k.when(k.both(is_last, inner), lambda: self._fill_gap(k.add(self.at(plane, y, place.vector), 1)))

            if self._exact or number == 0:
                one_row()
            else:
                k.when(k.less(y, self._height), one_row)
        if self._halo:
            self._fill_ends(place, plane)

    def _store_row(self, place: Place, address: Index, value: ir.Value) -> None:
        k = self._k
        columns = None
        if self._width is not None:
            columns = k.subtract(self._width, k.index(k.mul(place.vector, LANES)))
        if self.tensor.is_aligned:
            if columns is not None:
                value = k.keep_first(value, columns, k.convert(self._filler, value.type.element_type))
            k.store_element(value, self.memory, address)
            return
        for lane in range(LANES):
            scalar, target = k.extract(value, lane), k.add(address, lane)
            if lane == 0 or columns is None:
                k.store_element(scalar, self.memory, target)
            else:
                k.when(k.less(lane, columns), functools.partial(k.store_element, scalar, self.memory, target))

    def _fill_gap(self, address: Index) -> None:
        """Fill what is between the end of a row and the start of the next one, one of the same plane."""
        self._fill_range(address, 0, self._gap_size, 1)

    def _fill_ends(self, place: Place, plane: Index) -> None:
        """Let the threads of the first and of the last row fill what is above and below the plane."""
        k = self._k
        origin = k.subtract(k.index(plane), k.index(k.mul(self.row, self.tensor.layout.top)))
        if self._above:
            k.when(
                k.equal(place.row, 0),
                lambda: self._fill_range(origin, place.vector, self._above_size, self._vectors),
            )
        is_last = k.less(k.index(k.subtract(self._height, k.index(1))), k.add(place.row, self._rows))
        k.when(
            is_last,
            lambda: self._fill_range(origin, k.add(self._below, place.vector), self.plane, self._vectors),
        )

    def _fill_range(self, address: Index, lower: Index, upper: Index, step: Index) -> None:
        k = self._k

        def body(position: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            k.store_element(self._filler, self.memory, k.add(address, position))
            return []

        k.loop(lower, upper, [], body, step)
