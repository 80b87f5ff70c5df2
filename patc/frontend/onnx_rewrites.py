"""Operations of ONNX that torch-mlir lacks, or lowers to other numbers, as operations that it has."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from patc.frontend.onnx_files import load_onnx
from patc.frontend.onnx_graph import OnnxGraph
from patc.frontend.onnx_places import PLACES
from patc.frontend.onnx_products import PRODUCTS
from patc.frontend.onnx_quantised import QUANTISED
from patc.frontend.onnx_recurrent import RECURRENT
from patc.frontend.onnx_regions import REGIONS
from patc.frontend.onnx_resize import rewrite_resize
from patc.frontend.onnx_sampling import SAMPLING
from patc.frontend.onnx_windows import WINDOWS
from patc.frontend.onnx_writer import Writer, attribute_of

if TYPE_CHECKING:
    import onnx


def rewrite_operations(graph: OnnxGraph) -> bool:
    """Replace operations; return whether there were some.

    Args:
        graph: with types; where something was replaced it has to be simplified, and to get types, again.
    """
    writer = Writer(graph)
    changed = False
    for node in list(graph.nodes):
        types = [graph.types.get(name) for name in (*node.input, *node.output) if name]
        is_known = not node.domain and all(type_ is not None and type_.is_static for type_ in types)
        rule = _RULES.get(node.op_type) if is_known else None
        writer.name = node.name
        result = rule(writer, node) if rule is not None else None
        if result is None:
            writer.nodes.append(node)
            continue
        changed = True
        for made, output in zip((result,) if isinstance(result, str) else result, node.output, strict=False):
            if output:
                writer.nodes.append(load_onnx().helper.make_node("Identity", [made], [output], name=node.name))
    if changed:
        graph.replace_nodes(writer.nodes)
    return changed


def _cast(writer: Writer, node: onnx.NodeProto) -> str | None:
    """Take floats to unsigned integers by way of signed ones: torch-mlir rounds to the signed type of their width."""
    kinds = writer.kinds
    source, target = writer.element(node.input[0]), attribute_of(node, "to", 0)
    if source not in (kinds.FLOAT, kinds.FLOAT16, kinds.DOUBLE) or target != kinds.UINT8:
        return None
    return writer.emit("Cast", writer.emit("Cast", node.input[0], to=kinds.INT32), to=target)


def _lp_normalization(writer: Writer, node: onnx.NodeProto) -> str:
    """Divide by the norm, where there is one."""
    x, kind = node.input[0], f"ReduceL{attribute_of(node, 'p', 2)}"
    axes = writer.constant(np.array([attribute_of(node, "axis", -1)], np.int64))
    norm = writer.emit(kind, x, axes, keepdims=1)
    dtype = writer.dtype(x)
    zero, one = (writer.constant(np.array(value, dtype)) for value in (0, 1))
    return writer.emit("Div", x, writer.emit("Where", writer.emit("Equal", norm, zero), one, norm))


def _depth_to_space(writer: Writer, node: onnx.NodeProto) -> str | None:
    """Move axes of blocks that lie inside of channels: torch-mlir mixes these up unless there are as many of both."""
    size, (n, channels, height, width) = attribute_of(node, "blocksize", 0), writer.sizes(node.input[0])
    if attribute_of(node, "mode", b"DCR") != b"CRD":
        return None
    left = channels // size**2
    split = writer.constant(np.array([n, left, size, size, height, width], np.int64))
    moved = writer.emit("Transpose", writer.emit("Reshape", node.input[0], split), perm=[0, 1, 4, 2, 5, 3])
    return writer.emit("Reshape", moved, writer.constant(np.array([n, left, height * size, width * size], np.int64)))


def _average_pool(writer: Writer, node: onnx.NodeProto) -> str | None:
    """Average what windows see of the padded input alone, or of the input alone. Where `ceil_mode` lets windows reach
    beyond, torch-mlir divides by all of each, and moves those that count no pads; it counts none where windows are
    dilated and pads are not the same on both sides."""
    if attribute_of(node, "auto_pad", b"NOTSET") != b"NOTSET":
        return None
    counts_pads = bool(attribute_of(node, "count_include_pad", 0))
    kernel = np.array(attribute_of(node, "kernel_shape", []))
    ones = np.ones_like(kernel)
    strides, dilations = (np.array(attribute_of(node, name, ones)) for name in ("strides", "dilations"))
    before, after = np.array(attribute_of(node, "pads", [0, 0] * len(kernel))).reshape(2, -1)
    padded = np.array(writer.sizes(node.input[0])[2:]) + before + after
    results = np.array(writer.sizes(node.output[0])[2:])
    beyond = np.maximum((results - 1) * strides + (kernel - 1) * dilations + 1 - padded, 0)
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
    for axis, count in enumerate(results):
        taps = np.arange(count)[:, None] * strides[axis] + np.arange(kernel[axis]) * dilations[axis]
        scale = scale[..., None] * (kernel[axis] / (taps < padded[axis]).sum(1))
    return writer.emit("Mul", means, writer.constant(scale.astype(writer.dtype(node.input[0]))))


_RULES: dict[str, Callable[[Writer, onnx.NodeProto], str | tuple[str, ...] | None]] = {
    **PLACES,
    **PRODUCTS,
    **QUANTISED,
    **RECURRENT,
    **REGIONS,
    **SAMPLING,
    **WINDOWS,
    "AveragePool": _average_pool,
    "Cast": _cast,
    "DepthToSpace": _depth_to_space,
    "LpNormalization": _lp_normalization,
    "Resize": rewrite_resize,
}
