"""Convolutions of words on a GPU: the loops of floats, on four channels at a time.

A product is a dot product of four bytes, and what sums become is the arithmetic of docs/int8.md:

    y = round(float(sum) * factor + float(residual - its zero point) * its factor), limited, + zero point
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch_mlir import ir

from patc.passes.ir.elements import WORD
from patc.passes.ir.windows import Tap
from patc.passes.kernels.builder import Index, Vectors
from patc.passes.kernels.dots import Dots
from patc.passes.kernels.gpu.convolution import Ends, Tile
from patc.passes.kernels.gpu.kernel import LANES, Kernel
from patc.passes.kernels.gpu.layer import GpuArray, GpuLayer
from patc.passes.kernels.gpu.tensors import Place
from patc.passes.kernels.gpu.words import Packing, Unpacking, stored_members


@dataclass(frozen=True)
class WordSums:
    """How a layer adds up words, and what its sums become.

    Attributes:
        dots: how products are made.
        sums: what sums begin with, i32 of each filter.
        factors: of the sums, f32 of each filter.
        residual_factor: of the residual, if it is quantised.
        channels: of the result.
    """

    dots: Dots
    sums: GpuArray
    factors: GpuArray
    residual_factor: float
    channels: int


class WordTile(Tile):
    """A tile whose sums are integers.

    Args:
        words: of the layer.
        is_single: whether weights are single numbers, and each of four filters has one of the channels of a word:
            three of the four products of words would be zero.
    """

    def __init__(
        self, k: Kernel, layer: GpuLayer, read: Sequence[Tap], words: WordSums, *, is_single: bool = False
    ) -> None:
        super().__init__(k, layer, read)
        self._words, self._is_single = words, is_single
        k.is_exact = True

    def zero(self) -> ir.Value:
        return self._k.splat(0, LANES, self._k.i32)

    def product(self, member: int, weight: ir.Value, vector: ir.Value, total: ir.Value) -> ir.Value:
        k = self._k
        if not self._is_single:
            return self._words.dots.add(k, total, vector, weight)
        return k.plus(total, k.times(stored_members(k, vector, signed=True)[member], weight))

    def ends(self) -> Ends:
        return WordEnds(self._k, self._layer, self._place, self._words)


class WordEnds(Ends):
    """What becomes of sums of words: of those of four filters words again, or a float of each."""

    def __init__(self, k: Kernel, layer: GpuLayer, place: Place, words: WordSums) -> None:
        super().__init__(k, layer, place, words.channels)
        self._sums, self._factors = words.sums.scalars(k), words.factors.scalars(k)
        quantisation, residual = layer.output.quantisation, layer.epilogue.residual
        self._packing = None if quantisation is None else Packing(k, quantisation, layer.epilogue.activation)
        self.group = 1 if quantisation is None else WORD
        if residual is not None and residual.quantisation is not None:
            self._unpacking = Unpacking(k, residual.quantisation)
            self._residual_factor = k.real(words.residual_factor)

    def finish(self, totals: Sequence[Vectors], channel: Index) -> tuple[Index, Vectors]:
        k = self._k
        channels = [k.add(channel, member) for member in range(len(totals))]
        scaled = [self._scaled(rows, own) for rows, own in zip(totals, channels, strict=True)]
        if self._packing is None:
            return super().finish(scaled, channel)
        plane, packing = k.divide(channel, WORD)[0], self._packing
        constants = [self._activation.constants(own) for own in channels]

        def one_row(row: int) -> ir.Value:
            values = [rows[row] for rows in scaled]
            if self._residual is not None:
                words = self._residual.spread(self._place, plane, row)
                others = self._unpacking.floats(words, self._residual_factor)
                values = [k.plus(*pair) for pair in zip(values, others, strict=True)]
            return packing.words(values, constants)

        return plane, [one_row(row) for row in range(len(totals[0]))]

    def _scaled(self, rows: Vectors, channel: Index) -> Vectors:
        """Return the sums of a filter in units of the result."""
        k = self._k
        first, factor = (
            k.broadcast(k.load_scalar(memory, k.add(start, channel)), LANES)
            for memory, start in (self._sums, self._factors)
        )
        return [k.times(k.convert(k.plus(total, first), k.f32), factor) for total in rows]
