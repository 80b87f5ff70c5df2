"""Epilogues: biases, additions and activations go into the layer that computes what they read.

Layers say by their operands and attributes what they take; see `LayerKind.takes`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch_mlir import ir

from patc.dialects.attributes import Activation
from patc.dialects.pattern import ActivateOp, AddOp, Conv2dOp
from patc.passes.base import PassState
from patc.passes.ir.constants import constant_name, make_constant
from patc.passes.ir.functions import rebuild
from patc.passes.layers.base import Raiser
from patc.passes.layers.registry import kind_of
from patc.passes.raising.activations import activate, affine, compose, is_linear
from patc.passes.raising.elementwise import read_elementwise
from patc.passes.raising.linalg_layers import in_shape, read_f32


def _raise_bias(op: Any, state: PassState) -> ir.Value | None:
    """Give a sum with one value a channel to the layer before it, or to a second one where others read its result."""
    meaning = read_elementwise(op, state)
    if meaning is None or meaning.divides or len(meaning.terms) != 1 or len(meaning.channel_terms) != 1:
        return None
    layer = meaning.terms[0].owner
    takes_bias = _takes(layer, "bias") and is_linear(layer)
    channels = op.result.type.shape[1]
    bias = in_shape(meaning.channel_terms[0], [channels], state) if takes_bias else None
    if bias is None:
        return None
    if layer.bias is not None:
        arrays = [read_f32(value, state) for value in (layer.bias, bias)]
        if arrays[0] is None or arrays[1] is None:
            return None
        bias = make_constant(arrays[0] + arrays[1], constant_name(layer.bias), state)
    if not _has_one_use(layer.result):
        layer = layer.operation.clone().opview
    return activate(rebuild(layer, bias=bias).result, meaning.activation)


def _takes(layer: Any, part: str) -> bool:
    """Whether the owner of a value is a layer that takes a part of an epilogue."""
    kind = kind_of(layer)
    return kind is not None and kind.takes(part)


def _fuse_residual(add: Any, state: PassState) -> ir.Value | None:
    pairs = [(add.lhs, add.rhs), (add.rhs, add.lhs)]
    layers = [(value.owner, other) for value, other in pairs if _takes_residual(value)]
    if not layers:
        return None
    is_swapped = len(layers) == 2 and layers[0][0].operation.is_before_in_block(layers[1][0].operation)
    layer, residual = layers[-1] if is_swapped else layers[0]
    # Built at the addition, where the residual has been computed even if the layer's input was there earlier.
    return rebuild(layer, residual=residual, activation=add.activation).result


def _takes_residual(value: ir.Value) -> bool:
    layer = value.owner
    return _takes(layer, "residual") and layer.residual is None and is_linear(layer) and _has_one_use(value)


def _fuse_activation(op: Any, state: PassState) -> ir.Value | None:
    layer = op.input.owner
    if not _takes(layer, "activation") or not _has_one_use(op.input):
        return None
    # Numbers of channels are known to layers of planes, and to those with a bias.
    if Activation.of(op).arrays and op.result.type.rank != 4 and not _takes(layer, "bias"):
        return None
    composed = compose(Activation.of(layer), Activation.of(op))
    if composed is None:
        return None
    layer.operation.attributes["activation"] = composed.to_attr()
    return op.input


def _scale_channels(op: Any, state: PassState) -> ir.Value | None:
    """Make a layer of any layout of a convolution that only scales and shifts channels, for the producer to take."""
    if not op.is_pointwise or op.residual is not None or list(op.weight.type.shape) != [op.groups.value, 1, 1, 1]:
        return None
    scale, shift = (None if value is None else read_f32(value, state) for value in (op.weight, op.bias))
    if scale is None or (shift is None and op.bias is not None):
        return None
    shift = np.zeros(scale.size) if shift is None else shift
    activation = compose(affine(scale.ravel(), shift), Activation.of(op))
    return None if activation is None else activate(op.input, activation)


def _unknown_activation(op: Any, state: PassState) -> ir.Value | None:
    """Return as linalg what has constants of channels and no planes, which no kernel knows."""
    kind = kind_of(op)
    if kind is None or op.result.type.rank == 4 or not Activation.of(op).arrays:
        return None
    return kind.reference(op, state)


def _has_one_use(value: ir.Value) -> bool:
    """Whether exactly one operand of one op is this value."""
    return len(list(value.uses)) == 1


BIAS = Raiser("linalg.generic", _raise_bias)
SCALES = (Raiser(Conv2dOp.OPERATION_NAME, _scale_channels),)
FUSED = (
    Raiser(AddOp.OPERATION_NAME, _fuse_residual),
    Raiser(ActivateOp.OPERATION_NAME, _fuse_activation),
    Raiser(ActivateOp.OPERATION_NAME, _unknown_activation),
)
