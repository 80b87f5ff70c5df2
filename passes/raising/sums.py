"""Elementwise linalg to combinations of two tensors, and to activations."""

from __future__ import annotations

from typing import Any

from torch_mlir import ir

from patc.dialects.attributes import Activation
from patc.dialects.pattern import AddOp, DivideOp, MultiplyOp, SubtractOp
from patc.dialects.rules import spreads
from patc.passes.base import PassState
from patc.passes.ir.bodies import is_elementwise
from patc.passes.ir.constants import read_constant
from patc.passes.raising.activations import activate
from patc.passes.raising.elementwise import read_elementwise

_BINARY = {"arith.addf": AddOp, "arith.subf": SubtractOp, "arith.mulf": MultiplyOp, "arith.divf": DivideOp}


def raise_add(op: Any, state: PassState) -> ir.Value | None:
    """Raise the sum of two tensors."""
    meaning = read_elementwise(op, state)
    if meaning is None or meaning.divides or meaning.channel_terms or len(meaning.terms) != 2:
        return None
    lhs, rhs = meaning.terms
    return AddOp(lhs=lhs, rhs=rhs, result=op.result.type, activation=meaning.activation.to_attr()).result


def raise_binary(op: Any, state: PassState) -> ir.Value | None:
    """Raise what combines two tensors that are no constants; the second may be the same for some of the first."""
    body = list(op.operation.regions[0].blocks[0].operations)
    made = _BINARY.get(body[0].operation.name)
    if made is None or len(body) != 2 or not is_elementwise(op.operation):
        return None
    arguments, result = list(op.operation.regions[0].blocks[0].arguments), op.result.type
    numbers = [arguments.index(value) if value in arguments else len(arguments) for value in body[0].operands]
    if sorted(numbers) != [0, 1] or any(read_constant(value, state) is not None for value in op.operands[:2]):
        return None
    lhs, rhs = (op.operands[number] for number in numbers)
    if lhs.type != result and made in (AddOp, MultiplyOp):
        lhs, rhs, numbers = rhs, lhs, numbers[::-1]
    maps = [attr.value for attr in op.indexing_maps]
    is_whole = lhs.type == result and maps[numbers[0]] == maps[-1]
    if not is_whole or not spreads(list(rhs.type.shape), list(result.shape)) or not _follows(maps[numbers[1]], rhs):
        return None
    return made(lhs=lhs, rhs=rhs, result=result, activation=Activation().to_attr()).result


def _follows(map_: ir.AffineMap, value: ir.Value) -> bool:
    """Whether each dimension of a tensor is read in the loop of its number, if it has more than one element."""
    dims = [ir.AffineExpr.get_dim(axis) for axis in range(map_.n_dims)]
    pairs = zip(map_.results, dims, value.type.shape, strict=False)
    return len(map_.results) == map_.n_dims and all(size == 1 or place == dim for place, dim, size in pairs)


def raise_activation(op: Any, state: PassState) -> ir.Value | None:
    """Raise what clamps one tensor; remove what leaves it as it is."""
    meaning = read_elementwise(op, state)
    if meaning is None or meaning.divides or meaning.channel_terms or len(meaning.terms) != 1:
        return None
    return activate(meaning.terms[0], meaning.activation)
