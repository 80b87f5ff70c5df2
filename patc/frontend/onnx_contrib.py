"""Quantised operations that ONNX Runtime's tools write, of the domain com.microsoft, as what they stand for: operations
of ONNX on real numbers, between DequantizeLinear and QuantizeLinear."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx

CONTRIB = "com.microsoft"


def expand_contrib(model: onnx.ModelProto) -> None:
    """Replace such operations of a model, in place; others of the domain stay."""
    from onnx import NodeProto

    graph = model.graph
    if all(node.domain != CONTRIB for node in graph.node):
        return
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        rule = _RULES.get(node.op_type) if node.domain == CONTRIB else None
        expansion = _Expansion(node)
        nodes += expansion.nodes if rule is not None and rule(expansion) else [node]
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


class _Expansion:
    """What one operation becomes.

    Attributes:
        inputs: of the operation; "" for those that it leaves out.
        nodes: so far.
    """

    def __init__(self, node: onnx.NodeProto) -> None:
        self.node, self.nodes = node, list[Any]()
        self.inputs = [*node.input, *[""] * 9]

    def attribute(self, name: str, default: Any) -> Any:
        from patc.frontend.onnx_writer import attribute_of  # which reads files by what calls this

        return attribute_of(self.node, name, default)

    def emit(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        from onnx.helper import make_node

        trimmed = list(inputs)
        while trimmed and not trimmed[-1]:
            trimmed.pop()
        output = output or f"{self.node.output[0]}/{kind}_{len(self.nodes)}"
        self.nodes.append(make_node(kind, trimmed, [output], name=self.node.name, **attributes))
        return output

    def real(self, place: int, **attributes: Any) -> str:
        """Return the real numbers of an input, which its scale and zero point follow."""
        return self.emit("DequantizeLinear", *self.inputs[place : place + 3], **attributes)

    def finish(self, value: str, place: int) -> bool:
        """Make the result, for which a scale and a zero point are inputs; real numbers if they are left out."""
        ends, output = self.inputs[place : place + 2], self.node.output[0]
        if ends[0]:
            self.emit("QuantizeLinear", value, *ends, output=output)
        else:
            self.emit("Identity", value, output=output)
        return True

    def same(self, kind: str, operands: Sequence[str], place: int, *names: str) -> bool:
        """Make the result by an operation of ONNX that has some of the attributes."""
        given = {name: value for name in names if (value := self.attribute(name, None)) is not None}
        return self.finish(self.emit(kind, *operands, **given), place)


def _binary(kind: str) -> Callable[[_Expansion], bool]:
    return lambda made: made.same(kind, [made.real(0), made.real(3)], 6)


def _unary(kind: str, *names: str) -> Callable[[_Expansion], bool]:
    return lambda made: made.same(kind, [made.real(0)], 3, *names)


def _pool(kind: str, *names: str) -> Callable[[_Expansion], bool]:
    plain = _unary(kind, *names)
    return lambda made: not made.attribute("channels_last", 0) and plain(made)


def _concat(made: _Expansion) -> bool:
    count = (len(made.node.input) - 2) // 3
    return made.same("Concat", [made.real(2 + 3 * number) for number in range(count)], 0, "axis")


def _gemm(made: _Expansion) -> bool:
    a, b = made.real(0), made.real(3, axis=0 if made.attribute("transB", 0) else 1)
    operands = [a, b]
    alpha = made.attribute("alpha", 1.0)
    if made.inputs[6]:
        if alpha != 1:
            return False
        unit = made.emit("Mul", made.inputs[1], made.inputs[4])
        operands.append(made.emit("DequantizeLinear", made.inputs[6], unit, axis=0))
    return made.same("Gemm", operands, 7, "alpha", "transA", "transB")


def _integers(kind: str) -> Callable[[_Expansion], bool]:
    def rename(made: _Expansion) -> bool:
        given = {} if (axis := made.attribute("axis", None)) is None else {"axis": axis}
        made.emit(kind, *made.inputs[:3], output=made.node.output[0], **given)
        return True

    return rename


_WINDOW = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")
_RULES: dict[str, Callable[[_Expansion], bool]] = {
    "DequantizeLinear": _integers("DequantizeLinear"),
    "QGemm": _gemm,
    "QLinearAdd": _binary("Add"),
    "QLinearAveragePool": _pool("AveragePool", *_WINDOW),
    "QLinearConcat": _concat,
    "QLinearGlobalAveragePool": _pool("GlobalAveragePool"),
    "QLinearLeakyRelu": _unary("LeakyRelu", "alpha"),
    "QLinearMul": _binary("Mul"),
    "QLinearSigmoid": _unary("Sigmoid"),
    "QuantizeLinear": _integers("QuantizeLinear"),
}
