"""What is known of the zeros that a layer multiplies."""

from __future__ import annotations

from typing import Any

from torch_mlir import ir

from patc.dialects.schedules import Zeros
from patc.passes.base import fail

ZEROS = "pattern.zeros"  # of a layer: array<f64: part of its weights, part of its first operand's elements>


def read_zeros(op: Any) -> Zeros | None:
    """Return the zeros of a layer's weights and inputs, or None where they are not known.

    Raises:
        PatcError: an attribute does not hold two parts.
    """
    if ZEROS not in op.attributes:
        return None
    found = op.attributes[ZEROS]
    if not isinstance(found, ir.DenseF64ArrayAttr) or len(found) != 2 or not all(0 <= part <= 1 for part in found):
        raise fail(op, f"{ZEROS} to be array<f64> of two parts from 0 to 1", found)
    return Zeros(*found)


def write_zeros(op: Any, zeros: Zeros) -> None:
    """Say what is known of a layer."""
    op.attributes[ZEROS] = ir.DenseF64ArrayAttr.get([zeros.weights, zeros.inputs])
