"""Fully connected layers on quantised rows: the lanes of a vector are filters, a word of the input is in all of them.

for block of filters, a few vectors of them:
  for some images:
    sums = first sums
    for word of the input: sums += dot(word, weight vectors)
    store activation(sums * factors)
"""

from __future__ import annotations

from dataclasses import dataclass

from torch_mlir import ir

from patc.integers import ceil_div
from patc.passes.ir.elements import WORD
from patc.passes.ir.quantised import Rounding
from patc.passes.kernels.builder import Index, Vectors
from patc.passes.kernels.dots import Dots
from patc.passes.kernels.host.row_groups import RowGroups
from patc.passes.kernels.host.word_planes import store_row
from patc.passes.kernels.host.words import Packing
from patc.passes.kernels.values import apply_activation


@dataclass(frozen=True)
class DotRows(RowGroups):
    """The loops; `schedule.filters` filters and up to `schedule.rows` images share what is loaded. Blocks at the end
    start early and may overlap their neighbours.

    Attributes:
        weights: words as [block of filters][word of the input][filter of the block].
        factors: of the sums, one a filter.
        filters: of the result.
    """

    dots: Dots
    weights: ir.Value
    factors: ir.Value
    filters: int

    def emit(self) -> None:
        """Emit all loops."""
        b, loops, block = self.loops.b, self.loops, self.loops.schedule.filters
        all_images, unit = loops.source.channels, 1 if loops.output.quantisation is None else WORD
        last = max(0, ceil_div(self.filters, unit) * unit - block)

        def one_block(number: ir.Value) -> None:
            filter_ = b.minimum(b.mul(number, block), last)

            def some_images(group: Index) -> None:
                image = self._first_row(group)
                self._finish(image, filter_, self._sums(number, filter_, image))

            b.repeat(ceil_div(all_images, self._rows), some_images)

        b.each(loops.kernel.work.first_filter, loops.kernel.work.last_filter, one_block)

    def _sums(self, number: Index, filter_: Index, image: Index) -> Vectors:
        """Return the sums of a block of filters and some images, image by image."""
        b, loops, lanes, block = self.loops.b, self.loops, self.loops.schedule.lanes, self.loops.schedule.filters
        words, vectors = loops.source.width, range(0, block, lanes)
        rows = [b.mul(b.add(image, member), words) for member in range(self._rows)]
        packed = b.mul(number, words * block)

        def step(word: ir.Value, sums: Vectors) -> Vectors:
            place = b.add(packed, b.mul(word, block))
            weights = [b.load(self.weights, place, first, lanes) for first in vectors]
            given = [b.broadcast(b.load_scalar(loops.source.memory, b.add(row, word)), lanes) for row in rows]
            factors = [(data, weight) for data in given for weight in weights]
            return [self.dots.add(b, total, *pair) for total, pair in zip(sums, factors, strict=True)]

        bias = loops.epilogue.bias
        assert bias is not None, "the zero point is in it"
        return b.loop(0, words, [b.load(bias, filter_, first, lanes) for first in vectors] * self._rows, step)

    def _finish(self, image: Index, filter_: Index, sums: Vectors) -> None:
        """Scale sums, apply the activation and store."""
        b, loops, lanes, output = self.loops.b, self.loops, self.loops.schedule.lanes, self.loops.output
        activation, values = loops.epilogue.activation, iter(sums)
        for member in range(self._rows):
            for first in range(0, loops.schedule.filters, lanes):
                factors = b.load(self.factors, filter_, first, lanes)
                value = b.times(b.convert(next(values), b.f32), factors)
                place, column = b.add(filter_, first), b.mul(b.add(image, member), output.width)
                if output.quantisation is None:
                    value = apply_activation(b, value, activation)
                else:
                    value = Packing(Rounding.of(output.quantisation, activation)).activated(b, value, activation)
                    place = b.divide(place, WORD)[0]
                store_row(b, value, output, b.add(column, place), min(lanes, self.filters - first), activation)
