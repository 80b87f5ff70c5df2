"""Bodies of linalg.generic ops: how operands meet the loops, and what is computed for each point of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch_mlir import ir

# A scalar of a body: a number or one number for each point of the loops, as arrays, or an object that stands for what
# is not known.
Scalar = Any
# Returns the result of an op, whose operands' values follow it, or None where it does not know it.
Rule = Callable[..., Scalar | None]


class Interpreter:
    """Runs bodies on arrays and on objects that stand for what is not known.

    Args:
        rules: what the ops do, by their names. What has no rule, or whose operands are not known, is not known.
        ignored: ops without results that may be left out; others of that kind make the whole body unknown.
    """

    def __init__(self, rules: Mapping[str, Rule], ignored: tuple[str, ...] = ()) -> None:
        self._rules = {"arith.constant": number, **rules}
        self._ignored = ignored

    def run(
        self, operation: ir.Operation, arguments: Mapping[int, Scalar], outside: Mapping[ir.Value, Scalar] | None = None
    ) -> Scalar | None:
        """Return what the body of a linalg.generic with one result yields, or None where that is not known.

        Args:
            arguments: the values of its block arguments, by number; the others are not known.
            outside: those of what the body takes from outside of it, but for constants.
        """
        block = operation.regions[0].blocks[0]
        known = {block.arguments[place]: value for place, value in arguments.items()} | dict(outside or {})
        *body, terminator = (op.operation for op in block.operations)
        for op in body:
            if len(op.results) == 1:
                known[op.results[0]] = self._compute(op, known)
            elif op.name not in self._ignored:
                return None
        return _look_up(terminator.operands[0], known)

    def _compute(self, op: ir.Operation, known: Mapping[ir.Value, Scalar]) -> Scalar | None:
        rule = self._rules.get(op.name)
        operands = [_look_up(operand, known) for operand in op.operands]
        if rule is None or any(operand is None for operand in operands):
            return None
        try:
            with np.errstate(all="ignore"):
                return rule(op, *operands)
        except TypeError:  # an object has no such operator
            return None


def _look_up(value: ir.Value, known: Mapping[ir.Value, Scalar]) -> Scalar | None:
    """Return a scalar of the body, or a constant from outside."""
    return known[value] if value in known else constant_number(value)


def constant_number(value: ir.Value) -> np.ndarray | None:
    """Return the number that a value is, or None for another one than a constant."""
    owner = value.owner
    is_constant = not isinstance(owner, ir.Block) and owner.operation.name == "arith.constant"
    return number(owner.operation) if is_constant else None


def number(constant: ir.Operation) -> np.ndarray | None:
    """Return the number of an `arith.constant`, or None for one of another type."""
    attr = constant.attributes["value"]
    return np.asarray(attr.value) if isinstance(attr, (ir.FloatAttr, ir.IntegerAttr)) else None


def elementwise(compute: Callable[..., Scalar | None]) -> Rule:
    """Return the rule of an op that is a function of its operands alone."""
    return lambda op, *operands: compute(*operands)


def loop_numbers(index: ir.Operation) -> np.ndarray:
    """Return what `linalg.index` is at each point of its loops, which are the axes of the result."""
    axis, shape = index.attributes["dim"].value, index.parent.results[0].type.shape
    return np.arange(shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))])


def is_elementwise(operation: ir.Operation) -> bool:
    """Return whether an op is a linalg.generic of parallel loops with one result, written in loop order."""
    if operation.name != "linalg.generic" or len(operation.results) != 1:
        return False
    if any("parallel" not in str(kind) for kind in operation.attributes["iterator_types"]):
        return False
    last = list(operation.attributes["indexing_maps"])[-1].value
    return last == ir.AffineMap.get_identity(last.n_dims, operation.context)


def spread_operand(operation: ir.Operation, place: int, array: np.ndarray) -> np.ndarray | None:
    """Return an operand of a linalg.generic laid over its loops: an axis for each, of size 1 if not read.

    Returns:
        None where the operand is not indexed by loops and constants, each loop at most once.
    """
    map_ = operation.attributes["indexing_maps"][place].value
    if not all(isinstance(expr, (ir.AffineDimExpr, ir.AffineConstantExpr)) for expr in map_.results):
        return None
    axes = [expr.position for expr in map_.results if isinstance(expr, ir.AffineDimExpr)]
    if len(set(axes)) != len(axes):
        return None
    index = [expr.value if isinstance(expr, ir.AffineConstantExpr) else slice(None) for expr in map_.results]
    picked = array[tuple(index)]
    order = sorted(range(len(axes)), key=axes.__getitem__)
    sizes = dict(zip(axes, picked.shape, strict=True))
    return picked.transpose(order).reshape([sizes.get(loop, 1) for loop in range(map_.n_dims)])


def yields_argument(operation: ir.Operation) -> bool:
    """Return whether the body of a linalg.generic does nothing but yield its first argument."""
    block = operation.regions[0].blocks[0]
    end = block.operations[0]
    return end.operation.name == "linalg.yield" and end.operands[0] == block.arguments[0]


def used_arguments(operation: ir.Operation) -> list[int]:
    """Return the numbers of the block arguments that the body of a linalg.generic reads."""
    arguments = operation.regions[0].blocks[0].arguments
    return [i for i, argument in enumerate(arguments) if next(iter(argument.uses), None) is not None]
