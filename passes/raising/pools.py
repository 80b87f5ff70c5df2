"""Pools of linalg, and sums over height and width, to the dialect's."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch_mlir import ir

from patc.dialects.attributes import f32, i1, i64_array
from patc.dialects.pattern import AvgPool2dOp, MaxPool2dOp
from patc.passes.base import PassState
from patc.passes.ir.windows import Window
from patc.passes.raising.activations import activate
from patc.passes.raising.elementwise import read_elementwise
from patc.passes.raising.linalg_layers import (
    flat_like,
    is_lowest,
    pool_window,
    sum_window,
    tensor_like,
    window_attributes,
)

LARGE = 64  # loads of vectors that go into the results of a vector of windows


def raise_max_pool(op: Any, state: PassState) -> ir.Value | None:
    """Return the pool of maxima of windows, or None; the input where a window is one element."""
    source, window = pool_window(op, is_lowest)
    if source is None or window is None or window.is_identity:
        return source
    for each in _apart(window, source):
        result = tensor_like([*source.type.shape[:2], *each.result_size(source.type.shape[2:])], source)
        kernel, geometry = i64_array(each.kernel), window_attributes(each)
        source = MaxPool2dOp(input=source, result=result, kernel=kernel, **geometry).result
    return source


def raise_undivided_sum(op: Any, state: PassState) -> ir.Value | None:
    """Raise a sum pool, or a sum over height and width, that nothing divides; remove one of single elements."""
    source, window = sum_window(op)
    if source is None or window is None:
        return None
    if window.is_identity:
        return flat_like(source, op.result)
    return flat_like(_build_average(source, window, _divided_by(1.0)), op.result)


def raise_average(op: Any, state: PassState) -> ir.Value | None:
    """Raise the division of a sum pool, or of a sum over height and width, that makes means of it."""
    meaning = read_elementwise(op, state)
    if meaning is None or not meaning.divides or len(meaning.terms) != 1 or meaning.channel_terms:
        return None
    pool = meaning.terms[0].owner
    source, window = sum_window(pool)
    if source is None or window is None:
        return None
    divisor = _read_divisor(meaning.divisor, window, source.type.shape[2:])
    if divisor is None:
        return None
    with pool.location:
        average = flat_like(_build_average(source, window, divisor), pool.result)
    return activate(average, meaning.activation)


def _apart(window: Window, source: ir.Value) -> list[Window]:
    """Return a window down columns and one along rows that layers can reduce by one after the other, instead of one
    with many taps; a list of itself where it has few, or is the whole plane."""
    loads = math.prod(window.kernel) * (window.strides[1] if window.strides[1] > 2 else 1)
    if min(window.kernel) == 1 or loads <= LARGE or window == Window(tuple(source.type.shape[2:])):
        return [window]
    return [window.along(0), window.along(1)]


def _build_average(source: ir.Value, window: Window, divisor: dict[str, ir.Attribute]) -> ir.Value:
    """Build average pooling; `divisor` holds the attributes that say what is counted."""
    parts = _apart(window, source)
    for axis, each in enumerate(parts):
        average = AvgPool2dOp(
            input=source,
            result=tensor_like([*source.type.shape[:2], *each.result_size(source.type.shape[2:])], source),
            kernel=i64_array(each.kernel),
            count_include_pad=divisor["count_include_pad"],
            **window_attributes(each),
        )
        for name, attribute in (_of_axis(divisor, axis) if len(parts) > 1 else divisor).items():
            average.operation.attributes[name] = attribute
        source = average.result
    return source


def _of_axis(divisor: dict[str, ir.Attribute], axis: int) -> dict[str, ir.Attribute]:
    """Return the attributes for the part of a window along an axis: the last part divides by a number."""
    found = dict(divisor)
    if "divisor" in found and axis == 0:
        found["divisor"] = f32(1.0)
    if "uncounted_pads" in found:
        uncounted = list(found["uncounted_pads"])
        found["uncounted_pads"] = i64_array([uncounted[0], 0] if axis == 0 else [0, uncounted[1]])
    return found


def _read_divisor(divisor: np.ndarray, window: Window, size: Sequence[int]) -> dict[str, ir.Attribute] | None:
    """Return the attributes of the average pooling that divides by `divisor`, which is of any shape that broadcasts to
    the positions of the window, or None."""
    if np.allclose(divisor, math.prod(window.kernel)):
        return {"count_include_pad": i1(True)}
    if _same_everywhere(divisor, window.taps_inside(size)):
        return {"count_include_pad": i1(False)}
    _, _, bottom, right = window.pads
    for uncounted in itertools.product(range(bottom + 1), range(right + 1)):
        if _same_everywhere(divisor, window.divisors(size, uncounted)):
            return {"count_include_pad": i1(True), "uncounted_pads": i64_array(uncounted)}
    return _divided_by(float(divisor.flat[0])) if np.all(divisor == divisor.flat[0]) else None


def _divided_by(number: float) -> dict[str, ir.Attribute]:
    return {"count_include_pad": i1(True), "divisor": f32(number)}


def _same_everywhere(divisor: np.ndarray, counts: np.ndarray) -> bool:
    return np.shape(divisor)[-2:] == counts.shape and np.allclose(divisor, counts)
