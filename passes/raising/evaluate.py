"""Evaluate constant tensors: parameters, and what linalg and tensor ops compute from constants alone.

Everything is computed in float64, so that the only rounding is that of the result when it is stored.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch_mlir import ir

from patc.passes.base import PassState
from patc.passes.ir.constants import read_constant

# What a scalar of a region may be: a number, one for each point of the iteration space, or, where a caller
# put them in, an object with arithmetic operators.
Scalar = Any


class NotConstant(Exception):
    """A value is not constant, or is computed by something that is not evaluated here."""


def evaluate(value: ir.Value, state: PassState) -> np.ndarray:
    """Return a constant tensor as float64, broadcast views included.

    Raises:
        NotConstant: the value depends on an argument, or on an op that is not evaluated.
    """
    array = read_constant(value, state)
    if array is not None:
        return array.astype(np.float64)
    operation = _owner(value)
    rule = _TENSOR_OPS.get(operation.name)
    if rule is None or len(operation.results) != 1 or not value.type.has_static_shape:
        raise NotConstant
    return rule(operation, state)


def evaluate_scalar(value: ir.Value) -> float:
    """Return a scalar `arith.constant`.

    Raises:
        NotConstant: it is anything else.
    """
    operation = _owner(value)
    attr = operation.attributes["value"] if operation.name == "arith.constant" else None
    if not isinstance(attr, (ir.FloatAttr, ir.IntegerAttr)):
        raise NotConstant
    return float(attr.value)


def evaluate_region(operation: ir.Operation, arguments: Mapping[int, Scalar]) -> Scalar:
    """Return what the body of a linalg.generic yields when its block arguments have these values.

    Args:
        operation: a linalg.generic with one result.
        arguments: values by number; the body may read no others.

    Raises:
        NotConstant: the body reads an argument without a value, or does what is not evaluated. Failed
            assertions count as passed: what comes of them is not finite.
    """
    block = operation.regions[0].blocks[0]
    scalars = {block.arguments[number]: scalar for number, scalar in arguments.items()}
    *body, terminator = (op.operation for op in block.operations)
    for op in body:
        if op.name in ("cf.assert", "arith.constant"):
            continue
        rule = _SCALAR_OPS.get(op.name)
        if rule is None:
            raise NotConstant
        operands = [_scalar(operand, scalars) for operand in op.operands]
        if op.name == "arith.cmpf":
            operands.insert(0, op.attributes["predicate"].value)
        try:
            with np.errstate(all="ignore"):
                scalars[op.results[0]] = rule(*operands)
        except TypeError:  # an operand has no such operator
            raise NotConstant from None
    return _scalar(terminator.operands[0], scalars)


def is_elementwise(operation: ir.Operation) -> bool:
    """Return whether an op is a linalg.generic of parallel loops with one result, written in loop order."""
    if operation.name != "linalg.generic" or len(operation.results) != 1:
        return False
    if any("parallel" not in str(kind) for kind in operation.attributes["iterator_types"]):
        return False
    last = list(operation.attributes["indexing_maps"])[-1].value
    return last == ir.AffineMap.get_identity(last.n_dims, operation.context)


def spread_operand(operation: ir.Operation, number: int, array: np.ndarray) -> np.ndarray:
    """Return an operand of a linalg.generic laid over its loops: an axis for each, of size 1 if not read.

    Raises:
        NotConstant: the operand is not indexed by loops and constants, each loop at most once.
    """
    map_ = operation.attributes["indexing_maps"][number].value
    if not all(isinstance(expr, (ir.AffineDimExpr, ir.AffineConstantExpr)) for expr in map_.results):
        raise NotConstant
    axes = [expr.position for expr in map_.results if isinstance(expr, ir.AffineDimExpr)]
    if len(set(axes)) != len(axes):
        raise NotConstant
    index = [expr.value if isinstance(expr, ir.AffineConstantExpr) else slice(None) for expr in map_.results]
    picked = array[tuple(index)]
    order = sorted(range(len(axes)), key=axes.__getitem__)
    sizes = dict(zip(axes, picked.shape, strict=True))
    return picked.transpose(order).reshape([sizes.get(loop, 1) for loop in range(map_.n_dims)])


def used_arguments(operation: ir.Operation) -> list[int]:
    """Return the numbers of the block arguments that the body of a linalg.generic reads."""
    arguments = operation.regions[0].blocks[0].arguments
    return [i for i, argument in enumerate(arguments) if next(iter(argument.uses), None) is not None]


def _owner(value: ir.Value) -> ir.Operation:
    if isinstance(value.owner, ir.Block):
        raise NotConstant
    return value.owner.operation


def _scalar(value: ir.Value, known: Mapping[ir.Value, Scalar]) -> Scalar:
    if value in known:
        return known[value]
    return evaluate_scalar(value)


def _shape(operation: ir.Operation) -> tuple[int, ...]:
    return tuple(operation.results[0].type.shape)


def _evaluate_reshape(operation: ir.Operation, state: PassState) -> np.ndarray:
    return evaluate(operation.operands[0], state).reshape(_shape(operation))


def _evaluate_fill(operation: ir.Operation, state: PassState) -> np.ndarray:
    return np.broadcast_to(evaluate_scalar(operation.operands[0]), _shape(operation))


def _evaluate_broadcast(operation: ir.Operation, state: PassState) -> np.ndarray:
    array = evaluate(operation.operands[0], state)
    added = tuple(operation.attributes["dimensions"])
    return np.broadcast_to(np.expand_dims(array, added), _shape(operation))


def _evaluate_transpose(operation: ir.Operation, state: PassState) -> np.ndarray:
    return evaluate(operation.operands[0], state).transpose(tuple(operation.attributes["permutation"]))


def _evaluate_generic(operation: ir.Operation, state: PassState) -> np.ndarray:
    if not is_elementwise(operation):
        raise NotConstant
    arguments = {
        number: spread_operand(operation, number, evaluate(operation.operands[number], state))
        for number in used_arguments(operation)
    }
    return np.broadcast_to(evaluate_region(operation, arguments), _shape(operation))


_TENSOR_OPS: dict[str, Callable[[ir.Operation, PassState], np.ndarray]] = {
    "tensor.collapse_shape": _evaluate_reshape,
    "tensor.expand_shape": _evaluate_reshape,
    "linalg.fill": _evaluate_fill,
    "linalg.broadcast": _evaluate_broadcast,
    "linalg.transpose": _evaluate_transpose,
    "linalg.generic": _evaluate_generic,
}


def _compare(predicate: int, lhs: Scalar, rhs: Scalar) -> Scalar:
    """Compare as arith.cmpf does: predicates 1 to 6 are false where an operand is NaN, 8 to 13 are true."""
    compare = _COMPARISONS.get(predicate % 7)
    if compare is None or predicate in (0, 7):
        raise NotConstant
    unordered = np.isnan(lhs) | np.isnan(rhs)
    result = compare(lhs, rhs)
    return result | unordered if predicate > 7 else result & ~unordered


_COMPARISONS: dict[int, Callable[[Scalar, Scalar], Scalar]] = {
    1: operator.eq,
    2: operator.gt,
    3: operator.ge,
    4: operator.lt,
    5: operator.le,
    6: operator.ne,
}

_SCALAR_OPS: dict[str, Callable[..., Scalar]] = {
    "arith.addf": operator.add,
    "arith.subf": operator.sub,
    "arith.mulf": operator.mul,
    "arith.divf": operator.truediv,
    "arith.negf": operator.neg,
    "arith.maximumf": np.maximum,
    "arith.minimumf": np.minimum,
    "arith.cmpf": _compare,
    "arith.select": np.where,
    "arith.truncf": operator.pos,
    "arith.extf": operator.pos,
    "arith.sitofp": operator.pos,
    "math.absf": np.abs,
    "math.sqrt": np.sqrt,
    "math.rsqrt": lambda value: 1.0 / np.sqrt(value),
}
