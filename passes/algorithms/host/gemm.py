"""Fully connected layers of many rows; see `passes/kernels/host/matmul.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from patc.dialects.schedules import Schedule
from patc.passes.algorithms.host.base import HostAlgorithm
from patc.passes.algorithms.host.gemv import EXPANDED
from patc.passes.algorithms.host.images import Reach
from patc.passes.algorithms.host.products import Operands, cut, emit_product, pack_constant
from patc.passes.algorithms.host.site import HostSite
from patc.passes.algorithms.host.tiles import core_model, moved_bytes
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.formats.layer_weights import read_dense_weight
from patc.passes.generic.products import Product
from patc.passes.ir.stored import holds_bits, holds_integers
from patc.targets import Target

_LEAST_ROWS = 2  # for weights to be worth more than one pass through memory


class Gemm(HostAlgorithm):
    """Products of two matrices, of which weights are packed into panels."""

    name: ClassVar[str] = "gemm"
    reaches: ClassVar[Reach] = Reach.ROUNDED

    def applies(self, op: Any) -> bool:
        return not holds_bits(op)

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        rows, features = op.input.type.shape
        if rows < _LEAST_ROWS or str(op.result.type.element_type) != "f32":
            return
        down, across = cut(Product.of_linear(op), target)
        model = core_model(op, target)
        costs = model.costs
        sums = down.count * down.longest * across.count * across.longest
        waits = max(1.0, costs.sums_in_flight / (down.longest * across.longest))
        computed = sums * features * model.vector_cycles(target.lanes) * waits / costs.product_share
        if holds_integers(op):
            vectors = down.count * across.count * across.longest * features
            computed += EXPANDED * vectors * model.vector_cycles(target.lanes)
        moved = moved_bytes(op) / costs.memory_bytes_per_cycle
        cycles, bound = max((computed, "arithmetic"), (moved, "memory"))
        schedule = Schedule(self.name, down.longest, across.longest * target.lanes, target.lanes)
        yield Candidate(schedule, cycles, cycles, bound)

    def emit(self, site: HostSite) -> None:
        op, dense = site.op, read_dense_weight(site.op, site.state)
        product = Product.of_linear(op)
        weight = pack_constant(site, product, dense.array, dense.origin)
        memories = site.source.memory, weight, site.output.memory
        emit_product(site, product, Operands(*memories, site.epilogue, is_packed=True))
