"""What NEON does best: weights multiplied by element, addresses in the reach of a load, and its own maximum.

A multiply-add takes its factor from any element of a register, so four weights are one load and no broadcast. A load
reaches 256 bytes around its base, and 64 KB behind it in steps of its size: vectors that lie between aligned ones get
a base of their own, aligned with them, or each would cost an addition.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch_mlir import ir
from torch_mlir.dialects import arith, llvm, vector

from patc.passes.ir.functions import symbols
from patc.passes.vectors.vector_addresses import Load, Offsets, address, group_loads, replace_load
from patc.targets import Target

REGISTER_BITS = 128
NEAR_BYTES = 256  # what loads reach that are not aligned to their size
ZERO = "patc_zero"


def rewrite(module: ir.Module, function: Any, bodies: Iterable[ir.Block], target: Target) -> None:
    """Rewrite the loop bodies of a function, in place; a second time changes nothing."""
    offsets, bases = Offsets(function), _Bases(module, function)
    for block in bodies:
        for loads in group_loads(block, _is_factor).values():
            _load_together(loads, offsets)
        for loads in group_loads(block, lambda op: op.operation.name == "vector.load").values():
            _rebase(loads, offsets, bases)
        for op in list(block.operations):
            if op.operation.name == "arith.select":
                _use_maximum(op)


# Weights by element


def _is_factor(op: Any) -> bool:
    """Whether an op loads one element, a float or four bytes, that is only broadcast."""
    if op.operation.name != "memref.load" or not _is_element(op.results[0].type):
        return False
    return all(use.owner.name == "vector.broadcast" for use in op.results[0].uses)


def _is_element(type_: ir.Type) -> bool:
    return isinstance(type_, ir.FloatType) or (isinstance(type_, ir.IntegerType) and type_.width == 32)


def _load_together(loads: list[Load], offsets: Offsets) -> None:
    """Replace the loads of neighbouring elements by vectors of as many as a register holds."""
    most = REGISTER_BITS // loads[0].op.results[0].type.width
    by_offset: dict[int, list[Load]] = {}
    for load in loads:
        by_offset.setdefault(load.offset, []).append(load)
    first = loads[0]
    found: list[tuple[ir.Value, int, int]] = []
    with ir.InsertionPoint(first.op), first.op.location:
        for start, count in _runs(sorted(by_offset), most):
            kind = ir.VectorType.get([count], first.op.results[0].type)
            factors = vector.LoadOp(kind, first.memory, [address(first.base, start, offsets)]).result
            found.append((factors, start, count))
    for factors, start, count in found:
        for place in range(count):
            for load in by_offset[start + place]:
                with ir.InsertionPoint(load.op), load.op.location:
                    factor = vector.ExtractOp(factors, [], [place]).result
                replace_load(load, factor)


def _runs(offsets: list[int], most: int) -> list[tuple[int, int]]:
    """Cut sorted offsets into (first, count) of neighbours, where count is a power of two from 2 to `most`."""
    found, start = [], 0
    while start < len(offsets):
        end = start + 1
        while end < len(offsets) and offsets[end] == offsets[end - 1] + 1:
            end += 1
        while end - start > 1:
            count = most
            while count > end - start:
                count //= 2
            found.append((offsets[start], count))
            start += count
        start = end
    return found


# Bases of unaligned loads


class _Bases:
    """What makes one base from another: index values that equal 1, 2, ..., which LLVM must not know.

    It would fold a known constant into the offsets, and so undo what this is for.
    """

    def __init__(self, module: ir.Module, function: Any) -> None:
        self._module = module
        self._function = function
        self._steps: dict[int, ir.Value] = {}

    def get(self, step: int) -> ir.Value:
        """Return a value that equals `step`, which every op of the function may use."""
        if step not in self._steps:
            block = self._function.regions[0].blocks[0]
            with ir.InsertionPoint.at_block_begin(block), self._function.location:
                i64 = ir.IntegerType.get_signless(64)
                pointer = llvm.AddressOfOp(llvm.PointerType.get(), self._zero()).result
                zero = arith.IndexCastOp(ir.IndexType.get(), llvm.LoadOp(i64, pointer).result).result
                self._steps[step] = arith.AddIOp(zero, arith.ConstantOp(ir.IndexType.get(), step).result).result
        return self._steps[step]

    def _zero(self) -> str:
        """Return the name of a variable that holds 0 and that, for all LLVM knows, somebody else has changed."""
        if ZERO not in symbols(self._module):
            i64 = ir.IntegerType.get_signless(64)
            with ir.InsertionPoint.at_block_begin(self._module.body):
                variable = llvm.GlobalOp(
                    i64, ZERO, ir.Attribute.parse("#llvm.linkage<internal>"), value=ir.IntegerAttr.get(i64, 0)
                )
                variable.attributes["externally_initialized"] = ir.UnitAttr.get()
        return ZERO


def _rebase(loads: list[Load], offsets: Offsets, bases: _Bases) -> None:
    """Give loads that lie between aligned vectors a base of their own where they are out of reach."""
    bits = loads[0].op.results[0].type.element_type.width
    lanes = REGISTER_BITS // bits
    between = [load for load in loads if load.offset % lanes]
    if all(abs(load.offset) * bits // 8 < NEAR_BYTES for load in between):
        return
    made: dict[int, ir.Value] = {}
    for load in between:
        step = load.offset % lanes
        with ir.InsertionPoint(load.op), load.op.location:
            if step not in made:
                made[step] = arith.AddIOp(load.base, bases.get(step)).result
            place = address(made[step], load.offset - step, offsets)
            kind = load.op.results[0].type
            replace_load(load, vector.LoadOp(kind, load.memory, [place]).result)


# Maximum and minimum


def _use_maximum(op: Any) -> None:
    """Turn a comparison and a choice between the two that are compared into one op."""
    condition, chosen, other = op.operands
    if isinstance(condition.owner, ir.Block) or condition.owner.name != "arith.cmpf":
        return
    comparison = condition.owner
    if [*comparison.operands] != [chosen, other]:
        return
    makers = {arith.CmpFPredicate.OGT: arith.MaximumFOp, arith.CmpFPredicate.OLT: arith.MinimumFOp}
    make = makers.get(arith.CmpFPredicate(comparison.attributes["predicate"].value))
    if make is None or not isinstance(chosen.type, ir.VectorType):
        return
    with ir.InsertionPoint(op), op.location:
        op.result.replace_all_uses_with(make(other, chosen).result)
    op.operation.erase()
    if next(iter(condition.uses), None) is None:
        comparison.erase()
