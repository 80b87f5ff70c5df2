"""Activations of layers: how linalg's clamps become them, and what one after another is."""

from __future__ import annotations

import math
from typing import Any

from torch_mlir import ir

from patc.dialects.attributes import Activation
from patc.dialects.pattern import ActivateOp

_KIND_BOUNDS = {"none": (-math.inf, math.inf), "relu": (0.0, math.inf)}


def clamp(minimum: float, maximum: float) -> Activation:
    """Return the activation that limits values to [minimum, maximum], under its own name where it has one."""
    kinds = {bounds: kind for kind, bounds in _KIND_BOUNDS.items()}
    kind = kinds.get((minimum, maximum))
    return Activation("clamp", (minimum, maximum)) if kind is None else Activation(kind)


def _bounds(activation: Activation) -> Any:
    return activation.constants if activation.kind == "clamp" else _KIND_BOUNDS.get(activation.kind)


def compose(first: Activation, second: Activation) -> Activation | None:
    """Return the activation that is `second` of `first`, or None where it has no name."""
    if first == Activation():
        return second
    bounds, limits = _bounds(first), _bounds(second)
    if bounds is None or limits is None:
        return None
    return clamp(*(min(max(bound, limits[0]), limits[1]) for bound in bounds))


def activate(value: ir.Value | None, activation: Activation) -> ir.Value | None:
    """Apply an activation to what a raiser made, if it made anything and the activation is any."""
    if value is None or activation == Activation():
        return value
    return ActivateOp(input=value, result=value.type, activation=activation.to_attr()).result


def is_linear(layer: Any) -> bool:
    """Whether a layer has no activation."""
    return Activation.of(layer) == Activation()
