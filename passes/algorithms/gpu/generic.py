"""Any linalg on tensors on a GPU, "generic": its function becomes steps on flat memory, each a kernel of its own."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch_mlir import ir

from patc.dialects.schedules import Schedule
from patc.integers import ceil_div
from patc.passes.algorithms.gpu.base import GpuAlgorithm
from patc.passes.algorithms.gpu.site import GpuSite, Plan
from patc.passes.algorithms.limits import Limit, one_of
from patc.passes.base import PassState, fail
from patc.passes.cost.candidate import Candidate
from patc.passes.cost.models import cost_model
from patc.passes.generic.bufferize import Steps, bufferize, used_memories
from patc.passes.generic.estimate import count_operations
from patc.passes.generic.nests import Nest
from patc.passes.generic.products import Product
from patc.passes.generic.starts import with_starts
from patc.passes.ir.arena import Lifetime, place, round_up
from patc.passes.ir.elements import element_bytes
from patc.passes.ir.functions import find_callee
from patc.passes.kernels.generic import FlatMemory
from patc.passes.kernels.gpu.generic import THREADS, compute_nest, is_shared, parallel_turns
from patc.passes.kernels.gpu.kernel import LANES, SPLIT, Kernel, Memory
from patc.passes.kernels.gpu.matmul import Operands, Tiling, multiply
from patc.targets import Target

_MOST_GROUPS = 1 << 15  # along x: every device has 65535
_LEAST_TILE = 8  # rows, columns and depth of a product for tiles
_LINALG = ("linalg", "tensor", "arith", "math", "func")


@dataclass(frozen=True)
class GenericPlan(Plan):
    """What a call of an outlined function computes, and where its own buffers are in the memory it has for itself."""

    steps: Steps = field(kw_only=True)
    starts: list[int] = field(kw_only=True)


class Generic(GpuAlgorithm):
    """A thread computes each element of a result, one kernel after the other."""

    name = "generic"

    def applies(self, op: Any) -> bool:
        inside = find_callee(op).regions[0].blocks[0].operations
        # In other loops each turn needs the one before.
        return all(inner.operation.name.split(".")[0] in _LINALG for inner in inside)

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        function = find_callee(op)
        model = cost_model(target)
        elements = sum(math.prod(value.type.shape) for value in (*op.operands, *op.results))
        cycles = model.moved_cycles(elements) + count_operations(function) / model.costs.resident_threads
        schedule = Schedule(self.name, 1, LANES, LANES, split=SPLIT, threads=THREADS)
        yield Candidate(schedule, cycles, cycles, "memory")

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        yield one_of("threads", schedule.threads, [THREADS])

    def plan(self, op: Any) -> GenericPlan:
        steps = bufferize(find_callee(op))
        for step in steps.ops:
            if step.operation.name != "linalg.generic":
                raise fail(op, "loops that threads can share", step.operation.name)
        starts, size = _place_buffers(steps)
        return GenericPlan(size, steps=steps, starts=starts)

    def emit(self, site: GpuSite) -> None:
        assert isinstance(site.plan, GenericPlan)
        places = _places(site, site.plan)
        ops = site.plan.steps.ops
        for step, job in with_starts(ops, [_read(step) for step in ops]):
            used = {memory: places[memory] for memory in used_memories(step, places)}
            if isinstance(job, Product):
                _launch_product(site, job, used)
                continue
            assert isinstance(job, Nest)
            count = parallel_turns(job) if is_shared(job) else ceil_div(parallel_turns(job), THREADS)
            columns = min(count, _MOST_GROUPS)
            emit = functools.partial(_emit_nest, nest=job, places=used, groups=columns)
            site.launch((columns, ceil_div(count, columns), 1), emit)


@dataclass(frozen=True)
class _Place:
    """Where a memory of the steps is: a buffer, and the first byte there."""

    memory: Memory
    start: int


def _read(step: Any) -> Product | Nest:
    """Return what the loops of a step are: a product if tiles suit it."""
    product = Product.of(step)
    if product is None or min(product.rows.extent, product.columns.extent, product.depth.extent) < _LEAST_TILE:
        return Nest.of(step).parallel_first()
    return product


def _launch_product(site: GpuSite, product: Product, places: dict[ir.Value, _Place]) -> None:
    tiling = Tiling.of(site.schedule.algorithm, product)

    def emit(k: Kernel) -> None:
        memories = _memories(k, places)
        lhs, rhs, out = (
            FlatMemory(memories[access.memory].memref, k.add(memories[access.memory].first, access.offset))
            for access in (product.lhs, product.rhs, product.out)
        )
        multiply(k, product, tiling, Operands(lhs, rhs, out))

    site.launch(tiling.groups(product), emit, tiling.schedule)


def _emit_nest(k: Kernel, nest: Nest, places: dict[ir.Value, _Place], groups: int) -> None:
    compute_nest(k, nest, _memories(k, places), groups)


def _memories(k: Kernel, places: dict[ir.Value, _Place]) -> dict[ir.Value, FlatMemory]:
    return {
        memory: FlatMemory(*k.elements(place_.memory, place_.start, memory.type.element_type))
        for memory, place_ in places.items()
    }


def _places(site: GpuSite, plan: GenericPlan) -> dict[ir.Value, _Place]:
    """Return where each memory of the steps is."""
    op, memory, steps = site.op, site.memory, plan.steps
    first = memory.scratch(op)
    tensors = [memory.tensor(value) for value in op.operands]
    tables = [memory.constant(array, op.results[0], f"table{number}") for number, array in enumerate(steps.constants)]
    found = [_Place(tensor.memory, tensor.start) for tensor in tensors]
    found += [_Place(Memory.WEIGHTS, table.start) for table in tables]
    found += [_Place(Memory.ARENA, memory.start(result)) for result in op.results]
    places = dict(zip(steps.arguments, found, strict=True))
    for buffer, start in zip(steps.buffers, plan.starts, strict=True):
        places[buffer] = _Place(Memory.ARENA, first + start)
    return places


def _place_buffers(steps: Steps) -> tuple[list[int], int]:
    """Return the first byte of each buffer of the steps, and the bytes of all; those of different times share some."""
    used = [used_memories(step, steps.buffers) for step in steps.ops]
    lifetimes = []
    for buffer in steps.buffers:
        numbers = [number for number, memories in enumerate(used) if buffer in memories]
        size = round_up(element_bytes(buffer.type) * math.prod(buffer.type.shape))
        lifetimes.append(Lifetime(size, min(numbers, default=0), max(numbers, default=0)))
    return place(lifetimes)
