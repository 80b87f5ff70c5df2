"""Epilogues: biases, residuals and activations go into the layer that computes what they read.

Layers say by their operands and attributes what they take; see `LayerKind.takes`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch_mlir import ir

from patc.dialects.attributes import Activation
from patc.dialects.joins import Join
from patc.dialects.pattern import ActivateOp, AddOp, Conv2dOp, DivideOp, MultiplyOp, SubtractOp
from patc.passes.base import PassState
from patc.passes.ir.constants import constant_name, make_constant
from patc.passes.ir.functions import RESHAPES, rebuild
from patc.passes.ir.views import is_concat
from patc.passes.layers.base import Raiser
from patc.passes.layers.registry import kind_of
from patc.passes.raising.activations import activate, affine, compose, is_linear
from patc.passes.raising.elementwise import read_elementwise
from patc.passes.raising.linalg_layers import in_shape, read_f32, reshaped

# What a combination is with its operands swapped.
_SWAPPED = {"add": "add", "multiply": "multiply", "subtract": "subtract_from"}


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


def _fuse_residual(op: Any, state: PassState) -> ir.Value | None:
    """Let the layer that makes one of the two tensors that an op combines take the other one as its residual."""
    sides = [(op.lhs, op.rhs, op.JOIN), (op.rhs, op.lhs, _SWAPPED.get(op.JOIN))]
    found = [join for value, other, function in sides if function and (join := _find_join(op, value, other, function))]
    if not found:
        return None
    is_swapped = len(found) == 2 and found[0].layer.operation.is_before_in_block(found[1].layer.operation)
    return (found[-1] if is_swapped else found[0]).fuse(op)


@dataclass(frozen=True)
class _Joined:
    """A layer, what may join its result, and how."""

    layer: Any
    residual: ir.Value
    join: Join

    def fuse(self, op: Any) -> ir.Value:
        """Build the layer with its residual at an op, where that has been computed even if the layer's input was there
        earlier; return the result in the op's shape."""
        activation = self.layer.activation if self.join.is_last else op.activation
        is_reshaped = self.layer.result.type != op.result.type
        residual = reshaped(self.residual, self.layer.result.type) if is_reshaped else self.residual
        layer = rebuild(self.layer, residual=residual, activation=activation)
        self.join.put(layer)
        return reshaped(layer.result, op.result.type)


def _find_join(op: Any, value: ir.Value, other: ir.Value, function: str) -> _Joined | None:
    """Return how another tensor joins the layer that makes a value, if it can: before the activation of the layer if
    that has none, else behind it."""
    layer = _producer(value)
    if layer is None or not _takes(layer, "residual") or layer.residual is not None or value.type != op.result.type:
        return None
    is_last = not is_linear(layer)
    if is_last and not is_linear(op):
        return None
    is_reshaped = layer.result.type != value.type or layer.result.type.rank != 4
    return None if is_reshaped and other.type != value.type else _Joined(layer, other, Join(function, is_last))


def _producer(value: ir.Value) -> Any:
    """Return the layer that a value comes from, reshaped or not, where nothing else reads it on the way; or None."""
    while _has_one_use(value) and not isinstance(value.owner, ir.Block):
        if value.owner.operation.name not in RESHAPES:
            return value.owner.opview
        value = value.owner.operands[0]
    return None


def _fuse_activation(op: Any, state: PassState) -> ir.Value | None:
    layer = _producer(op.input)
    if layer is None or not _takes(layer, "activation") or "joins_last" in layer.attributes:
        return None
    # Numbers of channels are known to layers of planes, and to those with a bias.
    is_reshaped = layer.result.type != op.input.type
    if Activation.of(op).arrays and (is_reshaped or (op.result.type.rank != 4 and not _takes(layer, "bias"))):
        return None
    composed = compose(Activation.of(layer), Activation.of(op))
    if composed is None:
        return None
    layer.operation.attributes["activation"] = composed.to_attr()
    return op.input


def _spread_activation(op: Any, state: PassState) -> ir.Value | None:
    """Give an activation of a concatenation that nothing else reads to what is joined, if a layer takes it there."""
    value = op.input
    if isinstance(value.owner, ir.Block) or not is_concat(value.owner.opview) or not _has_one_use(value):
        return None
    joined, activation, first, is_taken = value.owner, Activation.of(op), 0, False
    parts = list(joined.operands)
    for number, part in enumerate(parts):
        last = first + part.type.shape[1]
        numbers = tuple(each[first:last] if isinstance(each, tuple) else each for each in activation.constants)
        with ir.InsertionPoint(joined):
            made = activate(part, replace(activation, constants=numbers))
        assert made is not None
        joined.operands[number] = made
        if (fused := _fuse_activation(made.owner.opview, state)) is not None:
            joined.operands[number], is_taken = fused, True
            made.owner.erase()
        first = last
    if is_taken:
        return value
    for number, part in enumerate(parts):
        joined.operands[number] = part
    return None


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
    *(Raiser(op.OPERATION_NAME, _fuse_residual) for op in (AddOp, SubtractOp, MultiplyOp, DivideOp)),
    Raiser(ActivateOp.OPERATION_NAME, _fuse_activation),
    Raiser(ActivateOp.OPERATION_NAME, _spread_activation),
    Raiser(ActivateOp.OPERATION_NAME, _unknown_activation),
)
