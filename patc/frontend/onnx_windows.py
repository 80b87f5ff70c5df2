"""Convolutions and pools of ONNX whose attributes torch-mlir lacks, or reads in another way."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from patc.frontend.onnx_files import load_onnx
from patc.frontend.onnx_writer import Writer, attribute_of

if TYPE_CHECKING:
    import onnx


def _transposed(writer: Writer, node: onnx.NodeProto) -> str | None:
    """Cut the result where pads are not the same at both ends, and join groups of one channel: torch-mlir has no such
    transposed convolutions."""
    if convolution := _as_convolution(writer, node):
        return convolution
    joined = _join_groups(writer, node)
    cut = _cut_result(writer, joined or node, writer.sizes(node.input[1])[2:])
    plain = writer.emit("ConvTranspose", *joined.input, attributes=joined.attribute) if joined and not cut else None
    return cut or plain


def _as_convolution(writer: Writer, node: onnx.NodeProto) -> str | None:
    """Return a transposed convolution of single channels and stride 1 as what it is, one of turned weights."""
    channels, filters, *kernel = writer.sizes(node.input[1])
    ones, zeros = [1] * len(kernel), [0] * len(kernel)
    strides, dilations = (list(attribute_of(node, name, ones)) for name in ("strides", "dilations"))
    pads, more = attribute_of(node, "pads", zeros * 2), attribute_of(node, "output_padding", zeros)
    reaches = [dilation * (taps - 1) for dilation, taps in zip(dilations, kernel, strict=True)]
    around = [reach - pad for reach, pad in zip(reaches * 2, pads, strict=True)]
    is_plain = attribute_of(node, "auto_pad", b"NOTSET") == b"NOTSET" and strides == ones and not any(more)
    sizes, wanted = (list(writer.sizes(name)[2:]) for name in (node.input[0], node.output[0]))
    pairs = zip(reaches, pads[: len(kernel)], pads[len(kernel) :], strict=True)
    is_plain &= wanted == [size + reach - sum(cut) for size, (reach, *cut) in zip(sizes, pairs, strict=True)]
    if not is_plain or min(around) < 0 or not 1 < channels == attribute_of(node, "group", 1):
        return None
    x, weight, *bias = node.input
    axes, back = list(range(2, 2 + len(kernel))), [-1] * len(kernel)
    parts = (back, [-size - 1 for size in kernel], axes, back)
    turned = writer.emit("Slice", weight, *(writer.constant(np.array(part, np.int64)) for part in parts))
    single = writer.emit("Reshape", turned, writer.constant(np.array([channels * filters, 1, *kernel], np.int64)))
    given = {"dilations": dilations, "pads": around, "kernel_shape": kernel}
    return writer.emit("Conv", x, single, *bias, group=channels, **given)


def _join_groups(writer: Writer, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """Return a transposed convolution whose groups are several of those of one channel each, with zeros between."""
    channels, filters, *kernel = writer.sizes(node.input[1])
    if not 1 < channels == attribute_of(node, "group", 1):
        return None
    x, weight, *bias = node.input
    count = next(size for size in range(2, channels + 1) if channels % size == 0)
    shapes = ([channels, 1, filters, *kernel], [channels, count * filters, *kernel])
    single, joint = (writer.constant(np.array(shape, np.int64)) for shape in shapes)
    own = np.arange(channels)[:, None] % count == np.arange(count)
    is_own = writer.constant(own.reshape(channels, count, 1, *[1] * len(kernel)))
    zero = writer.constant(np.zeros((), writer.dtype(weight)))
    wide = writer.emit("Where", is_own, writer.emit("Reshape", weight, single), zero)
    inputs = [x, writer.emit("Reshape", wide, joint), *bias]
    joined = load_onnx().helper.make_node("ConvTranspose", inputs, list(node.output), group=channels // count)
    joined.attribute.extend(attribute for attribute in node.attribute if attribute.name != "group")
    return joined


def _cut_result(writer: Writer, node: onnx.NodeProto, kernel: Sequence[int]) -> str | None:
    sizes, wanted = (writer.sizes(name)[2:] for name in (node.input[0], node.output[0]))
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


def _window(writer: Writer, node: onnx.NodeProto) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the kernel, strides and dilations of a pool, and what all its windows reach from the first one's start."""
    kernel = np.array(attribute_of(node, "kernel_shape", []))
    strides, dilations = (np.array(attribute_of(node, name, np.ones_like(kernel))) for name in ("strides", "dilations"))
    results = np.array(writer.sizes(node.output[0])[2:])
    return kernel, strides, dilations, (results - 1) * strides + (kernel - 1) * dilations + 1


def _average_pool(writer: Writer, node: onnx.NodeProto) -> str | None:
    """Average what windows see of the padded input alone, or of the input alone. Where `ceil_mode` lets windows reach
    beyond, torch-mlir divides by all of each, and moves those that count no pads; it counts none where windows are
    dilated and pads are not the same on both sides."""
    if attribute_of(node, "auto_pad", b"NOTSET") != b"NOTSET":
        return None
    counts_pads = bool(attribute_of(node, "count_include_pad", 0))
    kernel, strides, dilations, reached = _window(writer, node)
    before, after = np.array(attribute_of(node, "pads", [0, 0] * len(kernel))).reshape(2, -1)
    padded = np.array(writer.sizes(node.input[0])[2:]) + before + after
    beyond = np.maximum(reached - padded, 0)
    padded_apart = counts_pads and (dilations > 1).any() and (before != after + beyond).any()
    if not beyond.any() and not padded_apart:
        return None
    kept = [attribute for attribute in node.attribute if attribute.name not in ("ceil_mode", "pads")]
    x, pads = node.input[0], np.concatenate([before, after + beyond])
    if padded_apart:
        around = np.pad(pads.reshape(2, -1), ((0, 0), (2, 0)))
        x, pads = writer.emit("Pad", x, writer.constant(around.reshape(-1))), np.zeros_like(pads)
    means = writer.emit("AveragePool", x, attributes=kept, pads=pads.tolist())
    if not counts_pads:
        return means
    scale = np.ones((1, 1), np.float64)
    for axis, count in enumerate(writer.sizes(node.output[0])[2:]):
        taps = np.arange(count)[:, None] * strides[axis] + np.arange(kernel[axis]) * dilations[axis]
        scale = scale[..., None] * (kernel[axis] / (taps < padded[axis]).sum(1))
    return writer.emit("Mul", means, writer.constant(scale.astype(writer.dtype(node.input[0]))))


def _max_pool(writer: Writer, node: onnx.NodeProto) -> tuple[str, str] | None:
    """Count places from the start of the tensor, and along columns where these lie together: torch-mlir counts them
    from that of each plane, and along rows."""
    is_turned = bool(attribute_of(node, "storage_order", 0))
    n, channels, *sizes = writer.sizes(node.input[0])
    if len(node.output) < 2 or not node.output[1] or (is_turned and len(sizes) != 2):
        return None
    kept = [attribute for attribute in node.attribute if attribute.name != "storage_order"]
    y, places = writer.emit_all("MaxPool", 2, *node.input, attributes=kept)
    if is_turned:
        height, width = (writer.constant(np.array(size, np.int64)) for size in sizes)
        row = writer.emit("Div", places, width)
        column = writer.emit("Sub", places, writer.emit("Mul", row, width))
        places = writer.emit("Add", writer.emit("Mul", column, height), row)
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


def _lp_pool(writer: Writer, node: onnx.NodeProto) -> str | None:
    """Take the root of the sums of powers, which are averages: torch-mlir has no pads that it finds itself, nor
    dilations."""
    x, p = node.input[0], attribute_of(node, "p", 2)
    auto = attribute_of(node, "auto_pad", b"NOTSET")
    kernel, strides, dilations, reached = _window(writer, node)
    if auto == b"NOTSET" and (dilations == 1).all() and not attribute_of(node, "ceil_mode", 0):
        return None
    sizes = np.array(writer.sizes(x)[2:])
    before = np.array(attribute_of(node, "pads", [0] * 2 * len(kernel)))[: len(kernel)]
    if auto in (b"SAME_UPPER", b"SAME_LOWER"):
        before = (np.maximum(reached - sizes, 0) + (auto == b"SAME_LOWER")) // 2
    pads = [0, 0, *before, 0, 0, *np.maximum(reached - sizes - before, 0)]
    dtype = writer.dtype(x)
    count, power, root = (writer.constant(np.array(value, dtype)) for value in (math.prod(kernel), p, 1 / p))
    powers = writer.emit("Mul", x, x) if p == 2 else writer.emit("Pow", writer.emit("Abs", x), power)
    padded = writer.emit("Pad", powers, writer.constant(np.array(pads, np.int64)))
    given = {"kernel_shape": kernel.tolist(), "strides": strides.tolist(), "dilations": dilations.tolist()}
    sums = writer.emit("Mul", writer.emit("AveragePool", padded, **given), count)
    return writer.emit("Sqrt", sums) if p == 2 else writer.emit("Pow", sums, root)


WINDOWS: dict[str, Callable[[Writer, onnx.NodeProto], str | tuple[str, ...] | None]] = {
    "AveragePool": _average_pool,
    "ConvTranspose": _transposed,
    "LpPool": _lp_pool,
    "MaxPool": _max_pool,
    "MaxUnpool": _max_unpool,
}
