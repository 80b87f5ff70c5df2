"""Operations of ONNX that torch-mlir lacks, or lowers to other numbers, as operations that it has."""

from __future__ import annotations

import math
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


def _instance_normalization(writer: Writer, node: onnx.NodeProto) -> str:
    """Center and scale each channel by its own numbers: torch-mlir's own lowering computes in f64."""
    x, scale, shift = node.input
    images, channels, *size = writer.sizes(x)
    axis = writer.constant(np.array([2], np.int64))
    epsilon = writer.constant(np.array(attribute_of(node, "epsilon", 1e-5), writer.dtype(x)))
    rows = writer.emit("Reshape", x, writer.constant(np.array([images, channels, math.prod(size)], np.int64)))
    centered = writer.emit("Sub", rows, writer.emit("ReduceMean", rows, axis, keepdims=1))
    variance = writer.emit("ReduceMean", writer.emit("Mul", centered, centered), axis, keepdims=1)
    deviation = writer.emit("Sqrt", writer.emit("Add", variance, epsilon))
    wide = writer.constant(np.array([1, channels, 1], np.int64))
    scaled = writer.emit("Mul", writer.emit("Div", centered, deviation), writer.emit("Reshape", scale, wide))
    y = writer.emit("Add", scaled, writer.emit("Reshape", shift, wide))
    return writer.emit("Reshape", y, writer.constant(np.array([images, channels, *size], np.int64)))


def _depth_to_space(writer: Writer, node: onnx.NodeProto) -> str | None:
    """Move axes of blocks that lie inside of channels: torch-mlir mixes these up unless there are as many of both."""
    size, (n, channels, height, width) = attribute_of(node, "blocksize", 0), writer.sizes(node.input[0])
    if attribute_of(node, "mode", b"DCR") != b"CRD":
        return None
    left = channels // size**2
    split = writer.constant(np.array([n, left, size, size, height, width], np.int64))
    moved = writer.emit("Transpose", writer.emit("Reshape", node.input[0], split), perm=[0, 1, 4, 2, 5, 3])
    return writer.emit("Reshape", moved, writer.constant(np.array([n, left, height * size, width * size], np.int64)))


_RULES: dict[str, Callable[[Writer, onnx.NodeProto], str | tuple[str, ...] | None]] = {
    **PLACES,
    **PRODUCTS,
    **QUANTISED,
    **RECURRENT,
    **REGIONS,
    **SAMPLING,
    **WINDOWS,
    "Cast": _cast,
    "DepthToSpace": _depth_to_space,
    "InstanceNormalization": _instance_normalization,
    "LpNormalization": _lp_normalization,
    "Resize": rewrite_resize,
}
