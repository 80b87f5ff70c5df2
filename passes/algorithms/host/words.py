"""Elements that become quantised, stop being so, or are added up; see `passes/kernels/host/word_planes.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from patc.dialects.attributes import Activation
from patc.dialects.quantised import Quantisation
from patc.dialects.schedules import Schedule
from patc.passes.algorithms.host.base import HostAlgorithm
from patc.passes.algorithms.host.images import Reach
from patc.passes.algorithms.host.site import HostSite
from patc.passes.algorithms.host.tiles import core_model, memory_bound, moved_bytes, plane_schedule, tile_limits
from patc.passes.algorithms.limits import Limit
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.ir.planes import as_planes
from patc.passes.ir.quantised import Reciprocal, only_limits, operand_factor
from patc.passes.kernels.host.kernel import Epilogue, Kernel
from patc.passes.kernels.host.loops import Loops
from patc.passes.kernels.host.word_planes import Summand, WordPlanes, WordRows
from patc.passes.kernels.narrowing import narrowing_of
from patc.targets import Target


class WordElements(HostAlgorithm):
    """One or two tensors, of which some are quantised, in the order in which their elements lie in memory."""

    name: ClassVar[str] = "words"
    reaches: ClassVar[Reach] = Reach.NONE

    def applies(self, op: Any) -> bool:
        shapes = {tuple(value.type.shape) for value in (*op.operands, *op.results)}
        planes = op.result.type.rank == 4 or (op.result.type.rank == 2 and len(op.operands) == 1)
        return len(shapes) == 1 and planes

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        model = core_model(op, target)
        vectors = 4 if Quantisation.of(op.result.type) is None else 1
        yield memory_bound(model, plane_schedule(op, self.name, model.lanes, vectors), moved_bytes(op))

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        yield from tile_limits(op, schedule, target)

    def emit(self, site: HostSite) -> None:
        op, output = site.op, site.output
        given = [site.buffer(operand) for operand in op.operands]
        quantised = [Quantisation.of(each.type) is not None for each in op.operands]
        factors = [
            float(operand_factor(op, each)) if is_quantised else 0.0
            for each, is_quantised in zip(op.operands, quantised, strict=True)
        ]
        channels, result, activation = op.result.type.shape[1], Quantisation.of(op.result.type), Activation.of(op)
        are_divided = result is not None and quantised == [False] and only_limits(activation)
        reciprocal = Reciprocal.of(result) if result is not None and are_divided else None
        narrowing = narrowing_of(site.target, signed=result is not None and result.signed)

        def emit(kernel: Kernel, arguments: list[Any]) -> None:
            made, epilogue, *tensors = arguments
            loops = Loops(kernel, made, Epilogue(None, None, Activation()), tensors[0])
            if op.result.type.rank == 2:
                WordRows(loops, factors[0], channels).emit()
                return
            summands = tuple(Summand(*each) for each in zip(tensors, factors, strict=True))
            WordPlanes(loops, summands, epilogue, channels, reciprocal, narrowing).emit()

        site.call([output, site.epilogue, *given], emit, [1.0] * as_planes(output.shape)[1], any_part=True)
