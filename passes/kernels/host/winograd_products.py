"""The second stage of Winograd convolution, see `winograd`: a product of matrices for each position."""

from __future__ import annotations

from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import arith

from patc.passes.kernels import tiling
from patc.passes.kernels.builder import Builder, Index, Vectors
from patc.passes.kernels.host.winograd import TiledLayer
from patc.passes.kernels.host.winograd_vectors import Planes, Products, Range

_AHEAD = 1024  # weights, which are one stream: those have come by their turn


@dataclass(frozen=True)
class Multiplication:
    """The products of a band.

    Attributes:
        weights: [position][block][phase][channel][filter of the block], the channels being those of the block's group.
    """

    b: Builder
    layer: TiledLayer
    planes: Planes
    weights: ir.Value
    products: Products

    def emit(self, positions: Range, blocks: Range, tiles: Index) -> None:
        """Emit the loops for some positions and blocks of filters; `tiles` are those of the band."""
        self.b.each(*positions, lambda position: self._one_position(position, blocks, tiles))

    def _one_position(self, position: ir.Value, blocks: Range, tiles: Index) -> None:
        b, layer = self.b, self.layer
        channels = _channels_of(b, layer, position)

        # The inputs of a strip stay in the first-level cache for all filters.
        def one_strip(first: Index, chunks: tuple[tiling.Chunk, ...]) -> None:
            found = _Tiles(position, channels, b.add(first, b.mul(position, layer.plane)), chunks)
            b.each(*blocks, lambda block: self._one_block(found, block))

        if isinstance(tiles, int):
            for strip in layer.parts():
                b.repeat(
                    strip.count,
                    lambda number, strip=strip: one_strip(  # type: ignore[misc] # bound now
                        b.add(b.mul(number, strip.columns), strip.start), strip.chunks
                    ),
                )
            return
        chunks = tiling.cut(layer.strip, layer.lanes)
        whole, rest = b.divide(tiles, layer.strip)
        b.each(0, whole, lambda number: one_strip(b.mul(number, layer.strip), chunks))
        last, vectors = b.mul(whole, layer.strip), b.divide_up(rest, layer.lanes)
        for count in range(1, len(chunks) + 1):
            b.when_equal(vectors, count, lambda count=count: one_strip(last, chunks[:count]))  # type: ignore[misc]

    def _one_block(self, tiles: _Tiles, number: ir.Value) -> None:
        b, layer, block = self.b, self.layer, self.layer.block
        packed = b.mul(b.add(b.mul(tiles.position, layer.blocks), number), layer.summed * block)
        filter_ = b.minimum(b.mul(number, block), layer.filters - block)
        group = b.divide(filter_, layer.filters // layer.groups)[0] if layer.groups > 1 else 0
        start = b.add(self.planes.start, b.mul(group, layer.summed * layer.channel))

        def one_channel(channel: ir.Value, accumulators: Vectors) -> Vectors:
            base = b.add(b.add(tiles.first, start), b.mul(channel, layer.channel))
            vectors = [b.load(self.planes.memory, base, chunk.column, chunk.lanes) for chunk in tiles.chunks]
            first = b.add(packed, b.mul(channel, block))
            accumulators = list(accumulators)
            for line in range(0, block, layer.line) if layer.is_streamed else ():
                b.prefetch(self.weights, first, line + _AHEAD)
            for member in range(block):
                scalar = b.load_scalar(self.weights, b.add(first, member))
                for place, vector in enumerate(vectors, member * len(vectors)):
                    weight = b.broadcast(scalar, vector.type.shape[0])
                    accumulators[place] = b.fma(weight, vector, accumulators[place])
            return accumulators

        zeros = [b.splat(0.0, chunk.lanes) for chunk in tiles.chunks] * block
        accumulators = iter(b.loop(*tiles.channels, zeros, one_channel))
        first = b.add(tiles.first, self.products.of_filter(b, layer, filter_))
        for member in range(block):
            for chunk in tiles.chunks:
                value = next(accumulators)
                b.store(value, self.products.memory, b.add(first, member * layer.channel), chunk.column)


@dataclass(frozen=True)
class _Tiles:
    """Some tiles at one position, and the channels whose phases use it; `first` is the place of the first tile in the
    positions of a channel."""

    position: ir.Value
    channels: Range
    first: Index
    chunks: tuple[tiling.Chunk, ...]


def _channels_of(b: Builder, layer: TiledLayer, position: ir.Value) -> Range:
    """Return the first of the channels whose phases use a position, and the one after the last."""
    if all(phase.lines == phase.shifts == layer.read for phase in layer.phases):
        return 0, layer.summed
    line, shift = b.divide(position, layer.read)

    def select(place: Index, last: Index, other: Index) -> ir.Value:
        """Return `last` in the last line, or shift, else `other`."""
        is_last = arith.CmpIOp(arith.CmpIPredicate.eq, b.index(place), b.index(layer.read - 1)).result
        return arith.SelectOp(is_last, b.index(last), b.index(other)).result

    count = layer.channels  # phases 0 and 1 have all lines, 1 and 2 all shifts
    return select(shift, count, 0), select(line, 2 * count, select(shift, 3 * count, 4 * count))
