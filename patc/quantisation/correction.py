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
    layers = [op for op in top_level_ops(function) if _may_round(op, target, state)]
    means = {op.operands[0]: _Means(op.operands[0]) for op in layers}
    for known in seen:
        for value, mean in means.items():
            mean.observe(_find_array(value, known))
    for op in layers:
        mean = means[op.operands[0]]
        if mean.count * math.prod(op.result.type.shape[2:]) >= _LEAST_SEEN:
            write_correction(op, mean.moved(op, state))


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


class _Means:
    """The means over samples of a tensor, place by place, as it is and rounded to integers of its range.

    Args:
        value: where its range is not known, as of concatenations, nothing of it is rounded.

    Attributes:
        count: how many images were seen.
    """

    def __init__(self, value: ir.Value) -> None:
        type_ = type_in_range(value, signed=False)
        self.count = 0
        self._given = None if type_ is None else Quantisation.of(type_)
        self._sums: list[Any] = [0.0, 0.0]

    def observe(self, array: np.ndarray | None) -> None:
        if array is not None:
            pairs = zip(self._sums, (array, self._rounded(array)), strict=True)
            self._sums = [total + each.sum(axis=0, dtype=np.float64) for total, each in pairs]
            self.count += len(array)

    def _rounded(self, array: np.ndarray) -> np.ndarray:
        if self._given is None:
            return array
        scale, zero = np.float32(self._given.scale), self._given.zero_point
        rounded: np.ndarray = np.clip(np.rint(array / scale), self._given.lowest - zero, self._given.highest - zero)
        return rounded * scale

    def moved(self, op: Any, state: PassState) -> np.ndarray:
        """Return by how much less the results of a layer that reads the tensor are on average on integers, F."""
        weight, kind = find_dense_weight(op, state), kind_of(op)
        assert weight is not None and kind is not None, "it can be quantised"
        bias = None if op.bias is None else read_constant(op.bias, state)
        known = Known(multiples(weight.array, np.zeros(0, np.float32)))
        integers = IntegerWeights.of(weight.array, bias, self._given or Quantisation(1.0, 0, False), known)
        scales = integers.scales.astype(np.float64).reshape(-1, *[1] * (weight.array.ndim - 1))
        pairs = zip((weight.array, integers.weight * scales), self._sums, strict=True)
        window, size = kind.window(op), tuple(op.result.type.shape[2:])
        groups = 1 if window is None else groups_of(op)
        real, rounded = (_products(each, total / self.count, window, size, groups) for each, total in pairs)
        moved: np.ndarray = real - rounded
        return moved


def _products(
    weight: np.ndarray, mean: np.ndarray, window: Window | None, size: tuple[int, ...], groups: int
) -> np.ndarray:
    """Return the means over places of the sums of each filter, F, for F x C / groups (x KH x KW) weights and an input
    of C (x H x W) means."""
    if window is None:
        products: np.ndarray = weight.astype(np.float64) @ mean.reshape(-1)
        return products
    top, left, bottom, right = window.pads
    padded = np.pad(mean, ((0, 0), (top, bottom), (left, right)))
    seen = np.empty((len(mean), *window.kernel))
    for y, x in np.ndindex(*window.kernel):
        first = y * window.dilations[0], x * window.dilations[1]
        rows, columns = (
            slice(start, start + (count - 1) * stride + 1, stride)
            for start, count, stride in zip(first, size, window.strides, strict=True)
        )
        seen[:, y, x] = padded[:, rows, columns].mean(axis=(1, 2))
    filters, inputs = len(weight) // groups, len(mean) // groups
    by_group = weight.reshape(groups, filters, inputs * seen[0].size).astype(np.float64)
    found: np.ndarray = np.einsum("gfc,gc->gf", by_group, seen.reshape(groups, -1)).reshape(-1)
    return found
