"""Neighbouring nests that go through the same blocks of rows: what one hands to the next stays in cache.

A softmax is four nests, of maxima, exponentials, sums and quotients: block after block goes through all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from torch_mlir import ir

from patc.passes.generic.nests import Access, Loop, Nest, indexed_dims
from patc.passes.ir.elements import element_bytes
from patc.passes.ir.functions import walk_ops

_LEAST_BLOCKS = 16  # to divide among threads


@dataclass(frozen=True)
class Blocks:
    """Nests whose outermost loops go through the same blocks.

    Attributes:
        count: blocks.
        nests: in their order.
        outer: for each of them the number of loops, the outermost, that go through the blocks.
        strides: elements from one block to the next of the memories that one nest writes and another one uses.
    """

    count: int
    nests: tuple[Nest, ...]
    outer: tuple[int, ...]
    strides: dict[ir.Value, int]

    @staticmethod
    def of(nests: Sequence[Nest], rows: int, cache_bytes: int) -> Blocks | None:
        """Return the blocks that some nests can go through together, as many as it takes for a block to fit a cache;
        None where a nest reads what another one writes for a different block.

        Args:
            rows: the greatest number that all `count_rows` of the nests are multiples of.
        """
        for count in _divisors(rows):
            if count < min(rows, _LEAST_BLOCKS):
                continue
            cut = [_cut(nest, count) for nest in nests]
            found = [each for each in cut if each is not None]
            if len(found) < len(cut):
                continue
            blocks = Blocks(count, tuple(nest for nest, _ in found), tuple(outer for _, outer in found), {})
            if blocks._bytes() <= cache_bytes:
                strides = blocks._find_strides()
                return None if strides is None else replace(blocks, strides=strides)
        return None

    def _accesses(self) -> Iterator[tuple[int, Access, bool]]:
        """Yield the number of a nest, an access of it to memory, and whether it writes."""
        for number, nest in enumerate(self.nests):
            for place, access in enumerate(nest.accesses):
                if access.memory is not None:
                    yield number, access, place >= len(nest.op.inputs)

    def _bytes(self) -> int:
        """Return the bytes that a block touches."""
        spans: dict[ir.Value, int] = {}
        for number, access, _ in self._accesses():
            assert access.memory is not None
            spans[access.memory] = max(spans.get(access.memory, 0), self._span(number, access))
        return sum(span * element_bytes(memory.type) for memory, span in spans.items())

    def _span(self, number: int, access: Access) -> int:
        """Return the elements between the first and behind the last that an access touches in a block."""
        inner = zip(self.nests[number].loops[self.outer[number] :], access.steps[self.outer[number] :], strict=True)
        return 1 + sum((loop.extent - 1) * abs(step) for loop, step in inner)

    def _find_strides(self) -> dict[ir.Value, int] | None:
        """Return `strides`; None where a block of some memory is not apart from the others."""
        users: dict[ir.Value, set[int]] = {}
        written: set[ir.Value] = set()
        for number, access, writes in self._accesses():
            assert access.memory is not None
            users.setdefault(access.memory, set()).add(number)
            written |= {access.memory} if writes else set()
        shared = {memory for memory in written if len(users[memory]) > 1}
        strides: dict[ir.Value, int] = {}
        for number, access, _ in self._accesses():
            if access.memory not in shared:
                continue
            stride = self._stride(number, access)
            is_apart = (
                stride is not None and access.offset >= 0 and access.offset + self._span(number, access) <= stride
            )
            if stride is None or not is_apart or strides.setdefault(access.memory, stride) != stride:
                return None
        return strides

    def _stride(self, number: int, access: Access) -> int | None:
        """Return the elements from one block to the next, if they are always as many."""
        outer = self.outer[number]
        extents = [loop.extent for loop in self.nests[number].loops[:outer]]
        steps = access.steps[:outer]
        for place in range(outer - 1):
            if steps[place] != steps[place + 1] * extents[place + 1]:
                return None
        return steps[-1] if steps else None


def count_rows(nest: Nest) -> int:
    """Return the turns of the parallel loops around all others, which can be divided into blocks."""
    if indexed_dims(nest.op) or any(inner.operation.name == "memref.load" for inner in walk_ops(nest.op)):
        return 1  # what it reads depends on more than where it is
    first = next((number for number, loop in enumerate(nest.loops) if not loop.is_parallel), len(nest.loops))
    return math.prod(loop.extent for loop in nest.loops[:first])


def _divisors(number: int) -> list[int]:
    small = [each for each in range(1, math.isqrt(number) + 1) if number % each == 0]
    return sorted({*small, *(number // each for each in small)})


def _cut(nest: Nest, count: int) -> tuple[Nest, int] | None:
    """Return a nest whose outermost loops have so many turns together, and their number; one loop may become two."""
    loops: list[Loop] = []
    steps: list[list[int]] = [[] for _ in nest.accesses]
    for number, loop in enumerate(nest.loops):
        done = math.prod(each.extent for each in loops)
        left = count // done
        if left == 1:
            return _rebuilt(nest, loops, steps, number), len(loops)
        if loop.extent > left:
            if loop.extent % left:
                return None
            inner = loop.extent // left
            loops += [replace(loop, extent=left), replace(loop, extent=inner)]
            for access, found in zip(nest.accesses, steps, strict=True):
                found += [access.steps[number] * inner, access.steps[number]]
            return _rebuilt(nest, loops, steps, number + 1), len(loops) - 1
        if left % loop.extent:
            return None
        loops.append(loop)
        for access, found in zip(nest.accesses, steps, strict=True):
            found.append(access.steps[number])
    return _rebuilt(nest, loops, steps, len(nest.loops)), len(loops)


def _rebuilt(nest: Nest, loops: list[Loop], steps: list[list[int]], kept: int) -> Nest:
    """Return a nest with other loops in front of those from number `kept` on."""
    accesses = [
        replace(access, steps=(*found, *access.steps[kept:]))
        for access, found in zip(nest.accesses, steps, strict=True)
    ]
    return replace(nest, loops=(*loops, *nest.loops[kept:]), accesses=tuple(accesses), divided=None)
