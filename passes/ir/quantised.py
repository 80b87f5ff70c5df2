"""The numbers of layers on quantised activations, which kernels and the reference share: docs/int8.md says what for.

All are computed in float32, in the order that is written here: results are equal on all machines, bit by bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from patc.dialects.attributes import Activation
from patc.dialects.quantised import Quantisation
from patc.passes.ir import windows
from patc.passes.ir.ranges import Biases

_LARGEST_BIAS = 2.0**30
_LARGEST_SUM = 2.0**31 - 1
_LEAST_SCALE = 2.0**-60
_SAMPLE = 16
_ROUNDED = 2.0**-22  # of numbers that were computed in f32
_LIMITS = ("none", "relu", "clamp")


def is_quantised(op: Any) -> bool:
    """Return whether any tensor of an op is quantised."""
    return any(Quantisation.of(value.type) is not None for value in (*op.operands, *op.results))


def only_limits(activation: Activation) -> bool:
    """Return whether an activation does nothing beyond what the ends of the integers do."""
    return activation.kind in _LIMITS and not activation.arrays


@dataclass(frozen=True)
class Rounding:
    """How a sum of real numbers becomes a quantised result.

    Attributes:
        result: what the integers stand for.
        unit: of the numbers that are added up: the result's scale, or 1 where an activation computes with them.
        lowest, highest: where the result ends, as integers without the zero point.
    """

    result: Quantisation
    unit: np.float32
    lowest: int
    highest: int

    @staticmethod
    def of(result: Quantisation, activation: Activation) -> Rounding:
        ends: tuple[Any, ...] = (-math.inf, math.inf)
        if only_limits(activation):
            ends = {"relu": (0.0, math.inf), "clamp": activation.constants}.get(activation.kind, ends)
        low, high = (result.integer(float(end)) - result.zero_point for end in ends)
        unit = np.float32(result.scale) if only_limits(activation) else np.float32(1.0)
        return Rounding(result, unit, min(low, high), high)

    @property
    def last_factor(self) -> np.float32:
        """What an activation is multiplied with to be in units of the result's scale."""
        return self.unit / np.float32(self.result.scale)


def unit_of(op: Any) -> np.float32:
    """Return the unit of what a layer adds up: 1 where its result is no quantised one."""
    result = Quantisation.of(op.result.type)
    return np.float32(1.0) if result is None else Rounding.of(result, Activation.of(op)).unit


def sum_factors(op: Any) -> np.ndarray:
    """Return what the sums of a layer with weights are multiplied with, one f32 a filter."""
    given = Quantisation.of(op.input.type)
    assert given is not None, "a layer with scales has a quantised input"
    scales = np.array(list(op.attributes["scales"]), np.float32)
    factors: np.ndarray = (np.float32(given.scale) * scales) / unit_of(op)
    return factors


def operand_factor(op: Any, value: Any) -> np.float32:
    """Return what a quantised operand, without its zero point, is multiplied with."""
    given = Quantisation.of(value.type)
    assert given is not None, "others have no factor"
    return np.float32(given.scale) / unit_of(op)


def mean_factor(op: Any) -> np.float32:
    """Return what the sums of an average pooling, which have one divisor, are multiplied with."""
    divisor = np.float32(windows.average_divisors(op)[0, 0])
    return operand_factor(op, op.input) / divisor


@dataclass(frozen=True)
class Known:
    """What is known of the integers that a layer's weights and bias become.

    Attributes:
        scales: of filters that are multiples of them, see `multiples`; NaN where there is none.
        biases: what numbers of the bias were made of.
    """

    scales: np.ndarray
    biases: Biases = field(default_factory=Biases)


def first_numbers(given: Quantisation) -> np.ndarray:
    """Return the least f32 of each integer, the lowest first, and what no number is beyond: 257 of f32.

    So a number's integer is found where quotients are not rounded as f32 is.
    """
    integers = np.arange(1, 256) + (given.lowest - given.zero_point)
    scale = np.float32(given.scale)
    found = ((integers - 0.5) * np.float64(scale)).astype(np.float32)
    for _ in range(4):  # what is computed so is the next but one at most
        less = np.nextafter(found, np.float32(-np.inf))
        found = np.where(np.rint(less / scale) >= integers, less, found)
    for _ in range(4):
        found = np.where(np.rint(found / scale) >= integers, found, np.nextafter(found, np.float32(np.inf)))
    return np.concatenate([[-np.inf], found, [np.inf]]).astype(np.float32)


@dataclass(frozen=True)
class Reciprocal:
    """Two f32 that are 1 / s together, for quotients without divisions:

        x / s rounded as f32 is = fma(x, first, x * second)

    as far as the integer that it is nearest to: `of` makes sure of that.

    Attributes:
        lowest, highest: what x has to be limited to, a number of the lowest and one of the highest integer.
    """

    first: np.float32
    second: np.float32
    lowest: np.float32
    highest: np.float32

    @staticmethod
    def of(given: Quantisation) -> Reciprocal | None:
        """Return those of a scale; None where a number would become another integer.

        What is rounded grows with x, so that the least number of each integer and the one before it tell all.
        """
        scale = np.float32(given.scale)
        with np.errstate(all="ignore"):  # of scales that are hardly numbers
            starts = first_numbers(given)[1:-1]
            inverse = 1.0 / np.float64(scale)
            first = np.float32(inverse)
            second = np.float32(inverse - first)
            for numbers in (starts, np.nextafter(starts, np.float32(-np.inf))):
                sums = numbers * np.float64(first) + numbers * second  # beside them, the sum is too near to tell
                for beside in (1.0 - 2.0**-50, 1.0 + 2.0**-50):
                    if (np.rint((sums * beside).astype(np.float32)) != np.rint(numbers / scale)).any():
                        return None
        return Reciprocal(first, second, np.nextafter(starts[0], np.float32(-np.inf)), starts[-1])


@dataclass(frozen=True)
class IntegerWeights:
    """The weights of a layer as integers.

    Attributes:
        weight: i8, in the shape of the weights.
        scales: an f32 for each filter.
        bias: an i32 for each filter, in units of the input's scale times the filter's; None where there is none.
    """

    weight: np.ndarray
    scales: np.ndarray
    bias: np.ndarray | None

    @staticmethod
    def of(
        weight: np.ndarray, bias: np.ndarray | None, given: Quantisation, known: Known | None = None
    ) -> IntegerWeights:
        """Return weights, F x ..., and a bias rounded to nearest, for an input; sums with them stay within i32. Where
        no scale is known the largest weight becomes 127."""
        rows = weight.reshape(len(weight), -1).astype(np.float64)
        added = np.zeros(len(weight)) if bias is None else bias.astype(np.float64)
        own = np.abs(rows).max(axis=1) / 127.0
        if known is not None:
            own = np.where(np.isnan(known.scales), own, known.scales)
        # A bias beside nearly nothing would not fit.
        wanted = np.maximum(np.maximum(own, np.abs(added) / (given.scale * _LARGEST_BIAS)), _LEAST_SCALE)
        scales = wanted.astype(np.float32)
        while True:
            integers = np.clip(np.rint(rows / scales[:, None]), -128, 127).astype(np.int8)
            offsets = np.rint(added / (np.float64(given.scale) * scales))
            if known is not None:
                offsets = known.biases.restore(added.astype(np.float32), offsets)
            sums = largest_sums(integers, offsets)
            if (sums <= _LARGEST_SUM).all():
                break
            scales = np.where(sums > _LARGEST_SUM, scales * np.float32(1.01) * (sums / _LARGEST_SUM), scales)
            scales = scales.astype(np.float32)
        offset = None if bias is None else offsets.astype(np.int32)
        return IntegerWeights(integers.reshape(weight.shape), scales, offset)


def largest_sums(weight: np.ndarray, bias: np.ndarray | None, given: Quantisation | None = None) -> np.ndarray:
    """Return what the sum of each filter of F x ... integers, and its bias, stays within: F of f64.

    Args:
        given: of the input; None for any.
    """
    rows = weight.reshape(len(weight), -1).astype(np.float64)
    added = np.zeros(len(rows)) if bias is None else bias.astype(np.float64)
    if given is None:
        return 255.0 * np.abs(rows).sum(axis=1) + np.abs(added)
    positive, negative = np.maximum(rows, 0).sum(axis=1), np.minimum(rows, 0).sum(axis=1)
    least, most = given.lowest - given.zero_point, given.highest - given.zero_point
    ends = most * positive + least * negative, least * positive + most * negative
    found: np.ndarray = np.maximum(*(np.abs(added + end) for end in ends))
    return found


def multiples(weight: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return, for each filter of F x ... weights in f32, a number that all of them are an integer of i8 times; 0 for a
    filter of zeros, NaN where there is none.

    Args:
        steps: numbers that they may be multiples of, exactly, in ascending order; where none of these is, others are
            tried, but for what f32 rounded.
    """
    rows = weight.reshape(len(weight), -1)
    found = np.full(len(rows), np.nan, np.float32)
    top = np.abs(rows).max(axis=1)
    found[top == 0] = 0.0
    # Most filters without such a number show it by a few weights.
    some = rows[:, :: max(1, rows.shape[1] // _SAMPLE)]
    for known in (True, False) if len(steps) else (False,):
        for times in range(128 if known else 127, 0, -1):
            open_ = np.flatnonzero(np.isnan(found))
            near = (top[open_] / np.float32(times)).astype(np.float32)
            for step in _nearest(near, steps) if known else (near, np.nextafter(near, 0), np.nextafter(near, np.inf)):
                step = step.astype(np.float32)
                fits = (step > 0) & np.isnan(found[open_])
                for part in (some, rows):
                    places = np.flatnonzero(fits)
                    fits[places] = _are_multiples(part[open_[places]], step[places, None], 0 if known else _ROUNDED)
                found[open_[fits]] = step[fits]
    return found


def _nearest(numbers: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the steps that are not above and not below numbers, where there are such."""
    place = np.searchsorted(steps, numbers)
    return steps[np.maximum(place - 1, 0)], steps[np.minimum(place, len(steps) - 1)]


def _are_multiples(rows: np.ndarray, step: np.ndarray, tolerance: float) -> np.ndarray:
    """Return which rows are multiples of steps, but for a relative tolerance."""
    times = np.rint(rows / step)
    near = np.abs(times * step - rows) <= np.abs(rows) * np.float32(tolerance)
    fits: np.ndarray = ((times >= -128) & (times <= 127) & near).all(axis=1)
    return fits
