"""Quantised parts of ONNX graphs as the layers that they stand for, on real numbers that are integers of eight bits.

What integers stand for is followed from where they are made, by QuantizeLinear or by layers on integers, through all
that only moves them, to where they are taken as real numbers again. Between two layers then is one operation, patc's
`Requantise`, in which `pattern-quantize` sees that the numbers are integers. What is not followed is arithmetic, see
`patc.frontend.onnx_quantised`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from patc.dialects.quantised import Quantisation
from patc.frontend.held import describe_integers
from patc.frontend.onnx_files import load_onnx
from patc.frontend.onnx_graph import OnnxGraph
from patc.frontend.onnx_writer import Writer, attribute_of
from patc.passes.ir.ranges import lost_biases

if TYPE_CHECKING:
    import onnx

# What gives the elements of its first input, or of all of them, other places, or takes some of them.
_MOVES = {
    "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Reshape", "Resize", "Slice",
    "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
}  # fmt: skip
_LEAST_RANK = 2


@dataclass(frozen=True)
class Real:
    """The real numbers of a value of integers.

    Attributes:
        name: of the value that has them.
        given: what the integers stand for.
        is_moved: whether they were moved since a `Requantise` made them.
    """

    name: str
    given: Quantisation
    is_moved: bool = False


def follow_reals(graph: OnnxGraph) -> bool:
    """Let layers compute on real numbers, in place; return whether there were some.

    Args:
        graph: with types; where something was replaced it has to be simplified, and to get types, again.
    """
    if not any(node.op_type in ("QuantizeLinear", "QLinearConv", "QLinearMatMul") for node in graph.nodes):
        return False
    following = _Following(graph)
    for node in list(graph.nodes):
        following.add(node)
    if following.changes:
        graph.replace_nodes(following.writer.nodes)
    return following.changes


class _Following:
    """The nodes of a graph, written anew.

    Attributes:
        changes: whether they are others.
    """

    def __init__(self, graph: OnnxGraph) -> None:
        self.writer, self.changes = Writer(graph), False
        self._graph = graph
        self._reals: dict[str, Real] = {}

    def add(self, node: onnx.NodeProto) -> None:
        writer, rule = self.writer, _RULES.get(node.op_type)
        writer.name = node.name
        names = [name for name in (*node.input, *node.output) if name]
        types = [self._graph.types.get(name) for name in names]
        result = None
        if not node.domain and all(type_ is not None and type_.is_static for type_ in types):
            if rule is not None:
                result = rule(self, node)
            elif node.op_type in _MOVES:
                self._move(node)
        if result is None:
            writer.nodes.append(node)
            return
        self.changes = True
        writer.nodes.append(load_onnx().helper.make_node("Identity", [result], [node.output[0]], name=node.name))

    def quantise(self, node: onnx.NodeProto) -> None:
        """Remember the numbers that integers are made of, and let these be made for whoever reads them."""
        x, scale, zero = (*node.input, "")[:3]
        given = self._integers(scale, zero, node.output[0])
        if given is not None and self._is_f32(x) and not attribute_of(node, "block_size", 0):
            self._remember(node.output[0], x, given)

    def dequantise(self, node: onnx.NodeProto) -> str | None:
        """Return the numbers that integers were made of."""
        x, scale, zero = (*node.input, "")[:3]
        given = self._integers(scale, zero, x)
        if given is None or not self._is_f32(node.output[0]) or attribute_of(node, "block_size", 0):
            return None
        if x not in self._reals and x not in {value.name for value in self._graph.model.graph.input}:
            return None
        known = self._real(x, scale, zero, given)
        return None if known is None else known.name

    def product(self, node: onnx.NodeProto) -> str | None:
        """Return the integers of a layer with constant weights, of the real numbers that it computes."""
        x, x_scale, x_zero, w, w_scale, w_zero, scale, zero, bias = (*node.input, "")[:9]
        given = self._integers(x_scale, x_zero, x)
        known = None if given is None else self._real(x, x_scale, x_zero, given)
        made, is_matmul = self._integers(scale, zero, node.output[0]), node.op_type == "QLinearMatMul"
        if (
            known is None
            or made is None
            or known.given != given
            or len(self.writer.sizes(node.output[0])) < _LEAST_RANK
        ):
            return None
        constants = [self._graph.constants.get(name) for name in (w, w_scale, w_zero) if name]
        offset = self._graph.constants.get(bias) if bias else None
        if any(array is None for array in constants) or (bias and offset is None):
            return None
        integers, scales = (np.asarray(array) for array in constants[:2])
        zeros = np.asarray(constants[2]) if w_zero else np.zeros((), np.int8)
        if scales.dtype != np.float32 or (is_matmul and (integers.ndim != 2 or max(scales.ndim, zeros.ndim) > 1)):
            return None
        filters = integers.shape[1 if is_matmul else 0]
        if any(array.size not in (1, filters) for array in (scales, zeros)):
            return None
        spread = (-1,) if is_matmul else (-1, *[1] * (integers.ndim - 1))
        whole = integers.astype(np.int32) - zeros.astype(np.int32).reshape(spread)
        if abs(whole).max(initial=0) > 128:
            return None
        weight = self.writer.constant(whole.astype(np.float32) * scales.reshape(spread))
        self._graph.steps.update(scales.ravel())
        operands = [known.name, weight]
        if offset is not None:
            unit = np.float32(known.given.scale) * scales.reshape(-1)
            added = offset.astype(np.float32) * unit
            self._graph.biases |= lost_biases(offset, added)
            operands.append(self.writer.constant(added))
        real = self.writer.emit("MatMul" if is_matmul else "Conv", *operands, attributes=node.attribute)
        self._remember(node.output[0], real, made)
        return self.writer.emit("QuantizeLinear", real, *filter(None, (scale, zero)))

    def _real(self, x: str, scale: str, zero: str, given: Quantisation) -> Real | None:
        """Return the numbers of integers; None where they stand for others, or cannot be quantised."""
        sizes = self.writer.sizes(x)
        if x not in self._reals and len(sizes) >= _LEAST_RANK and 0 not in sizes:
            numbers = self.writer.emit("DequantizeLinear", x, *filter(None, (scale, zero)))
            self._reals[x] = Real(self._requantise(numbers, given, sizes), given)
        known = self._reals.get(x)
        if known is None or known.given != given:
            return None
        if known.is_moved:
            # Whoever reads them sees that they are integers, wherever they were moved.
            self._remember(x, known.name, given)
        return self._reals[x]

    def _move(self, node: onnx.NodeProto) -> None:
        """Move real numbers as a node moves their integers."""
        count = len(node.input) if node.op_type == "Concat" else 1
        known = [self._reals.get(name) for name in node.input[:count]]
        first = known[0] if known else None
        if first is None or any(each is None or each.given != first.given for each in known):
            return
        if (node.op_type == "MaxPool" and len(node.output) > 1) or not _copies(node):
            return
        operands = [each.name for each in known if each is not None] + list(node.input[count:])
        made = self.writer.emit_all(node.op_type, len(node.output), *operands, attributes=node.attribute)
        for name, output in zip(made, node.output, strict=True):
            if output:
                self._reals[output] = Real(name, first.given, is_moved=True)

    def _remember(self, integers: str, x: str, given: Quantisation) -> None:
        sizes = self.writer.sizes(integers)
        if len(sizes) >= _LEAST_RANK and 0 not in sizes:
            self._reals[integers] = Real(self._requantise(x, given, sizes), given)

    def _requantise(self, x: str, given: Quantisation, sizes: tuple[int, ...]) -> str:
        return self.writer.emit_layer("Requantise", [x], describe_integers(given), [sizes])[0]

    def _integers(self, scale: str, zero: str, integers: str) -> Quantisation | None:
        """Return what integers of eight bits with one constant scale and zero point stand for."""
        kinds, constants = self.writer.kinds, self._graph.constants
        element = self.writer.element(integers)
        scales, zeros = constants.get(scale), constants.get(zero) if zero else np.zeros(1, np.int8)
        if element not in (kinds.INT8, kinds.UINT8) or scales is None or zeros is None:
            return None
        if scales.size != 1 or zeros.size != 1 or scales.dtype != np.float32 or not 0 < scales.ravel()[0] < np.inf:
            return None
        return Quantisation(float(scales.ravel()[0]), int(zeros.ravel()[0]), element == kinds.INT8)

    def _is_f32(self, name: str) -> bool:
        return self.writer.element(name) == self.writer.kinds.FLOAT


def _copies(node: onnx.NodeProto) -> bool:
    """Return whether a node that moves numbers does nothing else."""
    is_nearest = attribute_of(node, "mode", b"nearest") == b"nearest"
    beyond = attribute_of(node, "coordinate_transformation_mode", b"") == b"tf_crop_and_resize"
    return node.op_type != "Resize" or (is_nearest and not beyond)


_RULES = {
    "QuantizeLinear": _Following.quantise,
    "DequantizeLinear": _Following.dequantise,
    "QLinearConv": _Following.product,
    "QLinearMatMul": _Following.product,
}
