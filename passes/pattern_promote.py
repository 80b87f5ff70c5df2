"""`pattern-promote`: compute a net of half precision in f32, for which there are kernels, between its own types.

What a model keeps in f16 or bf16 is kept so to save memory; nobody wants its sums rounded to 11 or 8 bits. Who wants a
net computed in f16 asks for it by `dtype="f16"`, of any net, see `pattern-demote`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch_mlir import ir

from patc.dialects.pattern import ParameterOp
from patc.passes.base import Pass, PassState, fail
from patc.passes.ir.constants import CONSTANTS, read_constant
from patc.passes.ir.elements import with_element
from patc.passes.ir.functions import defined_functions, top_level_ops, walk_ops
from patc.passes.layers.reference import convert

_NARROW = (ir.F16Type, ir.BF16Type)
_CASTS = ("arith.extf", "arith.truncf")
_BITS = "arith.bitcast"


@dataclass(frozen=True)
class PatternPromote(Pass):
    """Give tensors and numbers of f16 and bf16 the element type f32, constants included.

    Requires: ops on tensors, as front ends make them.
    Ensures: arguments and results of functions keep their types; what reads an argument reads a copy in f32, and what
        is returned is converted last. Nothing else is f16 or bf16, and casts between these and f32 are gone: numbers
        are rounded at the boundary alone. What is returned as it came, an argument or a constant, is not converted.

        func.func @main(%x: tensor<1x8xf16>) -> tensor<1x8xf16> {
          %y = linalg.exp ins(%x : tensor<1x8xf16>) outs(%e : tensor<1x8xf16>) -> tensor<1x8xf16>
      becomes
        func.func @main(%x: tensor<1x8xf16>) -> tensor<1x8xf16> {
          %w = linalg.generic ins(%x) { arith.extf } -> tensor<1x8xf32>
          %s = linalg.exp ins(%w : tensor<1x8xf32>) outs(%e : tensor<1x8xf32>) -> tensor<1x8xf32>
          %y = linalg.generic ins(%s) { arith.truncf } -> tensor<1x8xf16>

    Idempotent: what is converted at the boundary is left alone.

    Raises:
        PatcError: the bits of such numbers are read, or a constant has no values in the text.
    """

    name: ClassVar[str] = "pattern-promote"

    def run(self, module: ir.Module, state: PassState) -> None:
        with module.context:
            wide = ir.F32Type.get()
            for function in defined_functions(module):
                ops = _narrow_ops(function)
                if not ops:
                    continue
                _promote_arguments(function, wide)
                returned = _returned(function)
                for op in ops:
                    _promote_op(op, wide, state)
                _convert_results(function, returned)


def _is_narrow(type_: ir.Type) -> bool:
    return isinstance(type_.element_type if isinstance(type_, ir.ShapedType) else type_, _NARROW)


def _narrow_ops(function: Any) -> list[Any]:
    """Return the ops that take or make such numbers, but for what converts at the boundary."""
    boundary = {op.operation for op in top_level_ops(function) if _converts_boundary(op)}
    found = []
    for op in walk_ops(function)[1:]:
        own = op.operation
        if own in boundary or own.parent in boundary or own.name == "func.return":
            continue
        regions = [argument for region in own.regions for block in region.blocks for argument in block.arguments]
        if any(_is_narrow(value.type) for value in (*own.operands, *own.results, *regions)):
            found.append(op)
    return found


def _converts_boundary(op: Any) -> bool:
    """Whether an op is what this pass puts between a function's arguments or results and the rest, the tensor that it
    writes, or a constant that is returned."""
    own = op.operation
    if own.name == "tensor.empty":
        users = [use.owner for use in own.results[0].uses]
        return len(users) == 1 and _converts_boundary(users[0])
    if own.name in CONSTANTS:
        return _is_returned(own)
    if own.name != "linalg.generic":
        return False
    cast, *rest = (inner.operation.name for inner in own.regions[0].blocks[0].operations)
    init = own.operands[len(own.operands) - 1]
    if rest != ["linalg.yield"] or len(list(init.uses)) != 1:
        return False
    return isinstance(own.operands[0].owner, ir.Block) if cast == "arith.extf" else cast in _CASTS and _is_returned(own)


def _is_returned(op: ir.Operation) -> bool:
    """Whether an op's result is, and nothing else is done with it."""
    return {use.owner.operation.name for use in op.results[0].uses} == {"func.return"}


def _promote_arguments(function: Any, wide: ir.Type) -> None:
    """Let what reads such an argument read a copy in f32."""
    block = function.regions[0].blocks[0]
    for argument in block.arguments:
        uses = [
            use
            for use in argument.uses
            if use.owner.operation.name != "func.return" and not _converts_boundary(use.owner)
        ]
        if not _is_narrow(argument.type) or not uses:
            continue
        with ir.InsertionPoint.at_block_begin(block), uses[0].owner.operation.location:
            copy = convert(argument, wide)
        for use in uses:
            use.owner.operation.operands[use.operand_number] = copy


def _returned(function: Any) -> list[bool]:
    """Return which results of a function are computed: neither arguments nor constants."""
    operands = _terminator(function).operands
    return [not isinstance(value.owner, ir.Block) and not _converts_boundary(value.owner) for value in operands]


def _terminator(function: Any) -> ir.Operation:
    operations = top_level_ops(function)
    return operations[len(operations) - 1].operation


def _promote_op(op: Any, wide: ir.Type, state: PassState) -> None:
    own = op.operation
    if own.name == _BITS:
        raise fail(op, f"numbers whose bits nothing reads, which are computed in {wide}", f"{own.operands[0].type}")
    if own.name in CONSTANTS:
        _promote_constant(op, wide, state)
    for region in own.regions:
        for block in region.blocks:
            for argument in block.arguments:
                argument.set_type(_promoted(argument.type, wide))
    for result in own.results:
        result.set_type(_promoted(result.type, wide))
    if own.name in _CASTS and own.operands[0].type == own.results[0].type:
        own.results[0].replace_all_uses_with(own.operands[0])
        own.erase()


def _promoted(type_: ir.Type, wide: ir.Type) -> ir.Type:
    if not _is_narrow(type_):
        return type_
    return with_element(type_, wide) if isinstance(type_, ir.RankedTensorType) else wide


def _promote_constant(op: Any, wide: ir.Type, state: PassState) -> None:
    own = op.operation
    if own.name == ParameterOp.OPERATION_NAME:
        name = own.attributes["name"].value
        state.parameters[name] = state.parameters[name].astype(np.float32)
        return
    value = own.attributes["value"]
    if isinstance(value, ir.FloatAttr):
        own.attributes["value"] = ir.FloatAttr.get(wide, value.value)
        return
    array = read_constant(op.results[0], state)
    if array is None:
        raise fail(op, "values in the text", value)
    own.attributes["value"] = ir.DenseElementsAttr.get(array.astype(np.float32), type=wide, shape=array.shape)


def _convert_results(function: Any, computed: list[bool]) -> None:
    """Return copies of what was computed in the types that the function has; a value that is returned twice has one."""
    copies: dict[ir.Value, ir.Value] = {}
    terminator = _terminator(function)
    wanted = function.attributes["function_type"].value.results
    for number, (value, type_) in enumerate(zip(terminator.operands, wanted, strict=True)):
        if not computed[number] or value.type == type_:
            continue
        if value not in copies:
            with ir.InsertionPoint(terminator), value.owner.location:
                copies[value] = convert(value, type_.element_type)
        terminator.operands[number] = copies[value]
