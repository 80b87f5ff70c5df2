"""Epilogues: biases, additions and activations go into the layer that computes what they read.

Layers say by their operands and attributes what they take; see `LayerKind.takes`.
"""

from __future__ import annotations

from typing import Any

from torch_mlir import ir
from torch_mlir.dialects.ext import partition_fields

from patc.dialects.attributes import Activation
from patc.dialects.pattern import ActivateOp, AddOp
from patc.passes.base import PassState
from patc.passes.ir.constants import constant_name, make_constant
from patc.passes.layers.registry import kind_of
from patc.passes.raising.activations import activate, compose, is_linear
from patc.passes.raising.elementwise import read_elementwise
from patc.passes.raising.linalg_layers import in_shape, read_f32


def raise_bias(op: Any, state: PassState) -> ir.Value | None:
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
    return activate(_rebuild(layer, bias=bias), meaning.activation)


def fuse_epilogues(block: ir.Block) -> None:
    """Fuse what can be fused of the `pattern.add` and `pattern.activate` ops of a block, first to last."""
    for op in list(block.operations):
        if isinstance(op, AddOp):
            fused = _fuse_residual(op)
        elif isinstance(op, ActivateOp):
            fused = _fuse_activation(op)
        else:
            continue
        if fused is not None:
            op.result.replace_all_uses_with(fused)
            op.operation.erase()


def _takes(layer: Any, part: str) -> bool:
    """Whether the owner of a value is a layer that takes a part of an epilogue."""
    kind = kind_of(layer)
    return kind is not None and kind.takes(part)


def _fuse_residual(add: Any) -> ir.Value | None:
    pairs = [(add.lhs, add.rhs), (add.rhs, add.lhs)]
    layers = [(value.owner, other) for value, other in pairs if _takes_residual(value)]
    if not layers:
        return None
    is_swapped = len(layers) == 2 and layers[0][0].operation.is_before_in_block(layers[1][0].operation)
    layer, residual = layers[-1] if is_swapped else layers[0]
    # Built at the addition, where the residual has been computed even if the layer's input was there earlier.
    with ir.InsertionPoint(add):
        return _rebuild(layer, residual=residual, activation=add.activation)


def _takes_residual(value: ir.Value) -> bool:
    layer = value.owner
    return _takes(layer, "residual") and layer.residual is None and is_linear(layer) and _has_one_use(value)


def _fuse_activation(op: Any) -> ir.Value | None:
    layer = op.input.owner
    if not _takes(layer, "activation") or not _has_one_use(op.input):
        return None
    first, second = (Activation.from_attr(attr) for attr in (layer.activation, op.activation))
    with op.location:
        layer.operation.attributes["activation"] = compose(first, second).to_attr()
    return op.input


def _rebuild(layer: Any, **changes: Any) -> ir.Value:
    """Replace a layer by one at the insertion point with other operands or attributes."""
    operands, attributes, _, _ = partition_fields(layer._fields)
    fields = {field.name: getattr(layer, field.name) for field in (*operands, *attributes)}
    with layer.location:
        rebuilt = type(layer)(**{**fields, "result": layer.result.type, **changes})
    for name in layer.attributes:
        if name not in rebuilt.attributes:
            rebuilt.attributes[name] = layer.attributes[name]
    layer.result.replace_all_uses_with(rebuilt.result)
    layer.operation.erase()
    return rebuilt.result


def _has_one_use(value: ir.Value) -> bool:
    """Whether exactly one operand of one op is this value."""
    return len(list(value.uses)) == 1
