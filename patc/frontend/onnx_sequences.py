"""Sequences of ONNX whose parts are known: lists of tensors that a loop fills and something joins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from patc.frontend.onnx_files import load_onnx
from patc.frontend.onnx_graph import OnnxGraph, unique
from patc.frontend.onnx_writer import attribute_of

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class _Part:
    """A tensor of a sequence.

    Attributes:
        name: of a value: the tensor, or what it is cut out of.
        bounds: of what is cut out; None for the whole.
        axis: that it is cut along.
        is_squeezed: whether that axis goes.
    """

    name: str
    bounds: tuple[int, int] | None = None
    axis: int = 0
    is_squeezed: bool = False


class Sequences:
    """The sequences of a graph."""

    def __init__(self, graph: OnnxGraph) -> None:
        self._graph = graph
        self._parts: dict[str, list[_Part]] = {}

    def fold(self, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        """Return what a node becomes that makes or reads a sequence; None for others, and where that is not known.

        What makes sequences stays for readers that are not known.
        """
        made, kind = self._make(node), node.op_type
        if made is not None:
            self._parts[node.output[0]] = made
            return [node]
        known = self._parts.get(node.input[0]) if node.input else None
        if known is None:
            return None
        if kind == "SequenceLength":
            self._graph.constants[node.output[0]] = np.array(len(known))
            return []
        if kind == "SequenceAt":
            place = self._graph.constants.get(node.input[1])
            if place is None or not -len(known) <= int(place) < len(known):
                return None
            return self._read(known[int(place)], node.output[0], node, self._graph.taken())
        return self._join(node, known) if kind == "ConcatFromSequence" and known else None

    def _make(self, node: onnx.NodeProto) -> list[_Part] | None:
        """Return the parts of a sequence that a node makes."""
        if node.op_type in ("SequenceEmpty", "SequenceConstruct"):
            return list(map(_Part, node.input))
        if node.op_type == "SplitToSequence":
            return self._split(node)
        known = self._parts.get(node.input[0]) if node.input else None
        if known is None or node.op_type == "Identity":
            return known
        return self._change(node, list(known)) if node.op_type in ("SequenceInsert", "SequenceErase") else None

    def _change(self, node: onnx.NodeProto, known: list[_Part]) -> list[_Part] | None:
        """Return parts with one more, or one less, at a place that is the end by default."""
        is_more, count = node.op_type == "SequenceInsert", len(known)
        names = list(node.input[1 + is_more :])
        place = self._graph.constants.get(names[0]) if names and names[0] else np.array(count if is_more else count - 1)
        if place is None or not -count <= int(place) < count + is_more:
            return None
        if is_more:
            known.insert(int(place), _Part(node.input[1]))
        else:
            del known[int(place)]
        return known

    def _split(self, node: onnx.NodeProto) -> list[_Part] | None:
        graph, axis = self._graph, attribute_of(node, "axis", 0)
        type_, (x, *names) = graph.types.get(node.input[0]), node.input
        split = graph.constants.get(names[0]) if names and names[0] else np.array(1)
        if type_ is None or not type_.is_static or split is None or not split.all():
            return None
        size = type_.sizes[axis]
        starts = [0, *np.cumsum(split)[:-1].tolist()] if split.ndim else list(range(0, size, int(split)))
        # Single elements lose the axis also where exporters say that they are single, as in ONNX Runtime.
        is_squeezed = not attribute_of(node, "keepdims", 1) and not split.ndim and int(split) == 1
        bounds = zip(starts, [*starts[1:], size], strict=True)
        return [_Part(x, each, axis, is_squeezed) for each in bounds]

    def _join(self, node: onnx.NodeProto, known: list[_Part]) -> list[onnx.NodeProto]:
        axis, taken, nodes, names = attribute_of(node, "axis", 0), self._graph.taken(), [], []
        place = self._constant([axis], node, taken)
        for part in known:
            name = self._name(node, taken)
            nodes += self._read(part, name, node, taken)
            if attribute_of(node, "new_axis", 0):
                wide = self._name(node, taken)
                nodes.append(_node("Unsqueeze", [name, place], wide, node))
                name = wide
            names.append(name)
        return [*nodes, _node("Concat", names, node.output[0], node, axis=axis)]

    def _read(self, part: _Part, output: str, node: onnx.NodeProto, taken: set[str]) -> list[onnx.NodeProto]:
        """Return what makes a tensor of a part."""
        if part.bounds is None:
            return [_node("Identity", [part.name], output, node)]
        start, end = part.bounds
        if part.is_squeezed:
            return [_node("Gather", [part.name, self._constant(start, node, taken)], output, node, axis=part.axis)]
        bounds = [self._constant([each], node, taken) for each in (start, end, part.axis)]
        return [_node("Slice", [part.name, *bounds], output, node)]

    def _name(self, node: onnx.NodeProto, taken: set[str]) -> str:
        name = unique(f"{node.name}/{len(taken)}", taken)
        taken.add(name)
        return name

    def _constant(self, value: Any, node: onnx.NodeProto, taken: set[str]) -> str:
        name = self._name(node, taken)
        self._graph.constants[name] = np.array(value, np.int64)
        return name


def _node(kind: str, inputs: list[str], output: str, node: onnx.NodeProto, **attributes: Any) -> onnx.NodeProto:
    return load_onnx().helper.make_node(kind, inputs, [output], name=node.name, **attributes)
