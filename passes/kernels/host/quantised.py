"""The loops of layers on quantised numbers: those of floats, on words of four channels.

A product is a dot product of four bytes, and what a tile's sums become is the arithmetic of docs/int8.md:

    y = round(float(sum) * factor + float(residual - its zero point) * its factor), limited, + zero point
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch_mlir import ir

from patc.dialects.attributes import Activation
from patc.passes.ir.elements import WORD
from patc.passes.ir.quantised import Rounding
from patc.passes.kernels.builder import Index, Vectors, lanes_of
from patc.passes.kernels.dots import Dots
from patc.passes.kernels.host.ends import Ends, Residual
from patc.passes.kernels.host.kernel import Epilogue, Tile
from patc.passes.kernels.host.loops import Loops
from patc.passes.kernels.host.words import ROUNDING, Packing, unpack
from patc.passes.kernels.narrowing import Narrowing


@dataclass(frozen=True)
class QuantisedLoops(Loops):
    """Loops over tiles whose sums are integers.

    Attributes:
        dots: how products are made.
        factors: of the sums, an f32 for each channel of the result.
        residual_factor: of the residual, if it is quantised.
        results: channels of the result, with those that fill its last word.
        filters_are_lanes: whether the lanes of sums are channels, or places.
        are_floats: whether the bits of sums are those of floats, sum + `ROUNDING`; it takes a subtraction then, which
            phones do faster than a conversion.
        narrowing: of results, none of which reaches `words.NARROW` before it is limited; None for others.
    """

    dots: Dots
    factors: ir.Value
    residual_factor: float
    results: int
    filters_are_lanes: bool
    are_floats: bool
    narrowing: Narrowing | None
    # LLVM would go through all taps of one sum after the other, and keep the inputs in memory meanwhile.
    most_taps: ClassVar[int] = 25

    @property
    def channels(self) -> int:
        return self.results

    @property
    def group(self) -> int:
        return 1 if self.output.quantisation is None else WORD

    def product(self, one: ir.Value, many: ir.Value, total: ir.Value) -> ir.Value:
        data, weights = (one, many) if self.filters_are_lanes else (many, one)
        return self.dots.add(self.b, total, data, weights)

    def first_accumulators(self, tile: Tile, channel: Index) -> Vectors:
        b, bias, lanes = self.b, self.epilogue.bias, self.dots.first_lanes
        if lanes == 1:
            return super().first_accumulators(tile, channel)
        assert bias is not None, "the zero point is in it"
        return [b.load_anew(bias, b.mul(channel, lanes), lanes) for _ in range(tile.rows * len(tile.chunks))]

    def prefetch_ends(self, tile: Tile, channel: Index) -> None:
        super().prefetch_ends(tile, channel if self.group == 1 else self.b.divide(channel, WORD)[0])

    def store_group(self, tile: Tile, group: Sequence[Sequence[Sequence[ir.Value]]], channel: Index) -> None:
        b, quantisation = self.b, self.output.quantisation
        if quantisation is None:
            factor = b.load_scalar(self.factors, channel)
            self.store_tile(tile, ([self._scaled(value, factor) for value in row] for row in group[0]), channel)
            return
        plane = b.divide(channel, WORD)[0]
        residual, activation = Residual.of(self, tile, plane), self.epilogue.activation
        packing = Packing(Rounding.of(quantisation, activation), self.narrowing)
        members = [b.add(channel, member) for member in range(WORD)]
        constants = [self.epilogue.constants(b, member, self.results) for member in members]
        factors = [b.load_scalar(self.factors, member) for member in members]

        def word(row: int, place: int) -> ir.Value:
            values = [self._scaled(sums[row][place], factor) for sums, factor in zip(group, factors, strict=True)]
            if residual is not None:
                values = self._joined(values, residual.load(row, tile.chunks[place]))
            pairs = zip(values, constants, strict=True)
            return packing.pack(b, [packing.activated(b, value, activation, own) for value, own in pairs])

        # Rows one after the other: their sums may be more than registers hold.
        rows = ([word(row, place) for place in range(len(tile.chunks))] for row in range(tile.rows))
        Ends(self.kernel, self.output, Epilogue(None, None, Activation())).store_tile(tile, rows, plane)

    def _joined(self, values: Vectors, words: ir.Value) -> Vectors:
        """Return the sums of four channels with a residual."""
        b, tensor = self.b, self.epilogue.residual
        assert tensor is not None and tensor.quantisation is not None, "its words are given"
        factor = b.splat(self.residual_factor, words.type.shape[0], b.f32)
        own = unpack(b, words, tensor.quantisation)
        return [b.plus(value, b.times(other, factor)) for value, other in zip(values, own, strict=True)]

    def _scaled(self, value: ir.Value, factor: ir.Value) -> ir.Value:
        """Return a vector of sums in units of the result."""
        return self.b.times(self._as_float(value), self.b.broadcast(factor, lanes_of(value)))

    def _as_float(self, value: ir.Value) -> ir.Value:
        b = self.b
        if not self.are_floats:
            return b.convert(value, b.f32)
        return b.minus(b.bitcast(value, b.f32), b.splat(ROUNDING, value.type.shape[0], b.f32))
