"""An ONNX graph of static shapes as linalg, through torch-mlir."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import torch as torch_dialect

from patc.context import make_context
from patc.diagnostics import PatcError, first_line
from patc.frontend.held import hold_layers, release_layers
from patc.frontend.lowering import TO_LINALG, name_parameters, run_torch_passes
from patc.frontend.onnx_files import captured_names, describe_nodes, load_onnx
from patc.frontend.onnx_graph import OnnxGraph
from patc.frontend.onnx_quantised import QUANTISED
from patc.frontend.onnx_recurrent import RECURRENT
from patc.frontend.onnx_unsigned import sign_integers
from patc.frontend.onnx_writer import attribute_of
from patc.numerics import ELEMENT_TYPES
from patc.parameters import ParameterStore
from patc.passes.ir.ranges import write_biases, write_steps
from patc.runtime.program import TensorInfo

if TYPE_CHECKING:
    import onnx

_TORCH_INT16 = 2  # of its scalar types
_PASSES = ("torch-onnx-to-torch-backend-pipeline", TO_LINALG)

# Operands that torch-mlir needs the values of.
VALUES = {
    "AffineGrid": (1,),
    "BlackmanWindow": (0,),
    "CenterCropPad": (1,),
    "Clip": (1, 2),
    "Col2Im": (1, 2),
    "ConstantOfShape": (0,),
    "CumSum": (1,),
    "DFT": (1, 2),
    "Expand": (1,),
    "HammingWindow": (0,),
    "HannWindow": (0,),
    "Loop": (0, 1),
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
    "Upsample": (1,),
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


def lower_graph(graph: OnnxGraph, context: ir.Context) -> OnnxModel:
    """Lower a graph of static shapes to linalg."""
    inputs = [_tensor_info(graph, value.name, "input") for value in graph.model.graph.input]
    outputs = [_tensor_info(graph, name, "output") for name in graph.outputs]
    sign_integers(graph)
    parameters = _parameters(graph)
    try:
        if any(_is_wrong(graph, node) for node in graph.nodes):
            raise PatcError("torch-mlir lowers the model to other numbers", str(graph.path))
        module = _lower(_importable(graph, parameters), context)
    except PatcError as error:
        refused = _find_refused(graph)
        if not refused:
            raise
        listed = describe_nodes(refused)
        raise PatcError(f"model has operations patc cannot compile: {listed}", str(graph.path)) from error
    names = name_parameters(module, list(parameters), len(inputs))
    with context:
        write_steps(module.body.operations[0], graph.steps)
        write_biases(module.body.operations[0], graph.biases)
    store = ParameterStore({name: parameters[name] for name in names})
    return OnnxModel(module, store, tuple(inputs), tuple(outputs))


def _lower(model: onnx.ModelProto, context: ir.Context) -> ir.Module:
    """Return a model with types of all values as a module of linalg ops.

    Raises:
        PatcError: torch-mlir does not take it.
    """
    from torch_mlir.extras import onnx_importer

    torch_dialect.register_dialect(context)
    info = onnx_importer.ModelInfo(model)
    module = info.create_module(context)
    try:
        importer = onnx_importer.NodeImporter.define_function(info.main_graph, module.operation)
        importer.import_all()
    except Exception as error:  # of the importer, about types and attributes that it does not read
        raise PatcError(f"torch-mlir cannot import the model: {first_line(error)}") from error
    _cast_to_short(module)
    held = hold_layers(module)
    run_torch_passes(module, _PASSES)
    release_layers(module, held)
    return module


def _cast_to_short(module: ir.Module) -> None:
    """Write casts to integers of 16 bits as torch's: torch-mlir does not know ONNX's."""
    for op in list(module.body.operations[0].entry_block.operations):
        if op.operation.name != "torch.operator" or op.attributes["name"].value != "onnx.Cast":
            continue
        if op.attributes["torch.onnx.to"].value != load_onnx().TensorProto.INT16:
            continue
        with module.context, op.location, ir.InsertionPoint(op):
            number = ir.IntegerAttr.get(ir.IntegerType.get_signless(64), _TORCH_INT16)
            to = _constant("int", {"value": number})
            no = _constant("bool", {"value": ir.BoolAttr.get(False)})
            operands = [op.operands[0], to, no, no, _constant("none", {})]
            cast = ir.Operation.create("torch.aten.to.dtype", [op.results[0].type], operands)
        op.results[0].replace_all_uses_with(cast.result)
        op.operation.erase()


def _constant(kind: str, attributes: dict[str, ir.Attribute]) -> ir.Value:
    return ir.Operation.create(
        f"torch.constant.{kind}", [ir.Type.parse(f"!torch.{kind}")], attributes=attributes
    ).result


def _find_refused(graph: OnnxGraph) -> list[onnx.NodeProto]:
    """Return the nodes that torch-mlir does not lower even where they are all of a model."""
    refused, verdicts = [], dict[Any, bool]()
    for node in graph.nodes:
        types = tuple(graph.types.get(name) for name in (*node.input, *node.output))
        key = (node.op_type, types, tuple(attribute.SerializeToString() for attribute in node.attribute))
        if key not in verdicts:
            verdicts[key] = _is_refused(graph, node)
        if verdicts[key]:
            refused.append(node)
    return refused


def _is_wrong(graph: OnnxGraph, node: onnx.NodeProto) -> bool:
    """Return whether torch-mlir lowers a node to other numbers than it stands for."""
    if node.op_type == "GridSample":
        return attribute_of(node, "padding_mode", b"zeros") != b"border"
    # The determinant has no pivots there, and what stays of those that are rewritten has types or attributes that are
    # not read there either.
    return node.op_type == "Det" or node.op_type in (*QUANTISED, *RECURRENT)


def _is_refused(graph: OnnxGraph, node: onnx.NodeProto) -> bool:
    if _is_wrong(graph, node):
        return True
    onnx = load_onnx()
    read = sorted(captured_names(node))
    inputs = [_value_info(graph, name) for name in read if name not in graph.constants]
    outputs = [_value_info(graph, name) for name in node.output if name]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "main", inputs, outputs))
    del model.opset_import[:]
    model.opset_import.extend(graph.model.opset_import)
    constants = {name: graph.constants[name] for name in read if name in graph.constants}
    alone = OnnxGraph(model, constants, graph.path, graph.types)
    try:
        _lower(_importable(alone, _parameters(alone)), make_context())
    except PatcError:
        return True
    return False


def _value_info(graph: OnnxGraph, name: str) -> onnx.ValueInfoProto:
    type_ = graph.types[name]
    return load_onnx().helper.make_tensor_value_info(name, type_.element, type_.shape)


def _tensor_info(graph: OnnxGraph, name: str, role: str) -> TensorInfo:
    type_ = graph.types[name]
    dtype = load_onnx().helper.tensor_dtype_to_np_dtype(type_.element).name
    if dtype not in ELEMENT_TYPES:
        expected = f"expected {role} '{name}' to have elements of {', '.join(ELEMENT_TYPES)}"
        raise PatcError(f"{expected}, found {dtype}", str(graph.path))
    return TensorInfo(name, type_.sizes, dtype)


def _parameters(graph: OnnxGraph) -> dict[str, np.ndarray]:
    """Return the constants that become parameters: those of several elements whose values torch-mlir does not need."""
    needed = {
        node.input[place]
        for node in graph.nodes
        for place in VALUES.get(node.op_type, ())
        if place < len(node.input) and not node.domain
    }
    return {name: array for name, array in graph.constants.items() if array.size > 1 and name not in needed}


def _importable(graph: OnnxGraph, parameters: Mapping[str, np.ndarray]) -> Any:
    """Return the model as torch-mlir takes it: all values have types, and the last inputs are parameters."""
    whole = graph.with_constants(parameters)
    whole.graph.name = "main"
    del whole.graph.value_info[:]
    whole.graph.value_info.extend(_value_info(graph, name) for node in graph.nodes for name in node.output if name)
    for value in whole.graph.output:
        value.CopyFrom(_value_info(graph, value.name))
    return whole
