"""The loops of any linalg op on flat memory, and of what has loops of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch_mlir import ir
from torch_mlir.dialects import arith, memref

from patc.passes.generic.bufferize import root
from patc.passes.generic.nests import Access, Nest, memory_of
from patc.passes.ir.functions import walk_ops
from patc.passes.kernels.builder import Builder, Index

_CONTRACTED = ("arith.addf", "arith.mulf", "arith.subf")
_ANY_ORDER = ("arith.addf", "arith.mulf")  # sums and products over many elements
_ROUNDINGS = ("math.roundeven", "math.round", "math.floor", "math.ceil", "arith.fptosi", "arith.fptoui")


@dataclass(frozen=True)
class FlatMemory:
    """A memory as a kernel sees it: a flat memref, and the number of the first element there."""

    memref: ir.Value
    first: Index = 0


Memories = Mapping[ir.Value, FlatMemory]


def compute_nest(b: Builder, nest: Nest, memories: Memories, turns: tuple[Index, Index]) -> None:
    """Write the loops of a nest.

    Args:
        memories: what each memory of the nest is.
        turns: of the loop that is divided, from and to.
    """
    _NestWriter(b, nest, memories, turns).write()


def compute_turn(b: Builder, nest: Nest, memories: Memories, turns: Sequence[Index]) -> None:
    """Write what one turn of some parallel loops computes, in a nest where these are the outermost loops."""
    _NestWriter(b, nest, memories, (0, 0)).write(turns)


def compute_step(b: Builder, op: Any, memories: Memories) -> None:
    """Write an op that has loops of its own."""
    Body(b, memories).clone(op, {})


class SharedTurn:
    """One turn of the parallel loops of a nest of one output, where these are the outermost loops: its sum in parts."""

    def __init__(self, b: Builder, nest: Nest, memories: Memories, turns: Sequence[Index]) -> None:
        self._writer = _NestWriter(b, nest, memories, (0, 0))
        self._addresses, self._turns = self._writer.enter(turns)

    def part(self, start: ir.Value, first: Index, step: int) -> ir.Value:
        """Return the sum from `start` on of the turns `first`, `first` + `step`, .. of the innermost loop."""
        (value,) = self._writer.reduce(self._addresses, self._turns, [start], (first, step))
        return value

    def start(self) -> ir.Value:
        """Return what the sum starts from."""
        return self._writer.start(0, self._addresses[-1])

    def store(self, value: ir.Value) -> None:
        self._writer.store(0, self._addresses[-1], value)


class _NestWriter:
    def __init__(self, b: Builder, nest: Nest, memories: Memories, turns: tuple[Index, Index]) -> None:
        self._b = b
        self._nest = nest
        self._memories = memories
        self._turns = turns
        self._share: tuple[Index, int] = (0, 1)
        self._block = nest.op.regions[0].blocks[0]
        self._written = nest.op.operation.regions[0].blocks[0].operations[-1].operands

    def write(self, turns: Sequence[Index] = ()) -> None:
        """Write the loops, without those whose turns are given."""
        self._parallel(len(turns), *self.enter(turns))

    def enter(self, turns: Sequence[Index]) -> tuple[list[Index], dict[int, Index]]:
        """Return the addresses in some turns of the outermost loops, and these by dim."""
        addresses: list[Index] = [self._first(access) for access in self._nest.accesses]
        for number, turn in enumerate(turns):
            addresses = self._step(number, addresses, turn)
        return addresses, {self._nest.loops[n].dim: turn for n, turn in enumerate(turns)}

    def reduce(
        self, addresses: list[Index], turns: dict[int, Index], sums: list[ir.Value], share: tuple[Index, int]
    ) -> list[ir.Value]:
        """Write the reductions, for every `share[1]`-th turn of the innermost loop from `share[0]` on."""
        self._share = share
        return self._reduce(self._nest.carried, addresses, turns, sums)

    def _first(self, access: Access) -> Index:
        return 0 if access.memory is None else self._b.add(self._memories[access.memory].first, access.offset)

    def _parallel(self, number: int, addresses: list[Index], turns: dict[int, Index]) -> None:
        nest = self._nest
        if number == nest.carried:
            places = addresses[len(nest.accesses) - len(nest.outputs) :]
            sums = [self.start(output, place) for output, place in enumerate(places)] if self._reads_outputs() else []
            for output, value in enumerate(self._reduce(number, addresses, turns, sums)):
                self.store(output, places[output], value)
            return

        def body(turn: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            self._parallel(number + 1, self._step(number, addresses, turn), {**turns, nest.loops[number].dim: turn})
            return []

        low, high = self._turns if number == nest.divided else (0, nest.loops[number].extent)
        self._b.loop(low, high, [], body)

    def _reduce(
        self, number: int, addresses: list[Index], turns: dict[int, Index], sums: list[ir.Value]
    ) -> list[ir.Value]:
        nest = self._nest
        if number == len(nest.loops):
            return self._compute(addresses, turns, sums)

        def body(turn: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
            inner = {**turns, nest.loops[number].dim: turn}
            return self._reduce(number + 1, self._step(number, addresses, turn), inner, carried)

        first, step = self._share if number == len(nest.loops) - 1 else (0, 1)
        return self._b.loop(first, nest.loops[number].extent, sums, body, step)

    def _step(self, number: int, addresses: list[Index], turn: Index) -> list[Index]:
        b, accesses = self._b, self._nest.accesses
        return [b.add(at, b.mul(turn, access.steps[number])) for at, access in zip(addresses, accesses, strict=True)]

    def _reads_outputs(self) -> bool:
        """Whether results depend on what was in their place."""
        arguments = list(self._block.arguments)[len(self._nest.op.inputs) :]
        return any(True for argument in arguments for _ in argument.uses) or self._nest.carried < len(self._nest.loops)

    def start(self, output: int, address: Index) -> ir.Value:
        """Return what an output starts from."""
        if output in self._nest.starts:
            return Body(self._b, self._memories).outer(self._nest.starts[output])
        return self._load(self._nest.outputs[output], address)

    def store(self, output: int, address: Index, value: ir.Value) -> None:
        """Write an element of an output."""
        memory = self._memories[self._nest.outputs[output].memory].memref
        memref.StoreOp(value, memory, [self._b.index(address)])

    def _load(self, access: Access, address: Index) -> ir.Value:
        return memref.LoadOp(self._memories[access.memory].memref, [self._b.index(address)]).result

    def _compute(self, addresses: list[Index], turns: dict[int, Index], sums: list[ir.Value]) -> list[ir.Value]:
        """Write the body of the op for one turn of all loops; return what it yields."""
        nest, body = self._nest, Body(self._b, self._memories)
        arguments = list(self._block.arguments)
        values: dict[ir.Value, ir.Value] = dict(zip(arguments[len(nest.op.inputs) :], sums, strict=False))
        for argument, access, address in zip(arguments, nest.accesses, addresses, strict=True):
            if argument in values or next(iter(argument.uses), None) is None:
                continue
            outer = body.outer(access.operand) if access.memory is None else self._load(access, address)
            values[argument] = outer
        results = list(arguments[len(nest.op.inputs) :])
        *ops, terminator = self._block.operations
        for op in ops:
            if op.operation.name == "linalg.index":
                dim = op.operation.attributes["dim"].value
                values[op.result] = self._b.index(turns.get(dim, 0))
                continue
            copy = body.clone(op, values)
            if copy is not None:
                relax(copy, op, results)
                self._relax_division(copy, op)
        return [values[value] if value in values else body.outer(value) for value in terminator.operands]

    def _relax_division(self, copy: ir.Operation, op: Any) -> None:
        """Let LLVM multiply by the inverse of what all elements of a row are divided by, unless something is rounded to
        whole numbers, where the last place decides."""
        is_argument = copy.name == "arith.divf" and op.operands[1] in list(self._block.arguments)
        if is_argument and self._nest.loops and not rounds(self._nest.op.operation):
            divisor = self._nest.accesses[list(self._block.arguments).index(op.operands[1])]
            if divisor.steps[-1] == 0:
                copy.attributes["fastmath"] = ir.Attribute.parse("#arith.fastmath<arcp>")


def rounds(op: ir.Operation) -> bool:
    """Whether something in the function of an op becomes a whole number."""
    while op.name != "func.func":
        op = op.parent.operation
    return any(inner.operation.name in _ROUNDINGS for inner in walk_ops(op))


def relax(copy: ir.Operation, op: Any, accumulators: list[ir.Value]) -> None:
    """Let LLVM fuse multiply-adds, and add up the elements of a sum in any order."""
    if copy.name not in _CONTRACTED:
        return
    sums = copy.name in _ANY_ORDER and any(operand in accumulators for operand in op.operands)
    flags = "reassoc,nsz,contract" if sums else "contract"
    copy.attributes["fastmath"] = ir.Attribute.parse(f"#arith.fastmath<{flags}>")


class Body:
    """Copies ops of a bufferized function into a kernel."""

    def __init__(self, b: Builder, memories: Memories) -> None:
        self._b = b
        self._memories = memories
        self._values: dict[ir.Value, ir.Value] = {}

    def outer(self, value: ir.Value) -> ir.Value:
        """Return a value from outside the op as the kernel has it: a number is computed again, memory is a view."""
        if value not in self._values:
            if isinstance(value.type, ir.MemRefType):
                memory, offset, strides = memory_of(value)
                given = self._memories[memory].memref
                view = memref.ReinterpretCastOp(
                    value.type, given, [], [], [], [offset], list(value.type.shape), strides
                )
                self._values[value] = view.result
            else:
                self.clone(value.owner, self._values)
        return self._values[value]

    def clone(self, op: Any, values: dict[ir.Value, ir.Value]) -> ir.Operation | None:
        """Copy an op and the ops in its regions; `values` holds what replaces its operands, and gets its results."""
        operation = op.operation
        if operation.name == "memref.load" and isinstance(root(operation.operands[0]), ir.Value):
            values[op.result] = self._gather(op, values)
            return None
        inside: set[ir.Operation] = {operation}
        wanted: list[ir.Value] = []

        def collect(inner: ir.Operation) -> ir.WalkResult:
            inside.add(inner)
            for value in inner.operands:
                owner = value.owner.owner if isinstance(value.owner, ir.Block) else value.owner
                if owner.operation not in inside and value not in values:
                    wanted.append(value)
            return ir.WalkResult.ADVANCE

        operation.walk(collect, ir.WalkOrder.PRE_ORDER)
        known = {**values, **{value: self.outer(value) for value in wanted}}
        copy = operation.clone()

        def rewire(inner: ir.Operation) -> ir.WalkResult:
            for number, value in enumerate(inner.operands):
                if value in known:
                    inner.operands[number] = known[value]
            return ir.WalkResult.ADVANCE

        copy.operation.walk(rewire)
        values.update(zip(operation.results, copy.operation.results, strict=True))
        return copy.operation

    def _gather(self, op: Any, values: dict[ir.Value, ir.Value]) -> ir.Value:
        """Load an element of memory from outside at computed places, which are kept inside it."""
        memory, offset, strides = memory_of(op.operands[0])
        address: Index = self._b.add(self._memories[memory].first, offset)
        for index, size, stride in zip(list(op.operands)[1:], op.operands[0].type.shape, strides, strict=True):
            place = values[index] if index in values else self.outer(index)
            address = self._b.add(address, self._b.mul(self._inside(place, size), stride))
        return memref.LoadOp(self._memories[memory].memref, [self._b.index(address)]).result

    def _inside(self, place: ir.Value, size: int) -> ir.Value:
        above = arith.MaxSIOp(place, self._b.index(0)).result
        return arith.MinSIOp(above, self._b.index(size - 1)).result
