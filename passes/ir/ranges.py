"""What is known of the numbers of a net's tensors: their ranges, and which layers are to stay as they are."""

from __future__ import annotations

from torch_mlir import ir

RANGE = "pattern.range"  # of the op that makes a tensor: array<f32: low, high>
RANGES = "pattern.ranges"  # of a function: the same for each argument, a list
KEPT = "pattern.keep"  # of a layer that no pass may quantise


def read_range(value: ir.Value) -> tuple[float, float] | None:
    """Return the smallest and the largest number of a tensor, or None where they are not known."""
    if isinstance(value.owner, ir.Block):
        attributes = value.owner.owner.attributes
        found = attributes[RANGES][ir.BlockArgument(value).arg_number] if RANGES in attributes else None
    else:
        attributes = value.owner.attributes
        found = attributes.get(RANGE, None)
    if not isinstance(found, ir.DenseF32ArrayAttr) or len(found) != 2 or not found[0] <= found[1]:
        return None
    return found[0], found[1]


def write_range(value: ir.Value, low: float, high: float) -> None:
    """Say what is known of a tensor that an op makes."""
    value.owner.attributes[RANGE] = ir.DenseF32ArrayAttr.get([low, high])
