"""Operations of ONNX that move elements, and that torch-mlir lacks or lowers to other ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from patc.frontend.onnx_writer import Writer, attribute_of

if TYPE_CHECKING:
    import onnx


def _reverse_sequence(writer: Writer, node: onnx.NodeProto) -> str:
    """Gather the first elements of each sequence from its end on, and the rest where it is."""
    x, lengths = node.input
    time, batch = attribute_of(node, "time_axis", 0), attribute_of(node, "batch_axis", 1)
    shape = writer.sizes(x)
    along = [shape[axis] if axis == time else 1 for axis in range(len(shape))]
    across = [shape[axis] if axis == batch else 1 for axis in range(len(shape))]
    steps = writer.constant(np.arange(shape[time]).reshape(along))
    ends = writer.emit("Reshape", lengths, writer.constant(np.array(across, np.int64)))
    mirrored = writer.emit("Sub", writer.emit("Sub", ends, writer.constant(np.array(1, np.int64))), steps)
    places = writer.emit("Where", writer.emit("Less", steps, ends), mirrored, steps)
    whole = writer.emit("Expand", places, writer.constant(np.array(shape, np.int64)))
    return writer.emit("GatherElements", x, whole, axis=time)


def _pad(writer: Writer, node: onnx.NodeProto) -> str | None:
    """Cut where pads are negative: torch-mlir reads beyond the end of what it pads then. What goes around is joined, of
    which torch-mlir finds no end where an axis has one element."""
    x, pads, *rest = node.input
    if attribute_of(node, "mode", b"constant") == b"wrap":
        return _wrap(writer, node)
    known = writer.graph.constants.get(pads)
    axes = writer.graph.constants.get(rest[1]) if len(rest) > 1 and rest[1] else np.arange(len(writer.sizes(x)))
    if known is None or axes is None or known.min(initial=0) >= 0:
        return None
    before, after = np.minimum(known, 0).reshape(2, -1)
    ends = np.array(writer.sizes(x), np.int64)[axes] + after
    cut = writer.emit("Slice", x, *map(writer.constant, (-before, ends, axes)))
    return writer.emit("Pad", cut, writer.constant(np.maximum(known, 0)), *rest, attributes=node.attribute)


def _wrap(writer: Writer, node: onnx.NodeProto) -> str | None:
    """Gather along each axis what lies there and, beyond its ends, what lies at the other one."""
    x, pads, *rest = node.input
    known, sizes = writer.graph.constants.get(pads), writer.sizes(x)
    axes = writer.graph.constants.get(rest[1]) if len(rest) > 1 and rest[1] else np.arange(len(sizes))
    if known is None or axes is None:
        return None
    result = x
    for axis, before, after in zip(axes.tolist(), *known.reshape(2, -1).tolist(), strict=True):
        size = sizes[axis]
        if before or after:
            places = writer.constant(np.arange(-before, size + after, dtype=np.int64) % size)
            result = writer.emit("Gather", result, places, axis=axis)
    return result if result != x else writer.emit("Identity", x)


def _slice(writer: Writer, node: onnx.NodeProto) -> str | None:
    """Gather what is read backwards: torch-mlir does not know how many elements that are."""
    x, *names = node.input
    if len(names) < 4 or any(name not in writer.graph.constants for name in names if name):
        return None
    starts, ends, axes, steps = (writer.graph.constants.get(name) for name in names)
    if starts is None or ends is None or steps is None or steps.min(initial=1) > 0:
        return None
    axes = np.arange(len(starts)) if axes is None else axes
    result, sizes = x, writer.sizes(x)
    for start, end, axis, step in zip(*(array.tolist() for array in (starts, ends, axes, steps)), strict=True):
        places = np.arange(sizes[axis], dtype=np.int64)[start:end:step]
        if len(places) != writer.sizes(node.output[0])[axis] or not len(places):
            return None
        if len(places) < sizes[axis] or step < 0:
            result = writer.emit("Gather", result, writer.constant(places), axis=axis)
    return result


def _scatter_elements(writer: Writer, node: onnx.NodeProto) -> str | None:
    """Give each element all of its place: torch-mlir finds no least or largest along one axis."""
    x, places, updates = node.input
    if attribute_of(node, "reduction", b"none") not in (b"min", b"max"):
        return None
    sizes, shape = writer.sizes(x), writer.sizes(places)
    axis = attribute_of(node, "axis", 0) % len(sizes)
    size = writer.constant(np.array(sizes[axis], np.int64))
    wide = writer.cast(places, writer.kinds.INT64)
    is_before = writer.emit("Less", wide, writer.constant(np.array(0, np.int64)))
    along = writer.emit("Where", is_before, writer.emit("Add", wide, size), wide)
    whole = [writer.constant(each[..., None]) for each in np.indices(shape)]
    whole[axis] = writer.emit("Reshape", along, writer.constant(np.array([*shape, 1], np.int64)))
    kept = [attribute for attribute in node.attribute if attribute.name == "reduction"]
    return writer.emit("ScatterND", x, writer.emit("Concat", *whole, axis=-1), updates, attributes=kept)


PLACES: dict[str, Callable[[Writer, onnx.NodeProto], str | tuple[str, ...] | None]] = {
    "Pad": _pad,
    "ReverseSequence": _reverse_sequence,
    "ScatterElements": _scatter_elements,
    "Slice": _slice,
}
