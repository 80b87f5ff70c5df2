"""Epilogues: additions and activations go into the layer that computes what they read."""

from __future__ import annotations

import math
from typing import Any

from torch_mlir import ir

from patc.dialects.attributes import Activation
from patc.dialects.pattern import ActivateOp, AddOp, Conv2dOp, LinearOp


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


def _fuse_residual(add: Any) -> ir.Value | None:
    pairs = [(add.lhs, add.rhs), (add.rhs, add.lhs)]
    layers = [(value.owner, other) for value, other in pairs if _takes_residual(value)]
    if not layers:
        return None
    is_swapped = len(layers) == 2 and layers[0][0].operation.is_before_in_block(layers[1][0].operation)
    layer, residual = layers[-1] if is_swapped else layers[0]
    # Built at the addition, where the residual has been computed even if the layer's input was there earlier.
    with ir.InsertionPoint(add):
        return rebuild_layer(layer, residual=residual, activation=add.activation)


def _takes_residual(value: ir.Value) -> bool:
    layer = value.owner
    is_free = isinstance(layer, Conv2dOp) and layer.residual is None and is_linear(layer)
    return is_free and has_one_use(value)


def _fuse_activation(op: Any) -> ir.Value | None:
    layer = op.input.owner
    if not isinstance(layer, (Conv2dOp, LinearOp, AddOp, ActivateOp)) or not has_one_use(op.input):
        return None
    first, second = (Activation.from_attr(attr) for attr in (layer.activation, op.activation))
    with op.location:
        layer.operation.attributes["activation"] = _compose(first, second).to_attr()
    return op.input


def rebuild_layer(layer: Any, **changes: Any) -> ir.Value:
    """Replace a layer by one at the insertion point with other operands or attributes."""
    names = ["input", "weight", "bias", "activation"]
    if isinstance(layer, Conv2dOp):
        names += ["residual", "strides", "pads", "dilations", "groups"]
    fields = {name: getattr(layer, name) for name in names}
    with layer.location:
        rebuilt = type(layer)(**{**fields, "result": layer.result.type, **changes}).result
    layer.result.replace_all_uses_with(rebuilt)
    layer.operation.erase()
    return rebuilt


# Activations.

_KIND_BOUNDS = {"none": (-math.inf, math.inf), "relu": (0.0, math.inf)}


def clamp(minimum: float, maximum: float) -> Activation:
    """Return the activation that limits values to [minimum, maximum], under its own name where it has one."""
    kinds = {bounds: kind for kind, bounds in _KIND_BOUNDS.items()}
    kind = kinds.get((minimum, maximum))
    return Activation("clamp", minimum, maximum) if kind is None else Activation(kind)


def _bounds(activation: Activation) -> tuple[float, float]:
    return _KIND_BOUNDS.get(activation.kind, (activation.minimum, activation.maximum))


def _compose(first: Activation, second: Activation) -> Activation:
    """Return the activation that is `second` of `first`."""
    minimum, maximum = _bounds(second)
    return clamp(*(min(max(bound, minimum), maximum) for bound in _bounds(first)))


def is_linear(layer: Any) -> bool:
    """Whether a layer has no activation."""
    return Activation.from_attr(layer.activation) == Activation()


def has_one_use(value: ir.Value) -> bool:
    """Whether exactly one operand of one op is this value."""
    return len(list(value.uses)) == 1
