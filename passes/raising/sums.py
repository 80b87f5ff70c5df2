"""Elementwise linalg to additions, products with gates of channels, and activations."""

from __future__ import annotations

from typing import Any

from torch_mlir import ir

from patc.dialects.attributes import Activation
from patc.dialects.pattern import AddOp, ScaleOp
from patc.passes.base import PassState
from patc.passes.ir.bodies import is_elementwise
from patc.passes.ir.constants import read_constant
from patc.passes.raising.activations import activate
from patc.passes.raising.elementwise import read_elementwise


def raise_add(op: Any, state: PassState) -> ir.Value | None:
    """Raise the sum of two tensors."""
    meaning = read_elementwise(op, state)
    if meaning is None or meaning.divides or meaning.channel_terms or len(meaning.terms) != 2:
        return None
    lhs, rhs = meaning.terms
    return AddOp(lhs=lhs, rhs=rhs, result=op.result.type, activation=meaning.activation.to_attr()).result


def raise_scale(op: Any, state: PassState) -> ir.Value | None:
    """Raise the product of a tensor and one number for each of its channels and images."""
    body = list(op.operation.regions[0].blocks[0].operations)
    if not is_elementwise(op.operation) or [each.operation.name for each in body] != ["arith.mulf", "linalg.yield"]:
        return None
    arguments = list(op.operation.regions[0].blocks[0].arguments)
    numbers = [arguments.index(value) if value in arguments else -1 for value in body[0].operands]
    if sorted(numbers) != [0, 1] or op.result.type.rank != 4:
        return None
    for input_, factor in (op.operands[:2], op.operands[1::-1]):
        gate = [*op.result.type.shape[:2], 1, 1]
        if list(factor.type.shape) == gate and input_.type == op.result.type and read_constant(factor, state) is None:
            activation = Activation().to_attr()
            return ScaleOp(input=input_, factor=factor, result=op.result.type, activation=activation).result
    return None


def raise_activation(op: Any, state: PassState) -> ir.Value | None:
    """Raise what clamps one tensor; remove what leaves it as it is."""
    meaning = read_elementwise(op, state)
    if meaning is None or meaning.divides or meaning.channel_terms or len(meaning.terms) != 1:
        return None
    return activate(meaning.terms[0], meaning.activation)
