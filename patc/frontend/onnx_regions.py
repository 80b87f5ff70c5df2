"""Operations of ONNX that read images at places of their own, as gathers: regions, and deformable convolutions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from patc.frontend.onnx_writer import Writer, attribute_of

if TYPE_CHECKING:
    import onnx


class _Arithmetic:
    """What is computed of values of one type."""

    def __init__(self, writer: Writer, dtype: Any) -> None:
        self.writer, self.dtype = writer, dtype

    def number(self, value: Any) -> str:
        return self.writer.constant(np.array(value, self.dtype))

    def whole(self, value: Any) -> str:
        return self.writer.constant(np.array(value, np.int64))

    def of(self, kind: str, x: str, value: Any) -> str:
        """Compute with a number, or with an array of them."""
        return self.writer.emit(kind, x, self.number(value))

    def shaped(self, x: str, *sizes: int) -> str:
        return self.writer.emit("Reshape", x, self.whole(sizes))

    def total(self, kind: str, values: Sequence[str]) -> str:
        result = values[0]
        for value in values[1:]:
            result = self.writer.emit(kind, result, value)
        return result

    def taps(self, at: str, size: int) -> list[tuple[str, str]]:
        """Return, for the two elements around places along an axis, where they are and their weights: none for those
        beyond the ends."""
        first = self.writer.emit("Floor", at)
        ratio = self.writer.emit("Sub", at, first)
        weights = self.writer.emit("Sub", self.number(1), ratio), ratio
        taps = []
        for step, weight in enumerate(weights):
            place = self.of("Add", first, step)
            clipped = self.of("Min", self.of("Max", place, 0), size - 1)
            is_there = self.writer.emit("Equal", place, clipped)
            taps.append((clipped, self.writer.emit("Where", is_there, weight, self.number(0))))
        return taps

    def gather(self, rows: str, taps: Sequence[Sequence[tuple[str, str]]], width: int, start: str) -> list[str]:
        """Return the rows of pixels at combinations of vertical and horizontal taps, times their weights.

        Args:
            rows: a row of channels for each pixel, of all images.
            taps: for both axes, whose places go together by broadcasting.
            width: pixels of a line.
            start: the first pixel of each place's image.
        """
        emit, found = self.writer.emit, []
        for (y, vertical), (x, horizontal) in itertools.product(*taps):
            line = emit("Cast", self.of("Mul", y, width), to=self.writer.kinds.INT64)
            pixel = emit("Add", emit("Add", line, emit("Cast", x, to=self.writer.kinds.INT64)), start)
            weight = emit("Unsqueeze", emit("Mul", vertical, horizontal), self.whole([-1]))
            found.append(emit("Mul", emit("Gather", rows, pixel, axis=0), weight))
        return found


def _roi_align(writer: Writer, node: onnx.NodeProto) -> str | None:
    """Average, or take the largest of, what is read at places within each bin."""
    x, rois, images = node.input
    (_, channels, height, width), (count, _) = writer.sizes(x), writer.sizes(rois)
    samples, is_max = attribute_of(node, "sampling_ratio", 0), attribute_of(node, "mode", b"avg") == b"max"
    if samples <= 0:  # as many as a region is large
        return None
    is_half = attribute_of(node, "coordinate_transformation_mode", b"half_pixel") == b"half_pixel"
    math = _Arithmetic(writer, writer.dtype(x))
    scaled = math.of("Sub", math.of("Mul", rois, attribute_of(node, "spatial_scale", 1.0)), 0.5 if is_half else 0.0)
    bins = [attribute_of(node, f"output_{name}", 1) for name in ("height", "width")]
    taps = []
    for axis, (size, parts) in enumerate(zip((height, width), bins, strict=True)):
        start, end = (writer.emit("Gather", scaled, math.whole([place - axis]), axis=1) for place in (1, 3))
        extent = writer.emit("Sub", end, start)
        extent = extent if is_half else math.of("Max", extent, 1)
        within = (np.arange(parts * samples) + 0.5) / (parts * samples)
        at = writer.emit("Add", start, math.of("Mul", extent, within))
        # Beyond an image by more than a pixel there is nothing, and by less its edge.
        inside = math.of("Min", math.of("Max", at, 0), size - 1)
        is_near = writer.emit("Equal", math.of("Min", math.of("Max", at, -1), size), at)
        shape = [count, 1, 1, 1, 1]
        shape[1 + 2 * axis : 3 + 2 * axis] = parts, samples
        near = []
        for place, weight in math.taps(inside, size):
            known = writer.emit("Where", is_near, weight, math.number(0))
            near.append((math.shaped(place, *shape), math.shaped(known, *shape)))
        taps.append(near)
    rows = math.shaped(writer.emit("Transpose", x, perm=[0, 2, 3, 1]), -1, channels)
    first = writer.emit("Mul", writer.cast(images, writer.kinds.INT64), math.whole(height * width))
    found = math.gather(rows, taps, width, math.shaped(first, count, 1, 1, 1, 1))
    read = math.total("Max" if is_max else "Add", found)
    pooled = writer.emit("ReduceMax" if is_max else "ReduceMean", read, math.whole([2, 4]), keepdims=0)
    return writer.emit("Transpose", pooled, perm=[0, 3, 1, 2])


def _deform_conv(writer: Writer, node: onnx.NodeProto) -> str | None:
    """Gather what each tap sees of the input, and multiply that with the weights."""
    x, weight, offset, *rest = node.input
    bias, mask = [*rest, "", ""][:2]
    (n, channels, height, width), (filters, _, *kernel) = writer.sizes(x), writer.sizes(weight)
    places = writer.sizes(offset)[2:]
    group, parts = (attribute_of(node, name, 1) for name in ("group", "offset_group"))
    strides, dilations = (attribute_of(node, name, [1, 1]) for name in ("strides", "dilations"))
    pads = attribute_of(node, "pads", [0] * 4)
    math = _Arithmetic(writer, writer.dtype(x))
    count = kernel[0] * kernel[1]
    moved = math.shaped(offset, n, parts, *kernel, 2, *places)
    taps = []
    for axis, size in enumerate((height, width)):
        steps = np.arange(kernel[axis]) * dilations[axis] - pads[axis]
        starts = np.arange(places[axis]) * strides[axis]
        grid = np.add.outer(steps, starts)
        fixed = grid[:, None, :, None] if axis == 0 else grid[None, :, None, :]
        taps.append(math.taps(math.of("Add", writer.emit("Gather", moved, math.whole(axis), axis=4), fixed), size))
    across = math.shaped(x, n, parts, channels // parts, height * width)
    rows = math.shaped(writer.emit("Transpose", across, perm=[0, 1, 3, 2]), -1, channels // parts)
    first = math.whole((np.arange(n * parts) * height * width).reshape(n, parts, 1, 1, 1, 1))
    seen = math.total("Add", math.gather(rows, taps, width, first))
    if mask:
        seen = writer.emit("Mul", seen, math.shaped(mask, n, parts, *kernel, *places, 1))
    width = channels // group
    seen = math.shaped(seen, n, parts, count, -1, channels // parts)
    pixels = math.shaped(writer.emit("Transpose", seen, perm=[0, 3, 2, 1, 4]), n, -1, count, group, width)
    columns = math.shaped(writer.emit("Transpose", pixels, perm=[0, 3, 1, 2, 4]), n, group, -1, count * width)
    factors = math.shaped(weight, group, filters // group, width, count)
    factors = writer.emit("Transpose", factors, perm=[0, 3, 2, 1])
    y = writer.emit("MatMul", columns, math.shaped(factors, 1, group, -1, filters // group))
    y = math.shaped(writer.emit("Transpose", y, perm=[0, 1, 3, 2]), n, filters, *places)
    return writer.emit("Add", y, math.shaped(bias, 1, filters, 1, 1)) if bias else y


REGIONS: dict[str, Callable[[Writer, onnx.NodeProto], str | tuple[str, ...] | None]] = {
    "DeformConv": _deform_conv,
    "RoiAlign": _roi_align,
}
