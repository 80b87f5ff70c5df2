"""Read a layer that linalg spreads over several ops: pads, initial values, reshaped weights, windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import arith, linalg, tensor

from patc.dialects.attributes import i64_array
from patc.passes.base import PassState
from patc.passes.ir.constants import constant_name, make_constant, read_constant
from patc.passes.ir.functions import RESHAPES
from patc.passes.ir.windows import Window
from patc.passes.layers import reference

_SMALLEST = float(np.finfo(np.float32).min)

# An input and the window over it; what has none is `NO_WINDOW`.
WindowedInput = tuple[ir.Value, Window] | tuple[None, None]
NO_WINDOW: tuple[None, None] = (None, None)
Build = Callable[..., ir.Value]  # from input, weight, window and shape, and perhaps what is added


def is_zero(value: float) -> bool:
    """Whether a number changes no sum."""
    return value == 0


def is_lowest(value: float) -> bool:
    """Whether no f32 is less, so that the number wins no maximum."""
    return value <= _SMALLEST


# Windows.


def convolution_window(op: Any, padded: ir.Value, kernel: Sequence[int], shape: Sequence[int]) -> WindowedInput:
    """Return input and window of a linalg convolution.

    Args:
        padded: its input as an NCHW tensor; zeros put around it become pads of the window.
        shape: the NCHW shape of its result.
    """
    return _windowed(op, padded, kernel, shape, is_zero)


def pool_window(op: Any, is_neutral: Callable[[float], bool]) -> WindowedInput:
    """Return input and window of a linalg pooling whose pads and initial values are neutral."""
    if not is_filled(op.operands[2], is_neutral):
        return NO_WINDOW
    return _windowed(op, op.operands[0], op.operands[1].type.shape, op.result.type.shape, is_neutral)


def sum_window(op: Any) -> WindowedInput:
    """Return input and window of an op that sums over windows, or over all of height and width."""
    name = "" if isinstance(op, ir.Block) else op.operation.name
    if name == "linalg.pooling_nchw_sum":
        return pool_window(op, is_zero)
    return _reduced_window(op) if name == "linalg.generic" else NO_WINDOW


def _windowed(
    op: Any,
    padded: ir.Value,
    kernel: Sequence[int],
    shape: Sequence[int],
    is_neutral: Callable[[float], bool],
) -> WindowedInput:
    source, pads = _strip_pads(padded, is_neutral)
    strides, dilations = (two_integers(op, name) for name in ("strides", "dilations"))
    padded_window = Window((kernel[0], kernel[1]), strides, pads, dilations)
    window = padded_window.with_result_size(source.type.shape[2:], shape[2:])
    return NO_WINDOW if window is None else (source, window)


def two_integers(op: Any, name: str) -> tuple[int, int]:
    """Return strides or dilations of a linalg op, vertical and horizontal."""
    attributes = op.operation.attributes
    vertical, horizontal = np.array(attributes[name]).tolist() if name in attributes else (1, 1)
    return vertical, horizontal


def _strip_pads(value: ir.Value, is_neutral: Callable[[float], bool]) -> tuple[ir.Value, tuple[int, int, int, int]]:
    """Return what was padded, and by how much at the top, left, bottom and right."""
    total = np.zeros(4, int)
    while (pads := _spatial_pads(value, is_neutral)) is not None:
        total += pads
        value = value.owner.operands[0]
    top, left, bottom, right = total.tolist()
    return value, (top, left, bottom, right)


def _spatial_pads(value: ir.Value, is_neutral: Callable[[float], bool]) -> list[int] | None:
    """Return the pads of a tensor.pad that puts neutral values around height and width only."""
    pad = value.owner
    if not _is_op(pad, "tensor.pad") or len(pad.operands) != 1:
        return None
    low, high = list(pad.static_low), list(pad.static_high)
    body = pad.operation.regions[0].blocks[0]
    fill = float_constant(body.operations[len(body.operations) - 1].operands[0])
    is_spatial = len(low) == 4 and not any(low[:2] + high[:2]) and min(low + high) >= 0
    return low[2:] + high[2:] if is_spatial and fill is not None and is_neutral(fill) else None


def _reduced_window(op: Any) -> WindowedInput:
    """Return input and window of a linalg.generic that sums all of height and width."""
    dims = [ir.AffineExpr.get_dim(axis) for axis in range(4)]
    zero = ir.AffineExpr.get_constant(0)
    kept = [ir.AffineMap.get(4, 0, [*dims[:2], *rest]) for rest in ([], [zero, zero])]
    kinds = ["reduction" in str(kind) for kind in op.iterator_types]
    maps = [attr.value for attr in op.indexing_maps]
    reduces = kinds == [False, False, True, True] and len(maps) == 2 and maps[1] in kept
    if not reduces or maps[0] != ir.AffineMap.get_identity(4) or not _body_adds(op):
        return NO_WINDOW
    source, init = op.operands
    height, width = source.type.shape[2:]
    return (source, Window((height, width))) if is_filled(init, is_zero) else NO_WINDOW


def _body_adds(op: Any) -> bool:
    """Whether a body is `yield in + out` and nothing more."""
    body = op.operation.regions[0].blocks[0]
    names = [operation.operation.name for operation in body.operations]
    arguments = list(body.arguments)
    return names == ["arith.addf", "linalg.yield"] and list(body.operations[0].operands) in (
        arguments,
        arguments[::-1],
    )


def window_attributes(window: Window) -> dict[str, ir.Attribute]:
    """Return the attributes of a layer that its window is made of, but for the kernel."""
    return {name: i64_array(getattr(window, name)) for name in ("strides", "pads", "dilations")}


# Initial values.


@dataclass(frozen=True)
class Init:
    """What the products of a layer are added to: zero, one value a channel, or a tensor like the result."""

    bias: ir.Value | None = None
    residual: ir.Value | None = None


def read_init(value: ir.Value, shape: list[int]) -> Init | None:
    """Return what a destination holds, or None; `shape` is that of the result, channels in dimension 1."""
    sources = [value, *reshape_sources(value)]
    if any(is_filled(source, is_zero) for source in sources):
        return Init()
    source = next((source for source in sources if list(source.type.shape) == shape), None)
    if source is None:
        return None
    broadcast = source.owner
    if not _is_op(broadcast, "linalg.broadcast"):
        return Init(residual=source)
    others = [axis for axis in range(len(shape)) if axis != 1]
    return Init(bias=broadcast.operands[0]) if list(broadcast.dimensions) == others else None


def is_filled(value: ir.Value, holds: Callable[[float], bool]) -> bool:
    """Whether all elements of a tensor are one number for which `holds`."""
    owner = value.owner
    if _is_op(owner, "linalg.fill"):
        number = float_constant(owner.operands[0])
        return number is not None and holds(number)
    attr = owner.operation.attributes["value"] if _is_op(owner, "arith.constant") else None
    return isinstance(attr, ir.DenseElementsAttr) and attr.is_splat and holds(attr.get_splat_value().value)


# Weights.


def linear_weight(op: Any, state: PassState) -> ir.Value | None:
    """Return the F x C weight of a linalg.matmul, whichever way its right operand lies, or None."""
    value = op.operands[1]
    batch, filters, channels = (ir.AffineExpr.get_dim(axis) for axis in range(3))
    usual = [[batch, channels], [channels, filters], [batch, filters]]
    attributes = op.operation.attributes
    given = "indexing_maps" in attributes  # only then other ones
    maps = [list(attr.value.results) for attr in attributes["indexing_maps"]] if given else usual
    if maps == [[batch, channels], [filters, channels], [batch, filters]]:
        return value
    if maps != usual:
        return None
    if _is_op(value.owner, "linalg.transpose") and list(value.owner.permutation) == [1, 0]:
        return value.owner.operands[0]
    array = read_f32(value, state)
    return None if array is None else make_constant(array.T, constant_name(value), state)


def in_shape(value: ir.Value, shape: Sequence[int], state: PassState) -> ir.Value | None:
    """Return the value in another shape without a reshape at run time, or None."""
    sources = [value, *reshape_sources(value)]
    for source in sources:
        if list(source.type.shape) == list(shape):
            return source
    array = read_f32(sources[-1], state)
    return None if array is None else make_constant(array.reshape(shape), constant_name(sources[-1]), state)


def reshape_sources(value: ir.Value) -> list[ir.Value]:
    """Return what a value was reshaped from, nearest first; reshapes of tensors keep the row-major order."""
    sources = []
    while _is_op(value.owner, *RESHAPES):
        value = value.owner.operands[0]
        sources.append(value)
    return sources


def read_f32(value: ir.Value, state: PassState) -> np.ndarray | None:
    """Return the array of an f32 constant, or None."""
    return read_constant(value, state) if isinstance(value.type.element_type, ir.F32Type) else None


def float_constant(value: ir.Value) -> float | None:
    """Return the number that a scalar is, or None."""
    attr = value.owner.operation.attributes["value"] if _is_op(value.owner, "arith.constant") else None
    return attr.value if isinstance(attr, ir.FloatAttr) else None


def _is_op(owner: Any, *names: str) -> bool:
    """Whether the owner of a value is an op of one of these names, not a block."""
    return not isinstance(owner, ir.Block) and owner.operation.name in names


# Results.


def tensor_like(shape: Sequence[int], like: ir.Value) -> ir.Type:
    """Return a tensor type with the elements of another value."""
    return ir.RankedTensorType.get(list(shape), like.type.element_type)


def padded(value: ir.Value, before: Sequence[int], behind: Sequence[int]) -> ir.Value:
    """Put rows and columns of zeros around planes."""
    if not any((*before, *behind)):
        return value
    element = value.type.element_type
    zero = arith.ConstantOp(element, ir.FloatAttr.get(element, 0.0)).result
    return reference.pad(value, (*before, *behind), zero)


def cropped(value: ir.Value, first: Sequence[int], shape: Sequence[int]) -> ir.Value:
    """Return the part of a tensor that begins at `first`: the tensor itself where that is all of it."""
    if list(value.type.shape) == list(shape):
        return value
    ones = [1] * len(shape)
    return tensor.extract_slice(tensor_like(shape, value), value, [], [], [], list(first), list(shape), ones)


def rearranged(value: ir.Value, shape: Sequence[int], order: Sequence[int]) -> ir.Value:
    """Return planes as a tensor of rank 6, transposed."""
    before = value.type.shape[0] == shape[0]
    groups = [[0], [1], [2, 3], [4, 5]] if before else [[0, 1, 2], [3], [4], [5]]
    expanded = tensor.expand_shape(tensor_like(shape, value), value, groups, [], list(shape))
    empty = tensor.empty([shape[axis] for axis in order], value.type.element_type)
    return linalg.transpose(expanded, outs=[empty], permutation=list(order)).results[0]


def reshaped(value: ir.Value, type_: Any) -> ir.Value:
    """Return a row-major tensor in another shape of as many elements."""
    given, wanted = list(value.type.shape), list(type_.shape)
    if given == wanted:
        return value
    groups = _group(given, wanted) if len(given) > len(wanted) else _group(wanted, given)
    if groups is None:
        flat = tensor_like([math.prod(given)], value)
        value, groups = tensor.collapse_shape(flat, value, [list(range(len(given)))]), [list(range(len(wanted)))]
        return tensor.expand_shape(type_, value, groups, [], wanted)
    if len(given) > len(wanted):
        return tensor.collapse_shape(type_, value, groups)
    return tensor.expand_shape(type_, value, groups, [], wanted)


def _group(many: Sequence[int], few: Sequence[int]) -> list[list[int]] | None:
    """Return which neighbouring dimensions make each of fewer ones, or None."""
    groups: list[list[int]] = [[] for _ in few]
    place = 0
    for group, size in zip(groups, few, strict=True):
        while place < len(many) and (not group or math.prod(many[axis] for axis in group) < size):
            group.append(place)
            place += 1
        if math.prod(many[axis] for axis in group) != size or not group:
            return None
    if not groups or any(many[axis] != 1 for axis in range(place, len(many))):
        return None
    groups[-1].extend(range(place, len(many)))
    return groups


def flat_like(value: ir.Value, result: ir.Value) -> ir.Value:
    """Return the NCHW `value` as it is where `result` has rank 4, flattened where it has rank 2."""
    return value if result.type.rank == 4 else tensor.collapse_shape(result.type, value, [[0], [1, 2, 3]])
