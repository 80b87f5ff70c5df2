"""Element types of tensors and memrefs: f32, f16 and integers."""

from __future__ import annotations

from torch_mlir import ir

from patc.targets import Target


def element_bytes(type_: ir.Type) -> int:
    """Return the bytes of one element; `type_` is an element type, or a tensor, vector or memref of it."""
    element = type_.element_type if isinstance(type_, ir.ShapedType) else type_
    return int(element.width) // 8


def vector_lanes(type_: ir.Type, target: Target) -> int:
    """Return how many elements one vector register of the target holds; `type_` as in `element_bytes`."""
    return target.lanes * 4 // element_bytes(type_)
