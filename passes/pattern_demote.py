"""`pattern-demote`: compute a net in half precision, with f32 at its boundary.

On CPUs with FEAT_FP16 a vector then holds twice as many elements, and weights and activations take half the memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from torch_mlir import ir

from patc.dialects import pattern
from patc.numerics import FLOAT32, NUMERICS
from patc.passes.base import Pass, PassState, fail
from patc.passes.ir.constants import CONSTANTS, constant_name, make_constant, read_constant
from patc.passes.ir.elements import largest, mlir_type, round_to, with_element
from patc.passes.ir.functions import defined_functions, top_level_ops, works_on_tensors
from patc.passes.layers.registry import kind_of

_RESHAPES = ("tensor.collapse_shape", "tensor.expand_shape", "tensor.concat", "tensor.extract_slice")
_RETURN = "func.return"


@dataclass(frozen=True)
class PatternDemote(Pass):
    """Give activations, weights and biases the element type f16.

    Requires: functions of pattern ops, constants, changes of shape and calls of outlined functions.
    Ensures: with `dtype=f16`, arguments and results of functions keep f32 and are converted by `pattern.relayout`,
        which `pattern-layout` makes the copy that pads as well; everything between is f16. What is returned as it came,
        an argument or a constant, is not converted. Weights are rounded to nearest. Activations beyond 65504 become
        infinite, as in any net of f16. Calls of outlined functions keep their types, with copies around them.

        func.func @main(%x: tensor<1x3x8x8xf32>) -> tensor<1x4x8x8xf32> {
          %w = "pattern.parameter"() {name = "w"} : () -> tensor<4x3x3x3xf32>
          %y = "pattern.conv2d"(%x, %w) ... -> tensor<1x4x8x8xf32>
      becomes
        func.func @main(%x: tensor<1x3x8x8xf32>) -> tensor<1x4x8x8xf32> {
          %h = "pattern.relayout"(%x) : (tensor<1x3x8x8xf32>) -> tensor<1x3x8x8xf16>
          %w = "pattern.parameter"() {name = "w"} : () -> tensor<4x3x3x3xf16>
          %y = "pattern.conv2d"(%h, %w) ... -> tensor<1x4x8x8xf16>
          %z = "pattern.relayout"(%y) : (tensor<1x4x8x8xf16>) -> tensor<1x4x8x8xf32>

    Idempotent: a function that computes in f16 is left alone. No-op with `dtype=f32`.

    Raises:
        PatcError: a weight is beyond the largest f16, 65504, or an op is none of those above.
    """

    name: ClassVar[str] = "pattern-demote"

    dtype: str = field(
        default=FLOAT32.mlir,
        metadata={"help": f"element type to compute in, {' or '.join(NUMERICS)}", "choices": tuple(NUMERICS)},
    )

    def run(self, module: ir.Module, state: PassState) -> None:
        if self.dtype == FLOAT32.mlir:
            return
        with module.context:
            narrow = mlir_type(NUMERICS[self.dtype].storage)
        functions = [function for function in defined_functions(module) if works_on_tensors(function)]
        functions = [function for function in functions if not _computes_in(function, narrow)]
        for function in functions:
            _check_ops(function, self.dtype)
        _demote_constants([op for function in functions for op in top_level_ops(function)], narrow, state)
        for function in functions:
            _demote_function(function, narrow)


def _computes_in(function: Any, narrow: ir.Type) -> bool:
    """Whether any op of a function makes a tensor of the element type."""
    return any(_element(result) == narrow for op in top_level_ops(function) for result in op.results)


def _element(value: ir.Value) -> ir.Type | None:
    return value.type.element_type if isinstance(value.type, ir.RankedTensorType) else None


def _is_single(value: ir.Value) -> bool:
    return isinstance(_element(value), ir.F32Type)


def _check_ops(function: Any, dtype: str) -> None:
    """Refuse ops whose meaning in another element type is not known here."""
    for op in top_level_ops(function):
        name, kind = op.operation.name, kind_of(op)
        if name not in (*CONSTANTS, *_RESHAPES, _RETURN) and (kind is None or dtype not in kind.elements):
            raise fail(op, "a pattern op, a constant or a change of shape", name)


def _computing_uses(value: ir.Value) -> list[Any]:
    """Return the operands that are this value, but for those of returns and of what stays in f32."""
    return [use for use in value.uses if use.owner.operation.name != _RETURN and not _stays(use.owner.opview)]


def _stays(op: Any) -> bool:
    """Whether an op computes in the element types that it has."""
    kind = kind_of(op)
    return kind is not None and kind.keeps_types


def _demote_constants(ops: list[Any], narrow: ir.Type, state: PassState) -> None:
    """Round the f32 constants that are computed with."""
    constants = [op for op in ops if op.operation.name in CONSTANTS and _is_single(op.results[0])]
    chosen = [op for op in constants if _computing_uses(op.results[0])]
    kept = {constant_name(op.results[0]) for op in constants if op not in chosen}
    rounded: dict[str, str] = {}
    for op in chosen:
        name = constant_name(op.results[0])
        if name is None:
            with ir.InsertionPoint(op):
                _replace(op, make_constant(_round(op, narrow, state), None, state, op.location))
            continue
        if name not in rounded:
            array = _round(op, narrow, state)
            rounded[name] = state.parameters.add(name, array) if name in kept else name
            state.parameters[rounded[name]] = array
        op.attributes["name"] = ir.StringAttr.get(rounded[name])
        _demote(op.results[0], narrow)


def _round(op: Any, narrow: ir.Type, state: PassState) -> np.ndarray:
    """Return the array of a constant in the element type.

    Raises:
        PatcError: a number would become infinite.
    """
    array = read_constant(op.results[0], state)
    if array is None:
        raise fail(op, "values in the text", op.attributes["value"])
    rounded, beyond = round_to(array, narrow)
    if beyond.any():
        user = _computing_uses(op.results[0])[0].owner.opview
        name = constant_name(op.results[0])
        found = f"{array[beyond].flat[0]:g}" + (f" in '{name}'" if name else "")
        raise fail(user, f"constants of magnitude {largest(narrow):g} or less for {narrow}", found)
    return rounded


def _replace(op: Any, value: ir.Value) -> None:
    op.results[0].replace_all_uses_with(value)
    op.operation.erase()


def _demote(value: ir.Value, narrow: ir.Type) -> None:
    """Give a tensor the element type."""
    value.set_type(with_element(value.type, narrow))


def _demote_function(function: Any, narrow: ir.Type) -> None:
    ops = list(top_level_ops(function))
    for argument in function.regions[0].blocks[0].arguments:
        _convert_argument(argument, narrow)
    for op in ops:
        if _stays(op):
            _restore_operands(op, narrow)
            for result in op.results:
                _convert_argument(result, narrow)
        elif op.operation.name not in (*CONSTANTS, _RETURN):
            for result in filter(_is_single, op.results):
                _demote(result, narrow)
    _convert_results(ops[-1], function)


def _restore_operands(op: Any, narrow: ir.Type) -> None:
    """Let an op that stays in f32 read f32 copies of what is computed in the element type."""
    with ir.InsertionPoint(op), op.location:
        for number, value in enumerate(op.operands):
            if _element(value) == narrow:
                single = with_element(value.type, ir.F32Type.get())
                op.operation.operands[number] = pattern.RelayoutOp(input=value, result=single).result


def _convert_argument(argument: ir.Value, narrow: ir.Type) -> None:
    """Let ops read a converted copy of an argument, or of what stays in f32; a return keeps the original."""
    uses = _computing_uses(argument)
    if not _is_single(argument) or not uses:
        return
    users = {use.owner.operation for use in uses}
    block = argument.owner if isinstance(argument.owner, ir.Block) else argument.owner.operation.block
    first = next(op for op in block.operations if op.operation in users)
    with ir.InsertionPoint(first), first.location:
        copy = pattern.RelayoutOp(input=argument, result=with_element(argument.type, narrow)).result
    for use in uses:
        use.owner.operation.operands[use.operand_number] = copy


def _convert_results(terminator: Any, function: Any) -> None:
    """Return f32 copies of what was computed; a value that is returned twice has one."""
    copies: dict[ir.Value, ir.Value] = {}
    wanted = function.attributes["function_type"].value.results
    with ir.InsertionPoint(terminator), function.location:
        for number, (value, type_) in enumerate(zip(terminator.operands, wanted, strict=True)):
            if value.type != type_:
                if value not in copies:
                    copies[value] = pattern.RelayoutOp(input=value, result=type_, loc=value.owner.location).result
                terminator.operation.operands[number] = copies[value]
