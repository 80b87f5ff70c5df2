"""What elements become before they are stored, and what lies around them."""

from __future__ import annotations

from torch_mlir import ir

from patc.dialects.attributes import Activation, Layout
from patc.passes.kernels.builder import Builder, element_type

LOWEST = float("-inf")


def fill_value(layout: Layout) -> float:
    """What the halo holds."""
    return LOWEST if layout.fill == "lowest" else 0.0


def apply_activation(b: Builder, value: ir.Value, activation: Activation, lanes: int) -> ir.Value:
    """Return the activation of a vector, or of a scalar for one lane."""
    element = element_type(value)
    if activation.kind == "relu":
        return b.at_least(value, b.splat(0.0, lanes, element))
    if activation.kind == "clamp":
        value = b.at_least(value, b.splat(activation.minimum, lanes, element))
        return b.at_most(value, b.splat(activation.maximum, lanes, element))
    return value
