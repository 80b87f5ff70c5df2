"""What the stages of Winograd convolution share: where their numbers lie, and the loops over vectors of tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch_mlir import ir

from patc.passes.kernels.builder import Builder, Index, Vectors
from patc.passes.kernels.host.winograd import Strip, TiledLayer

Range: TypeAlias = tuple[Index, Index]  # the first one, and the one after the last


@dataclass(frozen=True)
class Planes:
    """Memory for transformed inputs: from element `start` on, [phase][channel][position][tile]."""

    memory: ir.Value
    start: Index = 0


@dataclass(frozen=True)
class Products:
    """Memory for products, [filter][position][tile] from element `start` on, of the filters from `filter` on."""

    memory: ir.Value
    start: Index = 0
    filter: Index = 0

    def of_filter(self, b: Builder, layer: TiledLayer, number: Index) -> Index:
        """Return where the products of a filter start."""
        if not isinstance(self.filter, int) or self.filter:
            number = b.subtract(b.index(number), b.index(self.filter))
        return b.add(self.start, b.mul(number, layer.channel))


@dataclass(frozen=True)
class Band:
    """Rows of tiles that are computed together, counted through all images.

    Attributes:
        start: the first one.
        rows: how many; of a call with any number of images known when the code runs, up to `layer.band`.
    """

    start: Index
    rows: Index

    @staticmethod
    def of_number(b: Builder, layer: TiledLayer, number: Index) -> Band:
        """Return a band of all images by its number."""
        return Band(b.minimum(b.mul(number, layer.band), layer.images * layer.rows - layer.band), layer.band)

    @staticmethod
    def size(b: Builder, layer: TiledLayer, rows: ir.Value) -> ir.Value:
        """Return what `TiledLayer.equal_bands` does, of rows known when the code runs, maybe none: then 0."""
        size = b.divide_up(rows, b.maximum_index(b.divide_up(rows, layer.band), 1))
        return b.index(b.minimum(b.mul(b.divide_up(size, layer.filled), layer.filled), layer.band))

    def places(self, b: Builder, first: Index, count: int) -> list[Index]:
        """Return where, counted through all images, some rows are from row `first` of the band on; the last row is
        there again where there are no more."""
        places = [b.add(b.add(self.start, first), row) for row in range(count)]
        if isinstance(self.rows, int) or count == 1:
            return places
        last = b.subtract(b.index(b.add(self.start, self.rows)), b.index(1))
        return [b.minimum(place, last) for place in places]

    def tiles(self, b: Builder, layer: TiledLayer) -> Index:
        """Return the tiles that `for_vectors` goes through."""
        return b.mul(b.maximum_index(self.rows, layer.strips()[0].rows), layer.columns)


def for_vectors(
    b: Builder,
    layer: TiledLayer,
    rows: Index,
    carried: Vectors,
    body: Callable[[Index, Index, Strip, Vectors], Vectors],
) -> Vectors:
    """Emit the loops over the vectors of a band of so many rows of tiles; `body(first row of tiles in the band, first
    column, strip, carried)`. Rows of the first vector may be more than those of the band.

    Vectors come in the order of their tiles in memory: what one stores behind its tiles is overwritten by the next.
    """
    strips = layer.strips()
    size = strips[0].rows
    last: Index = rows - size if isinstance(rows, int) else b.subtract(b.maximum_index(rows, size), b.index(size))

    def some_rows(number: Index, carried: Vectors) -> Vectors:
        first = b.minimum(b.mul(number, size), last)
        for strip in strips:

            def one_vector(position: Index, carried: Vectors, strip: Strip = strip) -> Vectors:
                return body(first, b.add(b.mul(position, strip.columns), strip.start), strip, carried)

            carried = repeat(b, strip.count, one_vector, carried)
        return carried

    return repeat(b, b.divide_up(rows, size), some_rows, carried)


def repeat(
    b: Builder, count: Index, body: Callable[[Index, Vectors], Vectors], carried: Sequence[ir.Value] = ()
) -> Vectors:
    """Emit a loop of `count` turns, or its body."""
    return body(0, [*carried]) if isinstance(count, int) and count == 1 else b.loop(0, count, [*carried], body)
