"""Convolutions of linalg, whose pads and initial values are ops of their own, to the dialect's."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import tensor

from patc.dialects.attributes import Activation, i64
from patc.dialects.pattern import Conv2dOp
from patc.passes.base import PassState
from patc.passes.ir.constants import constant_name, make_constant, read_constant
from patc.passes.ir.targets import target_of
from patc.passes.ir.windows import Window
from patc.passes.raising.dilated import build_apart, without_unseen
from patc.passes.raising.linalg_layers import (
    convolution_window,
    in_shape,
    read_f32,
    read_init,
    reshape_sources,
    tensor_like,
    two_integers,
    window_attributes,
)
from patc.passes.raising.strided import build_folded
from patc.passes.raising.transposed import Spread, Transposed


def raise_conv2d(op: Any, state: PassState) -> ir.Value | None:
    """Return a convolution of one group, or None."""
    weight = op.operands[1]
    sources = reshape_sources(weight)
    if sources and (array := read_f32(sources[-1], state)) is not None:
        weight = make_constant(array.reshape(weight.type.shape), constant_name(sources[-1]), state)
    return _build_conv2d(op, weight, list(op.result.type.shape), 1, state)


def raise_depthwise(op: Any, state: PassState) -> ir.Value | None:
    """Return a convolution of a group for each channel, or None."""
    channels, *kernel = op.operands[1].type.shape
    weight = in_shape(op.operands[1], [channels, 1, *kernel], state)
    return weight and _build_conv2d(op, weight, list(op.result.type.shape), channels, state)


def raise_grouped(op: Any, state: PassState) -> ir.Value | None:
    """Return a convolution whose groups are a dimension of the linalg op, or None."""
    groups, filters, channels, *kernel = op.operands[1].type.shape
    batch, _, _, *size = op.result.type.shape
    weight = in_shape(op.operands[1], [groups * filters, channels, *kernel], state)
    result = weight and _build_conv2d(op, weight, [batch, groups * filters, *size], groups, state)
    if result is None:
        return None
    # The collapse_shape that comes next undoes this one.
    dimensions, shape = [[0], [1, 2], [3], [4]], list(op.result.type.shape)
    return tensor.expand_shape(op.result.type, result, dimensions, [], shape)


def _channels_apart(weight: ir.Value, groups: int, state: PassState) -> tuple[ir.Value, int]:
    """Return weights of a group for each channel, and how many groups that is, where no filter reads two channels.

    The door for ONNX joins groups of transposed convolutions of single channels, which torch-mlir has not, with zeros
    between them, through which infinity would reach the channels beside it.
    """
    filters, channels, *kernel = weight.type.shape
    array = read_constant(weight, state) if channels > 1 and filters % (groups * channels) == 0 else None
    if array is None or not array.any():
        return weight, groups
    own = np.einsum("gcfc...->gcf...", array.reshape(groups, channels, -1, channels, *kernel))
    if np.count_nonzero(own) < np.count_nonzero(array):
        return weight, groups
    single = np.ascontiguousarray(own.reshape(filters, 1, *kernel))
    return make_constant(single, constant_name(weight), state), groups * channels


def _build_conv2d(op: Any, weight: ir.Value, shape: list[int], groups: int, state: PassState) -> ir.Value | None:
    """Build the convolution of a linalg one with pads and bias; `shape` is that of the 4-D result."""
    _, group_channels, *kernel = weight.type.shape
    padded_shape = [shape[0], groups * group_channels, *op.operands[0].type.shape[-2:]]
    padded = in_shape(op.operands[0], padded_shape, state)
    init = read_init(op.operands[2], shape)
    if padded is None or init is None:
        return None

    strides, dilations = (two_integers(op, name) for name in ("strides", "dilations"))
    spread = Spread.read(padded, state) if strides == (1, 1) and init.residual is None else None
    if groups > 1 or spread is not None:
        weight, groups = _channels_apart(weight, groups, state)

    def build(
        source: ir.Value, weight: ir.Value, window: Window, shape: list[int], added: ir.Value | None = None
    ) -> ir.Value:
        return Conv2dOp(
            input=source,
            weight=weight,
            bias=init.bias if added is None else None,
            residual=init.residual if added is None else added,
            result=tensor_like(shape, op.result),
            groups=i64(groups),
            activation=Activation().to_attr(),
            **window_attributes(window),
        ).result

    if spread is not None:
        dense = Window((kernel[0], kernel[1]), dilations=dilations)
        result = Transposed(spread, weight, dense, shape).raised(build, state)
        if result is not None:
            return result
    source, window = convolution_window(op, padded, kernel, shape)
    if source is None or window is None:
        return None
    weight, window = without_unseen(weight, window, source.type.shape[2:], state)
    if groups == 1 and init.residual is None and target_of(op.operation.parent.parent).algorithms != "gpu":
        for build_other in (build_apart, build_folded):
            result = build_other(source, weight, window, shape, build, state)
            if result is not None:
                return result
    return build(source, weight, window, shape)
