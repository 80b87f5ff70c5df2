"""Read and make the constant tensors of a module.

A constant is either a `pattern.parameter`, whose array is in the parameter store, or an `arith.constant` written
in the text. A pass that computes new constants gives them the form of those they come from.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch_mlir import ir, passmanager
from torch_mlir.dialects import arith, func

from patc.diagnostics import PatcError
from patc.dialects.pattern import ParameterOp
from patc.passes.base import PassState
from patc.passes.ir.elements import mlir_type, numpy_type
from patc.passes.ir.functions import through_reshapes

CONSTANTS = (ParameterOp.OPERATION_NAME, "arith.constant")  # the names of the ops


def is_constant(value: ir.Value) -> bool:
    """Return whether a value is a constant, in whatever shape."""
    owner = through_reshapes(value).owner
    return not isinstance(owner, ir.Block) and owner.operation.name in CONSTANTS


def read_constant(value: ir.Value, state: PassState) -> np.ndarray | None:
    """Return the array of a constant tensor value, or None when the value is not a constant.

    Raises:
        PatcError: it is a parameter without data.
    """
    owner = value.owner
    if not isinstance(owner, ir.Operation) and not isinstance(owner, ir.OpView):
        return None  # a block argument
    operation = owner.operation
    if operation.name == ParameterOp.OPERATION_NAME:
        name = operation.attributes["name"].value
        if name not in state.parameters:
            raise PatcError(f"parameter '{name}' is not in the store", operation.location)
        return state.parameters[name]
    if operation.name != "arith.constant":
        return None
    attr = operation.attributes["value"]
    if not isinstance(attr, ir.DenseElementsAttr):
        return None
    shape = tuple(attr.type.shape)
    element = numpy_type(attr.type)
    if element is None:
        return None
    if attr.is_splat:
        return np.full(shape, attr.get_splat_value().value, element)
    return np.array(attr if element.name != "bfloat16" else _widened(attr)).astype(element).reshape(shape)


def _widened(attr: ir.DenseElementsAttr) -> ir.DenseElementsAttr:
    """Return numbers of bf16 as f32, by MLIR's own folding: the bindings show none of bf16."""
    with attr.context, ir.Location.unknown():
        module = ir.Module.create()
        wide = ir.RankedTensorType.get(attr.type.shape, ir.F32Type.get())
        with ir.InsertionPoint(module.body):
            function = func.FuncOp("main", ([], [wide]))
        with ir.InsertionPoint(function.add_entry_block()):
            func.ReturnOp([arith.extf(wide, arith.constant(attr.type, attr))])
        passmanager.PassManager.parse("builtin.module(canonicalize)").run(module.operation)
        return function.entry_block.operations[0].attributes["value"]


def constant_name(value: ir.Value) -> str | None:
    """Return the parameter name of a constant, or None for one written in the text."""
    operation = value.owner
    is_parameter = not isinstance(operation, ir.Block) and operation.operation.name == ParameterOp.OPERATION_NAME
    return operation.operation.attributes["name"].value if is_parameter else None


def make_constant(array: np.ndarray, name: str | None, state: PassState, location: Any = None) -> ir.Value:
    """Build a constant at the current insertion point.

    Args:
        array: the values; the tensor type follows shape and element type.
        name: the wanted parameter name, made unique, or None to write the values into the text.
    """
    type_ = ir.RankedTensorType.get(list(array.shape), mlir_type(array.dtype))
    if name is None:
        attr = ir.DenseElementsAttr.get(np.ascontiguousarray(array), type=type_.element_type, shape=array.shape)
        return arith.ConstantOp(type_, attr, loc=location).result
    unique = state.parameters.add(name, array)
    return ParameterOp(result=type_, name=ir.StringAttr.get(unique), loc=location).result


def replace_constant(op: Any, number: int, array: np.ndarray, state: PassState) -> None:
    """Make `array` an operand in the place of another constant, which goes when nothing else needs it; a constant that
    holds the same is left alone."""
    old = op.operation.operands[number]
    known = read_constant(old, state)
    if known is not None and np.array_equal(known, array):
        return
    with ir.InsertionPoint(old.owner):
        new = make_constant(array, constant_name(old), state, location=old.owner.location)
    op.operation.operands[number] = new
    if next(iter(old.uses), None) is None:
        old.owner.erase()
