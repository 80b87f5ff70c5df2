"""Fully connected layers; see `passes/kernels/host/gemv.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from patc.dialects.schedules import Schedule
from patc.integers import ceil_div
from patc.passes.algorithms.host.base import HostAlgorithm
from patc.passes.algorithms.host.images import Reach
from patc.passes.algorithms.host.site import HostSite
from patc.passes.algorithms.host.tiles import core_model, memory_bound, register_limit
from patc.passes.algorithms.limits import Limit, at_most, divisor_of
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.formats.layer_weights import read_dense_weight
from patc.passes.ir.elements import element_bytes
from patc.passes.ir.stored import holds_bits, holds_integers, tensor_bytes
from patc.passes.kernels.host.gemv import DotProducts
from patc.passes.kernels.host.kernel import Kernel
from patc.passes.kernels.host.loops import Loops
from patc.passes.kernels.host.weight_vectors import WORD_BITS, pack_bits
from patc.passes.kernels.host.weights import pack_features
from patc.targets import Target

_FEW = 16  # registers
EXPANDED = 2.0  # multiply-adds that could start while integers become a vector of floats


class Gemv(HostAlgorithm):
    """Products of a matrix and a vector or, of several images, of two matrices: weights are a stream from memory."""

    name: ClassVar[str] = "gemv"
    reaches: ClassVar[Reach] = Reach.ROUNDED

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        model, images, size = core_model(op, target), op.input.type.shape[0], element_bytes(op.input.type)
        filters, features = op.result.type.shape[1], op.input.type.shape[1]
        rows = min(images, 4)
        has_room = rows == 1 and (model.registers > _FEW or not holds_bits(op))  # what makes floats of bits needs some
        block = min(filters, 8 if has_room else 4)
        lanes = model.lanes * size // 4  # it sums in f32
        schedule = Schedule(self.name, rows, 1, lanes, block)
        read = tensor_bytes(op, op.weight) if holds_integers(op) else size * features * filters
        streamed = memory_bound(model, schedule, float(read))
        # Each of its sums is of a vector's lanes, which are added up in the end.
        vectors = features / lanes * model.vector_cycles(lanes)
        computed = images * filters * (vectors / model.costs.dot_share + model.costs.lane_sum_cycles)
        if holds_integers(op):
            computed += EXPANDED * vectors * filters * ceil_div(images, rows)
        yield max(streamed, Candidate(schedule, computed, computed, "arithmetic"), key=lambda each: each.cycles)

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        yield at_most("filters", schedule.filters, op.result.type.shape[1])
        rows = min(schedule.rows, op.input.type.shape[0])
        yield register_limit(rows * schedule.filters, schedule, target)
        if holds_bits(op):
            yield divisor_of("lanes", schedule.lanes, WORD_BITS)

    def emit(self, site: HostSite) -> None:
        op, source, output = site.op, site.source, site.output
        block, lanes = site.schedule.filters, site.schedule.lanes
        dense = read_dense_weight(op, site.state)
        packed = pack_features(dense.array, block, lanes)
        if packed.dtype == bool:
            packed = pack_bits(packed)
        weight = site.constant(packed, dense.origin, f"packed{block}x{lanes}")

        def emit(kernel: Kernel, arguments: list[Any]) -> None:
            given, weights, made, epilogue = arguments
            DotProducts(Loops(kernel, made, epilogue, given), weights).emit()

        costs = [1.0] * ceil_div(output.shape[1], block)
        site.call_in_groups([source, weight, output, site.epilogue], emit, costs)
