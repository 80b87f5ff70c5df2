"""Elements that become quantised on a GPU, stop being so, or are added up; see `passes/kernels/gpu/word_planes.py`."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from patc.dialects.quantised import Quantisation
from patc.dialects.schedules import Schedule
from patc.integers import ceil_div
from patc.passes.algorithms.gpu.base import GpuAlgorithm, plane_limits
from patc.passes.algorithms.gpu.site import GpuSite
from patc.passes.algorithms.limits import Limit
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.cost.gpu_planes import plane_candidates
from patc.passes.cost.models import cost_model
from patc.passes.ir.elements import WORD
from patc.passes.ir.quantised import first_numbers, operand_factor
from patc.passes.kernels.gpu.word_planes import Summands, word_planes, word_rows
from patc.targets import Target


class WordElements(GpuAlgorithm):
    """Words of one or two tensors, or floats of one; a thread computes neighbouring columns of some rows, or a word of
    a row."""

    name = "words"

    def applies(self, op: Any) -> bool:
        if len({tuple(value.type.shape) for value in (*op.operands, *op.results)}) > 1:
            return False
        if len(op.operands) == 1:
            return op.result.type.rank in (2, 4)
        # Of one sort: quotients are not rounded as they are elsewhere.
        kinds = {Quantisation.of(value.type) is not None for value in (*op.operands, *op.results)}
        return op.result.type.rank == 4 and len(kinds) == 1

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        yield from plane_candidates(op, self.name, cost_model(target))

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        yield from plane_limits(schedule)

    def emit(self, site: GpuSite) -> None:
        op, result = site.op, Quantisation.of(site.op.result.type)
        quantised = [Quantisation.of(each.type) is not None for each in op.operands]
        factors = tuple(float(operand_factor(op, each)) for each in op.operands) if all(quantised) else (1.0,)
        steps = None
        if result is not None and not all(quantised):
            role = f"steps.{result.scale.hex()}.{result.zero_point - result.lowest}"
            steps = site.memory.constant(first_numbers(result), op.result, role)
        layer = site.layer(*map(site.memory.tensor, op.operands))
        summands = Summands(factors, steps, op.result.type.shape[1])
        if op.result.type.rank == 4:
            emit = functools.partial(word_planes, layer=layer, summands=summands)
            site.launch(site.grid(layer.output.channels), emit)
        else:
            words = ceil_div(ceil_div(summands.depth, WORD), site.schedule.threads)
            site.launch((words, layer.output.channels, 1), functools.partial(word_rows, layer=layer, summands=summands))
