"""Linear layers of one row that go through the weights of those elements alone that are not zero.

places, elements = those of the row that are not zero            # by a kernel of its own
for each block of filters:                                       # its sums stay in registers
  for each of the elements:
    ask for the weights of an element some places behind it      # if they may be far away
    sums += weights of the element * the element
  store activation(sums + bias + residual)

Weights lie as [block of filters][element][filter]: what a zero multiplies is neither read nor fetched. Where next to no
element is zero, all are gone through: their weights are one stream through memory, as those of a dense layer are, and
nothing is listed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import arith

from patc.integers import ceil_div
from patc.passes.ir.elements import element_bytes
from patc.passes.kernels.builder import Builder, Index, Vectors
from patc.passes.kernels.host.loops import Loops
from patc.passes.kernels.host.row_ends import finish_rows

_AHEAD = 16  # elements whose weights are on their way
_LEAST_ZEROS = 1 / 8  # of a row's elements, for which it is worth leaving the stream


@dataclass(frozen=True)
class Elements:
    """The elements of a row that are not zero.

    Attributes:
        places: of them where they are less than `least`, then `_AHEAD` of others; the last one is the number of
            elements; i32.
        values: the elements, where places are there.
        width: elements of a row.
    """

    places: ir.Value
    values: ir.Value
    width: int

    @staticmethod
    def room(width: int) -> int:
        """Return how many integers `places` holds."""
        return width + _AHEAD + 1

    @property
    def least(self) -> int:
        """How many of them make a row to go through as a whole."""
        return self.width - int(self.width * _LEAST_ZEROS)

    def find(self, b: Builder, row: ir.Value, lanes: int) -> None:
        """Write the loops that count them and, where they are few, list them; NaN is not zero."""
        total = self._counted(b, row, lanes)
        self._put(b, self.room(self.width) - 1, total)
        is_thin = arith.CmpIOp(arith.CmpIPredicate.ult, total, b.index(self.least)).result
        b.when(is_thin, lambda: self._list(b, row))

    def _counted(self, b: Builder, row: ir.Value, lanes: int) -> ir.Value:
        """Return how many elements are not zero: vectors of them at a time."""
        whole, rest = divmod(self.width, lanes)
        zero, none, one = b.splat(0.0, lanes), b.splat(0, lanes, b.i32), b.splat(1, lanes, b.i32)

        def count(vector: ir.Value, counts: ir.Value) -> ir.Value:
            is_kept = arith.CmpFOp(arith.CmpFPredicate.UNE, vector, zero).result
            return arith.AddIOp(counts, arith.SelectOp(is_kept, one, none).result).result

        def step(number: Index, counts: Vectors) -> Vectors:
            return [count(b.load(row, b.mul(number, lanes), 0, lanes), counts[0])]

        (counts,) = b.loop(0, whole, [none], step)
        if rest:
            counts = count(b.load_masked(row, whole * lanes, 0, lanes, rest), counts)
        return arith.IndexCastOp(b.index_type, b.sum_lanes(counts)).result

    def _list(self, b: Builder, row: ir.Value) -> None:
        one, none = b.index(1), b.index(0)

        def look(place: ir.Value, found: Vectors) -> Vectors:
            (count,) = found
            value = b.load_scalar(row, place)
            # What is stored here and is zero is overwritten by the next.
            b.store(value, self.values, count, 0)
            self._put(b, count, place)
            is_kept = arith.CmpFOp(arith.CmpFPredicate.UNE, value, b.scalar(0.0, value.type)).result
            return [arith.AddIOp(count, arith.SelectOp(is_kept, one, none).result).result]

        (count,) = b.loop(0, self.width, [none], look)
        b.each(count, b.add(count, _AHEAD), lambda at: self._put(b, at, none))

    def _put(self, b: Builder, at: Index, number: ir.Value) -> None:
        b.store(arith.IndexCastOp(b.i32, number).result, self.places, at, 0)

    def count(self, b: Builder) -> ir.Value:
        """Return how many there are."""
        return b.load_index(self.places, self.room(self.width) - 1)


@dataclass(frozen=True)
class ZeroSkip:
    """The loops of output[0, f] = activation(bias[f] + sum of weight[f, k] * source[0, k] + residual[0, f]).

    `schedule.filters` are those of a block. The last block, and the last vector of a block, may overlap its neighbour.

    Attributes:
        weight: zeros behind the last filter of a block up to whole vectors.
    """

    loops: Loops
    elements: Elements
    weight: ir.Value

    def emit(self) -> None:
        """Emit all loops."""
        b, elements = self.loops.b, self.elements
        count = elements.count(b)
        least = b.index(elements.least)
        is_full = arith.CmpIOp(arith.CmpIPredicate.uge, count, least).result
        is_thin = arith.CmpIOp(arith.CmpIPredicate.ult, count, least).result
        b.when(is_full, lambda: self._each_block(elements.width, self._any))
        b.when(is_thin, lambda: self._each_block(count, self._kept))

    @property
    def _vectors(self) -> int:
        """Of a block."""
        return ceil_div(self.loops.schedule.filters, self.loops.schedule.lanes)

    @property
    def _pitch(self) -> int:
        """Elements from a row of weights to the next."""
        return self._vectors * self.loops.schedule.lanes

    def _each_block(self, count: Index, add: Callable[[Index, Index, Vectors], Vectors]) -> None:
        """Emit the loop over blocks, of `add(first row of weights, number of the element, sums)` for each element."""
        b, work, schedule = self.loops.b, self.loops.kernel.work, self.loops.schedule
        lanes, block = schedule.lanes, schedule.filters

        def one_block(number: ir.Value) -> None:
            row = b.mul(number, self.elements.width)
            zeros = [b.splat(0.0, lanes, b.accumulator)] * self._vectors
            sums = b.loop(0, count, zeros, lambda element, sums: add(row, element, sums))
            filter_ = b.minimum(b.mul(number, block), self.loops.output.width - block)
            over = self._pitch - block
            if over:
                sums[-1] = b.shuffle(sums[-2], sums[-1], range(lanes - over, 2 * lanes - over))
            for vector, value in enumerate(sums):
                first = min(vector * lanes, block - lanes)
                finish_rows(self.loops, 0, b.add(filter_, first), [value], 1)

        b.each(work.first_filter, work.last_filter, one_block)

    def _any(self, row: Index, element: Index, sums: Vectors) -> Vectors:
        """Add the products of an element, zero or not."""
        return self._products(row, element, self.loops.b.load_scalar(self.loops.source.memory, element), sums)

    def _kept(self, row: Index, number: Index, sums: Vectors) -> Vectors:
        """Add the products of an element that is not zero."""
        b, elements = self.loops.b, self.elements
        size = self.elements.width * self.loops.output.width * element_bytes(self.weight.type)
        if self.loops.kernel.may_be_distant(size):
            ahead = b.load_index(elements.places, b.add(number, _AHEAD))
            first, line = b.mul(b.add(row, ahead), self._pitch), self.loops.kernel.line(self.weight.type)
            for offset in range(0, self._pitch, line):
                b.prefetch(self.weight, first, offset)
        return self._products(row, b.load_index(elements.places, number), b.load_scalar(elements.values, number), sums)

    def _products(self, row: Index, element: Index, value: ir.Value, sums: Vectors) -> Vectors:
        b, lanes = self.loops.b, self.loops.schedule.lanes
        factor = b.broadcast(b.convert(value, b.accumulator), lanes)
        first = b.mul(b.add(row, element), self._pitch)
        return [
            b.fma(factor, b.convert(b.load(self.weight, first, vector * lanes, lanes), b.accumulator), total)
            for vector, total in enumerate(sums)
        ]
