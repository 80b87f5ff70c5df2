"""Sums that start from a number: what fills their memory before is left out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from torch_mlir import ir

from patc.passes.generic.bufferize import root, used_memories
from patc.passes.generic.nests import Nest
from patc.passes.generic.products import Product
from patc.passes.generic.transpositions import Transposed
from patc.passes.ir.bodies import constant_number

Job: TypeAlias = Product | Transposed | Nest | None


def with_starts(ops: Sequence[Any], jobs: Sequence[Job]) -> list[tuple[Any, Job]]:
    """Return the steps of a function without the fills of memory that only the step after adds to: that starts from
    what they fill with.

    Args:
        jobs: what the loops of each step are.
    """
    kept, found_jobs = list(range(len(ops))), list(jobs)
    for place, op in enumerate(ops):
        number = _filled_with(op)
        if number is None:
            continue
        memory = root(op.outputs[0])
        reader = next((each for each in range(place + 1, len(ops)) if used_memories(ops[each], [memory])), None)
        if reader is None or not _can_start(jobs[reader], number):
            continue
        found = [n for n, out in enumerate(ops[reader].outputs) if root(out) == memory]
        inputs = [value for value in ops[reader].inputs if root(value) == memory]
        if len(found) == 1 and not inputs and _is_whole(ops[reader].outputs[found[0]], memory):
            found_jobs[reader] = _started(found_jobs[reader], found[0], number)
            kept.remove(place)
    return [(ops[place], found_jobs[place]) for place in kept]


def _started(job: Job, output: int, number: ir.Value) -> Job:
    """Return a job one of whose outputs starts from a number."""
    if isinstance(job, Nest):
        return replace(job, starts={**job.starts, output: number})
    assert isinstance(job, Product)
    return replace(job, adds=False)


def _can_start(job: Job, number: ir.Value) -> bool:
    """Whether a step can start from a number: a product from zero, and a nest whose sums are in registers."""
    if isinstance(job, Nest):
        return all(loop.is_parallel for loop in job.loops[: job.carried])
    return isinstance(job, Product) and bool(constant_number(number) == 0)


def _filled_with(op: Any) -> ir.Value | None:
    """Return the number that an op fills a whole memory with."""
    if (
        op.operation.name != "linalg.generic"
        or len(op.outputs) != 1
        or not _is_whole(op.outputs[0], root(op.outputs[0]))
    ):
        return None
    block = op.operation.regions[0].blocks[0]
    (first, *others), arguments = block.operations, list(block.arguments)
    if others:
        return None
    value = first.operands[0]
    if value in arguments[: len(op.inputs)]:
        value = op.inputs[arguments.index(value)]
    return None if value in arguments or isinstance(value.type, ir.MemRefType) else value


def _is_whole(view: ir.Value, memory: ir.Value) -> bool:
    return math.prod(view.type.shape) == math.prod(memory.type.shape)
