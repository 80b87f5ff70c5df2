"""Loop nests of linalg on flat memory with explicit vectors; nests over the same elements are one pass over memory."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from torch_mlir import ir
from torch_mlir.dialects import arith, memref, vector

from patc.integers import ceil_div
from patc.passes.generic.nests import Access, Nest
from patc.passes.generic.vector_loops import Combiner, combiners
from patc.passes.kernels.builder import Builder, Index, Vectors, element_type
from patc.passes.kernels.generic import Body, Memories, relax, rounds

Addresses: TypeAlias = tuple[tuple[Index, ...], ...]  # of the operands of each nest


@dataclass(frozen=True)
class Strip:
    """Vectors along a loop that are computed together: where each begins, and how many of its lanes count."""

    firsts: tuple[int, ...]
    valid: tuple[int, ...]

    def at(self, place: int) -> tuple[int, int]:
        """Return where a vector begins, and how many of its lanes count."""
        return self.firsts[place], self.valid[place]


@dataclass(frozen=True)
class Lanes:
    """How a loop is cut into vectors.

    Attributes:
        loop: its number.
        lanes: of a vector.
        vectors: of a strip.
    """

    loop: int
    lanes: int
    vectors: int

    @property
    def strip(self) -> int:
        """Turns of the loop that are computed together."""
        return self.lanes * self.vectors

    @staticmethod
    def of(nests: Sequence[Nest], loop: int, most: int, registers: int) -> Lanes:
        """Return vectors of at most so many lanes, enough of them to hide the latency of what is computed."""
        extent = nests[0].loops[loop].extent
        lanes = min(most, 1 << (extent - 1).bit_length())
        operations = sum(len(list(nest.op.operation.regions[0].blocks[0].operations)) for nest in nests)
        vectors = 4 if operations <= registers // 2 else 2
        return Lanes(loop, lanes, min(vectors, ceil_div(extent, lanes)))


@dataclass(frozen=True)
class Pass:
    """Nests with equal loops, whose elements are computed one vector after the other by all of them.

    What one of them writes and another one reads is at the same place in each turn.

    Attributes:
        lanes: the vectors; their loop comes last of the parallel ones, or last of all.
        kept: memories of the steps that nothing else reads, which need not be written.
    """

    b: Builder
    nests: tuple[Nest, ...]
    memories: Memories
    lanes: Lanes
    kept: Collection[ir.Value] = ()

    def write(self, turns: Sequence[Index], bounds: tuple[Index, Index] | None = None) -> None:
        """Write the loops.

        Args:
            turns: of the outermost loops, which are not written.
            bounds: of the loop after these; in strips where vectors go along it.
        """
        addresses = tuple(tuple(self._first(access) for access in nest.accesses) for nest in self.nests)
        for number, turn in enumerate(turns):
            addresses = self.step(number, addresses, turn)
        _Writer(self, len(turns), bounds).enter(len(turns), addresses, None, {})

    def _first(self, access: Access) -> Index:
        known = access.memory is not None and access.memory not in self.kept
        return self.b.add(self.memories[access.memory].first, access.offset) if known else 0

    def step(self, number: int, addresses: Addresses, turn: Index) -> Addresses:
        b = self.b
        return tuple(
            tuple(
                b.add(at, b.mul(turn, access.steps[number])) for at, access in zip(places, nest.accesses, strict=True)
            )
            for places, nest in zip(addresses, self.nests, strict=True)
        )


_Sums: TypeAlias = dict[int, list[Vectors]]  # nest -> output -> vector of the strip


class _Writer:
    def __init__(self, work: Pass, first: int, bounds: tuple[Index, Index] | None) -> None:
        self._pass = work
        self._b = work.b
        self._nests = work.nests
        self._lanes = work.lanes
        self._loops = work.nests[0].loops
        self._first, self._bounds = first, bounds
        self._combiners = [combiners(nest) or [] for nest in work.nests]

    def enter(self, number: int, addresses: Addresses, strip: Strip | None, sums: _Sums) -> _Sums:
        """Write the loops from one on; return the sums that are carried through it."""
        begun = [n for n, nest in enumerate(self._nests) if nest.carried == number < len(self._loops)]
        sums = sums | {n: self._start(n, addresses[n], strip) for n in begun}
        if number == len(self._loops):
            assert strip is not None
            return self._compute(addresses, strip, sums)
        if number == self._lanes.loop:
            sums = self._strips(addresses, sums)
        else:
            bounds = self._bounds if number == self._first and self._bounds else (0, self._loops[number].extent)
            sums = self._loop(number, addresses, strip, sums, bounds)
        for n in begun:
            self._finish(n, sums.pop(n), addresses[n], strip)
        return sums

    def _loop(
        self, number: int, addresses: Addresses, strip: Strip | None, sums: _Sums, bounds: tuple[Index, Index]
    ) -> _Sums:
        def body(turn: ir.Value, carried: Vectors) -> Vectors:
            inner = self._pass.step(number, addresses, turn)
            return _flat(self.enter(number + 1, inner, strip, _like(sums, carried)))

        return _like(sums, self._b.loop(*bounds, _flat(sums), body))

    def _strips(self, addresses: Addresses, sums: _Sums) -> _Sums:
        """Write the loop that vectors go along: whole strips, and what is left."""
        b, number, lanes = self._b, self._lanes.loop, self._lanes.lanes
        size, extent = self._lanes.strip, self._loops[self._lanes.loop].extent
        whole, rest = divmod(extent, size)
        all_lanes = Strip(tuple(range(0, size, lanes)), (lanes,) * self._lanes.vectors)
        low, high = self._bounds if number == self._first and self._bounds else (0, whole + bool(rest))

        def body(turn: ir.Value, carried: Vectors) -> Vectors:
            inner = self._pass.step(number, addresses, b.mul(turn, size))
            return _flat(self.enter(number + 1, inner, all_lanes, _like(sums, carried)))

        if whole == 1 and isinstance(high, int):
            sums = _like(sums, body(b.index(0), _flat(sums)))
        elif whole:
            sums = _like(sums, b.loop(low, b.minimum(high, whole), _flat(sums), body))
        if not rest:
            return sums
        firsts = tuple(range(0, rest, lanes))
        last = Strip(firsts, tuple(min(lanes, rest - first) for first in firsts))
        inner = self._pass.step(number, addresses, whole * size)
        if isinstance(high, int):
            return self.enter(number + 1, inner, last, sums)

        def write_last() -> None:
            self.enter(number + 1, inner, last, {})  # threads share no sums

        b.when_equal(high, whole + 1, write_last)
        return sums

    # Sums.

    def _start(self, n: int, addresses: Sequence[Index], strip: Strip | None) -> list[Vectors]:
        """Return what the sums of a nest begin with: nothing where vectors go along them."""
        nest, b = self._nests[n], self._b
        if strip is None:
            types = [access.operand.type.element_type for access in nest.outputs]
            neutral = [each.neutral for each in self._combiners[n]]
            return [
                [b.splat(value, self._lanes.lanes, type_)] * self._lanes.vectors
                for value, type_ in zip(neutral, types, strict=True)
            ]
        places = addresses[len(nest.op.inputs) :]
        found = []
        for output, (access, place) in enumerate(zip(nest.outputs, places, strict=True)):
            if output in nest.starts:
                found.append([self._vector(self._outer(nest.starts[output]))] * len(strip.firsts))
            else:
                found.append([self._load(access, place, *strip.at(k)) for k in range(len(strip.firsts))])
        return found

    def _finish(self, n: int, sums: list[Vectors], addresses: Sequence[Index], strip: Strip | None) -> None:
        nest = self._nests[n]
        for output, (values, place) in enumerate(zip(sums, addresses[len(nest.op.inputs) :], strict=True)):
            access = nest.outputs[output]
            if strip is not None:
                for value, first, valid in zip(values, strip.firsts, strip.valid, strict=True):
                    self._store(value, access, place, first, valid)
                continue
            total = self._total(values, self._combiners[n][output])
            if output in nest.starts:
                start = self._outer(nest.starts[output])
            else:
                start = memref.LoadOp(self._pass.memories[access.memory].memref, [self._b.index(place)]).result
            total = self._join(self._combiners[n][output], start, total)
            memref.StoreOp(total, self._pass.memories[access.memory].memref, [self._b.index(place)])

    def _outer(self, value: ir.Value) -> ir.Value:
        """Return a number from outside the nests."""
        return Body(self._b, self._pass.memories).outer(value)

    def _total(self, values: Vectors, combiner: Combiner) -> ir.Value:
        """Return the sum of all lanes of some vectors."""
        while len(values) > 1:
            half = ceil_div(len(values), 2)
            values = [
                values[k] if k + half >= len(values) else self._join(combiner, values[k], values[k + half])
                for k in range(half)
            ]
        kind, element = ir.Attribute.parse(f"#vector.kind<{combiner.kind}>"), element_type(values[0])
        fast = ir.Attribute.parse("#arith.fastmath<reassoc,nsz>") if isinstance(element, ir.FloatType) else None
        return vector.ReductionOp(element, kind, values[0], fastmath=fast).result

    def _join(self, combiner: Combiner, a: ir.Value, b: ir.Value) -> ir.Value:
        return like(combiner.op, [a, b])

    # One turn.

    def _compute(self, addresses: Addresses, strip: Strip, sums: _Sums) -> _Sums:
        """Write the bodies of all nests for the vectors of a strip."""
        made = {n: [list(values) for values in outputs] for n, outputs in sums.items()}
        for place in range(len(strip.firsts)):
            handed: dict[Access, ir.Value] = {}
            for n in range(len(self._nests)):
                before = [outputs[place] for outputs in sums[n]] if n in sums else []
                results = self._body(n, addresses[n], strip.at(place), before, handed)
                for output, value in enumerate(results):
                    if n in sums:
                        made[n][output][place] = self._counted(n, value, before[output], strip.valid[place])
                    else:
                        self._hand(n, output, self._vector(value), addresses[n], strip.at(place), handed)
        return made

    def _counted(self, n: int, value: ir.Value, before: ir.Value, valid: int) -> ir.Value:
        """Return a vector of sums without what lanes that do not count added."""
        value, lanes = self._vector(value), self._lanes.lanes
        if valid == lanes or self._nests[n].loops[self._lanes.loop].is_parallel:
            return value
        return arith.SelectOp(self._b.mask(valid, lanes), value, before).result

    def _hand(
        self,
        n: int,
        output: int,
        value: ir.Value,
        addresses: Sequence[Index],
        at: tuple[int, int],
        handed: dict[Access, ir.Value],
    ) -> None:
        """Write a vector of a result, and keep it for the nests after this one."""
        nest = self._nests[n]
        access = nest.outputs[output]
        handed[_place(access)] = value
        if access.memory not in self._pass.kept:
            self._store(value, access, addresses[len(nest.op.inputs) + output], *at)

    def _body(
        self, n: int, addresses: Sequence[Index], at: tuple[int, int], sums: Vectors, handed: dict[Access, ir.Value]
    ) -> Vectors:
        """Write the body of a nest for one vector; return what it yields."""
        nest, outer = self._nests[n], Body(self._b, self._pass.memories)
        block = nest.op.operation.regions[0].blocks[0]
        arguments = list(block.arguments)
        results = arguments[len(nest.op.inputs) :]
        starts = [outer.outer(nest.starts[n]) if n in nest.starts else None for n in range(len(results))]
        begun = sums or starts  # without loops of sums there is one turn of each
        values = {result: value for result, value in zip(results, begun, strict=True) if value is not None}
        for argument, access, address in zip(arguments, nest.accesses, addresses, strict=True):
            if argument in values or next(iter(argument.uses), None) is None:
                continue
            if access.memory is None:
                values[argument] = outer.outer(access.operand)
            elif _place(access) in handed:
                values[argument] = handed[_place(access)]
            else:
                values[argument] = self._load(access, address, *at)
        *ops, terminator = block.operations
        for op in ops:
            operands = [values[value] if value in values else outer.outer(value) for value in op.operands]
            values[op.result] = self._apply(op, operands, results)
        return [values[value] if value in values else outer.outer(value) for value in terminator.operands]

    def _apply(self, op: Any, operands: Vectors, sums: Sequence[ir.Value]) -> ir.Value:
        """Return what an op of a body makes of scalars and vectors."""
        is_vector = [isinstance(value.type, ir.VectorType) for value in operands]
        is_by_one = op.operation.name == "arith.divf" and is_vector == [True, False] and _is_precise(operands[1])
        if is_by_one and not rounds(op.operation):
            one = self._b.scalar(1.0, operands[1].type)  # the same for all lanes, and often for many vectors
            return self._b.times(operands[0], self._vector(arith.DivFOp(one, operands[1]).result))
        if any(is_vector):
            operands = [self._vector(value) for value in operands]
        copy = like(op, operands)
        relax(copy.owner, op, list(sums))
        return copy

    # Memory.

    def _vector(self, value: ir.Value) -> ir.Value:
        return value if isinstance(value.type, ir.VectorType) else self._b.broadcast(value, self._lanes.lanes)

    def _load(self, access: Access, address: Index, first: int, valid: int) -> ir.Value:
        """Load a vector, or the number that all its lanes have."""
        b, memory = self._b, self._pass.memories[access.memory].memref
        if not access.steps[self._lanes.loop]:
            return memref.LoadOp(memory, [b.index(address)]).result
        place, lanes = [b.index(b.add(address, first))], self._lanes.lanes
        if valid == lanes:
            return vector.LoadOp(ir.VectorType.get([lanes], element_type(memory)), memory, place).result
        zero = b.splat(0, lanes, element_type(memory))
        return vector.MaskedLoadOp(zero.type, memory, place, b.mask(valid, lanes), zero).result

    def _store(self, value: ir.Value, access: Access, address: Index, first: int, valid: int) -> None:
        b, memory = self._b, self._pass.memories[access.memory].memref
        place = [b.index(b.add(address, first))]
        if valid == self._lanes.lanes:
            vector.StoreOp(value, memory, place)
        else:
            vector.MaskedStoreOp(memory, place, b.mask(valid, self._lanes.lanes), value)


def like(op: Any, operands: Sequence[ir.Value]) -> ir.Value:
    """Return the result of an op on scalars for other operands, scalars or vectors."""
    copy = op.operation.clone()
    for number, value in enumerate(operands):
        copy.operation.operands[number] = value
    lanes = next((value.type.shape for value in operands if isinstance(value.type, ir.VectorType)), None)
    if lanes is not None:
        copy.operation.results[0].set_type(ir.VectorType.get(lanes, op.result.type))
    return copy.operation.results[0]


def _place(access: Access) -> Access:
    """Return where an operand lies, whatever view of the memory it is."""
    return replace(access, operand=access.memory)


def _is_precise(value: ir.Value) -> bool:
    return isinstance(value.type, (ir.F32Type, ir.F64Type))


def _flat(sums: _Sums) -> Vectors:
    return [value for n in sorted(sums) for values in sums[n] for value in values]


def _like(sums: _Sums, flat: Sequence[ir.Value]) -> _Sums:
    """Return values in the places of others."""
    given = iter(flat)
    return {n: [[next(given) for _ in values] for values in sums[n]] for n in sorted(sums)}
