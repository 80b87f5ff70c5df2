"""Tensors of lines, N x C x W, as planes of one row: what is folded, raised and fused on planes then serves lines too.

A 1-D convolution becomes a 2-D one of height 1, and so does one over planes of a single column, which torch-mlir makes
of grouped 1-D ones. What comes next element by element, or sums up lines, follows. All else sees lines as before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import linalg, tensor

from patc.passes.base import PassState
from patc.passes.ir.bodies import is_elementwise
from patc.passes.ir.functions import erase_dead
from patc.passes.raising.linalg_layers import reshape_sources, tensor_like
from patc.passes.raising.transposed import turn_weights
from patc.passes.raising.volume_pools import lay_pools
from patc.passes.raising.volumes import lay_volumes

# The dimensions of a tensor of rank 4 (planes) or 5 (planes of grouped channels) that make those of lines.
_LINE = {4: [[0], [1], [2, 3]], 5: [[0], [1, 2], [3, 4]]}
_GROUPED = [[0], [1, 2], [3], [4]]


def normalize_convolutions(block: ir.Block, state: PassState) -> None:
    """Give transposed convolutions plain weights, and make 1-D and 3-D ones, and 3-D pools, 2-D."""
    if any([turn_weights(block, state), lay_volumes(block, state), lay_pools(block), _lay_lines(block)]):
        erase_dead(block)


def _lay_lines(block: ir.Block) -> bool:
    """Rewrite the 1-D convolutions of a function and what follows them; return whether there are any.

    The ops that are replaced stay, without users.
    """
    found = False
    for op in [op.operation for op in block.operations]:
        rule = _RULES.get(op.name)
        if rule is None or len(op.results) != 1 or not _is_static(op):
            continue
        with op.location, ir.InsertionPoint(op):
            laid = rule(op)
        if laid is not None:
            op.result.replace_all_uses_with(laid)
            found = True
    return found


def _is_static(op: ir.Operation) -> bool:
    types = [value.type for value in (*op.operands, *op.results) if isinstance(value.type, ir.RankedTensorType)]
    return all(type_.has_static_shape for type_ in types)


# Convolutions.


def _lay_convolution(op: ir.Operation) -> ir.Value | None:
    """Return the result of a convolution over lines, in its old form; None for one over other planes."""
    data, weight, init = op.operands
    is_line, taps = op.name == "linalg.conv_1d_ncw_fcw", list(weight.type.shape)
    if not is_line and not (data.type.shape[-1] == init.type.shape[-1] == taps.pop() == 1 < data.type.shape[-2]):
        return None
    geometry = {
        name: [1, np.array(op.attributes[name]).ravel().tolist()[0]]
        for name in ("strides", "dilations")
        if name in op.attributes
    }
    operands, weight = [_planes(data), _planes(init)], _reshape(weight, [*taps[:-1], 1, taps[-1]])
    if op.name == "linalg.conv_2d_ngchw_gfchw":
        operands = [_split(value, taps[0]) for value in operands]
        result = linalg.conv_2d_ngchw_gfchw(operands[0], weight, outs=operands[1:], **geometry)
        batch, groups, filters, *size = result.type.shape
        result = tensor.collapse_shape(tensor_like([batch, groups * filters, *size], result), result, _GROUPED)
    else:
        is_depthwise = op.name == "linalg.depthwise_conv_2d_nchw_chw"
        build = linalg.depthwise_conv_2d_nchw_chw if is_depthwise else linalg.conv_2d_nchw_fchw
        result = build(operands[0], weight, outs=operands[1:], **geometry)
    return _in_form_of(op.result, result)


def _split(value: ir.Value, groups: int) -> ir.Value:
    batch, channels, *size = value.type.shape
    shape = [batch, groups, channels // groups, *size]
    return tensor.expand_shape(tensor_like(shape, value), value, _GROUPED, [], shape)


# What follows them.


def _lay_generic(op: ir.Operation) -> ir.Value | None:
    """Return what a linalg.generic computes of lines that are laid already, each element by itself or their sums."""
    maps = [attr.value for attr in op.attributes["indexing_maps"]]
    if maps[-1].n_dims != 3:
        return None
    line, dims = ir.AffineMap.get_identity(3), [ir.AffineExpr.get_dim(axis) for axis in range(4)]
    are_lines = [map_ == line for map_ in maps]
    is_sum = "reduction" in str(op.attributes["iterator_types"][2]) and list(maps[-1].results) == dims[:2]
    is_laid = any(_is_laid(value) for value, is_line in zip(op.operands, are_lines, strict=True) if is_line)
    if not is_laid or not (is_sum or is_elementwise(op)) or _uses_index(op):
        return None
    operands = [_planes(value) if is_line else value for value, is_line in zip(op.operands, are_lines, strict=True)]
    columns = ir.AffineMap.get(4, 0, [dims[0], dims[1], dims[3]])
    others = [ir.AffineMap.get(4, 0, [expr.compose(columns) for expr in map_.results]) for map_ in maps]
    planes = ir.AffineMap.get_identity(4)
    made = linalg.GenericOp(
        [operands[-1].type],
        operands[:-1],
        operands[-1:],
        ir.ArrayAttr.get(
            [ir.AffineMapAttr.get(planes if is_line else map_) for map_, is_line in zip(others, are_lines, strict=True)]
        ),
        ir.ArrayAttr.get([op.attributes["iterator_types"][axis] for axis in (0, 1, 2, 2)]),
    )
    op.regions[0].blocks[0].append_to(made.regions[0])
    return made.result if is_sum else _in_form_of(op.result, made.result)


def _uses_index(op: ir.Operation) -> bool:
    return any(inner.operation.name == "linalg.index" for inner in op.regions[0].blocks[0].operations)


def _is_laid(value: ir.Value) -> bool:
    shape = _plane(value.type.shape)
    return any(list(source.type.shape) == shape for source in reshape_sources(value))


def _lay_pad(op: ir.Operation) -> ir.Value | None:
    """Return lines that are laid already with something around them."""
    padded = _pad(op) if op.result.type.rank == 3 and _is_laid(op.operands[0]) else None
    return None if padded is None else _in_form_of(op.result, padded)


# Forms of lines.


def _plane(shape: Sequence[int]) -> list[int]:
    """Return the shape of planes of one row with the elements of lines, in any of their forms."""
    if len(shape) == 5:
        shape = [shape[0], shape[1] * shape[2], *shape[3:]]
    return [*shape[:2], 1, shape[2]]


def _planes(value: ir.Value) -> ir.Value:
    """Return lines, in any of their forms, as planes of one row."""
    shape, sources = _plane(value.type.shape), [value, *reshape_sources(value)]
    for source in sources:
        if list(source.type.shape) == shape:
            return source
    root = sources[-1]
    rule = None if isinstance(root.owner, ir.Block) else _REBUILT.get(root.owner.operation.name)
    same = root.type.rank == 3 or (root.type.rank == 4 and root.type.shape[3] == 1)
    rebuilt = rule(root.owner.operation) if rule is not None and same and _plane(root.type.shape) == shape else None
    if rebuilt is not None:
        return rebuilt
    return tensor.expand_shape(tensor_like(shape, value), _line(value), _LINE[4], [], shape)


def _line(value: ir.Value) -> ir.Value:
    batch, channels, _, columns = _plane(value.type.shape)
    for source in (value, *reshape_sources(value)):
        if list(source.type.shape) == [batch, channels, columns]:
            return source
    return tensor.collapse_shape(tensor_like([batch, channels, columns], value), value, _LINE[value.type.rank])


def _in_form_of(old: ir.Value, planes: ir.Value) -> ir.Value:
    """Return planes of one row in the form that lines had."""
    batch, channels, _, columns = planes.type.shape
    line = tensor.collapse_shape(tensor_like([batch, channels, columns], planes), planes, _LINE[4])
    if old.type.rank == 3:
        return line
    return tensor.expand_shape(old.type, line, _LINE[old.type.rank], [], list(old.type.shape))


def _reshape(value: ir.Value, shape: Sequence[int]) -> ir.Value:
    """Return a value in another shape; it need not become a line on the way."""
    sources = [value, *reshape_sources(value)]
    for source in sources:
        if list(source.type.shape) == list(shape):
            return source
    flat = tensor.collapse_shape(
        tensor_like([int(np.prod(shape))], value), sources[-1], [list(range(sources[-1].type.rank))]
    )
    return tensor.expand_shape(tensor_like(shape, value), flat, [list(range(len(shape)))], [], list(shape))


# What is built anew over planes, so that its reader can tell what it is.


def _pad(op: ir.Operation) -> ir.Value | None:
    pad = op.opview
    low, high = list(pad.static_low), list(pad.static_high)
    body = op.regions[0].blocks[0]
    if len(op.operands) != 1 or len(body.operations) != 1 or (len(low) == 4 and (low[3] or high[3])):
        return None
    source = _planes(op.operands[0])
    low, high = ([*sides[:2], 0, sides[2]] for sides in (low, high))
    shape = _plane(op.result.type.shape)
    made = tensor.PadOp(tensor_like(shape, op.result), source, [], [], low, high)
    inside = made.regions[0].blocks.append(*[ir.IndexType.get()] * 4)
    with ir.InsertionPoint(inside):
        tensor.yield_(body.operations[0].operands[0])
    return made.result


def _broadcast(op: ir.Operation) -> ir.Value | None:
    others = [axis for axis in range(op.result.type.rank) if axis != 1]
    if list(op.opview.dimensions) != others:
        return None
    init = tensor.empty(_plane(op.result.type.shape), op.result.type.element_type)
    return linalg.broadcast(op.operands[0], outs=[init], dimensions=[0, 2, 3]).results[0]


def _empty(op: ir.Operation) -> ir.Value:
    return tensor.empty(_plane(op.result.type.shape), op.result.type.element_type)


def _spread(op: ir.Operation) -> ir.Value | None:
    """Lines with zeros between their elements, as those of transposed convolutions."""
    slice_, (source, whole) = op.opview, op.operands[:2]
    if len(op.operands) != 2 or _plane(source.type.shape)[:2] != _plane(whole.type.shape)[:2]:
        return None
    if op.result.type.rank == 4 and source.type.shape[3] != 1:
        return None
    zeros = whole.owner.operation if not isinstance(whole.owner, ir.Block) else None
    if zeros is None or zeros.name != "linalg.fill":
        return None
    empty = tensor.empty(_plane(whole.type.shape), whole.type.element_type)
    where = ([0, 0, 0, slice_.static_offsets[2]], _plane(source.type.shape), [1, 1, 1, slice_.static_strides[2]])
    return tensor.insert_slice(_planes(source), linalg.fill(zeros.operands[0], outs=[empty]), [], [], [], *where)


_REBUILT: dict[str, Any] = {
    "tensor.insert_slice": _spread,
    "tensor.pad": _pad,
    "linalg.broadcast": _broadcast,
    "tensor.empty": _empty,
}
_RULES: dict[str, Any] = {
    "linalg.conv_1d_ncw_fcw": _lay_convolution,
    "linalg.conv_2d_nchw_fchw": _lay_convolution,
    "linalg.conv_2d_ngchw_gfchw": _lay_convolution,
    "linalg.depthwise_conv_2d_nchw_chw": _lay_convolution,
    "linalg.generic": _lay_generic,
    "tensor.pad": _lay_pad,
}
