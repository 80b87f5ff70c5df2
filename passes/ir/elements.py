"""Element types of tensors and memrefs: f32, f16 and integers."""

from __future__ import annotations

from typing import Any

from torch_mlir import ir

from patc.dialects import pattern
from patc.passes.base import fail
from patc.targets import Target


def element_bytes(type_: ir.Type) -> int:
    """Return the bytes of one element; `type_` is an element type, or a tensor, vector or memref of it."""
    element = type_.element_type if isinstance(type_, ir.ShapedType) else type_
    return int(element.width) // 8


def vector_lanes(type_: ir.Type, target: Target) -> int:
    """Return how many elements one vector register of the target holds; `type_` as in `element_bytes`."""
    return target.lanes * 4 // element_bytes(type_)


def require_elements(op: Any) -> None:
    """Refuse element types that there are no kernels for. Only a relayout goes from one to another."""
    if str(op.result.type.element_type) not in ("f32", "f16"):
        raise fail(op, "f32 or f16 tensors", op.result.type)
    for operand in op.operands:
        element = operand.type.element_type
        is_index = isinstance(element, ir.IntegerType) and isinstance(op, pattern.SparseConv2dOp)
        converts = isinstance(op, pattern.RelayoutOp) and str(element) in ("f32", "f16")
        if element != op.result.type.element_type and not is_index and not converts:
            raise fail(op, f"operands of {op.result.type.element_type} like the result", operand.type)
