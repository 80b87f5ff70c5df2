"""Loop nests of `linalg.generic` ops on flat memory.

Every operand is at an address that is linear in the loops: an offset, and the elements from one turn of a loop to the
next.
Loops that step over memory as one are one; the innermost steps over neighbours, for LLVM to make vectors of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch_mlir import ir

from patc.diagnostics import PatcError
from patc.passes.generic.bufferize import root
from patc.passes.ir.functions import walk_ops


@dataclass(frozen=True)
class Loop:
    """One loop of a nest.

    Attributes:
        extent: turns.
        is_parallel: whether the turns may run at the same time.
        dim: of the op, the first where several are one.
    """

    extent: int
    is_parallel: bool
    dim: int


@dataclass(frozen=True)
class Access:
    """Where an operand lies for each turn.

    Attributes:
        memory: the argument or allocation that the operand is in; None for a number.
        operand: the operand itself.
        offset: of the first turn, in elements.
        steps: elements from one turn to the next, for each loop.
    """

    memory: ir.Value | None
    operand: ir.Value
    offset: int
    steps: tuple[int, ...]


@dataclass(frozen=True)
class Nest:
    """A `linalg.generic` as loops, the outermost first.

    Attributes:
        op: whose body is computed in each turn.
        loops: with at least two turns each.
        accesses: one an operand, first the inputs.
        divided: number of the loop whose turns threads share; None where no loop is parallel.
        starts: numbers that sums start from, by output; others start from what is in memory.
    """

    op: Any
    loops: tuple[Loop, ...]
    accesses: tuple[Access, ...]
    divided: int | None
    starts: Mapping[int, ir.Value] = field(default_factory=dict)

    @property
    def turns(self) -> int:
        """Times that the body is computed."""
        return math.prod(loop.extent for loop in self.loops)

    @property
    def outputs(self) -> tuple[Access, ...]:
        """The accesses that are written."""
        return self.accesses[len(self.op.inputs) :]

    @property
    def carried(self) -> int:
        """Number of the loop from which on results are carried in registers: only reductions follow."""
        kept = [number for number, loop in enumerate(self.loops) if loop.is_parallel]
        return kept[-1] + 1 if kept else 0

    def makes(self, memory: ir.Value) -> bool:
        """Whether what is written to a memory does not depend on what was there."""
        block = self.op.operation.regions[0].blocks[0]
        arguments = list(block.arguments)[len(self.op.inputs) :]
        written = [n for n, access in enumerate(self.outputs) if access.memory == memory]
        return bool(written) and all(n in self.starts or not any(True for _ in arguments[n].uses) for n in written)

    def parallel_first(self) -> Nest:
        """Return the nest with all reductions inside of the parallel loops."""
        order = sorted(range(len(self.loops)), key=lambda number: not self.loops[number].is_parallel)
        return replace(self.reordered(order), divided=None)

    def reordered(self, order: Sequence[int]) -> Nest:
        """Return the nest with some of its loops in another order."""
        loops = tuple(self.loops[number] for number in order)
        moved = [replace(access, steps=tuple(access.steps[number] for number in order)) for access in self.accesses]
        return replace(self, loops=loops, accesses=tuple(moved))

    def steps_as_one(self, number: int) -> bool:
        """Whether every operand steps over a loop and the next one as over one."""
        inner = self.loops[number + 1].extent
        return all(access.steps[number] == access.steps[number + 1] * inner for access in self.accesses)

    def joined(self, number: int) -> Nest:
        """Return the nest with a loop and the next one made one."""
        outer, inner = self.loops[number : number + 2]
        loop = replace(inner, extent=outer.extent * inner.extent)
        kept = [replace(a, steps=a.steps[:number] + a.steps[number + 1 :]) for a in self.accesses]
        return replace(self, loops=(*self.loops[:number], loop, *self.loops[number + 2 :]), accesses=tuple(kept))

    @staticmethod
    def of(op: Any) -> Nest:
        """Return the nest of a `linalg.generic` on static memrefs.

        Raises:
            PatcError: an indexing map is not linear.
        """
        loops, accesses = read_loops(op)
        indexed = indexed_dims(op)
        order = _order(loops, accesses)
        nest = Nest(op, tuple(loops), tuple(accesses), None).reordered(order)
        nest = _merge(_without_single(nest), indexed)
        return replace(nest, divided=_divided(nest))


def read_loops(op: Any) -> tuple[list[Loop], list[Access]]:
    """Return the loops of a `linalg.generic` on static memrefs as they are in the op, and the accesses of its operands.

    Raises:
        PatcError: an indexing map is not linear.
    """
    kinds = ["parallel" in str(kind) for kind in op.iterator_types]
    accesses, extents = _read_accesses(op, len(kinds))
    return [Loop(extent, kind, dim) for dim, (extent, kind) in enumerate(zip(extents, kinds, strict=True))], accesses


def memory_of(value: ir.Value) -> tuple[ir.Value, int, list[int]]:
    """Return the memory that a static memref is in, and its offset and strides there."""
    strides, offset = ir.MemRefType(value.type).get_strides_and_offset()
    return root(value), offset, list(strides)


def _read_accesses(op: Any, dims: int) -> tuple[list[Access], list[int]]:
    accesses, extents = [], [1] * dims
    for value, attr in zip(op.operands, op.indexing_maps, strict=True):
        if not isinstance(value.type, ir.MemRefType):
            accesses.append(Access(None, value, 0, (0,) * dims))
            continue
        memory, offset, strides = memory_of(value)
        steps = [0] * dims
        for size, stride, expression in zip(value.type.shape, strides, attr.value.results, strict=True):
            if isinstance(expression, ir.AffineDimExpr):
                extents[expression.position] = size
            constant, factors = _linear(expression, dims, op)
            offset += constant * stride
            steps = [step + factor * stride for step, factor in zip(steps, factors, strict=True)]
        accesses.append(Access(memory, value, offset, tuple(steps)))
    return accesses, extents


def _linear(expression: ir.AffineExpr, dims: int, op: Any) -> tuple[int, list[int]]:
    """Return the constant and the factors of the dims in a linear expression."""
    if isinstance(expression, ir.AffineConstantExpr):
        return expression.value, [0] * dims
    if isinstance(expression, ir.AffineDimExpr):
        return 0, [int(dim == expression.position) for dim in range(dims)]
    if isinstance(expression, (ir.AffineAddExpr, ir.AffineMulExpr)):
        sides = [_linear(side, dims, op) for side in (expression.lhs, expression.rhs)]
        (first, left), (second, right) = sides
        if isinstance(expression, ir.AffineAddExpr):
            return first + second, [a + b for a, b in zip(left, right, strict=True)]
        for (factor, none), (constant, factors) in (sides, sides[::-1]):
            if not any(none):
                return factor * constant, [factor * value for value in factors]
    raise PatcError(f"cannot compile: linalg.generic that reads at {expression}", op.location)


def indexed_dims(op: Any) -> set[int]:
    """Return the dims whose numbers the body computes with."""
    return {inner.attributes["dim"].value for inner in walk_ops(op) if inner.operation.name == "linalg.index"}


def _order(loops: list[Loop], accesses: list[Access]) -> list[int]:
    """Return the loops, outermost first: reductions inside, and innermost the one that jumps least in memory."""
    parallel = [number for number, loop in enumerate(loops) if loop.is_parallel]
    reductions = [number for number, loop in enumerate(loops) if not loop.is_parallel]
    order = parallel + reductions
    wide = [number for number in order if loops[number].extent > 1]
    if not wide:
        return order
    stored = accesses[-1].steps

    def jumps(number: int) -> tuple[int, bool, int]:
        away = sum(access.steps[number] not in (0, 1) for access in accesses)
        return away, stored[number] != 1, -number

    innermost = min(wide, key=jumps)
    order.remove(innermost)
    return [*order, innermost]


def _without_single(nest: Nest) -> Nest:
    """Drop the loops of one turn."""
    return nest.reordered([number for number, loop in enumerate(nest.loops) if loop.extent > 1])


def _merge(nest: Nest, indexed: set[int]) -> Nest:
    """Make one of two neighbouring loops where every operand steps over them as one."""
    number = 0
    while number + 1 < len(nest.loops):
        outer, inner = nest.loops[number : number + 2]
        alike = outer.is_parallel == inner.is_parallel and not indexed & {outer.dim, inner.dim}
        if alike and nest.steps_as_one(number):
            nest = nest.joined(number)
        else:
            number += 1
    return nest


_ENOUGH = 64  # turns to divide among threads


def _divided(nest: Nest) -> int | None:
    """Return the outermost parallel loop with turns enough for any number of threads, or else the longest."""
    parallel = [number for number, loop in enumerate(nest.loops) if loop.is_parallel]
    enough = [number for number in parallel if nest.loops[number].extent >= _ENOUGH]
    return min(enough, default=max(parallel, key=lambda number: nest.loops[number].extent, default=None))
