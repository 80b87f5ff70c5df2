"""What is known of the numbers of a net's tensors: their ranges, and which layers are to stay as they are."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from torch_mlir import ir

from patc.passes.base import fail

RANGE = "pattern.range"  # of the op that makes a tensor: array<f32: low, high>, for all of its results
RANGES = "pattern.ranges"  # of a function: the same for each argument, a list
KEPT = "pattern.keep"  # of a layer that no pass may quantise
STEPS = "pattern.steps"  # of a function: array<f32> of numbers that its weights may be multiples of


def read_range(value: ir.Value) -> tuple[float, float] | None:
    """Return the smallest and the largest number of a tensor, or None where they are not known.

    Raises:
        PatcError: an attribute is no range, or there are not as many as arguments.
    """
    if isinstance(value.owner, ir.Block):
        op, attributes = value.owner.owner, value.owner.owner.attributes
        if RANGES not in attributes:
            return None
        found, count = attributes[RANGES], len(value.owner.arguments)
        if not isinstance(found, ir.ArrayAttr) or len(found) != count:
            raise fail(op, f"{RANGES} to be a list of {count}, one an argument", found)
        name, limits = RANGES, found[ir.BlockArgument(value).arg_number]
    else:
        op, attributes = value.owner, value.owner.attributes
        if RANGE not in attributes:
            return None
        name, limits = RANGE, attributes[RANGE]
    is_pair = isinstance(limits, ir.DenseF32ArrayAttr) and len(limits) == 2
    if not is_pair or not -math.inf < limits[0] <= limits[1] < math.inf:
        raise fail(op, f"{name} to be array<f32> of a finite low and high end", limits)
    return limits[0], limits[1]


def write_range(value: ir.Value, low: float, high: float) -> None:
    """Say what is known of a tensor that an op makes, and of the others that it does."""
    value.owner.attributes[RANGE] = ir.DenseF32ArrayAttr.get([low, high])


def read_steps(function: ir.Operation) -> np.ndarray:
    """Return the numbers that weights may be multiples of, as far as a front end knew some; in ascending order.

    Raises:
        PatcError: the attribute is no list of finite numbers above 0.
    """
    found = function.attributes.get(STEPS, None)
    if found is None:
        return np.zeros(0, np.float32)
    if not isinstance(found, ir.DenseF32ArrayAttr) or not all(0 < step < math.inf for step in found):
        raise fail(function, f"{STEPS} to be array<f32> of finite numbers above 0", found)
    return np.unique(np.array(list(found), np.float32))


def write_steps(function: ir.Operation, steps: Iterable[np.float32]) -> None:
    """Say what weights may be multiples of."""
    known = sorted({float(step) for step in steps if 0 < step < math.inf})
    if known:
        function.attributes[STEPS] = ir.DenseF32ArrayAttr.get(known)
