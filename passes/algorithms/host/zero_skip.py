"""Linear layers of one row with zeros in it; see `passes/kernels/host/zero_skip.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from patc.dialects.schedules import Schedule
from patc.integers import ceil_div
from patc.passes.algorithms.host.base import HostAlgorithm
from patc.passes.algorithms.host.images import Reach
from patc.passes.algorithms.host.site import HostSite
from patc.passes.algorithms.host.tiles import core_model, register_limit
from patc.passes.algorithms.limits import Limit, at_most
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.formats.layer_weights import read_dense_weight
from patc.passes.ir.elements import element_bytes
from patc.passes.ir.stored import holds_integers
from patc.passes.ir.zeros import read_zeros
from patc.passes.kernels.host.kernel import Kernel
from patc.passes.kernels.host.loops import Loops
from patc.passes.kernels.host.weights import pack_filters
from patc.passes.kernels.host.zero_skip import Elements
from patc.passes.kernels.host.zero_skip import ZeroSkip as Kernels
from patc.targets import Target


class ZeroSkip(HostAlgorithm):
    """Weights that zeros of the input multiply are not read; for inputs that are known to have some."""

    name: ClassVar[str] = "zero-skip"
    reaches: ClassVar[Reach] = Reach.NONE

    def applies(self, op: Any) -> bool:
        is_row = op.input.type.shape[0] == 1 and op.result.type.shape[1] >= _FEWEST
        return bool(is_row and not holds_integers(op))

    def objection(self, op: Any, state: PassState) -> str:
        is_finite = bool(np.isfinite(read_dense_weight(op, state).array).all())
        return "" if is_finite else "zero-skip is left out: 0 times weights that are NaN or infinite is NaN"

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        zeros = read_zeros(op)
        if zeros is None:
            return
        model, features, filters = core_model(op, target), op.input.type.shape[1], op.result.type.shape[1]
        size = element_bytes(op.input.type)
        lanes = model.lanes * size // 4  # it sums in f32
        lanes = min(lanes, 1 << filters.bit_length() - 1)
        blocks = ceil_div(filters, lanes * max(1, model.registers // 2))
        blocks = min(ceil_div(blocks, threads) * threads, filters // lanes)
        block = ceil_div(filters, blocks)
        schedule = Schedule(self.name, 1, 1, lanes, block)
        kept, vectors = features * (1 - zeros.inputs), ceil_div(block, lanes)
        streamed = size * kept * filters / _STREAM_SHARE / model.costs.memory_bytes_per_cycle
        # Beside the weights, place and value of each element.
        loads = (vectors + 2) / model.costs.loads_per_cycle
        multiplied = max(vectors * model.vector_cycles(lanes), model.costs.fma_latency_cycles)
        computed = blocks * (kept * max(loads, multiplied) + vectors * model.costs.store_cycles)
        bound, skipped = max(("memory", streamed), ("arithmetic", computed), key=lambda each: each[1])
        cycles = skipped + features * _LOOK
        yield Candidate(schedule, cycles, cycles, bound, skipped)

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        yield at_most("filters", schedule.filters, op.result.type.shape[1])
        yield at_most("lanes", schedule.lanes, schedule.filters)
        yield register_limit(ceil_div(schedule.filters, schedule.lanes), schedule, target)

    def emit(self, site: HostSite) -> None:
        op, schedule = site.op, site.schedule
        block, lanes, features = schedule.filters, schedule.lanes, op.input.type.shape[1]
        dense = read_dense_weight(op, site.state)
        packed = pack_filters(dense.array, block)[:, :, 0]
        packed = np.pad(packed, ((0, 0), (0, 0), (0, -block % lanes)))
        weight = site.constant(packed, dense.origin, f"rows{block}x{lanes}")
        places = site.memory.allocate(Elements.room(features), site.memory.builder.i32)
        values = site.memory.allocate(features, site.element)

        def find(kernel: Kernel, arguments: list[Any]) -> None:
            source, places, values = arguments
            Elements(places, values, features).find(kernel.b, source.memory, lanes)

        def emit(kernel: Kernel, arguments: list[Any]) -> None:
            source, places, values, weights, made, epilogue = arguments
            Kernels(Loops(kernel, made, epilogue, source), Elements(places, values, features), weights).emit()

        site.scheduled(Schedule(self.name), (0, 1)).call([site.source, places, values], find, [1.0])
        given = [site.source, places, values, weight, site.output, site.epilogue]
        site.call_in_groups(given, emit, [1.0] * len(packed))


_FEWEST = 4  # filters
_STREAM_SHARE = 0.95  # of the bandwidth of one stream, that rows here and there reach
_LOOK = 1.5  # cycles to see whether an element is zero
