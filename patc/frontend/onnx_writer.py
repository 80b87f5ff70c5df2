"""Writes the nodes that stand for another one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from patc.frontend.onnx_files import load_onnx
from patc.frontend.onnx_graph import OnnxGraph, ValueType

if TYPE_CHECKING:
    import onnx


DOMAIN = "patc"  # of operations that only patc has


class Writer:
    """Writes the nodes of a graph anew; what is written carries the name of the node that it stands for.

    Attributes:
        graph: with types of the values that it had before.
        kinds: the element types of ONNX.
        nodes: so far.
        numbers: values of f32 that are equal to those of another type.
        name: of the node that is replaced.
    """

    def __init__(self, graph: OnnxGraph) -> None:
        self.graph = graph
        self.kinds = load_onnx().TensorProto
        self.nodes: list[onnx.NodeProto] = []
        self.numbers: dict[str, str] = {}
        self.name = ""
        self._count = 0

    def emit(self, kind: str, *inputs: str, attributes: Any = (), **values: Any) -> str:
        """Write a node and return its result."""
        return self.emit_all(kind, 1, *inputs, attributes=attributes, **values)[0]

    def emit_all(self, kind: str, count: int, *inputs: str, attributes: Any = (), **values: Any) -> tuple[str, ...]:
        """Write a node of `count` results and return them."""
        self._count += 1
        outputs = tuple(f"{self.name}/{kind}_{self._count}" + f".{number}" * (number > 0) for number in range(count))
        made = load_onnx().helper.make_node(kind, list(inputs), outputs, name=self.name, **values)
        made.attribute.extend(attributes)
        self.nodes.append(made)
        return outputs

    def emit_layer(self, kind: str, operands: Sequence[str], layer: str, shapes: Sequence[Sequence[int]]) -> list[str]:
        """Write a layer of patc, see `patc.frontend.held`; return its results, which are f32."""
        self._count += 1
        outputs = [f"{self.name}/{kind}_{self._count}.{number}" for number in range(len(shapes))]
        helper = load_onnx().helper
        named = {"name": self.name, "domain": DOMAIN, "layer": layer}
        self.nodes.append(helper.make_node(kind, list(operands), outputs, **named))
        for output, shape in zip(outputs, shapes, strict=True):  # onnx knows nothing of them
            info = helper.make_tensor_value_info(output, self.kinds.FLOAT, shape)
            self.graph.model.graph.value_info.append(info)
        if DOMAIN not in {opset.domain for opset in self.graph.model.opset_import}:
            self.graph.model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
        return outputs

    def constant(self, value: Any) -> str:
        """Return the name of a constant."""
        self._count += 1
        name = f"{self.name}/constant_{self._count}"
        array = self.graph.constants[name] = np.asarray(value)
        self.graph.types[name] = ValueType(load_onnx().helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        return name

    def cast(self, name: str, element: int) -> str:
        """Return a value as elements of another type."""
        is_known = name in self.graph.types and self.element(name) == element
        return name if is_known else self.emit("Cast", name, to=element)

    def element(self, name: str) -> int:
        """Return the element type of a value of the graph."""
        return self.graph.types[name].element

    def dtype(self, name: str) -> Any:
        """Return numpy's element type of a value of the graph."""
        return load_onnx().helper.tensor_dtype_to_np_dtype(self.element(name))

    def sizes(self, name: str) -> tuple[int, ...]:
        """Return the shape of a value of the graph."""
        return self.graph.types[name].sizes


def attribute_of(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Return the value of an attribute of a node, or `default` where it has none."""
    found = next((attribute for attribute in node.attribute if attribute.name == name), None)
    return default if found is None else load_onnx().helper.get_attribute_value(found)
