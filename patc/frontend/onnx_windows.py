"""Convolutions and pools of ONNX whose attributes torch-mlir lacks, or reads in another way."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from patc.frontend.onnx_writer import Writer, attribute_of

if TYPE_CHECKING:
    import onnx


def _transposed(writer: Writer, node: onnx.NodeProto) -> str | None:
    """Cut the result where pads are not the same at both ends: torch-mlir has no such transposed convolutions."""
    sizes, wanted = (writer.sizes(name)[2:] for name in (node.input[0], node.output[0]))
    kernel = writer.sizes(node.input[1])[2:]
    ones = [1] * len(sizes)
    strides, dilations = (attribute_of(node, name, ones) for name in ("strides", "dilations"))
    pads = list(attribute_of(node, "pads", [0, 0] * len(sizes)))
    auto = attribute_of(node, "auto_pad", b"NOTSET")
    if auto == b"NOTSET" and pads[: len(sizes)] == pads[len(sizes) :]:
        return None
    steps = zip(sizes, kernel, strides, dilations, strict=True)
    whole = [(size - 1) * stride + (taps - 1) * dilation + 1 for size, taps, stride, dilation in steps]
    beyond = [size - have for size, have in zip(wanted, whole, strict=True)]
    if auto == b"NOTSET":
        first = pads[: len(sizes)]
    else:
        first = [max(0, -more + (auto == b"SAME_LOWER")) // 2 for more in beyond]
    more = [max(0, start + extra) for start, extra in zip(first, beyond, strict=True)]
    given = {"strides": strides, "dilations": dilations, "output_padding": more, "kernel_shape": kernel}
    y = writer.emit("ConvTranspose", *node.input, group=attribute_of(node, "group", 1), **given)
    ends = [start + size for start, size in zip(first, wanted, strict=True)]
    axes = range(2, 2 + len(sizes))
    return writer.emit("Slice", y, *(writer.constant(np.array(part, np.int64)) for part in (first, ends, axes)))


def _max_pool(writer: Writer, node: onnx.NodeProto) -> tuple[str, str] | None:
    """Count places from the start of the tensor: torch-mlir counts them from that of each plane."""
    if len(node.output) < 2 or not node.output[1] or attribute_of(node, "storage_order", 0):
        return None
    n, channels, *sizes = writer.sizes(node.input[0])
    y, places = writer.emit_all("MaxPool", 2, *node.input, attributes=node.attribute)
    planes = np.arange(n * channels, dtype=np.int64) * np.prod(sizes, dtype=np.int64)
    return y, writer.emit("Add", places, writer.constant(planes.reshape(n, channels, *[1] * len(sizes))))


def _max_unpool(writer: Writer, node: onnx.NodeProto) -> str:
    """Put each element to its place among zeros."""
    x, places = node.input[:2]
    shape = writer.sizes(node.output[0])
    flat = writer.constant(np.array([-1], np.int64))
    zeros = writer.constant(np.zeros(int(np.prod(shape)), writer.dtype(x)))
    y = writer.emit("ScatterElements", zeros, writer.emit("Reshape", places, flat), writer.emit("Reshape", x, flat))
    return writer.emit("Reshape", y, writer.constant(np.array(shape, np.int64)))


WINDOWS: dict[str, Callable[[Writer, onnx.NodeProto], str | tuple[str, ...] | None]] = {
    "ConvTranspose": _transposed,
    "MaxPool": _max_pool,
    "MaxUnpool": _max_unpool,
}
