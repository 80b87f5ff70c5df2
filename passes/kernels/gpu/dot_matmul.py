"""Products of matrices of words on a GPU: the loops of "gemm", on four numbers at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from torch_mlir import ir

from patc.passes.generic.products import Product
from patc.passes.ir.elements import WORD
from patc.passes.kernels.builder import Index, Vectors
from patc.passes.kernels.generic import FlatMemory
from patc.passes.kernels.gpu.dot_rows import RowEnds
from patc.passes.kernels.gpu.dots import WordSums
from patc.passes.kernels.gpu.kernel import LANES, Kernel
from patc.passes.kernels.gpu.layer import GpuArray, GpuLayer
from patc.passes.kernels.gpu.matmul import Ends, Operands, Tiling, Writer, when_inside


def dot_matmul(
    k: Kernel, layer: GpuLayer, product: Product, tiling: Tiling, weights: GpuArray, words: WordSums
) -> None:
    """Emit a fully connected layer of many rows.

    Args:
        product: of words.
        weights: rows of words, one a filter.
    """
    source, output = layer.source, layer.output
    lhs, out = (FlatMemory(*k.elements(tensor.memory, tensor.start, tensor.element)) for tensor in (source, output))
    _WordWriter(k, product, tiling, Operands(lhs, FlatMemory(*weights.scalars(k)), out), layer, words).write()


class _WordWriter(Writer):
    """A product whose sums are integers."""

    def __init__(
        self, k: Kernel, product: Product, tiling: Tiling, operands: Operands, layer: GpuLayer, words: WordSums
    ) -> None:
        super().__init__(k, product, tiling, operands, k.i32)
        self._dots, self._ends = words.dots, RowEnds(k, layer, words)

    def product(self, left: ir.Value, right: ir.Value, total: ir.Value) -> ir.Value:
        return self._dots.add(self._k, total, left, right)

    def _store(self, sums: Vectors, ends: Ends | None) -> None:
        k, tiling, shape = self._k, self._tiling, self._product
        vectors = tiling.schedule.columns // LANES
        for row, vector in itertools.product(range(tiling.schedule.rows), range(vectors)):
            total, (own_row, first) = sums[row * vectors + vector], self.place(row, vector)

            def one_vector(total: ir.Value = total, own_row: Index = own_row, first: Index = first) -> None:
                self._ends.store(total, own_row, k.divide(first, WORD)[0])

            def one_row(own: Callable[[], None] = one_vector, first: Index = first) -> None:
                when_inside(k, first, shape.columns, tiling.columns, own)

            when_inside(k, own_row, shape.rows, tiling.rows, one_row)
