"""Layers without weights on words: elements become quantised, stop being so, or are added up."""

from __future__ import annotations

from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import arith

from patc.dialects.attributes import Activation
from patc.dialects.quantised import Quantisation
from patc.integers import ceil_div
from patc.passes.ir.elements import WORD
from patc.passes.ir.quantised import Reciprocal, Rounding
from patc.passes.kernels.builder import Builder, Index, Vectors, lanes_of
from patc.passes.kernels.host.kernel import Epilogue, Tile
from patc.passes.kernels.host.loops import Loops
from patc.passes.kernels.host.rows import Rows, Tensor
from patc.passes.kernels.host.words import Packing, between, unpack
from patc.passes.kernels.narrowing import Narrowing
from patc.passes.kernels.tiling import Chunk

_NONE = Activation()


@dataclass(frozen=True)
class Summand:
    """An operand of a sum, and what it is multiplied with in units of the sum."""

    tensor: Tensor
    factor: float


@dataclass(frozen=True)
class WordPlanes:
    """The loops over planes of words, or of floats that words become.

    Attributes:
        summands: one, or two that are added up.
        epilogue: the activation of the sum.
        depth: channels of floats that become words.
        reciprocal: of the scale of words, of a single summand of floats; None where these are divided.
        narrowing: of words that are made with it.
    """

    loops: Loops
    summands: tuple[Summand, ...]
    epilogue: Epilogue
    depth: int
    reciprocal: Reciprocal | None
    narrowing: Narrowing

    def emit(self) -> None:
        """Emit all loops."""
        is_quantised = self.loops.output.quantisation is not None
        self.loops.for_work(self._quantise if is_quantised else self._dequantise, filters_first=True)

    def _quantise(self, tile: Tile, plane: Index) -> None:
        b, result = self.loops.b, self.loops.output.quantisation
        assert result is not None, "words are made"
        activation = self.epilogue.activation
        rounding = Rounding.of(result, activation)
        packing = Packing(rounding, None if self.reciprocal is None else self.narrowing, takes_nan=True)
        unit = float(rounding.unit)
        stored = ceil_div(self.depth, WORD) * WORD
        constants = [self.epilogue.constants(b, channel, stored) for channel in self._channels(plane)]
        rows: list[Vectors] = []
        for row in range(tile.rows):
            rows.append([])
            for chunk in tile.chunks:
                given = [self._floats(summand, tile, plane, (row, chunk), unit) for summand in self.summands]
                values = [b.plus(*pair) for pair in zip(*given, strict=True)] if len(given) > 1 else given[0]
                pairs = zip(values, constants, strict=True)
                made = [packing.activated(b, value, activation, own) for value, own in pairs]
                rows[-1].append(packing.pack(b, made))
        self.loops.store_tile(tile, rows, plane)

    def _floats(self, summand: Summand, tile: Tile, plane: Index, place: tuple[int, Chunk], unit: float) -> Vectors:
        """Return four channels of an operand as floats in units of the sum."""
        b, tensor, (row, chunk) = self.loops.b, summand.tensor, place
        if tensor.quantisation is not None:
            factor = b.splat(summand.factor, chunk.lanes, b.f32)
            words = self._rows(tensor, tile, plane).load(row, chunk)
            return [b.times(value, factor) for value in unpack(b, words, tensor.quantisation)]
        loaded = (self._rows(tensor, tile, channel).load(row, chunk) for channel in self._channels(plane))
        return [self._quotient(value, unit) for value in loaded]

    def _quotient(self, value: ir.Value, unit: float) -> ir.Value:
        """Return a vector of floats in units of the sum."""
        b, lanes, own = self.loops.b, lanes_of(value), self.reciprocal
        if own is None:
            return arith.DivFOp(value, b.splat(unit, lanes, b.f32)).result
        first, second = (b.splat(float(part), lanes, b.f32) for part in (own.first, own.second))
        limited = between(b, value, float(own.lowest), float(own.highest))
        return b.fma(limited, first, b.times(limited, second))

    def _channels(self, plane: Index) -> list[Index]:
        """Return the channels of a plane of words; the last one again where there are less."""
        b = self.loops.b
        first = b.mul(plane, WORD) if self.depth > WORD else 0
        return [b.minimum(b.add(first, member), self.depth - 1) for member in range(WORD)]

    def _dequantise(self, tile: Tile, channel: Index) -> None:
        b, (summand,) = self.loops.b, self.summands
        quantisation, (plane, member) = summand.tensor.quantisation, b.divide(channel, WORD)
        assert quantisation is not None, "words are read"
        bits = b.mul(b.subtract(b.index(WORD - 1), b.index(member)), 8)
        amount = arith.IndexCastOp(b.i32, b.index(bits)).result
        source = self._rows(summand.tensor, tile, plane)
        rows: list[Vectors] = []
        for row in range(tile.rows):
            rows.append([])
            for chunk in tile.chunks:
                words = arith.ShLIOp(source.load(row, chunk), b.broadcast(amount, chunk.lanes)).result
                number = b.shift_right(words, 8 * (WORD - 1), signed=quantisation.signed)
                integer = b.minus(number, b.splat(quantisation.zero_point, chunk.lanes, b.i32))
                rows[-1].append(b.times(b.convert(integer, b.f32), b.splat(quantisation.scale, chunk.lanes, b.f32)))
        self.loops.store_tile(tile, rows, channel)

    def _rows(self, tensor: Tensor, tile: Tile, channel: Index) -> Rows:
        b = self.loops.b
        return Rows(b, tensor, b.add(tile.base(b, tensor), b.mul(channel, tensor.layout.plane)))


@dataclass(frozen=True)
class WordRows:
    """The loops over rows, whose words are neighbours.

    Attributes:
        factor: what integers of the source are multiplied with.
        width: numbers of a row.
    """

    loops: Loops
    factor: float
    width: int

    def emit(self) -> None:
        """Emit all loops."""
        b, work, lanes = self.loops.b, self.loops.kernel.work, self.loops.schedule.lanes
        whole, rest = divmod(self.width, lanes)

        def one_row(row: ir.Value) -> None:
            if whole:
                b.each(0, whole, lambda step: self._some(row, b.mul(step, lanes), lanes))
            if rest:
                self._some(row, whole * lanes, rest)

        b.each(work.first_filter, work.last_filter, one_row)

    def _some(self, row: ir.Value, column: Index, valid: int) -> None:
        """Convert the first `valid` of a vector's numbers."""
        b, lanes, source, result = self.loops.b, self.loops.schedule.lanes, self.loops.source, self.loops.output
        base = self._place(source, row, column)
        if source.quantisation is None:
            assert result.quantisation is not None, "something changes"
            divisor = b.splat(result.quantisation.scale, lanes, b.f32)
            value = arith.DivFOp(b.load_bounded(source.memory, base, 0, lanes, valid), divisor).result
        else:
            words = b.load_masked(source.memory, base, 0, lanes // WORD, ceil_div(valid, WORD))
            value = b.times(unpack_row(b, words, source.quantisation), b.splat(self.factor, lanes, b.f32))
        store_row(b, value, result, self._place(result, row, column), valid)

    def _place(self, tensor: Tensor, row: Index, column: Index) -> Index:
        """Return where a number of a row is, or its word."""
        first = column if tensor.quantisation is None else self.loops.b.divide(column, WORD)[0]
        return self.loops.b.add(self.loops.b.mul(row, tensor.width), first)


def unpack_row(b: Builder, words: ir.Value, quantisation: Quantisation) -> ir.Value:
    """Return the numbers of words of neighbours, without their zero point, as floats."""
    vector = words if isinstance(words.type, ir.VectorType) else b.broadcast(words, 1)
    bytes_ = b.bitcast(vector, b.i8)
    extend = arith.ExtSIOp if quantisation.signed else arith.ExtUIOp
    integers = extend(ir.VectorType.get(bytes_.type.shape, b.i32), bytes_).result
    return b.convert(b.minus(integers, b.splat(quantisation.zero_point, lanes_of(integers), b.i32)), b.f32)


def pack_row(b: Builder, value: ir.Value, rounding: Rounding) -> ir.Value:
    """Return a vector of floats, in units of the scale, as words of neighbours: a quarter of its lanes."""
    integers = Packing(rounding).round(b, value)
    bytes_ = arith.TruncIOp(ir.VectorType.get([lanes_of(value)], b.i8), integers).result
    return Packing(rounding).shifted(b, b.bitcast(bytes_, b.i32))


def store_row(
    b: Builder, value: ir.Value, tensor: Tensor, base: Index, valid: int, activation: Activation = _NONE
) -> None:
    """Store the first `valid` of a vector of floats in a row, in units of the scale where that is of words; there the
    activation only limits."""
    if tensor.quantisation is None:
        b.store_masked(value, tensor.memory, base, 0, valid)
    else:
        words = pack_row(b, value, Rounding.of(tensor.quantisation, activation))
        b.store_masked(words, tensor.memory, base, 0, ceil_div(valid, WORD))
