"""Whether linalg computes each image of a batch on its own, whatever numbers the others have."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch_mlir import ir

from patc.passes.ir.functions import RESHAPES, walk_ops

_NEUTRAL = ("arith.constant", "tensor.empty")
_IN_BODIES = ("arith", "math")


def keeps_images(function: Any, given: Collection[int], most: int) -> bool:
    """Return whether the first images of all results of a function depend on those of its arguments alone.

    Images are parts of the first dimension of a tensor. What is not seen at once counts as no.

    Args:
        given: numbers of the arguments that are images; the others are constants.
        most: how many images they are.
    """
    block = function.regions[0].blocks[0]
    held = {block.arguments[number] for number in given}
    if any(value.type.shape[:1] == [] or value.type.shape[0] % most for value in held):
        return False
    if any(_may_fail(type_) for op in walk_ops(function) for type_ in _types(op)):
        return False
    for op in block.operations:
        name, moving = op.operation.name, [value for value in op.operands if value in held]
        if name == "func.return":
            return len(moving) == len(op.operands)
        if not moving:
            if name not in _NEUTRAL and not name.startswith("linalg."):
                return False
        elif name in RESHAPES:
            held.update(value for value in op.results if value.type.rank and value.type.shape[0] % most == 0)
        elif name != "linalg.generic" or not _is_each_alone(op, held):
            return False
        else:
            held.update(op.results)
    return False


def _is_each_alone(op: Any, held: Collection[ir.Value]) -> bool:
    """Whether a `linalg.generic` goes through the first dimension of what it reads as through that of its results."""
    maps = [attr.value.results for attr in op.indexing_maps]
    dims = set()
    for value, results in zip(op.operands, maps, strict=True):
        if value in held or value in list(op.outputs):
            if not len(results) or not isinstance(results[0], ir.AffineDimExpr):
                return False
            dims.add(results[0].position)
            if any(_uses(expression, results[0].position) for expression in list(results)[1:]):
                return False
    if len(dims) != 1:
        return False
    is_parallel = "parallel" in str(op.iterator_types[dims.pop()])
    inner = [each.operation.name for each in op.operation.regions[0].blocks[0].operations]
    return is_parallel and all(
        name.split(".")[0] in _IN_BODIES or name in ("linalg.yield", "linalg.index") for name in inner
    )


def _uses(expression: Any, dim: int) -> bool:
    return (
        isinstance(expression, ir.AffineExpr)
        and f"d{dim}" in str(expression).replace("(", " ").replace(")", " ").split()
    )


def _types(op: Any) -> list[ir.Type]:
    return [value.type for value in (*op.operands, *op.results)]


def _may_fail(type_: ir.Type) -> bool:
    """Whether numbers of a type can end the program: integers that are divided or say where to read."""
    element = type_.element_type if isinstance(type_, ir.ShapedType) else type_
    return isinstance(element, ir.IntegerType) and element.width > 1
