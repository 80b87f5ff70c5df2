"""What is known of the numbers of a net's tensors: their ranges, and which layers are to stay as they are."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch_mlir import ir

from patc.passes.base import fail

RANGE = "pattern.range"  # of the op that makes a tensor: array<f32: low, high>, for all of its results
RANGES = "pattern.ranges"  # of a function: the same for each argument, a list
CORRECTION = "pattern.correction"  # of a layer: array<f32>, what its bias is more on integers, one a filter
KEPT = "pattern.keep"  # of a layer that no pass may quantise
BIASES = "pattern.biases"  # of a function: numbers that large integers became, and these, [array<f32>, array<i32>]
STEPS = "pattern.steps"  # of a function: array<f32> of numbers that its weights may be multiples of
_TOLD = 1 << 22  # of smaller integers the numbers are near enough to one alone
_NEAR = 2.0**-21


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


def read_correction(op: Any, filters: int) -> np.ndarray | None:
    """Return what a layer on integers adds to its bias, or None where nothing is known of that.

    Raises:
        PatcError: the attribute is no list of as many finite numbers as there are filters.
    """
    if CORRECTION not in op.attributes:
        return None
    found = op.attributes[CORRECTION]
    is_list = isinstance(found, ir.DenseF32ArrayAttr) and len(found) == filters
    if not is_list or not all(map(math.isfinite, found)):
        raise fail(op, f"{CORRECTION} to be array<f32> of {filters} finite numbers", found)
    return np.array(list(found), np.float32)


def write_correction(op: Any, numbers: np.ndarray) -> None:
    """Say what a layer on integers adds to its bias, F numbers."""
    op.attributes[CORRECTION] = ir.DenseF32ArrayAttr.get(numbers.astype(np.float32).tolist())


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


@dataclass(frozen=True)
class Biases:
    """Integers that became numbers of f32, as far as these do not tell which they were: a sum of so many steps has more
    digits than f32.

    Attributes:
        reals: the numbers, in ascending order.
        integers: as many.
    """

    reals: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    integers: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def restore(self, reals: np.ndarray, integers: np.ndarray) -> np.ndarray:
        """Return integers that were computed of numbers, those that the numbers were made of in their place where such
        ones are near."""
        restored = integers.copy()
        ends = zip(*(np.searchsorted(self.reals, reals, side) for side in ("left", "right")), strict=True)
        for place, (first, last) in enumerate(ends):
            known = self.integers[first:last]
            near = known[np.abs(known - integers[place]) <= np.abs(known) * _NEAR]
            if len(near):
                restored[place] = near[np.argmin(np.abs(near - integers[place]))]
        return restored


def lost_biases(integers: np.ndarray, reals: np.ndarray) -> set[tuple[float, int]]:
    """Return the numbers of f32 that integers became, with these, as far as the numbers do not tell them."""
    large = np.abs(integers.astype(np.int64)) >= _TOLD
    return {(float(real), int(number)) for real, number in zip(reals[large], integers[large], strict=True)}


def read_biases(function: ir.Operation) -> Biases:
    """Return what a front end knew of biases.

    Raises:
        PatcError: the attribute is no such list.
    """
    found = function.attributes.get(BIASES, None)
    if found is None:
        return Biases()
    reals, integers = (*found, None, None)[:2] if isinstance(found, ir.ArrayAttr) else (None, None)
    is_pair = isinstance(reals, ir.DenseF32ArrayAttr) and isinstance(integers, ir.DenseI32ArrayAttr)
    if not is_pair or len(found) != 2 or len(reals) != len(integers) or not all(map(math.isfinite, reals)):
        raise fail(function, f"{BIASES} to be a list of finite array<f32> and as long an array<i32>", found)
    numbers, known = np.array(list(reals), np.float32), np.array(list(integers), np.int64)
    order = np.argsort(numbers)
    return Biases(numbers[order], known[order])


def write_biases(function: ir.Operation, pairs: Iterable[tuple[float, int]]) -> None:
    """Say what biases were made of, see `lost_biases`."""
    known = sorted(pair for pair in pairs if math.isfinite(pair[0]))
    if known:
        reals, integers = ir.DenseF32ArrayAttr.get([real for real, _ in known]), [number for _, number in known]
        function.attributes[BIASES] = ir.ArrayAttr.get([reals, ir.DenseI32ArrayAttr.get(integers)])
