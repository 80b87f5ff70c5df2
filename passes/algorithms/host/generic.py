"""Any linalg on tensors: its function becomes steps on flat memory, each a kernel of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from torch_mlir import ir

from patc.dialects.attributes import Schedule
from patc.passes.algorithms.host.base import HostAlgorithm
from patc.passes.algorithms.host.site import HostSite
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.generic.bufferize import Steps, bufferize, used_memories
from patc.passes.generic.estimate import count_bytes, count_operations
from patc.passes.generic.nests import Nest
from patc.passes.ir.functions import find_callee
from patc.passes.kernels import generic
from patc.passes.kernels.host.kernel import Kernel, set_apart
from patc.targets import Target

_LEAST_TURNS = 8192  # of a body, for a thread to be worth waking


class Generic(HostAlgorithm):
    """The loops of an outlined function, one step after the other; threads share the longest parallel loop of each."""

    name: ClassVar[str] = "generic"
    has_row_tiles: ClassVar[bool] = False

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        function = find_callee(op)
        computed = count_operations(function) / target.lanes
        moved = count_bytes(function) / target.core_costs().outlined_bytes_per_cycle
        cycles, bound = max((computed, "arithmetic"), (moved, "memory"))
        yield Candidate(Schedule(self.name, columns=1, lanes=target.lanes), cycles, cycles, bound)

    def emit(self, site: HostSite) -> None:
        steps = bufferize(find_callee(site.op))
        memories = _memories(site, steps)
        for step in steps.ops:
            if step.operation.name == "linalg.generic":
                _emit_nest(site, Nest.of(step), memories)
            else:
                _emit_step(site, step, memories)


def _memories(site: HostSite, steps: Steps) -> dict[ir.Value, ir.Value]:
    """Return the memory of the net that each memory of the steps is."""
    op = site.op
    constants = [site.constant(array, op.results[0], f"table{n}") for n, array in enumerate(steps.constants)]
    given = [site.buffer(value).memory for value in op.operands]
    made = [site.memory.result(value).memory for value in op.results]
    memories = dict(zip(steps.arguments, [*given, *constants, *made], strict=True))
    for buffer in steps.buffers:
        elements = max(1, math.prod(buffer.type.shape))
        memories[buffer] = site.memory.allocate(elements, buffer.type.element_type)
    return memories


def _emit_nest(site: HostSite, nest: Nest, memories: Mapping[ir.Value, ir.Value]) -> None:
    turns = 1 if nest.divided is None else nest.loops[nest.divided].extent
    threads = min(site.schedule.threads, turns, max(1, nest.turns // _LEAST_TURNS))
    names = used_memories(nest.op, memories)
    given = list(dict.fromkeys(memories[name] for name in names))

    def emit(kernel: Kernel, arguments: list[Any]) -> None:
        set_apart(arguments)
        seen = {name: generic.FlatMemory(arguments[given.index(memories[name])]) for name in names}
        generic.compute_nest(kernel.b, nest, seen, (kernel.work.first_tile, kernel.work.last_tile))

    site.scheduled(replace(site.schedule, split="rows", threads=threads), (0, turns)).call(given, emit, [1.0])


def _emit_step(site: HostSite, step: Any, memories: Mapping[ir.Value, ir.Value]) -> None:
    names = used_memories(step, memories)
    given = list(dict.fromkeys(memories[name] for name in names))

    def emit(kernel: Kernel, arguments: list[Any]) -> None:
        set_apart(arguments)
        generic.compute_step(
            kernel.b, step, {name: generic.FlatMemory(arguments[given.index(memories[name])]) for name in names}
        )

    site.scheduled(replace(site.schedule, threads=1), (0, 1)).call(given, emit, [1.0])
