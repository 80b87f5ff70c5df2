"""Zeros around what linalg spreads among zeros, as `pads.py` keeps apart in the torch dialect.

MLIR's canonicalizer inserts what a `tensor.pad` was made of where the pad was inserted into a fill, and moves it by the
pad as it stands, not by as many steps of the insertion. So such a pad is written as a fill and an insertion of its own:

    %y = tensor.pad %x low[l] high[h] { yield %zero }
  becomes
    %y = tensor.insert_slice %x into (linalg.fill %zero)[l] [n] [1]
"""

from __future__ import annotations

from typing import Any

from torch_mlir import ir
from torch_mlir.dialects import arith, linalg, tensor

from patc.passes.ir.functions import walk_ops


def keep_tensors_apart(module: ir.Module) -> None:
    """Let no `tensor.pad` stand in front of a `tensor.insert_slice` with steps."""
    for op in walk_ops(module):
        if op.operation.name == "tensor.insert_slice" and any(step != 1 for step in op.static_strides):
            pad = op.source.owner
            if not isinstance(pad, ir.Block) and pad.operation.name == "tensor.pad":
                with op.location, ir.InsertionPoint(op):
                    inserted = _inserted(pad.opview)
                if inserted is not None:
                    op.operands[0] = inserted


def _inserted(pad: Any) -> ir.Value | None:
    """Return the result of a pad by the same number everywhere as an insertion; None of others, and of pads that are
    not known."""
    low, high = list(pad.static_low), list(pad.static_high)
    value = pad.region.blocks[0].operations[-1].operands[0]
    if len(pad.low) or len(pad.high) or isinstance(value.owner, ir.Block):
        return None
    if value.owner.operation.block == pad.region.blocks[0]:
        if value.owner.operation.name != "arith.constant":
            return None
        value = value.owner.operation.clone().results[0]
    type_, rank = pad.result.type, len(low)
    open_, dynamic = ir.ShapedType.get_dynamic_size(), range(rank)
    sizes = {axis: _size(pad.source, axis) for axis in dynamic if pad.source.type.is_dynamic_dim(axis)}
    wide = [
        arith.AddIOp(sizes[axis], _index(low[axis] + high[axis])).result
        for axis in dynamic
        if type_.is_dynamic_dim(axis) and axis in sizes
    ]
    if len(wide) != sum(type_.is_dynamic_dim(axis) for axis in dynamic):
        return None
    shape = [wide.pop(0) if type_.is_dynamic_dim(axis) else type_.shape[axis] for axis in dynamic]
    filled = linalg.fill(value, outs=[tensor.empty(shape, type_.element_type)])
    static = [open_ if axis in sizes else pad.source.type.shape[axis] for axis in dynamic]
    return tensor.InsertSliceOp(pad.source, filled, [], [*sizes.values()], [], low, static, [1] * rank).result


def _size(value: ir.Value, axis: int) -> ir.Value:
    return tensor.DimOp(value, _index(axis)).result


def _index(number: int) -> ir.Value:
    return arith.ConstantOp(ir.IndexType.get(), number).result
