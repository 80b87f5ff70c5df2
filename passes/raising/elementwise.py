"""Read what the body of an elementwise linalg.generic computes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch_mlir import ir

from patc.dialects.attributes import Activation
from patc.passes.base import PassState
from patc.passes.ir.bodies import Interpreter, Scalar, elementwise, is_elementwise, loop_numbers
from patc.passes.raising.activations import clamp
from patc.passes.raising.linalg_layers import read_f32


@dataclass(frozen=True)
class Elementwise:
    """result = min(max(sum(terms) + sum(channel terms)) / divisor, minimum), maximum).

    Attributes:
        terms: tensors of the result's shape.
        channel_terms: tensors with one element a channel (dimension 1), as the op names them.
        divisor: numbers that broadcast to the result's shape.
        minimum, maximum: -inf and inf where the op does not clamp.
    """

    terms: tuple[ir.Value, ...]
    channel_terms: tuple[ir.Value, ...]
    divisor: np.ndarray
    minimum: float
    maximum: float

    @property
    def divides(self) -> bool:
        """Whether the divisor is not one everywhere."""
        return bool(np.any(self.divisor != 1.0))

    @property
    def activation(self) -> Activation:
        """What clamps the result."""
        return clamp(self.minimum, self.maximum)


def read_elementwise(op: Any, state: PassState) -> Elementwise | None:
    """Return the meaning of a linalg.generic, or None when it is not such a clamped sum."""
    operation = op.operation
    if not is_elementwise(operation):
        return None
    maps = [attr.value for attr in op.indexing_maps]
    shape = tuple(op.result.type.shape)
    value = _BODIES.run(operation, _arguments(op, state))
    if not isinstance(value, _Sum):
        return None
    inputs = [op.operands[number] for number in value.inputs]
    is_channel = [_broadcasts_channel(op.operands[n].type, maps[n], shape) for n in value.inputs]
    is_whole = [maps[n] == maps[-1] and tuple(op.operands[n].type.shape) == shape for n in value.inputs]
    if not all(whole or channel for whole, channel in zip(is_whole, is_channel, strict=True)):
        return None
    return Elementwise(
        terms=tuple(v for v, whole in zip(inputs, is_whole, strict=True) if whole),
        channel_terms=tuple(v for v, whole in zip(inputs, is_whole, strict=True) if not whole),
        divisor=value.divisor,
        minimum=value.minimum,
        maximum=value.maximum,
    )


def _broadcasts_channel(type_: Any, map_: ir.AffineMap, shape: tuple[int, ...]) -> bool:
    """Whether an input has shape[1] elements and each goes to the channel of its number."""
    if len(shape) < 2 or math.prod(type_.shape) != shape[1]:
        return False
    channel = ir.AffineExpr.get_dim(1)
    used = [(size, expr) for size, expr in zip(type_.shape, map_.results, strict=True) if expr == channel]
    others_are_one = math.prod(type_.shape) == math.prod(size for size, _ in used)
    return len(used) == 1 and others_are_one


@dataclass(frozen=True)
class _Sum:
    """clamp(sum of block arguments / divisor): what a scalar of the body is worth, input by input."""

    inputs: tuple[int, ...]
    divisor: np.ndarray = field(default_factory=lambda: np.ones(()))
    minimum: float = -math.inf
    maximum: float = math.inf

    @property
    def is_clamped(self) -> bool:
        return self.minimum != -math.inf or self.maximum != math.inf

    @property
    def is_plain(self) -> bool:
        return not self.is_clamped and bool(np.all(self.divisor == 1.0))


@dataclass(frozen=True)
class _Compare:
    """lhs > rhs or lhs >= rhs when `greater`, else lhs < rhs or lhs <= rhs."""

    greater: bool
    lhs: Any
    rhs: Any


def _arguments(op: Any, state: PassState) -> dict[int, Scalar]:
    """Return what the inputs are worth: numbers where they are constant, sums of themselves else."""
    return {number: _argument(op.operands[number], number, state) for number in range(len(op.inputs))}


def _argument(operand: ir.Value, number: int, state: PassState) -> Scalar | None:
    is_scalar = isinstance(operand.type, ir.RankedTensorType) and operand.type.rank == 0
    array = read_f32(operand, state) if is_scalar else None
    return _Sum((number,)) if array is None else array


def _compare(op: ir.Operation, lhs: Scalar, rhs: Scalar) -> Scalar | None:
    greater = _PREDICATES.get(op.attributes["predicate"].value)
    return None if greater is None else _Compare(greater, lhs, rhs)


# ogt, oge, ugt, uge; olt, ole, ult, ule: all the same but for NaN.
_PREDICATES = {2: True, 3: True, 9: True, 10: True, 4: False, 5: False, 11: False, 12: False}


def _add(lhs: Scalar, rhs: Scalar) -> Scalar | None:
    if isinstance(lhs, _Sum) and isinstance(rhs, _Sum) and lhs.is_plain and rhs.is_plain:
        return _Sum(lhs.inputs + rhs.inputs)
    for value, other in ((lhs, rhs), (rhs, lhs)):
        if isinstance(other, np.ndarray) and np.all(other == 0):
            return value
    return None


def _multiply(lhs: Scalar, rhs: Scalar) -> Scalar | None:
    value, factor = (lhs, rhs) if isinstance(rhs, np.ndarray) else (rhs, lhs)
    if not isinstance(factor, np.ndarray) or np.any(factor == 0):
        return None
    return value if np.all(factor == 1) else _divide(value, np.asarray(1.0 / factor))


def _divide(lhs: Scalar, rhs: Scalar) -> Scalar | None:
    if not isinstance(lhs, _Sum) or not isinstance(rhs, np.ndarray) or not lhs.is_plain:
        return None
    return replace(lhs, divisor=rhs)


def _limit(choose: Callable[[float, float], float]) -> Callable[..., Scalar]:
    """Return the maximum or minimum, as `choose` says, of a sum and a number."""

    def limit(lhs: Scalar, rhs: Scalar) -> Scalar | None:
        value, bound = (lhs, rhs) if isinstance(rhs, np.ndarray) else (rhs, lhs)
        if not isinstance(value, _Sum) or not isinstance(bound, np.ndarray) or bound.size != 1:
            return None
        number = float(bound.item())
        minimum, maximum = choose(value.minimum, number), choose(value.maximum, number)
        return replace(value, minimum=minimum, maximum=maximum)

    return limit


def _select(condition: Scalar, chosen: Scalar, otherwise: Scalar) -> Scalar | None:
    """Return the maximum or minimum that a comparison and a select of the same two values are."""
    if not isinstance(condition, _Compare):
        return None
    if _equal(condition.lhs, chosen) and _equal(condition.rhs, otherwise):
        takes_greater = condition.greater
    elif _equal(condition.rhs, chosen) and _equal(condition.lhs, otherwise):
        takes_greater = not condition.greater
    else:
        return None
    return (_maximum if takes_greater else _minimum)(chosen, otherwise)


def _equal(lhs: Scalar, rhs: Scalar) -> bool:
    if isinstance(lhs, np.ndarray) and isinstance(rhs, np.ndarray):
        return np.array_equal(lhs, rhs)
    if not isinstance(lhs, _Sum) or not isinstance(rhs, _Sum):
        return False
    same_clamp = (lhs.minimum, lhs.maximum) == (rhs.minimum, rhs.maximum)
    return same_clamp and lhs.inputs == rhs.inputs and np.array_equal(lhs.divisor, rhs.divisor)


def _known(compute: Callable[..., Any]) -> Callable[..., Scalar]:
    """Lift a numpy function to scalars of which all must be known."""

    def compute_known(*operands: Scalar) -> Scalar | None:
        is_known = all(isinstance(operand, np.ndarray) for operand in operands)
        return np.asarray(compute(*operands)) if is_known else None

    return compute_known


_maximum, _minimum = _limit(max), _limit(min)

_FUNCTIONS: dict[str, Callable[..., Scalar]] = {
    "arith.addf": _add,
    "arith.mulf": _multiply,
    "arith.divf": _divide,
    "arith.maximumf": _maximum,
    "arith.maxnumf": _maximum,
    "arith.minimumf": _minimum,
    "arith.minnumf": _minimum,
    "arith.select": _select,
    "arith.addi": _known(np.add),
    "arith.subi": _known(np.subtract),
    "arith.muli": _known(np.multiply),
    "arith.minsi": _known(np.minimum),
    "arith.maxsi": _known(np.maximum),
    "arith.index_cast": _known(np.asarray),
    "arith.sitofp": _known(np.float32),
    "arith.truncf": _known(np.float32),
}
_BODIES = Interpreter(
    {
        **{name: elementwise(compute) for name, compute in _FUNCTIONS.items()},
        "arith.cmpf": _compare,
        "linalg.index": loop_numbers,
    }
)
