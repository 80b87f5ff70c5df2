"""3-D convolutions of linalg as 2-D ones, which become layers: the depths of a volume are images.

A convolution is a sum of one over planes for each depth of its kernel; one whose taps differ in depth only is a single
one over planes with a row for each depth. Pools stay: their loops are as fast as the copies to planes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import linalg, tensor

from patc.passes.base import PassState
from patc.passes.ir.constants import constant_name, make_constant
from patc.passes.layers import reference
from patc.passes.raising.linalg_layers import float_constant, is_filled, is_zero, read_f32, reshaped, tensor_like

_SWAPPED = [0, 2, 1, 3, 4]  # channels and depths of a volume


def lay_volumes(block: ir.Block, state: PassState) -> bool:
    """Rewrite the 3-D convolutions of a function; return whether there are any.

    The ops that are replaced stay, without users.
    """
    found = False
    for op in [op.operation for op in block.operations]:
        if op.name != "linalg.conv_3d_ncdhw_fcdhw" or not is_volume(op.result.type):
            continue
        with op.location, ir.InsertionPoint(op):
            laid = _lay_convolution(op, state)
        if laid is not None:
            op.result.replace_all_uses_with(laid)
            found = True
    return found


def is_volume(type_: ir.Type) -> bool:
    """Whether a type is of volumes of f32 of known size."""
    is_tensor = isinstance(type_, ir.RankedTensorType) and type_.has_static_shape and type_.rank == 5
    return is_tensor and isinstance(type_.element_type, ir.F32Type)


@dataclass(frozen=True)
class Volume:
    """A tensor with `fill`, if any, around depth, height and width: `low` in front, `high` behind."""

    value: ir.Value
    low: tuple[int, int, int] = (0, 0, 0)
    high: tuple[int, int, int] = (0, 0, 0)
    fill: ir.Value | None = None

    @staticmethod
    def read(padded: ir.Value) -> Volume:
        """Return what a tensor.pad, if there is one, puts a constant around."""
        pad = None if isinstance(padded.owner, ir.Block) else padded.owner.opview
        if not isinstance(pad, tensor.PadOp) or len(pad.operands) != 1:
            return Volume(padded)
        body, low, high = pad.operation.regions[0].blocks[0], list(pad.static_low), list(pad.static_high)
        if len(body.operations) != 1 or any(low[:2] + high[:2]) or min(low + high) < 0:
            return Volume(padded)
        return Volume(pad.operands[0], tuple(low[2:]), tuple(high[2:]), body.operations[0].operands[0])

    def around(self, planes: ir.Value) -> ir.Value:
        """Return planes of the volume with what is around their height and width."""
        pads = *self.low[1:], *self.high[1:]
        return planes if self.fill is None else reference.pad(planes, pads, self.fill)

    def around_rows(self, planes: ir.Value) -> ir.Value:
        """Return planes that have a row for each depth with what is around the depths."""
        return planes if self.fill is None else reference.pad(planes, (self.low[0], 0, self.high[0], 0), self.fill)

    def depths_first(self) -> ir.Value:
        """Return depths, with what is around them, before channels."""
        shape = [self.value.type.shape[axis] for axis in _SWAPPED]
        swapped = _transposed(self.value, shape)
        if self.fill is None or not (self.low[0] or self.high[0]):
            return swapped
        shape[1] += self.low[0] + self.high[0]
        sides = ([0, pads[0], 0, 0, 0] for pads in (self.low, self.high))
        made = tensor.PadOp(tensor_like(shape, swapped), swapped, [], [], *sides)
        with ir.InsertionPoint(made.regions[0].blocks.append(*[ir.IndexType.get()] * 5)):
            tensor.yield_(self.fill)
        return made.result


def _transposed(value: ir.Value, shape: Sequence[int]) -> ir.Value:
    empty = tensor.empty(list(shape), value.type.element_type)
    return linalg.transpose(value, outs=[empty], permutation=_SWAPPED).results[0]


def three(op: ir.Operation, name: str) -> list[int]:
    """Return strides or dilations of a linalg op, of depth, height and width."""
    return np.broadcast_to(np.array(op.attributes[name]) if name in op.attributes else 1, 3).tolist()


def _lay_convolution(op: ir.Operation, state: PassState) -> ir.Value | None:
    """Return the result of a convolution."""
    (padded, weight, _), volume = op.operands, Volume.read(op.operands[0])
    array, (stride, *strides), (dilation, *dilations) = (
        read_f32(weight, state),
        three(op, "strides"),
        three(op, "dilations"),
    )
    if array is None or (volume.fill is not None and float_constant(volume.fill) != 0):
        return None
    batch, filters, depth, height, width = op.result.type.shape
    taps, *kernel = weight.type.shape[2:]
    if kernel == [1, 1] and not any(volume.low[1:] + volume.high[1:]):
        seen = volume.value
        if taps == 1 and not (volume.low[0] or volume.high[0]):
            seen, stride = _sampled(seen, [stride, *strides], [depth, height, width]), 1
        else:
            seen = _sampled(seen, [1, *strides], [seen.type.shape[2], height, width])
        init = _init(op, [batch, filters, depth, height * width])
        channels, given = seen.type.shape[1:3]
        rows = reshaped(seen, tensor_like([batch, channels, given, height * width], padded))
        part = _constant(array[..., 0], weight, "columns", state)
        geometry = {"strides": [stride, 1], "dilations": [dilation, 1]}
        result = linalg.conv_2d_nchw_fchw(volume.around_rows(rows), part, outs=[init], **geometry)
        return reshaped(result, op.result.type)
    planes, result = volume.depths_first(), _init(op, [batch * depth, filters, height, width])
    for tap in range(taps):
        shape = [batch, depth, *planes.type.shape[2:]]
        places = [0, tap * dilation, 0, 0, 0], shape, [1, stride, 1, 1, 1]
        images = tensor.extract_slice(tensor_like(shape, planes), planes, [], [], [], *places)
        images = reshaped(images, tensor_like([batch * depth, *shape[2:]], planes))
        part = _constant(array[:, :, tap], weight, f"depth{tap}", state)
        geometry = {"strides": strides, "dilations": dilations}
        result = linalg.conv_2d_nchw_fchw(volume.around(images), part, outs=[result], **geometry)
    swapped = reshaped(result, tensor_like([batch, depth, filters, height, width], result))
    return _transposed(swapped, list(op.result.type.shape))


def _sampled(value: ir.Value, strides: Sequence[int], size: Sequence[int]) -> ir.Value:
    """Return those elements of a volume that windows of one element and of some strides see."""
    shape = [*value.type.shape[:2], *size]
    if shape == list(value.type.shape):
        return value
    places = [0] * 5, shape, [1, 1, *strides]
    return tensor.extract_slice(tensor_like(shape, value), value, [], [], [], *places)


def _constant(array: np.ndarray, weight: ir.Value, part: str, state: PassState) -> ir.Value:
    name = constant_name(weight)
    return make_constant(np.ascontiguousarray(array), name and f"{name}.{part}", state)


def _init(op: ir.Operation, shape: list[int]) -> ir.Value:
    """Return what a convolution adds up to, as planes of a shape."""
    init = op.operands[2]
    empty = tensor.empty(shape, init.type.element_type)
    maker = None if isinstance(init.owner, ir.Block) else init.owner.opview
    if isinstance(maker, linalg.BroadcastOp) and list(maker.dimensions) == [0, 2, 3, 4]:
        return linalg.broadcast(maker.operands[0], outs=[empty], dimensions=[0, 2, 3]).results[0]
    if is_filled(init, is_zero):
        return linalg.fill(reference.scalar(0.0, op), outs=[empty])
    swaps = shape[0] != init.type.shape[0] or shape[2:] == list(init.type.shape)[3:]
    given = _transposed(init, [init.type.shape[axis] for axis in _SWAPPED]) if swaps else init
    return reshaped(given, empty.type)
