"""`pattern-vectorize`: rewrite the vector ops of the loop nests into what the target does best.

On AVX-512 a 64-byte load that is not aligned touches two cache lines and counts twice. Where a block loads a vector
that lies between two aligned ones, the aligned ones are loaded (once, for all that need them) and shifted together.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch_mlir import ir
from torch_mlir.dialects import arith, vector

from patc.passes.base import Pass, PassState
from patc.targets import get_target


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
        loops: list[Any] = []
        module.operation.walk(lambda op: _collect(op, loops))
        for block in loops:
            _shift_loads(block, target.lanes)


def _collect(op: ir.Operation, blocks: list[Any]) -> ir.WalkResult:
    if op.name == "scf.for":
        blocks.append(op.regions[0].blocks[0])
    return ir.WalkResult.ADVANCE


@dataclass(frozen=True)
class _Load:
    """A vector load at base + offset."""

    op: Any
    memory: ir.Value
    base: ir.Value
    offset: int
    lanes: int


def _shift_loads(block: ir.Block, lanes: int) -> None:
    groups: dict[tuple[ir.Value, ir.Value], list[_Load]] = defaultdict(list)
    for op in block.operations:
        if op.operation.name == "vector.load":
            load = _split_address(op)
            groups[load.memory, load.base].append(load)
    for loads in groups.values():
        wide = [load for load in loads if load.lanes == lanes]
        shifted = _worth_shifting(wide, lanes)
        for load in shifted:
            _replace(load, lanes)
        if shifted:
            for load in loads:
                if load.lanes < lanes and load.offset % lanes + load.lanes <= lanes:
                    _replace(load, lanes)


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
    if isinstance(value.owner, ir.Block) or value.owner.name != "arith.constant":
        return None
    return int(value.owner.attributes["value"].value)


def _worth_shifting(loads: list[_Load], lanes: int) -> list[_Load]:
    """Return the loads one element behind an aligned vector.

    Loads two elements behind stay: measured, three in four vectors from shifts make the shifts the limit.
    """
    return [load for load in loads if load.offset % lanes == 1]


def _replace(load: _Load, lanes: int) -> None:
    """Make a vector from the one or two aligned vectors it lies in.

    A narrow load is replaced as well: LLVM would take it apart, element by element, to reuse the wide load that
    covers it.
    """
    shift = load.offset % lanes
    with ir.InsertionPoint(load.op), load.op.location:
        low = _load(load, load.offset - shift, lanes)
        high = low if shift + load.lanes <= lanes else _load(load, load.offset - shift + lanes, lanes)
        result = vector.ShuffleOp(low, high, list(range(shift, shift + load.lanes))).result
    load.op.results[0].replace_all_uses_with(result)
    load.op.operation.erase()


def _load(like: _Load, offset: int, lanes: int) -> ir.Value:
    """Load the aligned vector at `offset`; equal loads of a block become one in CSE."""
    index = like.base
    if offset:
        constant = arith.ConstantOp(ir.IndexType.get(), offset).result
        index = arith.AddIOp(like.base, constant).result
    type_ = ir.VectorType.get([lanes], like.op.results[0].type.element_type)
    return vector.LoadOp(type_, like.memory, [index]).result
