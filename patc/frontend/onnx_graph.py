"""An ONNX graph with its constants beside it, as arrays: what the rewrites of the front end work on."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from patc.diagnostics import PatcError, first_line
from patc.frontend.onnx_files import captured_names, load_onnx, read_tensor, subgraphs

if TYPE_CHECKING:
    import onnx

SMALL = 1024  # elements of a constant that shapes may depend on


@dataclass(frozen=True)
class ValueType:
    """What is known of a value.

    Attributes:
        element: a member of TensorProto.DataType; 0 for what is no tensor.
        shape: None where the rank is not known, and None for sizes that are not.
    """

    element: int
    shape: tuple[int | None, ...] | None

    @property
    def is_static(self) -> bool:
        return self.shape is not None and None not in self.shape

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of a static shape."""
        return tuple(size for size in self.shape or () if size is not None)


@dataclass
class OnnxGraph:
    """A model with its nodes in order and all constants taken out of it.

    Attributes:
        model: without initializers and `Constant` nodes; its inputs are those that a caller gives.
        constants: by the names of their values.
        path: its file.
        types: of values, as of the last `infer`.
        steps: numbers that constants were multiplied with to be real numbers, and of which these are multiples.
        biases: real numbers and the integers that became these, as far as the numbers do not tell.
    """

    model: onnx.ModelProto
    constants: dict[str, np.ndarray]
    path: Path
    types: dict[str, ValueType] = field(default_factory=dict)
    steps: set[np.float32] = field(default_factory=set)
    biases: set[tuple[float, int]] = field(default_factory=set)

    @property
    def nodes(self) -> Any:
        return self.model.graph.node

    @property
    def opset(self) -> int:
        return max(opset.version for opset in self.model.opset_import if not opset.domain)

    @property
    def outputs(self) -> list[str]:
        return [value.name for value in self.model.graph.output]

    def replace_nodes(self, nodes: Iterable[onnx.NodeProto]) -> None:
        """Put other nodes, in order, in the place of all; those that nobody reads go, and such constants."""
        kept, read = [], set(self.outputs)
        for node in reversed([*nodes]):
            if not read.isdisjoint(node.output):
                kept.append(node)
                read |= captured_names(node)
        copies = [type(node).FromString(node.SerializeToString()) for node in reversed(kept)]
        del self.model.graph.node[:]
        self.model.graph.node.extend(copies)
        self.constants = {name: array for name, array in self.constants.items() if name in read}

    def taken(self) -> set[str]:
        """Return the names that values have."""
        return {*self.constants, *self.types, *(output for node in self.nodes for output in node.output)}

    def infer(self, strict: bool = False) -> None:
        """Find the types of all values, with what is known of shapes that are computed.

        Raises:
            PatcError: strict, and shapes or types contradict each other.
        """
        onnx = load_onnx()
        whole = self.with_constants()
        try:
            inferred = onnx.shape_inference.infer_shapes(whole, check_type=strict, strict_mode=strict, data_prop=True)
        except Exception as error:  # InferenceError, and whatever C++ throws
            if strict:
                raise self._contradiction(first_line(error)) from None
            return
        graph = inferred.graph
        self.types = {value.name: value_type(value) for value in (*graph.input, *graph.value_info, *graph.output)}
        for name, array in self.constants.items():
            self.types[name] = ValueType(onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)

    def _contradiction(self, reason: str) -> PatcError:
        """Return the error for what onnx says of shapes or types; it names a node, and not what that reads."""
        found = re.fullmatch(r".*?op_type: ?(\w+)(?:, node name: (.*?))?\): (.*)", reason)
        reason = re.sub(r"\[\w+\]|Inference error\(s\):", "", found[3] if found else reason).strip(" :")
        node = next((node for node in self.nodes if found and (node.op_type, node.name) == found.group(1, 2)), None)
        if node is None:
            return PatcError(f"expected shapes that go together, found: {reason}", str(self.path))
        self.infer()
        read = " and ".join(describe_type(self.types.get(name)) for name in node.input if name)
        return PatcError(
            f"expected shapes that go together, found: {node.op_type} of {read}: {reason}", f"{self.path}: {node.name}"
        )

    def with_constants(self, inputs: Container[str] | None = None) -> onnx.ModelProto:
        """Return the model with its constants.

        Args:
            inputs: names of those that become its last inputs, the others being initializers; None for all of more
                than `SMALL` elements.
        """
        onnx = load_onnx()
        whole = onnx.ModelProto()
        whole.CopyFrom(self.model)
        for name, array in self.constants.items():
            if array.size > SMALL if inputs is None else name in inputs:
                element = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
                whole.graph.input.append(onnx.helper.make_tensor_value_info(name, element, array.shape))
            else:
                whole.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        return whole


def unique(name: str, taken: Container[str]) -> str:
    """Return a name that is not taken."""
    found, suffix = name, 0
    while found in taken:
        suffix += 1
        found = f"{name}.{suffix}"
    return found


def make_graph(model: onnx.ModelProto, path: Path) -> OnnxGraph:
    """Take the constants out of a model, which is changed in place.

    Raises:
        PatcError: a constant cannot be read.
    """
    constants: dict[str, np.ndarray] = {}
    graph = OnnxGraph(model, constants, path)
    initialized = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initialized]
    del model.graph.input[:]  # old files list weights as inputs too
    model.graph.input.extend(inputs)
    del model.graph.value_info[:]
    for value in model.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")  # some files have wrong ones
    _take_constants(model.graph, graph, {}, graph.taken())
    _copy_outputs(graph)
    return graph


def _copy_outputs(graph: OnnxGraph) -> None:
    """Let nodes make the outputs that are inputs or constants: onnx infers no shapes where there are such."""
    onnx = load_onnx()
    made = {value.name for value in graph.model.graph.input} | {*graph.constants}
    for value in graph.model.graph.output:
        if value.name in made:
            name = unique(value.name, made | graph.taken())
            graph.nodes.append(onnx.helper.make_node("Identity", [value.name], [name], name=name))
            value.name = name


def _take_constants(graph: onnx.GraphProto, into: OnnxGraph, names: dict[str, str], taken: set[str]) -> None:
    """Move initializers and `Constant` nodes of a graph, and of those inside, to the constants of the model.

    Args:
        names: of constants that had another name where they were.
        taken: the names that values of the model have.
    """
    onnx = load_onnx()
    names = dict(names)
    kept = []

    def take(name: str, array: np.ndarray) -> None:
        # Branches of one If may each have a constant of the same name.
        is_free = graph is into.model.graph and name not in into.constants
        names[name] = name if is_free else unique(name, taken)
        taken.add(names[name])
        into.constants[names[name]] = array

    for tensor in graph.initializer:
        take(tensor.name, read_tensor(tensor, into.path))
    for node in graph.node:
        attribute = next(iter(node.attribute), None)
        if node.op_type != "Constant" or node.domain or attribute is None or attribute.name == "sparse_value":
            for index, name in enumerate(node.input):
                node.input[index] = names.get(name, name)
            for inner in subgraphs(node):
                _take_constants(inner, into, names, taken)
            kept.append(node)
        elif attribute.name == "value":
            attribute.t.name = node.output[0]
            take(node.output[0], read_tensor(attribute.t, into.path))
        else:
            value = onnx.helper.get_attribute_value(attribute)
            is_float = attribute.name in ("value_float", "value_floats")
            take(node.output[0], np.asarray(value, np.float32 if is_float else np.int64))
    for value in graph.output:
        value.name = names.get(value.name, value.name)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del graph.initializer[:], graph.node[:]
    graph.node.extend(copies)


def value_type(value: onnx.ValueInfoProto) -> ValueType:
    """Return what a message says of a value's type."""
    if not value.type.HasField("tensor_type"):
        return ValueType(0, None)
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return ValueType(tensor.elem_type, None)
    sizes = (size.dim_value if size.HasField("dim_value") else None for size in tensor.shape.dim)
    return ValueType(tensor.elem_type, tuple(sizes))


def describe_type(type_: ValueType | None) -> str:
    """Return a shape for a message."""
    if type_ is None or type_.shape is None:
        return "a shape that is not known"
    return "x".join("?" if size is None else str(size) for size in type_.shape) or "a scalar"
