"""ONNX files as linalg ops on tensors.

onnx reads the file, converts it to one opset and infers shapes; what does not depend on the inputs is computed here, and
torch-mlir lowers the rest to linalg. The weights stay out of the IR: each becomes a `pattern.parameter` op with the name
that it has in the file. Every op carries the name of its node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import torch as torch_dialect

from patc.diagnostics import PatcError, first_line
from patc.frontend.lowering import TO_LINALG, name_parameters, run_torch_passes
from patc.frontend.onnx_files import load_onnx, read_model, sort_nodes
from patc.frontend.onnx_folding import fold_constants
from patc.frontend.onnx_graph import SMALL, OnnxGraph, make_graph
from patc.frontend.onnx_shapes import set_input_shapes
from patc.numerics import ELEMENT_TYPES
from patc.parameters import ParameterStore
from patc.runtime.program import TensorInfo

OPSET = 19  # the newest whose operations torch-mlir reads all alike
_PASSES = ("torch-onnx-to-torch-backend-pipeline", TO_LINALG)

# Operands that torch-mlir needs the values of.
_VALUES = {
    "AffineGrid": (1,),
    "CenterCropPad": (1,),
    "Clip": (1, 2),
    "Col2Im": (1, 2),
    "ConstantOfShape": (0,),
    "CumSum": (1,),
    "DFT": (1, 2),
    "Expand": (1,),
    "MaxUnpool": (2,),
    "NonMaxSuppression": (2, 3, 4),
    "OneHot": (1, 2),
    "Pad": (1, 2, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "STFT": (1, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Trilu": (1,),
    "Unsqueeze": (1,),
    **{f"Reduce{name}": (1,) for name in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum")},
    "ReduceSumSquare": (1,),
}


@dataclass(frozen=True)
class OnnxModel:
    """A model as a module whose @main takes the inputs and returns the outputs of its graph.

    Attributes:
        module: linalg ops on tensors, and one `pattern.parameter` for each weight in use.
        parameters: the weights.
        inputs, outputs: in the order of the file, with its names.
    """

    module: ir.Module
    parameters: ParameterStore
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


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


def read_graph(path: Path, shapes: Mapping[str, Any] | Sequence[Any] | None) -> OnnxGraph:
    """Return the graph of a file with static shapes, simplified."""
    graph = make_graph(read_model(path), path)
    set_input_shapes(graph, shapes)
    graph = _convert(_inline_functions(graph))
    fold_constants(graph)
    graph.infer(strict=True)
    return graph


def _inline_functions(graph: OnnxGraph) -> OnnxGraph:
    """Return the graph with the bodies of the model's own functions in the place of calls."""
    from onnx import inliner

    return _through(graph, inliner.inline_local_functions, "inline") if graph.model.functions else graph


def _convert(graph: OnnxGraph) -> OnnxGraph:
    """Return the graph in the opset that torch-mlir reads."""
    from onnx import shape_inference, version_converter

    if graph.opset >= OPSET:
        return graph

    def convert(model: Any) -> Any:
        return version_converter.convert_version(shape_inference.infer_shapes(model, data_prop=True), OPSET)

    return _through(graph, convert, "convert")


def _through(graph: OnnxGraph, change: Callable[[Any], Any], what: str) -> OnnxGraph:
    """Return the graph that a function of onnx makes of a model; it does not see large constants."""
    try:
        changed = change(graph.with_constants(SMALL))
    except Exception as error:  # of C++, about files that are not what they say
        expected = f"expected a model that onnx can {what}"
        raise PatcError(f"{expected}, found another: {first_line(error)}", str(graph.path)) from None
    large = {name: array for name, array in graph.constants.items() if array.size > SMALL}
    inputs = [value for value in changed.graph.input if value.name not in large]
    del changed.graph.input[:]
    changed.graph.input.extend(inputs)
    sort_nodes(changed.graph, str(graph.path))
    made = make_graph(changed, graph.path)
    made.constants.update(large)
    return made


def lower_graph(graph: OnnxGraph, context: ir.Context) -> OnnxModel:
    """Lower a graph of static shapes to linalg."""
    onnx = load_onnx()
    inputs = [_tensor_info(graph, value.name, "input") for value in graph.model.graph.input]
    outputs = [_tensor_info(graph, name, "output") for name in graph.outputs]
    parameters = _parameters(graph)
    whole = _importable(graph, parameters)
    module = import_torch(whole, context)
    run_torch_passes(module, _PASSES)
    names = name_parameters(module, list(parameters), len(inputs))
    store = ParameterStore({name: parameters[name] for name in names})
    return OnnxModel(module, store, tuple(inputs), tuple(outputs))


def import_torch(model: Any, context: ir.Context) -> ir.Module:
    """Return a model with types of all values as a module of the torch dialect."""
    from torch_mlir.extras import onnx_importer

    torch_dialect.register_dialect(context)
    info = onnx_importer.ModelInfo(model)
    module = info.create_module(context)
    importer = onnx_importer.NodeImporter.define_function(info.main_graph, module.operation)
    importer.import_all()
    return module


def _tensor_info(graph: OnnxGraph, name: str, role: str) -> TensorInfo:
    onnx, type_ = load_onnx(), graph.types.get(name)
    if type_ is None or not type_.is_static or not type_.element:
        raise PatcError(f"expected {role}s that are tensors of static shape, found '{name}', which is none", str(graph.path))
    dtype = onnx.helper.tensor_dtype_to_np_dtype(type_.element).name
    if dtype not in ELEMENT_TYPES:
        expected = f"expected {role} '{name}' to have elements of {', '.join(ELEMENT_TYPES)}"
        raise PatcError(f"{expected}, found {dtype}", str(graph.path))
    return TensorInfo(name, type_.sizes, dtype)


def _parameters(graph: OnnxGraph) -> dict[str, np.ndarray]:
    """Return the constants that become parameters: those of several elements whose values torch-mlir does not need."""
    needed = {
        node.input[place]
        for node in graph.nodes
        for place in _VALUES.get(node.op_type, ())
        if place < len(node.input) and not node.domain
    }
    return {name: array for name, array in graph.constants.items() if array.size > 1 and name not in needed}


def _importable(graph: OnnxGraph, parameters: Mapping[str, np.ndarray]) -> Any:
    """Return the model as torch-mlir takes it: all values have types, and the last inputs are parameters."""
    onnx = load_onnx()
    whole = onnx.ModelProto()
    whole.CopyFrom(graph.model)
    whole.graph.name = "main"
    for name, array in graph.constants.items():
        if name not in parameters:
            whole.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    for name, array in parameters.items():
        element = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        whole.graph.input.append(onnx.helper.make_tensor_value_info(name, element, array.shape))
    del whole.graph.value_info[:]
    made = [name for node in graph.nodes for name in node.output if name]
    for name in made:
        type_ = graph.types.get(name)
        if type_ is not None and type_.element and type_.shape is not None:
            info = onnx.helper.make_tensor_value_info(name, type_.element, type_.shape)
            whole.graph.value_info.append(info)
    for value in whole.graph.output:
        type_ = graph.types[value.name]
        value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, type_.element, type_.shape))
    return whole
