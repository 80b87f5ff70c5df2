"""Any linalg on tensors: its function becomes steps on flat memory, each a kernel of its own."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from torch_mlir import ir

from patc.dialects.schedules import Schedule
from patc.integers import ceil_div
from patc.passes.algorithms.host.base import HostAlgorithm
from patc.passes.algorithms.host.chains import Plan, emit_chain, plan_chain
from patc.passes.algorithms.host.images import Reach
from patc.passes.algorithms.host.products import Operands, emit_product, pack_constant, share, starts
from patc.passes.algorithms.host.site import NO_EPILOGUE, HostSite
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.generic.bufferize import Steps, bufferize, used_memories
from patc.passes.generic.chains import Link
from patc.passes.generic.estimate import count_bytes, count_operations
from patc.passes.generic.images import keeps_images
from patc.passes.generic.nests import Nest
from patc.passes.generic.products import Product
from patc.passes.generic.starts import Job, with_starts
from patc.passes.generic.transpositions import Transposed
from patc.passes.ir.constants import is_constant, read_constant
from patc.passes.ir.functions import find_callee
from patc.passes.ir.records import read_cycles
from patc.passes.kernels import generic
from patc.passes.kernels.host.kernel import Kernel, set_apart
from patc.passes.kernels.host.transposition import Transposition
from patc.targets import Target

_SMALL_SHARE = 0.02  # of a net's cycles: what is computed of images that a call does not have costs no more
_MOST_TOGETHER = 16  # nests that go through blocks together


class Generic(HostAlgorithm):
    """The loops of an outlined function, some steps together and others one after the other; threads share blocks of
    rows, or the longest parallel loop."""

    name: ClassVar[str] = "generic"
    has_row_tiles: ClassVar[bool] = False

    def reach(self, op: Any, most: int) -> Reach:
        given = [number for number, value in enumerate(op.operands) if not is_constant(value)]
        spent = sum(map(read_cycles, op.operation.block.operations))
        is_small = "cycles" in op.attributes and read_cycles(op) <= _SMALL_SHARE * spent
        return Reach.WHOLE if is_small and keeps_images(find_callee(op), given, most) else Reach.NONE

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        function = find_callee(op)
        computed = count_operations(function) / target.lanes
        moved = count_bytes(function) / target.core_costs().outlined_bytes_per_cycle
        cycles, bound = max((computed, "arithmetic"), (moved, "memory"))
        yield Candidate(Schedule(self.name, columns=1, lanes=target.lanes), cycles, cycles, bound)

    def emit(self, site: HostSite) -> None:
        steps = bufferize(find_callee(site.op))
        todo = with_starts(steps.ops, [_read(step) for step in steps.ops])
        plans = _find_chains(site, [step for step, _ in todo], [job for _, job in todo], steps)
        needless = {memory for plan in plans.values() for memory in (*plan.stack, *plan.kept)}
        memories = _memories(site, steps, needless)
        first = 0
        while first < len(todo):
            step, job = todo[first]
            plan = plans.get(first)
            if plan is not None:
                emit_chain(site, plan, memories)
            elif isinstance(job, Product):
                _emit_product(site, job, memories, steps.arguments[: len(site.op.operands)])
            elif isinstance(job, Transposed):
                _emit_transposed(site, job, memories)
            elif isinstance(job, Nest):
                _emit_nest(site, job, memories)
            else:
                _emit_step(site, step, memories)
            first += 1 if plan is None else len(plan.chain.links)


def _find_chains(site: HostSite, ops: Sequence[Any], jobs: Sequence[Job], steps: Steps) -> dict[int, Plan]:
    """Return how steps are computed together, by the number of the first of them."""
    known = {*steps.arguments, *steps.buffers}
    users: dict[ir.Value, list[int]] = {}
    for number, op in enumerate(ops):
        for memory in used_memories(op, known):
            users.setdefault(memory, []).append(number)
    own = {buffer: users[buffer] for buffer in steps.buffers if buffer in users}
    plans: dict[int, Plan] = {}
    first = 0
    while first < len(jobs):
        plan = _find_chain(site, first, jobs[first : first + _MOST_TOGETHER], own)
        if plan is not None:
            plans[first] = plan
        first += 1 if plan is None else len(plan.chain.links)
    return plans


def _find_chain(site: HostSite, first: int, jobs: Sequence[Job], own: Mapping[ir.Value, Sequence[int]]) -> Plan | None:
    """Return how the first of some steps are computed together, if several are.

    Args:
        own: the steps that use each memory of the function.
    """
    found = None
    links: list[Link] = []
    for count, job in enumerate(jobs, 1):
        if not isinstance(job, (Nest, Product)):
            break
        links.append(job)
        within = range(first, first + count)
        inner = [memory for memory, users in own.items() if all(user in within for user in users)]
        plan = plan_chain(site, links, inner) if count > 1 or isinstance(job, Nest) else None
        if plan is None and count > 1:
            break
        found = plan
    return found


def _read(step: Any) -> Job:
    """Return what the loops of a step are; None for one that has its own."""
    if step.operation.name != "linalg.generic":
        return None
    if (product := Product.of(step)) is not None:
        return product
    nest = Nest.of(step)
    return Transposed.of(nest) or nest


def _memories(site: HostSite, steps: Steps, needless: Collection[ir.Value]) -> dict[ir.Value, ir.Value]:
    """Return the memory of the net that each memory of the steps is, without those that need none."""
    op = site.op
    constants = [site.constant(array, op.results[0], f"table{n}") for n, array in enumerate(steps.constants)]
    given = [site.buffer(value).memory for value in op.operands]
    made = [site.memory.result(value).memory for value in op.results]
    memories = dict(zip(steps.arguments, [*given, *constants, *made], strict=True))
    for buffer in [each for each in steps.buffers if each not in needless]:
        elements = max(1, math.prod(buffer.type.shape))
        memories[buffer] = site.memory.allocate(elements, buffer.type.element_type)
    return memories


def _emit_product(
    site: HostSite, product: Product, memories: Mapping[ir.Value, ir.Value], given: Sequence[ir.Value]
) -> None:
    """Call a product; `given` are the memories of the operands of the site's op."""
    lhs, rhs, out = (memories[access.memory] for access in (product.lhs, product.rhs, product.out))
    packed = _pack_constant(site, product, dict(zip(given, site.op.operands, strict=True)).get(product.rhs.memory))
    emit_product(site, product, Operands(lhs, packed or rhs, out, NO_EPILOGUE, is_packed=packed is not None))


def _pack_constant(site: HostSite, product: Product, value: ir.Value | None) -> ir.Value | None:
    """Return the right factor in panels where it is one constant matrix."""
    array = None if value is None else read_constant(value, site.state)
    if value is None or array is None or any(turns.rhs for turns in product.outer):
        return None
    flat, columns, depth = np.ravel(array)[product.rhs.offset :], product.columns, product.depth
    steps = (columns.rhs * flat.itemsize, depth.rhs * flat.itemsize)
    matrix = np.lib.stride_tricks.as_strided(flat, (columns.extent, depth.extent), steps, writeable=False)
    return pack_constant(site, product, matrix, value)


def _emit_transposed(site: HostSite, copy: Transposed, memories: Mapping[ir.Value, ir.Value]) -> None:
    lanes, extents = site.schedule.lanes, [loop.extent for loop, _, _ in copy.outer]
    count, bands = math.prod(extents), ceil_div(copy.rows, lanes)
    threads = min(site.schedule.threads, max(1, count * copy.rows * copy.columns // site.costs.shared_work_cycles))
    sides = [
        (copy.source.offset, [step for _, step, _ in copy.outer]),
        (copy.output.offset, [step for _, _, step in copy.outer]),
    ]

    def emit(kernel: Kernel, arguments: list[Any]) -> None:
        set_apart(arguments)
        b, work = kernel.b, kernel.work
        steps = copy.source_step, copy.output_step
        loops = Transposition(b, arguments[0], arguments[1], copy.rows, copy.columns, *steps, kernel.schedule.lanes)

        def one_matrix(number: ir.Value) -> None:
            source, output = starts(b, number, extents, sides)
            loops.emit(source, output, (work.first_filter, work.last_filter))

        b.each(work.first_tile, work.last_tile, one_matrix)

    given = [memories[access.memory] for access in (copy.source, copy.output) if access.memory is not None]
    share(site, threads, (count, bands)).call(given, emit, [1.0] * bands)


@dataclass(frozen=True)
class _Given:
    """The memories that a kernel of some ops is given, each once.

    Attributes:
        places: memory of the steps -> number of the kernel's argument.
        memories: the arguments.
    """

    places: dict[ir.Value, int]
    memories: list[ir.Value]

    @staticmethod
    def of(names: Sequence[ir.Value], memories: Mapping[ir.Value, ir.Value]) -> _Given:
        """Return those of the memories of the steps that are named; `memories` says what these are."""
        given = list(dict.fromkeys(memories[name] for name in names))
        return _Given({name: given.index(memories[name]) for name in names}, given)

    def seen(self, arguments: Sequence[ir.Value]) -> dict[ir.Value, generic.FlatMemory]:
        """Return what the memories of the steps are in the kernel."""
        return {name: generic.FlatMemory(arguments[place]) for name, place in self.places.items()}


def _emit_nest(site: HostSite, nest: Nest, memories: Mapping[ir.Value, ir.Value]) -> None:
    turns = 1 if nest.divided is None else nest.loops[nest.divided].extent
    threads = min(site.schedule.threads, turns, max(1, nest.turns // site.costs.shared_work_cycles))
    given = _Given.of(used_memories(nest.op, memories), memories)

    def emit(kernel: Kernel, arguments: list[Any]) -> None:
        set_apart(arguments)
        some = kernel.work.first_tile, kernel.work.last_tile
        generic.compute_nest(kernel.b, nest, given.seen(arguments), some)

    site = site.scheduled(replace(site.schedule, split="rows", threads=threads), (0, turns))
    site.call(given.memories, emit, [1.0])


def _emit_step(site: HostSite, step: Any, memories: Mapping[ir.Value, ir.Value]) -> None:
    given = _Given.of(used_memories(step, memories), memories)

    def emit(kernel: Kernel, arguments: list[Any]) -> None:
        set_apart(arguments)
        generic.compute_step(kernel.b, step, given.seen(arguments))

    site.scheduled(replace(site.schedule, threads=1), (0, 1)).call(given.memories, emit, [1.0])
