"""Unsigned integers of more than eight bits in ONNX graphs, as integers that have a sign: torch-mlir forgets which is
which.

Those of 16 and 32 bits are computed in twice as many, and wrap; those of 64 are their bits, and what orders them sees
these with the first one turned. Inputs and outputs keep their bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from patc.diagnostics import PatcError
from patc.frontend.onnx_files import describe_nodes, load_onnx
from patc.frontend.onnx_graph import OnnxGraph, ValueType
from patc.frontend.onnx_loops import rename
from patc.frontend.onnx_writer import Writer, attribute_of

if TYPE_CHECKING:
    import onnx

_MOVES = {
    "Compress", "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity",
    "Pad", "Reshape", "ReverseSequence", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Trilu",
    "Unsqueeze", "Where",
}  # fmt: skip
_ORDER = {
    "ArgMax", "ArgMin", "Clip", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "ReduceMax",
    "ReduceMin", "TopK",
}  # fmt: skip
# What is the same of the bits with and without a sign.
_BITS = _MOVES | {
    "Add", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "ConstantOfShape", "CumSum", "Equal", "EyeLike",
    "MatMul", "Mul", "ReduceProd", "ReduceSum", "Scatter", "ScatterElements", "ScatterND", "Sub", "Sum",
}  # fmt: skip
_FIRST_BIT = np.int64(-(1 << 63))


def sign_integers(graph: OnnxGraph) -> None:
    """Compute with integers that have a sign, in place.

    Args:
        graph: with static types.

    Raises:
        PatcError: operations are not known for integers of 64 bits without a sign; all are listed.
    """
    unsigned = {kind for kind, *_ in _types()}
    if any(type_.element in unsigned for type_ in graph.types.values()):
        _Signing(graph).run()


def _types() -> list[tuple[int, int, int]]:
    """Return types without a sign, what stores their bits, and what computes with them."""
    kinds = load_onnx().TensorProto
    return [
        (kinds.UINT16, kinds.INT16, kinds.INT32),
        (kinds.UINT32, kinds.INT32, kinds.INT64),
        (kinds.UINT64, kinds.INT64, kinds.INT64),
    ]


class _Signing:
    def __init__(self, graph: OnnxGraph) -> None:
        self._graph, self._writer = graph, Writer(graph)
        self._before = dict(graph.types)
        self._stored = {kind: stored for kind, stored, _ in _types()}
        self._wide = {kind: wide for kind, _, wide in _types()}
        self._names: dict[str, str] = {}  # of what is computed with, for inputs and outputs

    def run(self) -> None:
        graph, nodes = self._graph, list(self._graph.nodes)
        refused = [node for node in nodes if self._is_refused(node)]
        if refused:
            listed = describe_nodes(refused)
            raise PatcError(f"model has operations patc cannot compile for uint64: {listed}", str(graph.path))
        for name, type_ in self._before.items():
            graph.types[name] = ValueType(self._wide.get(type_.element, type_.element), type_.shape)
        for name, array in graph.constants.items():
            element = self._before[name].element
            if element in self._wide:
                graph.constants[name] = array.astype(self._dtype(self._wide[element]))
        for value in graph.model.graph.input:
            self._open(value)
        doors = [name for name in graph.outputs if self._before[name].element in self._wide]
        self._names |= {name: f"{name}/wide" for name in doors if name not in self._names}
        for node in nodes:
            self._sign(node)
        for name in doors:
            self._writer.name = name
            self._emit("Cast", [self._names[name]], name, self._stored[self._before[name].element])
        graph.replace_nodes(self._writer.nodes)

    def _is_refused(self, node: onnx.NodeProto) -> bool:
        elements = {name: self._before[name].element for name in (*node.input, *node.output) if name}
        if self._writer.kinds.UINT64 not in elements.values():
            return False
        if node.op_type == "Cast":
            kinds = self._writer.kinds
            return bool({kinds.FLOAT, kinds.FLOAT16, kinds.BFLOAT16, kinds.DOUBLE} & {*elements.values()})
        return node.op_type not in _ORDER | _BITS

    def _open(self, value: onnx.ValueInfoProto) -> None:
        """Let an input have its bits, and nodes compute with a wider one."""
        element = self._before[value.name].element
        if element not in self._wide:
            return
        value.type.tensor_type.elem_type = self._stored[element]
        self._graph.types[value.name] = ValueType(self._stored[element], self._before[value.name].shape)
        if self._stored[element] != self._wide[element]:
            self._names[value.name] = f"{value.name}/wide"
            self._writer.name = value.name
            self._emit("Cast", [value.name], f"{value.name}/bits", self._wide[element])
            self._mask(f"{value.name}/bits", self._names[value.name], element)

    def _sign(self, node: onnx.NodeProto) -> None:
        """Write a node for the types that its values have now."""
        before = [self._before[name].element if name else 0 for name in (*node.input, *node.output)]
        outputs = [(name, self._before[name].element) for name in node.output if name]
        rename(node, self._names)
        node.output[:] = [self._names.get(name, name) for name in node.output]
        if not self._wide.keys() & {*before}:
            self._writer.nodes.append(node)
            return
        self._writer.name = node.name
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype"):
                attribute.i = self._wide.get(attribute.i, attribute.i)
            elif attribute.HasField("t") and attribute.t.data_type in self._wide:
                array = load_onnx().numpy_helper.to_array(attribute.t)
                wide = array.astype(self._dtype(self._wide[attribute.t.data_type]))
                attribute.t.CopyFrom(load_onnx().numpy_helper.from_array(wide))
        made = list(node.output)
        is_ordered = node.op_type in _ORDER or attribute_of(node, "reduction", b"") in (b"min", b"max")
        long = self._writer.kinds.UINT64
        for place, name in enumerate(node.input):
            if is_ordered and name and before[place] == long:
                node.input[place] = self._flip(name)
        self._writer.nodes.append(node)
        for name, element in outputs:
            whole = self._names.get(name, name)
            place = made.index(whole)
            self._graph.types[whole] = self._type(self._wide.get(element, element), name)
            if (element == long and is_ordered) or (element in self._wide and element != long and not self._fits(node)):
                node.output[place] = f"{whole}/bits"
                self._graph.types[node.output[place]] = self._graph.types[whole]
                if element == long:
                    self._emit("BitwiseXor", [node.output[place], self._writer.constant(_FIRST_BIT)], whole)
                else:
                    self._mask(node.output[place], whole, element)

    def _fits(self, node: onnx.NodeProto) -> bool:
        """Return whether results have the bits of their type alone."""
        return node.op_type in _ORDER | _MOVES

    def _flip(self, name: str) -> str:
        if name in self._graph.constants:
            return self._writer.constant(self._graph.constants[name] ^ _FIRST_BIT)
        first = self._writer.constant(_FIRST_BIT)
        flipped = self._writer.emit("BitwiseXor", name, first)
        self._graph.types[flipped] = self._graph.types[name]
        return flipped

    def _mask(self, name: str, output: str, element: int) -> None:
        wide = self._wide[element]
        bits = np.array((1 << 8 * self._dtype(element).itemsize) - 1, self._dtype(wide))
        self._emit("BitwiseAnd", [name, self._writer.constant(bits)], output)

    def _emit(self, kind: str, inputs: list[str], output: str, to: int | None = None) -> None:
        """Write a node whose result has the type of its first input, or that of a cast."""
        given = {} if to is None else {"to": to}
        made = load_onnx().helper.make_node(kind, inputs, [output], name=self._writer.name, **given)
        self._writer.nodes.append(made)
        first = self._graph.types[inputs[0]]
        self._graph.types[output] = ValueType(to or first.element, first.shape)

    def _type(self, element: int, name: str) -> ValueType:
        return ValueType(element, self._before[name].shape)

    def _dtype(self, element: int) -> np.dtype:
        return np.dtype(load_onnx().helper.tensor_dtype_to_np_dtype(element))
