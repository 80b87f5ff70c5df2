"""Fully connected layers of many rows on a GPU, "gemm"."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from patc.dialects.schedules import Schedule
from patc.passes.algorithms.gpu.base import GpuAlgorithm
from patc.passes.algorithms.gpu.gemv import MOST_ROWS
from patc.passes.algorithms.gpu.site import GpuSite
from patc.passes.algorithms.limits import Limit, multiple_of, one_of
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.cost.models import cost_model
from patc.passes.formats.layer_weights import read_dense_weight
from patc.passes.generic.products import Product
from patc.passes.kernels.generic import FlatMemory
from patc.passes.kernels.gpu.kernel import LANES, Kernel
from patc.passes.kernels.gpu.layer import GpuArray, GpuLayer, RowEpilogue
from patc.passes.kernels.gpu.matmul import ACROSS, Operands, Tiling, multiply
from patc.targets import Target


class Gemm(GpuAlgorithm):
    """A workgroup computes a tile of the result."""

    name = "gemm"

    def applies(self, op: Any) -> bool:
        return bool(op.input.type.shape[0] > MOST_ROWS)

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        model, product = cost_model(target), Product.of_linear(op)
        tiling = Tiling.of(self.name, product)
        across, down, _ = tiling.groups(product)
        vectors = tiling.schedule.rows * tiling.schedule.columns // LANES
        turn = model.turn_cycles(0, tiling.schedule.rows // LANES + 1, (1.0 + self.products(target)) * vectors)
        total = across * down * tiling.schedule.threads
        cycles = model.layer_cycles(turn * product.depth.extent, vectors, total)
        yield Candidate(tiling.schedule, cycles, cycles, model.bound(total))

    def products(self, target: Target) -> float:
        """Return the instructions of a vector of products."""
        return 1.0

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        yield one_of("threads", schedule.threads, [*ACROSS])
        yield one_of("columns", schedule.columns, [LANES])
        yield multiple_of("rows", schedule.rows, LANES, 2 * LANES)

    def emit(self, site: GpuSite) -> None:
        dense = read_dense_weight(site.op, site.state)
        weights = site.memory.constant(dense.array, dense.origin, "rows")
        product, layer = Product.of_linear(site.op), site.layer()
        tiling = Tiling(site.schedule)
        site.launch(tiling.groups(product), functools.partial(_emit, layer, product, tiling, weights))


def _emit(layer: GpuLayer, product: Product, tiling: Tiling, weights: GpuArray, k: Kernel) -> None:
    source, output = layer.source, layer.output
    rhs, first = weights.scalars(k)
    lhs, out = (FlatMemory(*k.elements(tensor.memory, tensor.start, tensor.element)) for tensor in (source, output))
    epilogue = RowEpilogue(k, layer.epilogue, output.width)
    multiply(k, product, tiling, Operands(lhs, FlatMemory(rhs, first), out), epilogue.of)
