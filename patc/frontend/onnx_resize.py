"""ONNX Resize as sums of gathers: along each axis a place of the result is a weighted sum of places of the input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from patc.frontend.onnx_files import load_onnx
from patc.frontend.onnx_writer import Writer, attribute_of
from patc.passes.ir.resampling import Axis

if TYPE_CHECKING:
    import onnx


def rewrite_resize(writer: Writer, node: onnx.NodeProto) -> str | None:
    """Return the result; None where sizes are not known, or where integers would be interpolated."""
    resize = _Resize.of(writer, node)
    if resize is None:
        return None
    x, mask = node.input[0], np.ones((), np.float32)
    rank = len(writer.sizes(x))
    dtype = load_onnx().helper.tensor_dtype_to_np_dtype(writer.element(x))
    for number, axis in enumerate(resize.axes):
        trailing = [-1, *[1] * (rank - 1 - axis)]
        matrix, is_inside = resize.matrix(number)
        if not is_inside.all():
            mask = mask * is_inside.reshape(trailing)
        if not np.array_equal(matrix, np.eye(len(matrix))):
            x = _gather(writer, x, axis, Axis.of(matrix), trailing, dtype)
    if mask.all():
        return x if x != node.input[0] else writer.emit("Identity", x)
    kept = writer.emit("Mul", x, writer.constant(mask.astype(dtype)))
    return writer.emit("Add", kept, writer.constant(((1 - mask) * resize.outside).astype(dtype)))


def _gather(writer: Writer, x: str, axis: int, made: Axis, trailing: list[int], dtype: np.dtype) -> str:
    """Write the sum over taps along one axis."""
    total = ""
    for tap, places in enumerate(made.places):
        part = writer.emit("Gather", x, writer.constant(places.astype(np.int64)), axis=axis)
        if made.weights is not None:
            part = writer.emit("Mul", part, writer.constant(made.weights[tap].reshape(trailing).astype(dtype)))
        total = writer.emit("Add", total, part) if total else part
    return total


@dataclass(frozen=True)
class _Resize:
    """What a node says.

    Attributes:
        axes: that are resized.
        lengths, made: their sizes before and behind.
        scales: of each of them.
        exact: the sizes behind as the scales say them, before they were rounded down.
        roi: for each of them where what is kept begins and ends, in parts of it.
        mode, places, rounding: how values come from places, places from numbers, and numbers from such between them.
        cubic: the coefficient of cubic interpolation.
        excludes, antialias: whether places beyond the border count nothing, and whether reducing takes means.
        outside: the value of what lies outside, for one of the modes.
    """

    axes: tuple[int, ...]
    lengths: tuple[int, ...]
    made: tuple[int, ...]
    scales: tuple[float, ...]
    exact: tuple[float, ...]
    roi: tuple[tuple[float, float], ...]
    mode: str
    places: str
    rounding: str
    cubic: float
    excludes: bool
    antialias: bool
    outside: float

    @staticmethod
    def of(writer: Writer, node: onnx.NodeProto) -> _Resize | None:
        x, kinds = node.input[0], writer.kinds
        given = [writer.graph.constants.get(name) if name else None for name in node.input[1:]]
        is_old = len(node.input) == 2  # opset 10 has scales only
        roi, scales, sizes = (None, given[0], None) if is_old else (*given, None, None)[:3]
        mode = _word(node, "mode", "nearest")
        is_float = writer.element(x) in (kinds.FLOAT, kinds.FLOAT16, kinds.DOUBLE)
        if not (is_float or mode == "nearest") or ((scales is None or not len(scales)) and sizes is None):
            return None
        shape, result = writer.sizes(x), writer.sizes(node.output[0])
        axes = tuple(int(axis) % len(shape) for axis in attribute_of(node, "axes", range(len(shape))))
        lengths, made = (tuple(size[axis] for axis in axes) for size in (shape, result))
        if 0 in (*lengths, *made):
            return None
        if sizes is not None and len(sizes):
            factors = [float(np.float32(size / length)) for size, length in zip(sizes, lengths, strict=True)]
            policy = _word(node, "keep_aspect_ratio_policy", "stretch")
            chosen = {"not_larger": min(factors), "not_smaller": max(factors)}.get(policy)
            factors = factors if chosen is None else [chosen] * len(axes)
            exact = tuple(float(size) for size in made)
        else:
            assert scales is not None, "there are no sizes"
            factors = [float(scale) for scale in scales]
            exact = tuple(factor * length for factor, length in zip(factors, lengths, strict=True))
            if (
                writer.graph.model.producer_name == "pytorch"
            ):  # scales there are those of PyTorch, where sizes are whole
                exact = tuple(float(size) for size in made)
        places = "asymmetric" if is_old else _word(node, "coordinate_transformation_mode", "half_pixel")
        ends = np.zeros(2 * len(axes)) if roi is None or not len(roi) else roi
        return _Resize(
            axes,
            lengths,
            made,
            tuple(factors),
            exact,
            tuple(zip(ends[: len(axes)].tolist(), ends[len(axes) :].tolist(), strict=True)),
            mode,
            places,
            "floor" if is_old else _word(node, "nearest_mode", "round_prefer_floor"),
            attribute_of(node, "cubic_coeff_a", -0.75),
            bool(attribute_of(node, "exclude_outside", 0)),
            bool(attribute_of(node, "antialias", 0)),
            attribute_of(node, "extrapolation_value", 0.0),
        )

    def matrix(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return what makes the places of one axis of those of the input, and which of them lie inside of it."""
        places, length = self._places(number), self.lengths[number]
        is_inside = np.ones(len(places), np.float32)
        if self.places == "tf_crop_and_resize":
            is_inside = ((places >= 0) & (places <= length - 1)).astype(np.float32)
        first = np.floor(places)
        if self.mode == "nearest":
            taps = self._nearest(places, first)[:, None]
            weights = np.ones(taps.shape)
        else:
            stretch = max(1.0, 1.0 / self.scales[number]) if self.antialias else 1.0
            reach = int(np.ceil((2 if self.mode == "cubic" else 1) * stretch))
            taps = first[:, None] + np.arange(1 - reach, 1 + reach)
            weights = self._weights((taps - places[:, None]) / stretch)
            if self.excludes:
                weights = np.where((taps < 0) | (taps >= length), 0.0, weights)
            if self.excludes or self.antialias:
                weights = weights / weights.sum(axis=1, keepdims=True)
        matrix = np.zeros((len(places), length))
        rows = np.broadcast_to(np.arange(len(places))[:, None], taps.shape)
        np.add.at(matrix, (rows, np.clip(taps, 0, length - 1).astype(int)), weights)
        return matrix, is_inside

    def _places(self, number: int) -> np.ndarray:
        """Return where in the input the places of the result are, in f32 as others compute it."""
        x, one = np.arange(self.made[number], dtype=np.float32), np.float32(1)
        scale, length = np.float32(self.scales[number]), np.float32(self.lengths[number])
        exact = np.float32(self.exact[number])
        half = (x + np.float32(0.5)) / scale - np.float32(0.5)
        if self.places == "align_corners":
            # Enlarged, the last element lies at the end, as in PyTorch; ONNX's own cases that shrink have it elsewhere.
            last = np.float32(self.made[number]) if scale > 1 else exact
            return x * (length - one) / (last - one) if self.made[number] > 1 else x
        if self.places == "asymmetric":
            return x / scale
        if self.places == "tf_half_pixel_for_nn":
            return (x + np.float32(0.5)) / scale
        if self.places == "pytorch_half_pixel" and self.made[number] == 1:
            return x
        if self.places == "half_pixel_symmetric":
            return half + length / np.float32(2) * (one - np.float32(self.made[number]) / (scale * length))
        if self.places != "tf_crop_and_resize":
            return half
        begin, end = (np.float32(each) for each in self.roi[number])
        if self.made[number] == 1:
            return (x + (begin + end) * (length - one)) / np.float32(2)
        return (begin + x * (end - begin) / (exact - one)) * (length - one)

    def _nearest(self, places: np.ndarray, first: np.ndarray) -> np.ndarray:
        rest = places - first
        if self.rounding == "floor":
            return first
        if self.rounding == "ceil":
            return np.ceil(places)
        return first + (rest > 0.5 if self.rounding == "round_prefer_floor" else rest >= 0.5)

    def _weights(self, distances: np.ndarray) -> np.ndarray:
        """Return the weights of places at some distances: hats, or the cubic convolution of Keys (1981)."""
        d, a = np.abs(distances.astype(np.float64)), self.cubic
        if self.mode == "linear":
            return np.maximum(1.0 - d, 0.0)
        near, far = ((a + 2) * d - (a + 3)) * d * d + 1, ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def _word(node: onnx.NodeProto, name: str, default: str) -> str:
    found: Any = attribute_of(node, name, default.encode())
    return str(found.decode())
