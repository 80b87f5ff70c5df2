"""What the stages of Winograd convolution share: where their numbers lie, and the loops over vectors of tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch_mlir import ir

from patc.integers import ceil_div
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


def first_row(b: Builder, layer: TiledLayer, band: Index) -> Index:
    """Return the first row of tiles of a band, counted through all images."""
    return b.minimum(b.mul(band, layer.band), layer.images * layer.rows - layer.band)


def for_vectors(
    b: Builder, layer: TiledLayer, carried: Vectors, body: Callable[[Index, Index, Strip, Vectors], Vectors]
) -> Vectors:
    """Emit the loops over the vectors of a band; `body(first row of tiles in the band, first column, strip, carried)`.

    Vectors come in the order of their tiles in memory: what one stores behind its tiles is overwritten by the next.
    """
    strips = layer.strips()
    rows = strips[0].rows

    def some_rows(number: Index, carried: Vectors) -> Vectors:
        first = b.minimum(b.mul(number, rows), layer.band - rows)
        for strip in strips:

            def one_vector(position: Index, carried: Vectors, strip: Strip = strip) -> Vectors:
                return body(first, b.add(b.mul(position, strip.columns), strip.start), strip, carried)

            carried = repeat(b, strip.count, one_vector, carried)
        return carried

    return repeat(b, ceil_div(layer.band, rows), some_rows, carried)


def repeat(
    b: Builder, count: int, body: Callable[[Index, Vectors], Vectors], carried: Sequence[ir.Value] = ()
) -> Vectors:
    """Emit a loop of `count` turns, or its body."""
    return body(0, [*carried]) if count == 1 else b.loop(0, count, [*carried], body)
