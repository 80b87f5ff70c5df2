"""Evaluate constant tensors: parameters, and what linalg and tensor ops compute from constants alone.

Everything is computed in float64, so that the only rounding is that of the result when it is stored.
"""

from __future__ import annotations

import math
import operator
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from torch_mlir import ir

from patc.passes.base import PassState
from patc.passes.ir.bodies import (
    Interpreter,
    Rule,
    Scalar,
    elementwise,
    is_elementwise,
    loop_numbers,
    number,
    spread_operand,
    used_arguments,
)
from patc.passes.ir.constants import CONSTANTS, read_constant


class NotConstant(Exception):
    """A value is not constant, or is computed by something that is not evaluated here."""


def evaluate(value: ir.Value, state: PassState) -> np.ndarray:
    """Return a constant tensor as float64, broadcast views included.

    Raises:
        NotConstant: the value depends on an argument, or on an op that is not evaluated.
    """
    if not _is_of_constants(value):
        raise NotConstant
    return _compute(value, state)


def _is_of_constants(value: ir.Value) -> bool:
    """Return whether nothing but constants, and ops that are evaluated, leads to a value.

    A value of a deep net may have a thousand ops before it, all of which are evaluated but for the first: what is not
    constant is looked for from the nearest on, and without recursion.
    """
    queue, seen = deque([value]), {value}
    while queue:
        owner = queue.popleft().owner
        if isinstance(owner, ir.Block):
            return False
        operation = owner.operation
        if operation.name in CONSTANTS:
            continue
        if operation.name not in _TENSOR_OPS:
            return False
        read = [operation.operands[place] for place in _read_operands(operation)]
        queue.extend(each for each in read if each not in seen)
        seen.update(read)
    return True


def _read_operands(operation: ir.Operation) -> Sequence[int]:
    """Return which operands an op of `_TENSOR_OPS` is computed from."""
    return used_arguments(operation) if operation.name == "linalg.generic" else (0,)


def _compute(value: ir.Value, state: PassState) -> np.ndarray:
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
    found = number(operation) if operation.name == "arith.constant" else None
    if found is None:
        raise NotConstant
    return float(found)


def evaluate_region(operation: ir.Operation, arguments: Mapping[int, Scalar]) -> Scalar:
    """Return what the body of a linalg.generic yields when its block arguments have these values.

    Args:
        operation: a linalg.generic with one result.
        arguments: values by number; the body may read no others.

    Raises:
        NotConstant: the body reads an argument without a value, or does what is not evaluated. Failed
            assertions count as passed: what comes of them is not finite.
    """
    result = _SCALARS.run(operation, arguments)
    if result is None:
        raise NotConstant
    return result


def evaluate_operand(operation: ir.Operation, place: int, state: PassState) -> np.ndarray:
    """Return a constant operand of a linalg.generic laid over its loops; see `spread_operand`.

    Raises:
        NotConstant: it is none, or cannot be laid so.
    """
    if not _is_of_constants(operation.operands[place]):
        raise NotConstant
    return _spread(operation, place, state)


def _spread(operation: ir.Operation, place: int, state: PassState) -> np.ndarray:
    spread = spread_operand(operation, place, _compute(operation.operands[place], state))
    if spread is None:
        raise NotConstant
    return spread


def _owner(value: ir.Value) -> ir.Operation:
    if isinstance(value.owner, ir.Block):
        raise NotConstant
    return value.owner.operation


def _shape(operation: ir.Operation) -> tuple[int, ...]:
    return tuple(operation.results[0].type.shape)


def _evaluate_reshape(operation: ir.Operation, state: PassState) -> np.ndarray:
    return _compute(operation.operands[0], state).reshape(_shape(operation))


def _evaluate_fill(operation: ir.Operation, state: PassState) -> np.ndarray:
    return np.broadcast_to(evaluate_scalar(operation.operands[0]), _shape(operation))


def _evaluate_broadcast(operation: ir.Operation, state: PassState) -> np.ndarray:
    array = _compute(operation.operands[0], state)
    added = tuple(operation.attributes["dimensions"])
    return np.broadcast_to(np.expand_dims(array, added), _shape(operation))


def _evaluate_transpose(operation: ir.Operation, state: PassState) -> np.ndarray:
    return _compute(operation.operands[0], state).transpose(tuple(operation.attributes["permutation"]))


def _evaluate_generic(operation: ir.Operation, state: PassState) -> np.ndarray:
    if not is_elementwise(operation):
        raise NotConstant
    arguments = {place: _spread(operation, place, state) for place in used_arguments(operation)}
    result = _CONSTANTS.run(operation, arguments)
    if result is None:
        raise NotConstant
    return np.broadcast_to(result, _shape(operation))


_TENSOR_OPS: dict[str, Callable[[ir.Operation, PassState], np.ndarray]] = {
    "tensor.collapse_shape": _evaluate_reshape,
    "tensor.expand_shape": _evaluate_reshape,
    "linalg.fill": _evaluate_fill,
    "linalg.broadcast": _evaluate_broadcast,
    "linalg.transpose": _evaluate_transpose,
    "linalg.generic": _evaluate_generic,
}


def _compare(op: ir.Operation, lhs: Scalar, rhs: Scalar) -> Scalar | None:
    """Compare as arith.cmpf does: predicates 1 to 6 are false where an operand is NaN, 8 to 13 are true."""
    predicate = op.attributes["predicate"].value
    compare = _COMPARISONS.get(predicate % 7)
    if compare is None or predicate in (0, 7):
        return None
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

_FUNCTIONS: dict[str, Callable[..., Scalar]] = {
    "arith.addf": operator.add,
    "arith.subf": operator.sub,
    "arith.mulf": operator.mul,
    "arith.divf": operator.truediv,
    "arith.negf": operator.neg,
    "arith.maximumf": np.maximum,
    "arith.minimumf": np.minimum,
    "arith.maxnumf": np.fmax,
    "arith.minnumf": np.fmin,
    "arith.andi": np.bitwise_and,
    "arith.ori": np.bitwise_or,
    "arith.xori": np.bitwise_xor,
    "arith.select": np.where,
    "arith.truncf": operator.pos,
    "arith.extf": operator.pos,
    "arith.sitofp": np.float64,
    "arith.index_cast": operator.pos,
    "math.absf": np.abs,
    "math.erf": np.vectorize(math.erf),
    "math.exp": np.exp,
    "math.expm1": np.expm1,
    "math.fpowi": np.power,
    "math.log": np.log,
    "math.log1p": np.log1p,
    "math.powf": np.power,
    "math.sqrt": np.sqrt,
    "math.rsqrt": lambda value: 1.0 / np.sqrt(value),
    "math.tanh": np.tanh,
}
_RULES: dict[str, Rule] = {
    **{name: elementwise(compute) for name, compute in _FUNCTIONS.items()},
    "arith.cmpf": _compare,
}
_SCALARS = Interpreter(_RULES, ignored=("cf.assert",))
_INTEGERS: dict[int, Callable[..., Scalar]] = dict(
    enumerate((operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge))
)


def _compare_integers(op: ir.Operation, lhs: Scalar, rhs: Scalar) -> Scalar | None:
    compare = _INTEGERS.get(op.attributes["predicate"].value)  # those without a sign are not known
    return None if compare is None else compare(lhs, rhs)


_CONSTANTS = Interpreter(
    {
        **_RULES,
        **{f"arith.{name}i": elementwise(getattr(operator, name)) for name in ("add", "sub", "mul")},
        "arith.cmpi": _compare_integers,
        "linalg.index": loop_numbers,
    },
    ignored=("cf.assert",),
)
