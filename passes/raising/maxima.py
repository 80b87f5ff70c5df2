"""Maxima that keep NaN, of many vectors at once, for CPUs whose own maximum is `a > b ? a : b`.

That keeps a NaN in its second operand and loses one in the first, so a chain of them keeps what comes first. One
comparison of two others finds a NaN in either: two vectors cost three instructions, and not three each.
"""

from __future__ import annotations

import functools
from typing import Any

from torch_mlir import ir
from torch_mlir.dialects import arith

_MAXIMUM = "arith.maximumf"


def expand_maxima(block: ir.Block) -> None:
    """Replace the maxima of vectors in a block, in place; a second time changes nothing."""
    roots = [op for op in block.operations if _is_maximum(op) and not _is_inner(op.operation.results[0])]
    for root in roots:
        with ir.InsertionPoint(root), root.location:
            root.result.replace_all_uses_with(_maximum(_leaves(root)))
        _erase(root)


def _is_maximum(op: Any) -> bool:
    return op.operation.name == _MAXIMUM and isinstance(op.operation.results[0].type, ir.VectorType)


def _is_inner(value: ir.Value) -> bool:
    """Whether a value is a maximum that only another one of the same block takes."""
    if isinstance(value.owner, ir.Block) or not _is_maximum(value.owner):
        return False
    users = [use.owner.operation for use in value.uses]
    return len(users) == 1 and _is_maximum(users[0]) and users[0].operation.block == value.owner.operation.block


def _leaves(maximum: Any) -> list[ir.Value]:
    """Return what a maximum of maxima is taken of, in order."""
    found: list[ir.Value] = []
    for operand in maximum.operation.operands:
        found += _leaves(operand.owner) if _is_inner(operand) else [operand]
    return found


def _maximum(values: list[ir.Value]) -> ir.Value:
    # What a loop carries comes first: the next turn waits for it alone, not for a comparison, too.
    greatest, *others = sorted(values, key=lambda value: not isinstance(value.owner, ir.Block))
    for value in others:
        is_greater = arith.CmpFOp(arith.CmpFPredicate.OGT, value, greatest).result
        greatest = arith.SelectOp(is_greater, value, greatest).result
    pairs = [others[first : first + 2] for first in range(0, len(others), 2)]
    unordered = [arith.CmpFOp(arith.CmpFPredicate.UNO, pair[0], pair[-1]).result for pair in pairs]
    is_nan = functools.reduce(lambda one, other: arith.OrIOp(one, other).result, unordered)
    # All bits set are a NaN, and as integers no constant has to be loaded for them.
    bits = ir.VectorType.get(greatest.type.shape, ir.IntegerType.get_signless(greatest.type.element_type.width))
    ones = arith.ConstantOp(bits, ir.DenseElementsAttr.get_splat(bits, ir.IntegerAttr.get(bits.element_type, -1)))
    chosen = arith.SelectOp(is_nan, ones.result, arith.BitcastOp(bits, greatest).result).result
    return arith.BitcastOp(greatest.type, chosen).result


def _erase(maximum: Any) -> None:
    inner = [operand.owner for operand in maximum.operation.operands if _is_inner(operand)]
    maximum.operation.erase()
    for op in inner:
        _erase(op)
