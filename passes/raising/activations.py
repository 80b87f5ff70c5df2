"""Activations of layers: how linalg's clamps become them, and what one after another is."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from torch_mlir import ir

from patc.dialects.attributes import Activation
from patc.dialects.pattern import ActivateOp

_UNBOUNDED = (-math.inf, math.inf)
_KIND_BOUNDS = {"none": _UNBOUNDED, "relu": (0.0, math.inf)}


def clamp(minimum: float, maximum: float) -> Activation:
    """Return the activation that limits values to [minimum, maximum], under its own name where it has one."""
    kinds = {bounds: kind for kind, bounds in _KIND_BOUNDS.items()}
    kind = kinds.get((minimum, maximum))
    return Activation("clamp", (minimum, maximum)) if kind is None else Activation(kind)


def _bounds(activation: Activation) -> Any:
    return activation.constants if activation.kind == "clamp" else _KIND_BOUNDS.get(activation.kind)


def affine(scale: np.ndarray, shift: np.ndarray) -> Activation:
    """Return the activation that scales and shifts, by a number for each channel."""
    numbers = (tuple(each.astype(np.float64).tolist()) for each in (scale, shift))
    return Activation("affine", (*_UNBOUNDED, *numbers, *_UNBOUNDED))


def compose(first: Activation, second: Activation) -> Activation | None:
    """Return the activation that is `second` of `first`, or None where it has no name."""
    if first == Activation():
        return second
    bounds, limits = _bounds(first), _bounds(second)
    if bounds and limits:
        return clamp(*_limited(bounds, limits))
    if bounds and second.kind == "affine":
        return replace(second, constants=(*_limited(bounds, second.constants[:2]), *second.constants[2:]))
    if first.kind == "affine" and limits:
        return replace(first, constants=(*first.constants[:4], *_limited(first.constants[4:], limits)))
    return None


def _limited(bounds: Any, limits: Any) -> list[float]:
    """Return the bounds of what is clamped to `bounds` and then to `limits`."""
    return [min(max(bound, limits[0]), limits[1]) for bound in bounds]


def activate(value: ir.Value | None, activation: Activation) -> ir.Value | None:
    """Apply an activation to what a raiser made, if it made anything and the activation is any."""
    if value is None or activation == Activation():
        return value
    return ActivateOp(input=value, result=value.type, activation=activation.to_attr()).result


def is_linear(layer: Any) -> bool:
    """Whether a layer has no activation."""
    return Activation.of(layer) == Activation()
