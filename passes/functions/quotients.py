"""Quotients and remainders of integers for any numbers: instructions of x86 end the process for a divisor of zero, and
for the least number over -1.

By zero both are zero; the least number over -1 is itself, as additions wrap around.
"""

from __future__ import annotations

from torch_mlir import ir
from torch_mlir.dialects import arith

from patc.passes.ir.bodies import constant_number

_SIGNED = ("arith.ceildivsi", "arith.divsi", "arith.floordivsi", "arith.remsi")
_UNSIGNED = ("arith.ceildivui", "arith.divui", "arith.remui")
_REMAINDERS = ("arith.remsi", "arith.remui")


def guard_quotients(root: ir.Operation) -> None:
    """Let the divisions of integers under an op give a number whatever the divisor is."""
    found: list[ir.Operation] = []

    def visit(op: ir.Operation) -> ir.WalkResult:
        if op.name in _SIGNED or op.name in _UNSIGNED:
            found.append(op)
        return ir.WalkResult.ADVANCE

    root.walk(visit)
    for op in found:
        known = constant_number(op.operands[1])
        if known is None or known in (0, -1):
            with ir.InsertionPoint(op), op.location:
                op.results[0].replace_all_uses_with(_guarded(op))
            op.erase()


def _guarded(op: ir.Operation) -> ir.Value:
    """Return what an op computes, of 1 in place of the divisors that it must not have."""
    dividend, divisor = op.operands
    zero, one, less = (_constant(divisor.type, value) for value in (0, 1, -1))
    is_zero = _equal(divisor, zero)
    is_less = _equal(divisor, less) if op.name in _SIGNED else None
    is_special = is_zero if is_less is None else arith.OrIOp(is_zero, is_less).result
    safe = arith.SelectOp(is_special, one, divisor).result
    value = ir.Operation.create(op.name, results=[dividend.type], operands=[dividend, safe]).results[0]
    if op.name in _REMAINDERS:
        return value  # of a division by 1
    if is_less is not None:
        value = arith.SelectOp(is_less, arith.SubIOp(zero, value).result, value).result
    return arith.SelectOp(is_zero, zero, value).result


def _equal(a: ir.Value, b: ir.Value) -> ir.Value:
    return arith.CmpIOp(arith.CmpIPredicate.eq, a, b).result


def _constant(kind: ir.Type, value: int) -> ir.Value:
    """Return a constant of a scalar type, or of as many elements as another type has."""
    is_shaped = isinstance(kind, ir.ShapedType)
    number = ir.IntegerAttr.get(kind.element_type if is_shaped else kind, value)
    return arith.ConstantOp(kind, ir.DenseElementsAttr.get_splat(kind, number) if is_shaped else number).result
