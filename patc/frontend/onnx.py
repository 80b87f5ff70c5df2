"""ONNX files as linalg ops on tensors.

onnx reads the file, converts it to one opset and infers shapes; what does not depend on the inputs is computed here,
and torch-mlir lowers the rest to linalg. The weights stay out of the IR: each becomes a `pattern.parameter` op with the
name that it has in the file. Every op carries the name of its node.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch_mlir import ir

from patc.diagnostics import PatcError, first_line
from patc.frontend.onnx_files import describe_nodes, load_onnx, name_nodes, read_model, sort_nodes
from patc.frontend.onnx_folding import RANDOM, fold_constants
from patc.frontend.onnx_graph import SMALL, OnnxGraph, ValueType, describe_type, make_graph
from patc.frontend.onnx_lowering import OnnxModel, lower_graph
from patc.frontend.onnx_reals import follow_reals
from patc.frontend.onnx_rewrites import rewrite_operations
from patc.frontend.onnx_shapes import open_batch, require_operands, set_input_shapes
from patc.mlir_limits import MOST_ELEMENTS

_OPSET = 19  # older ones are converted to it; torch-mlir reads this one and newer ones
_CEILING_OPSET = 22  # the first one in which onnx leaves out windows that begin behind the input, as everybody else
_PLACED_OPSET = 11  # the first one in which Resize says where elements lie: before, as in Upsample, at multiples
# What torch-mlir does not lower, or onnx does not find the shape of, and ONNX defines by other operations.
_FUNCTIONS = (
    "AffineGrid",
    "Attention",
    "BlackmanWindow",
    "CenterCropPad",
    "DynamicQuantizeLinear",
    "GroupNormalization",
    "HammingWindow",
    "HannWindow",
    "MeanVarianceNormalization",
    "NegativeLogLikelihoodLoss",
    "RMSNormalization",
    "RotaryEmbedding",
    "SoftmaxCrossEntropyLoss",
)


def import_onnx(path: Path, shapes: Mapping[str, Any] | Sequence[Any] | None, context: ir.Context) -> OnnxModel:
    """Import an ONNX file.

    Args:
        shapes: see `patc.frontend.onnx_shapes.set_input_shapes`.
        context: from `patc.context.make_context`.

    Raises:
        PatcError: the file cannot be read, input shapes are not known, or patc cannot compile it.
    """
    try:
        graph = read_graph(path, shapes)
        return lower_graph(graph, context)
    except UnicodeDecodeError:
        raise PatcError("expected names in UTF-8, found other bytes", str(path)) from None


def open_shapes(path: Path, given: Mapping[str, Any] | Sequence[Any] | None) -> dict[str, tuple[int, ...]]:
    """Return shapes of a file's inputs for any batch; see `patc.frontend.onnx_shapes.open_batch`."""
    return open_batch(make_graph(read_model(path), path), given)


def read_graph(path: Path, shapes: Mapping[str, Any] | Sequence[Any] | None) -> OnnxGraph:
    """Return the graph of a file with static shapes, simplified."""
    graph = make_graph(read_model(path), path)
    set_input_shapes(graph, shapes)
    graph = _convert(_inline_functions(graph))
    fold_constants(graph)
    if any(node.op_type in _FUNCTIONS for node in graph.nodes):
        graph = _expand(graph)
        fold_constants(graph)
    if follow_reals(graph):
        fold_constants(graph)
    if rewrite_operations(graph):
        fold_constants(graph)
    graph.infer(strict=True)
    require_operands(graph)
    _require_static(graph)
    return graph


def _require_static(graph: OnnxGraph) -> None:
    """Refuse random numbers, loops that inputs stop, and values that are no tensors of static shape, or larger than any
    memory: at the first nodes that make them."""
    drawing = [node for node in graph.nodes if node.op_type in RANDOM]
    if drawing:
        listed = describe_nodes(drawing)
        raise PatcError(f"model draws random numbers, which patc cannot compile: {listed}", str(graph.path))
    for node in graph.nodes:
        if node.op_type == "Loop":
            expected = "expected Loop to run as often as constants say, found one that inputs stop"
            raise PatcError(expected, f"{graph.path}: {node.name}")
        for name in filter(None, node.output):
            type_ = graph.types.get(name, ValueType(0, None))
            if not type_.element or not type_.is_static:
                found = "one whose shape depends on inputs" if type_.element else "no tensor of a known type"
                expected = f"expected {node.op_type} to make tensors of static shape"
                raise PatcError(f"{expected}, found '{name}', {found}", f"{graph.path}: {node.name}")
            if math.prod(type_.sizes) > MOST_ELEMENTS:
                found = f"'{name}' of {describe_type(type_)}"
                raise PatcError(
                    f"expected at most {MOST_ELEMENTS} elements, found {found}", f"{graph.path}: {node.name}"
                )


def _inline_functions(graph: OnnxGraph) -> OnnxGraph:
    """Return the graph with the bodies of the model's own functions in the place of calls."""
    from onnx import inliner

    return _through(graph, inliner.inline_local_functions, "inline") if graph.model.functions else graph


def _convert(graph: OnnxGraph) -> OnnxGraph:
    """Return the graph in the opset that torch-mlir reads."""
    from onnx import shape_inference, version_converter

    ceils = any(attribute.name == "ceil_mode" and attribute.i for node in graph.nodes for attribute in node.attribute)
    target = _CEILING_OPSET if ceils else _OPSET
    if graph.opset >= target:
        return graph
    scans = [node for node in graph.nodes if node.op_type == "Scan"]
    if scans and graph.opset < 9:
        expected = "expected Scan of opset 9 or newer, which has no batches"
        raise PatcError(f"{expected}, found {describe_nodes(scans)}", str(graph.path))

    def convert(model: Any) -> Any:
        changed = version_converter.convert_version(shape_inference.infer_shapes(model, data_prop=True), target)
        if graph.opset < _PLACED_OPSET:
            for node in (node for node in changed.graph.node if node.op_type == "Resize"):
                made = load_onnx().helper.make_attribute
                node.attribute.append(made("coordinate_transformation_mode", "asymmetric"))
                node.attribute.append(made("nearest_mode", "floor"))
        return changed

    return _through(graph, convert, "convert")


def _expand(graph: OnnxGraph) -> OnnxGraph:
    """Return the graph with what ONNX defines them by in the place of some operations."""
    from onnx import inliner, shape_inference

    onnx = load_onnx()

    def expand(model: Any) -> Any:
        for tensor in model.graph.initializer:  # the inliner wants to know their types
            info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            model.graph.value_info.append(info)
        for node in model.graph.node:
            if node.op_type in _FUNCTIONS:
                _add_defaults(node, graph.opset)
        typed = shape_inference.infer_shapes(model, data_prop=True)
        # The inliner asks for the types of inputs that are left out between others, too.
        typed.graph.value_info.append(onnx.helper.make_tensor_value_info("", onnx.TensorProto.FLOAT, None))
        names = [("", name) for name in _FUNCTIONS]
        expanded = inliner.inline_selected_functions(typed, names, inline_schema_functions=True)
        named = [info for info in expanded.graph.value_info if info.name]
        del expanded.graph.value_info[:]
        expanded.graph.value_info.extend(named)
        return expanded

    return _through(graph, expand, "expand")


def _add_defaults(node: Any, opset: int) -> None:
    """Give a node the attributes that it leaves to their defaults, which onnx does not see inside of functions."""
    given = {attribute.name for attribute in node.attribute}
    schema = load_onnx().defs.get_schema(node.op_type, max_inclusive_version=opset)
    for name, attribute in schema.attributes.items():
        if name not in given and attribute.default_value.name:
            node.attribute.append(attribute.default_value)


def _through(graph: OnnxGraph, change: Callable[[Any], Any], what: str) -> OnnxGraph:
    """Return the graph that a function of onnx makes of a model; it does not see large constants."""
    try:
        changed = change(graph.with_constants())
    except Exception as error:  # of C++, about files that are not what they say
        expected = f"expected a model that onnx can {what}"
        reason = re.sub(r"^.*Assertion `.*` failed: ", "", first_line(error))
        raise PatcError(f"{expected}, found another: {reason}", str(graph.path)) from None
    name_nodes(changed)
    sort_nodes(changed.graph, str(graph.path))
    large = {name: array for name, array in graph.constants.items() if array.size > SMALL}
    inputs = [value for value in changed.graph.input if value.name not in large]
    del changed.graph.input[:]
    changed.graph.input.extend(inputs)
    made = make_graph(changed, graph.path)
    made.constants.update(large)
    made.steps, made.biases = graph.steps, graph.biases
    return made
