"""`pattern-vectorize`: rewrite the vector ops of the loop nests into what the target does best.

On AVX-512 a 64-byte load that is not aligned touches two cache lines and counts twice. Where a block loads a vector
that lies between two aligned ones, the aligned ones are loaded (once, for all that need them) and shifted together.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch_mlir import ir
from torch_mlir.dialects import arith, vector

from patc.passes.base import Pass, PassState
from patc.targets import get_target

_CONSTANTS = ("arith.constant", "vector.constant_mask")
_STORES = {"vector.store": 1, "memref.store": 1, "vector.maskedstore": 0}  # which operand is the memory
_WITHOUT_STORES = ("arith.", "math.", "memref.load", "vector.maskedload", "vector.shuffle", "vector.broadcast")


@dataclass(frozen=True)
class PatternVectorize(Pass):
    """Turn unaligned vector loads into shifts of aligned neighbours where the target gains by it.

    Requires: vector loads at `base + constant`, where `base` is a multiple of the vector (`pattern-specialize` on the
        rows that `pattern-layout` aligned).
    Ensures: the same values; each aligned vector is loaded once a block.

        %a = vector.load %m[%base] : vector<16xf32>
        %b = vector.load %m[%base + 1] : vector<16xf32>
      becomes
        %a = vector.load %m[%base] : vector<16xf32>
        %c = vector.load %m[%base + 16] : vector<16xf32>
        %b = vector.shuffle %a, %c [1, 2, ..., 16]

    Idempotent. No-op on targets where an unaligned load costs no more than a shift.
    """

    name: ClassVar[str] = "pattern-vectorize"

    target: str = field(default="host", metadata={"help": "machine to generate code for"})

    def run(self, module: ir.Module, state: PassState) -> None:
        target = get_target(self.target)
        if not target.cheap_shift:
            return
        for function in module.body.operations:
            loops: list[Any] = []
            function.operation.walk(lambda op, loops=loops: _collect(op, loops))
            offsets = _Offsets(function)
            for block in loops:
                _shift_loads(block, offsets, target.lanes)


def _collect(op: ir.Operation, blocks: list[Any]) -> ir.WalkResult:
    if op.name == "scf.for":
        blocks.append(op.regions[0].blocks[0])
    return ir.WalkResult.ADVANCE


class _Offsets:
    """The index constants at the start of a function, each made once."""

    def __init__(self, function: Any) -> None:
        self._function = function
        self._values: dict[int, ir.Value] = {}

    def get(self, offset: int) -> ir.Value:
        """Return a constant that every op of the function may use."""
        if not self._values:
            # Those behind other ops may come too late for a loop.
            ops = self._function.regions[0].blocks[0].operations
            for op in itertools.takewhile(lambda op: op.operation.name in _CONSTANTS, ops):
                value = _constant(op.results[0])
                if value is not None:
                    self._values.setdefault(value, op.results[0])
        if offset not in self._values:
            with ir.InsertionPoint.at_block_begin(self._function.regions[0].blocks[0]), self._function.location:
                self._values[offset] = arith.ConstantOp(ir.IndexType.get(), offset).result
        return self._values[offset]


@dataclass(frozen=True)
class _Load:
    """A vector load at base + offset."""

    op: Any
    memory: ir.Value
    base: ir.Value
    offset: int
    lanes: int


def _shift_loads(block: ir.Block, offsets: _Offsets, lanes: int) -> None:
    groups: dict[tuple[int, int, ir.Value, ir.Value], list[_Load]] = defaultdict(list)
    stores: Counter[ir.Value] = Counter()  # loads on both sides of a store may differ
    others = 0
    for op in block.operations:
        name = op.operation.name
        if name == "vector.load":
            load = _split_address(op)
            groups[others, stores[load.memory], load.memory, load.base].append(load)
        elif name in _STORES:
            stores[op.operands[_STORES[name]]] += 1
        elif not name.startswith(_WITHOUT_STORES):
            others += 1
    for loads in groups.values():
        if any(_worth_shifting(load, lanes) for load in loads):
            aligned: dict[int, ir.Value] = {}
            for load in loads:
                _rewrite(load, aligned, offsets, lanes)


def _worth_shifting(load: _Load, lanes: int) -> bool:
    """Whether a load lies one element behind an aligned vector.

    Loads two elements behind stay: measured, three in four vectors from shifts make the shifts the limit.
    """
    return load.lanes == lanes and load.offset % lanes == 1


def _rewrite(load: _Load, aligned: dict[int, ir.Value], offsets: _Offsets, lanes: int) -> None:
    """Make a vector from the one or two aligned vectors it lies in; those in `aligned` are loaded already.

    A narrow load is replaced as well: LLVM would take it apart, element by element, to reuse the wide load that
    covers it.
    """
    shift = load.offset % lanes
    inside = shift + load.lanes <= lanes
    if load.lanes == lanes and inside and load.offset not in aligned:
        aligned[load.offset] = load.op.results[0]
        return
    if not inside and not _worth_shifting(load, lanes):
        return
    with ir.InsertionPoint(load.op), load.op.location:
        low = _aligned_vector(load, load.offset - shift, aligned, offsets, lanes)
        result = low
        if load.lanes < lanes or shift:
            high = low if inside else _aligned_vector(load, load.offset - shift + lanes, aligned, offsets, lanes)
            result = vector.ShuffleOp(low, high, list(range(shift, shift + load.lanes))).result
    address = load.op.operands[1]
    load.op.results[0].replace_all_uses_with(result)
    load.op.operation.erase()
    if address != load.base and next(iter(address.uses), None) is None:
        address.owner.erase()


def _aligned_vector(like: _Load, offset: int, aligned: dict[int, ir.Value], offsets: _Offsets, lanes: int) -> ir.Value:
    if offset not in aligned:
        index = arith.AddIOp(like.base, offsets.get(offset)).result if offset else like.base
        type_ = ir.VectorType.get([lanes], like.op.results[0].type.element_type)
        aligned[offset] = vector.LoadOp(type_, like.memory, [index]).result
    return aligned[offset]


def _split_address(op: Any) -> _Load:
    """Write the address of a load as base + constant."""
    memory, index, lanes = op.operands[0], op.operands[1], op.results[0].type.shape[0]
    if not isinstance(index.owner, ir.Block) and index.owner.name == "arith.addi":
        base, addend = index.owner.operands
        constant = _constant(addend)
        if constant is not None:
            return _Load(op, memory, base, constant, lanes)
    return _Load(op, memory, index, 0, lanes)


def _constant(value: ir.Value) -> int | None:
    is_constant = not isinstance(value.owner, ir.Block) and value.owner.name == "arith.constant"
    return int(value.owner.attributes["value"].value) if is_constant and value.type == ir.IndexType.get() else None
