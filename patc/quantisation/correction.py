"""What rounding changes in the means of a layer's results, so that its bias can make up for it.

Rounded weights and inputs move the sums of a filter by some number on average, and by more where a filter has few
weights, as those of depthwise layers; the layers behind add that up. What is moved follows from the means of the
inputs alone, since sums are linear in them. Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
Correction", ICCV 2019.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from torch_mlir import ir

from patc.dialects.quantised import Quantisation
from patc.integers import ceil_div
from patc.passes.base import PassState
from patc.passes.formats.layer_weights import find_dense_weight, groups_of
from patc.passes.ir.constants import read_constant
from patc.passes.ir.functions import RESHAPES, top_level_ops
from patc.passes.ir.quantised import IntegerWeights, Known, multiples
from patc.passes.ir.ranges import KEPT, write_correction
from patc.passes.ir.views import is_concat
from patc.passes.ir.windows import Window
from patc.passes.layers.registry import kind_of
from patc.passes.pattern_quantize import type_in_range
from patc.targets import Target

_LEAST_SEEN = 64  # sums of a filter: of fewer the mean says more about these samples than about others


def correct_biases(
    function: Any, target: Target, state: PassState, seen: Iterable[Mapping[ir.Value, np.ndarray]]
) -> None:
    """Say what the layers of a function that may become integers have to add to their biases then.

    Args:
        function: whose tensors have ranges.
        seen: what its arguments and layers were for each sample.
    """
    readers: dict[ir.Value, list[_Reader]] = {}
    for op in top_level_ops(function):
        if _may_round(op, target, state):
            readers.setdefault(op.operands[0], []).append(_Reader(op))
    given = {value: _integers_of(value) for value in readers}
    for known in seen:
        for value, some in readers.items():
            array = _find_array(value, known)
            if array is not None:
                rounded = _rounded(array, given[value])
                for reader in some:
                    reader.observe(array, rounded)
    for value, some in readers.items():
        for reader in some:
            if reader.count * math.prod(reader.size) >= _LEAST_SEEN:
                write_correction(reader.op, reader.moved(given[value], state))


def _may_round(op: Any, target: Target, state: PassState) -> bool:
    """Return whether an op is a layer with weights that has kernels on integers and is not kept."""
    kind = kind_of(op)
    if kind is None or not kind.work(op).weights or KEPT in op.attributes:
        return False
    return kind.can_quantise(op, target, state)


def _find_array(value: ir.Value, known: Mapping[ir.Value, np.ndarray]) -> np.ndarray | None:
    """Return what a tensor was, or what it is a reshape or a concatenation of; None for others."""
    if value in known or isinstance(value.owner, ir.Block):
        return known.get(value)
    op = value.owner.opview
    if op.operation.name not in RESHAPES and not is_concat(op):
        return None
    parts = [_find_array(operand, known) for operand in op.operands[: None if is_concat(op) else 1]]
    arrays = [part for part in parts if part is not None]
    if len(arrays) < len(parts):
        return None
    return np.concatenate(arrays, axis=1) if is_concat(op) else arrays[0].reshape(value.type.shape)


def _integers_of(value: ir.Value) -> Quantisation | None:
    """Return what a tensor's integers will stand for; None where its range is not known, as of concatenations."""
    type_ = type_in_range(value, signed=False)
    return None if type_ is None else Quantisation.of(type_)


def _rounded(array: np.ndarray, given: Quantisation | None) -> np.ndarray:
    if given is None:
        return array
    scale, zero = np.float32(given.scale), given.zero_point
    found: np.ndarray = np.clip(np.rint(array / scale), given.lowest - zero, given.highest - zero)
    return found * scale


class _Reader:
    """What a layer sees of its input on average: one mean for each channel and tap, of the input as it is and rounded.

    Attributes:
        size: height and width of the result; nothing of rows.
        count: how many images were seen.
    """

    def __init__(self, op: Any) -> None:
        kind = kind_of(op)
        assert kind is not None, "it is a layer"
        self.op, self.window, self.size = op, kind.window(op), tuple(op.result.type.shape[2:])
        self.count = 0
        self._sums: list[Any] = [0.0, 0.0]

    def observe(self, array: np.ndarray, rounded: np.ndarray) -> None:
        pairs = zip(self._sums, (array, rounded), strict=True)
        self._sums = [total + sum_of_taps(each, self.window, self.size) for total, each in pairs]
        self.count += len(array)

    def moved(self, given: Quantisation | None, state: PassState) -> np.ndarray:
        """Return by how much less the results are on average on integers, F."""
        weight = find_dense_weight(self.op, state)
        assert weight is not None, "it can be quantised"
        bias = None if self.op.bias is None else read_constant(self.op.bias, state)
        known = Known(multiples(weight.array, np.zeros(0, np.float32)))
        integers = IntegerWeights.of(weight.array, bias, given or Quantisation(1.0, 0, False), known)
        groups = 1 if self.window is None else groups_of(self.op)
        shape = groups, len(weight.array) // groups, -1
        scales = integers.scales.astype(np.float64)[:, None]
        rows = [each.reshape(len(each), -1).astype(np.float64) for each in (weight.array, integers.weight)]
        real, rounded = (
            np.einsum("gfc,gc->gf", each.reshape(shape), total.reshape(groups, -1)).reshape(-1)
            for each, total in zip((rows[0], rows[1] * scales), self._sums, strict=True)
        )
        found: np.ndarray = (real - rounded) / (self.count * math.prod(self.size))
        return found


def sum_of_taps(array: np.ndarray, window: Window | None, size: tuple[int, ...]) -> np.ndarray:
    """Return the sums of what each tap of a window sees, over images and places: C x KH x KW of f64.

    Args:
        array: N x C x H x W; without a window N x C, of which the sums are C.
        size: of the window's result.
    """
    if window is None:
        rows: np.ndarray = array.sum(axis=0, dtype=np.float64)
        return rows
    height, width = array.shape[2:]
    found = np.empty((array.shape[1], *window.kernel))
    for x in range(window.kernel[1]):
        columns = _seen(size[1], width, x * window.dilations[1] - window.left, window.strides[1])
        lines = array[..., columns].sum(axis=(0, 3), dtype=np.float64)
        for y in range(window.kernel[0]):
            places = _seen(size[0], height, y * window.dilations[0] - window.top, window.strides[0])
            found[:, y, x] = lines[:, places].sum(axis=1)
    return found


def _seen(count: int, size: int, offset: int, stride: int) -> slice:
    """Return which of `size` places a tap sees from `count` positions of a window, which begin at an offset."""
    first = max(0, ceil_div(-offset, stride))
    last = min(count - 1, (size - 1 - offset) // stride)
    return slice(first * stride + offset, last * stride + offset + 1, stride) if first <= last else slice(0)
