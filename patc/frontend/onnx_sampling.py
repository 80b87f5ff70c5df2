"""Operations of ONNX that sample: grids, Fourier transforms and columns of images, as products and gathers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from patc.frontend.onnx_files import load_onnx
from patc.frontend.onnx_writer import Writer, attribute_of

if TYPE_CHECKING:
    import onnx

_MOST_ELEMENTS = 1 << 24  # of a matrix


def _text(node: onnx.NodeProto, name: str, default: str) -> str:
    return str(attribute_of(node, name, default.encode()).decode())


def _is_float(writer: Writer, name: str) -> bool:
    return bool(writer.dtype(name).kind == "f")


def _constant(writer: Writer, node: onnx.NodeProto, place: int) -> np.ndarray | None:
    """Return the value of an operand that is a constant of some elements; None for another one."""
    name = node.input[place] if place < len(node.input) else ""
    found = writer.graph.constants.get(name)
    return None if found is None or not found.size else found


# -- Fourier transforms --------------------------------------------------------------------------------


def _dft(writer: Writer, node: onnx.NodeProto) -> str | None:
    x = node.input[0]
    shape = writer.sizes(x)
    axis, length = (_constant(writer, node, place) for place in (2, 1))
    if any(place < len(node.input) and node.input[place] not in ("", *writer.graph.constants) for place in (1, 2)):
        return None
    default = 1 if writer.graph.opset < 20 else -2
    place = (int(attribute_of(node, "axis", default)) if axis is None else int(axis)) % len(shape)
    size = shape[place] if length is None else int(length)
    is_inverse, is_onesided = (bool(attribute_of(node, name, 0)) for name in ("inverse", "onesided"))
    if not _is_float(writer, x) or place == len(shape) - 1 or (is_inverse and is_onesided):
        return None
    matrix = _transform(shape[place], shape[-1], size, is_onesided, is_inverse)
    if matrix is None:
        return None
    order = [other for other in range(len(shape) - 1) if other != place] + [place, len(shape) - 1]
    turned = writer.emit("Transpose", x, perm=order)
    rest = [shape[other] for other in order[:-2]]
    y = _product(writer, turned, rest, matrix.astype(writer.dtype(x)))
    return writer.emit("Transpose", y, perm=[order.index(other) for other in range(len(shape))])


def _transform(count: int, parts: int, size: int, is_onesided: bool, is_inverse: bool) -> np.ndarray | None:
    """Return a matrix from `count` numbers of one or two parts to those of their transform; None for a large one."""
    results = size // 2 + 1 if is_onesided else size
    used = min(count, size)
    if size < 1 or 4 * count * results > _MOST_ELEMENTS:
        return None
    # (Angles are taken of small numbers, which are exact.)
    turns = np.outer(np.arange(used), np.arange(results)) % size / size * 2 * np.pi
    cosine, sine = np.cos(turns), np.sin(turns) * (1 if is_inverse else -1)
    matrix = np.zeros((count, parts, results, 2))
    matrix[:used, 0] = np.stack([cosine, sine], -1)
    if parts == 2:
        matrix[:used, 1] = np.stack([-sine, cosine], -1)
    whole: np.ndarray = matrix.reshape(count * parts, results * 2) / (size if is_inverse else 1)
    return whole


def _product(writer: Writer, x: str, rest: Sequence[int], matrix: np.ndarray) -> str:
    """Multiply the last two axes of a tensor, as one, with a matrix; the result's last one has two elements."""
    rows, columns = matrix.shape
    flat = writer.emit("Reshape", x, writer.constant(np.array([*rest, rows], np.int64)))
    y = writer.emit("MatMul", flat, writer.constant(matrix))
    return writer.emit("Reshape", y, writer.constant(np.array([*rest, columns // 2, 2], np.int64)))


# -- Images of columns, and grids ----------------------------------------------------------------------


def _col2im(writer: Writer, node: onnx.NodeProto) -> str | None:
    """Add columns to an image by a transposed convolution that has one tap for each channel."""
    x, image, block = node.input[0], _constant(writer, node, 1), _constant(writer, node, 2)
    if image is None or block is None or not _is_float(writer, x):
        return None
    sizes, kernel = [int(size) for size in image], [int(size) for size in block]
    rank, taps = len(kernel), math.prod(kernel)
    n, rows = writer.sizes(x)[:2]
    strides, dilations = (list(attribute_of(node, name, [1] * rank)) for name in ("strides", "dilations"))
    pads = list(attribute_of(node, "pads", [0] * 2 * rank))
    reach = [dilations[i] * (kernel[i] - 1) + 1 for i in range(rank)]
    counts = [(sizes[i] + pads[i] + pads[i + rank] - reach[i]) // strides[i] + 1 for i in range(rank)]
    more = [sizes[i] - (counts[i] - 1) * strides[i] - reach[i] + pads[i] + pads[i + rank] for i in range(rank)]
    weight = np.zeros((rows, 1, taps), writer.dtype(x))
    weight[np.arange(rows), 0, np.arange(rows) % taps] = 1
    return writer.emit(
        "ConvTranspose",
        writer.emit("Reshape", x, writer.constant(np.array([n, rows, *counts], np.int64))),
        writer.constant(weight.reshape(rows, 1, *kernel)),
        group=rows // taps, strides=strides, dilations=dilations, pads=pads, output_padding=more, kernel_shape=kernel,
    )  # fmt: skip


def _grid_sample(writer: Writer, node: onnx.NodeProto) -> str | None:
    """Gather the elements around each place of the grid, and add them with their weights."""
    x, grid = node.input
    (n, channels, *sizes), places = writer.sizes(x), writer.sizes(grid)
    if not _is_float(writer, x) or writer.element(x) != writer.element(grid):
        return None
    count = math.prod(places[1:-1])
    sampler = _Grid(writer, node, writer.dtype(x))
    flat = writer.emit("Reshape", grid, sampler.shape(n, count, len(sizes)))
    taps = []
    for axis, size in enumerate(sizes):  # the grid has the last axis first
        place = writer.emit("Gather", flat, writer.constant(np.array(len(sizes) - 1 - axis, np.int64)), axis=2)
        taps.append(sampler.taps(place, size, math.prod(sizes[axis + 1 :])))
    values = writer.emit("Reshape", x, sampler.shape(n, channels, math.prod(sizes)))
    parts = []
    for chosen in itertools.product(*taps):
        index = sampler.total("Add", [index for index, _ in chosen])
        index = writer.emit(
            "Expand", writer.emit("Reshape", index, sampler.shape(n, 1, count)), sampler.shape(n, channels, count)
        )
        part = writer.emit("GatherElements", values, index, axis=2)
        weights = [weight for _, weight in chosen if weight]
        if weights:
            weight = writer.emit("Reshape", sampler.total("Mul", weights), sampler.shape(n, 1, count))
            part = writer.emit("Mul", part, weight)
        parts.append(part)
    return writer.emit("Reshape", sampler.total("Add", parts), sampler.shape(n, channels, *places[1:-1]))


class _Grid:
    """The arithmetic of a grid's places along one axis."""

    def __init__(self, writer: Writer, node: onnx.NodeProto, dtype: Any) -> None:
        self.writer, self.dtype = writer, dtype
        mode = _text(node, "mode", "linear")
        self.mode = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
        self.padding = _text(node, "padding_mode", "zeros")
        self.is_aligned = bool(attribute_of(node, "align_corners", 0))

    def shape(self, *sizes: int) -> str:
        return self.writer.constant(np.array(sizes, np.int64))

    def total(self, kind: str, values: Sequence[str]) -> str:
        result = values[0]
        for value in values[1:]:
            result = self.writer.emit(kind, result, value)
        return result

    def number(self, kind: str, x: str, value: float) -> str:
        return self.writer.emit(kind, x, self.writer.constant(np.array(value, self.dtype)))

    def taps(self, place: str, size: int, stride: int) -> list[tuple[str, str]]:
        """Return, for each element around the places, its offset, and its weight or "" for one."""
        low, high = (0, size - 1) if self.is_aligned else (-0.5, size - 0.5)
        at = self.number("Add", self.number("Mul", self.number("Add", place, 1), (high - low) / 2), low)
        if self.mode != "cubic":
            at = self.inside(at, size)
        if self.mode == "nearest":
            return [self.element(self.writer.emit("Round", at), "", size, stride)]
        whole = self.writer.emit("Floor", at)
        ratio = self.writer.emit("Sub", at, whole)
        if self.mode == "linear":
            weights = [self.writer.emit("Sub", self.writer.constant(np.array(1, self.dtype)), ratio), ratio]
            return [
                self.element(self.number("Add", whole, i), weight, size, stride) for i, weight in enumerate(weights)
            ]
        return [
            self.element(self.inside(self.number("Add", whole, i), size), self.cubic(ratio, i), size, stride)
            for i in (-1, 0, 1, 2)
        ]

    def inside(self, at: str, size: int) -> str:
        """Return places inside of an axis, where they are to lie there."""
        if self.padding == "zeros":
            return at
        if self.padding == "reflection":
            low, high = (0, size - 1) if self.is_aligned else (-0.5, size - 0.5)
            span = max(high - low, 1e-6)
            beyond = self.writer.emit("Abs", self.number("Sub", at, low))
            turns = self.writer.emit("Floor", self.number("Div", beyond, 2 * span))
            rest = self.writer.emit("Sub", beyond, self.number("Mul", turns, 2 * span))
            mirrored = self.writer.emit("Abs", self.number("Sub", rest, span))
            at = self.writer.emit("Sub", self.writer.constant(np.array(high, self.dtype)), mirrored)
        return self.clip(at, size)

    def clip(self, at: str, size: int) -> str:
        return self.number("Min", self.number("Max", at, 0), size - 1)

    def element(self, at: str, weight: str, size: int, stride: int) -> tuple[str, str]:
        clipped = self.clip(at, size)
        if self.padding == "zeros":
            there = self.writer.emit("Cast", self.writer.emit("Equal", at, clipped), to=self.kind())
            weight = self.writer.emit("Mul", weight, there) if weight else there
        index = self.writer.emit("Cast", clipped, to=self.writer.kinds.INT64)
        return self.writer.emit("Mul", index, self.writer.constant(np.array(stride, np.int64))), weight

    def kind(self) -> int:
        return int(load_onnx().helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype)))

    def cubic(self, ratio: str, i: int) -> str:
        """Return the weight of the element `i` behind the one before a place."""
        a = -0.75
        x = self.writer.emit("Abs", self.number("Sub", ratio, i))
        terms = (a + 2, -(a + 3), 0, 1) if i in (0, 1) else (a, -5 * a, 8 * a, -4 * a)
        result = self.number("Mul", x, terms[0])
        for term in terms[1:-1]:
            result = self.writer.emit("Mul", self.number("Add", result, term), x)
        return self.number("Add", result, terms[-1])


SAMPLING: dict[str, Callable[[Writer, onnx.NodeProto], str | tuple[str, ...] | None]] = {
    "Col2Im": _col2im,
    "DFT": _dft,
    "GridSample": _grid_sample,
}
