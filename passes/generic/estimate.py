"""How much work a function of linalg on tensors is."""

from __future__ import annotations

import math
from typing import Any

from torch_mlir import ir

from patc.passes.ir.elements import element_bytes


def count_operations(function: Any) -> int:
    """Return the arithmetic operations of the bodies of linalg ops, each as often as it is computed."""
    total = 0
    for op in function.regions[0].blocks[0].operations:
        if op.operation.name == "linalg.generic":
            body = op.operation.regions[0].blocks[0].operations
            total += sum(inner.operation.name != "linalg.index" for inner in list(body)[:-1]) * _turns(op)
    return total


def count_bytes(function: Any) -> int:
    """Return the bytes of all tensors that the ops of a function make, and of its arguments."""
    block = function.regions[0].blocks[0]
    made = [result for op in block.operations if op.operation.name != "tensor.empty" for result in op.results]
    tensors = [value.type for value in (*block.arguments, *made) if isinstance(value.type, ir.RankedTensorType)]
    return sum(element_bytes(type_) * math.prod(type_.shape) for type_ in tensors)


def _turns(op: Any) -> int:
    """Return how often the body of a `linalg.generic` is computed."""
    extents: dict[int, int] = {}
    for value, attr in zip(op.operands, op.indexing_maps, strict=True):
        if isinstance(value.type, ir.RankedTensorType):
            for size, expression in zip(value.type.shape, attr.value.results, strict=True):
                if isinstance(expression, ir.AffineDimExpr):
                    extents[expression.position] = size
    return math.prod(extents.values())
