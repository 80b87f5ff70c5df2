"""Pooling of words: the largest of each byte of a window, or sums of bytes by dot products with ones."""

from __future__ import annotations

from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import arith

from patc.dialects.attributes import Activation
from patc.passes.ir.elements import WORD
from patc.passes.ir.quantised import Rounding
from patc.passes.kernels.builder import Index, Vectors, lanes_of
from patc.passes.kernels.dots import Dots, bytes_of
from patc.passes.kernels.host.kernel import Tile
from patc.passes.kernels.host.loops import Loops
from patc.passes.kernels.host.words import Packing
from patc.passes.kernels.tiling import Chunk


@dataclass(frozen=True)
class WordMaxPool:
    """The loops of max pooling; the halo holds the lowest byte."""

    loops: Loops

    def emit(self) -> None:
        """Emit all loops."""
        self.loops.for_work(self._tile, filters_first=True)

    def _tile(self, tile: Tile, plane: Index) -> None:
        loops, b = self.loops, self.loops.b
        base = b.add(loops.base(tile), b.mul(plane, loops.source.layout.plane))
        rows = [[self._largest(base, row, chunk) for chunk in tile.chunks] for row in range(tile.rows)]
        loops.store_tile(tile, rows, plane)

    def _largest(self, base: Index, row: int, chunk: Chunk) -> ir.Value:
        b, source = self.loops.b, self.loops.source
        assert source.quantisation is not None, "words are read"
        larger = arith.maxsi if source.quantisation.signed else arith.maxui
        first, *others = (bytes_of(b, vector) for vector in _taps(self.loops, base, row, chunk))
        for vector in others:
            first = larger(first, vector)
        return b.bitcast(first, b.i32)


@dataclass(frozen=True)
class WordMeans:
    """The loops of average pooling.

    Attributes:
        dots: how bytes are added up.
        factor: of sums, in units of what the activation gets.
        activation: of the means.
    """

    loops: Loops
    dots: Dots
    factor: float
    activation: Activation

    def emit_windows(self) -> None:
        """Emit means of windows; the halo holds the zero point, so that padding adds nothing."""
        self.loops.for_work(self._tile, filters_first=True)

    def emit_planes(self) -> None:
        """Emit means of whole planes, with the halo within their rows."""
        b, work, loops = self.loops.b, self.loops.kernel.work, self.loops
        source, output = loops.source, loops.output

        def one_image(image: Index) -> None:
            def one_plane(plane: Index) -> None:
                given = b.add(b.mul(image, source.image), b.mul(plane, source.layout.plane))
                made = b.add(b.mul(image, output.image), b.mul(plane, output.layout.plane))
                word = self._finish(self._plane(given))
                if not output.layout.is_packed(1, 1):
                    b.fill(output.fill, output.memory, made, 0, output.layout.plane, loops.schedule.lanes)
                b.store(b.extract(word, 0), output.memory, made, output.pixel)

            b.each(work.first_filter, work.last_filter, one_plane)

        b.each(work.first_tile, work.last_tile, one_image)

    def _tile(self, tile: Tile, plane: Index) -> None:
        b, loops = self.loops.b, self.loops
        base, (height, width) = b.add(loops.base(tile), b.mul(plane, loops.source.layout.plane)), loops.window.kernel

        def mean(row: int, chunk: Chunk) -> ir.Value:
            sums = self._first(chunk.lanes, height * width)
            for words in _taps(loops, base, row, chunk):
                sums = self._added(sums, words)
            return self._finish(sums)

        loops.store_tile(tile, [[mean(row, chunk) for chunk in tile.chunks] for row in range(tile.rows)], plane)

    def _plane(self, base: Index) -> Vectors:
        """Return the sums of the four bytes of the words of a plane, each in a vector of one lane."""
        b, source, lanes = self.loops.b, self.loops.source, self.loops.schedule.lanes
        first, count = source.layout.top * source.layout.pitch, source.height * source.layout.pitch
        whole, rest = divmod(count, lanes)
        sums = [b.splat(0, lanes, b.i32)] * WORD

        def step(number: Index, totals: Vectors) -> Vectors:
            return self._added(totals, b.load(source.memory, b.add(base, b.mul(number, lanes)), first, lanes))

        if whole:
            sums = b.loop(0, whole, sums, step)
        if rest:
            sums = self._added(sums, b.load_masked(source.memory, base, first + whole * lanes, lanes, rest))
        zeros = self._zeros(count)
        totals = (b.plus(b.sum_lanes(total), b.scalar(-zeros, b.i32)) for total in sums)
        return [b.broadcast(total, lanes) for total in totals]

    def _first(self, lanes: int, count: int) -> Vectors:
        return [self.loops.b.splat(-self._zeros(count), lanes, self.loops.b.i32)] * WORD

    def _zeros(self, count: int) -> int:
        """Return the sum of so many zero points."""
        quantisation = self.loops.source.quantisation
        assert quantisation is not None, "words are read"
        return count * quantisation.zero_point

    def _added(self, sums: Vectors, words: ir.Value) -> Vectors:
        """Return sums with the four bytes of words."""
        b, lanes = self.loops.b, lanes_of(words)
        ones = [b.splat(1 << 8 * place, lanes, b.i32) for place in range(WORD)]
        return [self.dots.add(b, total, words, one) for total, one in zip(sums, ones, strict=True)]

    def _finish(self, sums: Vectors) -> ir.Value:
        """Return the words of means."""
        b, result = self.loops.b, self.loops.output.quantisation
        assert result is not None, "words are made"
        packing, lanes = Packing(Rounding.of(result, self.activation)), lanes_of(sums[0])
        values = [b.times(b.convert(total, b.f32), b.splat(self.factor, lanes, b.f32)) for total in sums]
        return packing.pack(b, [packing.activated(b, value, self.activation) for value in values])


def _taps(loops: Loops, base: Index, row: int, chunk: Chunk) -> Vectors:
    """Return the words that each tap of a window contributes to a chunk of an output row."""
    height, width = loops.window.kernel
    return [loops.input_vector(base, row, (0, y, x), chunk) for y in range(height) for x in range(width)]
