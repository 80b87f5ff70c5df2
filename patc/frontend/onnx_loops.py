"""Loops of ONNX that run as often as can be known: what they run, written that many times."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from patc.diagnostics import PatcError
from patc.frontend.onnx_files import all_graphs, captured_names, load_onnx
from patc.frontend.onnx_graph import OnnxGraph, unique, value_type

if TYPE_CHECKING:
    import onnx

_MOST_NODES = 1 << 14  # of a loop that is written out


def unroll(graph: OnnxGraph, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Return what a Loop or Scan runs, or itself where nobody knows how often.

    Raises:
        PatcError: it runs for too long.
    """
    body = next((attribute.g for attribute in node.attribute if attribute.name == "body"), None)
    trips = None if body is None else (_trips(graph, node, body) if node.op_type == "Loop" else _steps(graph, node))
    is_joined = trips == 0 and len(node.output) > len(node.input) - 2  # nothing, of which no shape is known
    if body is None or trips is None or is_joined:
        return [node]
    unrolled = _Unrolled(graph, node)
    run = unrolled.loop if node.op_type == "Loop" else unrolled.scan
    run(body, trips)
    return unrolled.nodes


def copy_body(
    body: onnx.GraphProto, given: Mapping[str, str], prefix: str, taken: set[str]
) -> tuple[list[onnx.NodeProto], list[str]]:
    """Return the nodes of a subgraph and the names of its results, for another place.

    Args:
        given: values in the place of those that the subgraph reads.
        prefix: of the names of what it makes.
        taken: the names that values of the model have; those of the copy are added.
    """
    names = dict(given)
    for output in (output for inner in body.node for output in inner.output if output):
        names[output] = unique(f"{prefix}/{output}", taken)
        taken.add(names[output])
    nodes = [type(inner).FromString(inner.SerializeToString()) for inner in body.node]
    for inner in nodes:
        rename(inner, names)
        inner.output[:] = [names.get(output, output) for output in inner.output]
    return nodes, [names.get(value.name, value.name) for value in body.output]


def rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Let a node, and what is inside, read other values."""
    inside = list(all_graphs(node))
    for owner in (node, *(inner for graph in inside for inner in graph.node)):
        for index, name in enumerate(owner.input):
            if name in names:
                owner.input[index] = names[name]
    for graph in inside:
        for value in graph.output:
            value.name = names.get(value.name, value.name)


class _Unrolled:
    """What a loop becomes.

    Attributes:
        nodes: so far.
    """

    def __init__(self, graph: OnnxGraph, node: onnx.NodeProto) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._graph, self._node = graph, node
        self._taken = graph.taken()

    def loop(self, body: onnx.GraphProto, trips: int) -> None:
        carried = list(self._node.input[2:])
        rank = len(value_type(body.input[0]).shape or ())
        parts: list[list[str]] = []
        for trip in range(trips):
            values = [self._constant(np.full([1] * rank, trip)), self._constant(np.array(True)), *carried]
            results = self._copy(body, values, trip)
            carried = results[1 : 1 + len(carried)]
            parts.append(results[1 + len(carried) :])
        self._finish(carried, list(zip(*parts, strict=True)), itertools.repeat(0))

    def scan(self, body: onnx.GraphProto, trips: int) -> None:
        count, axes, directions, result_axes, result_directions = _scan_attributes(self._node)
        carried, scanned = list(self._node.input[:-count]), list(self._node.input[-count:])
        parts: list[list[str]] = []
        for trip in range(trips):
            values = list(carried)
            for name, axis, is_reversed in zip(scanned, axes, directions, strict=False):
                place = self._constant(np.array(trips - 1 - trip if is_reversed else trip))
                values.append(self._emit("Gather", [name, place], f"{name}/{trip}", axis=axis))
            results = self._copy(body, values, trip)
            carried = results[: len(carried)]
            parts.append(results[len(carried) :])
        turned = [
            tuple(reversed(part)) if is_reversed else part
            for part, is_reversed in zip(zip(*parts, strict=True), result_directions, strict=False)
        ]
        self._finish(carried, turned, result_axes)

    def _copy(self, body: onnx.GraphProto, values: list[str], trip: int) -> list[str]:
        given = {value.name: name for value, name in zip(body.input, values, strict=False)}
        nodes, results = copy_body(body, given, f"{self._node.name}/{trip}", self._taken)
        self.nodes += nodes
        return results

    def _finish(self, carried: list[str], parts: list[tuple[str, ...]], axes: Iterable[int]) -> None:
        """Give the results their names, and put those of all trips together along their axes."""
        outputs = list(self._node.output)
        made = load_onnx().helper.make_node
        for name, output in zip(carried, outputs, strict=False):
            if output:
                self.nodes.append(made("Identity", [name], [output], name=self._node.name))
        for part, output, axis in zip(parts, outputs[len(carried) :], axes, strict=False):
            if output:
                place = self._constant(np.array([axis]))
                wide = [self._emit("Unsqueeze", [name, place], f"{name}/{output}") for name in part]
                self.nodes.append(made("Concat", wide, [output], name=self._node.name, axis=axis))

    def _emit(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        output = unique(f"{self._node.name}/{name}", self._taken)
        self._taken.add(output)
        self.nodes.append(load_onnx().helper.make_node(kind, inputs, [output], name=self._node.name, **attributes))
        return output

    def _constant(self, value: np.ndarray) -> str:
        name = unique(f"{self._node.name}/constant_{len(self._graph.constants)}", self._taken)
        self._taken.add(name)
        self._graph.constants[name] = value
        return name


def _scan_attributes(node: onnx.NodeProto) -> tuple[int, list[int], list[int], list[int], list[int]]:
    """Return how many inputs are scanned, their axes and directions, and those of the results."""
    given = {attribute.name: attribute for attribute in node.attribute}
    count = given["num_scan_inputs"].i
    rest = len(node.output) - (len(node.input) - count)
    words = itertools.product((("input", count), ("output", rest)), ("axes", "directions"))
    names = [(f"scan_{side}_{what}", size) for (side, size), what in words]
    axes, directions, result_axes, result_directions = (
        list(given[name].ints) if name in given else [0] * size for name, size in names
    )
    return count, axes, directions, result_axes, result_directions


def _steps(graph: OnnxGraph, node: onnx.NodeProto) -> int | None:
    """Return how long what a Scan reads is."""
    count, axes, *_ = _scan_attributes(node)
    if not 0 < count <= len(node.input):
        return None
    type_ = graph.types.get(node.input[-count])
    shape = () if type_ is None else type_.shape or ()
    steps = shape[axes[0]] if axes and -len(shape) <= axes[0] < len(shape) else None
    _check_length(graph, node, steps or 0)
    return steps


def _trips(graph: OnnxGraph, node: onnx.NodeProto, body: onnx.GraphProto) -> int | None:
    """Return how often a Loop runs: until a condition is false that depends on constants and counters alone."""
    from onnx.reference import ReferenceEvaluator

    onnx, constants = load_onnx(), graph.constants
    most, condition = ("", "") if len(node.input) < 2 else node.input[:2]
    if any(name and (name not in constants or constants[name].size != 1) for name in (most, condition)):
        return None
    limit = int(constants[most].reshape(-1)[0]) if most else None
    holds = bool(constants[condition].reshape(-1)[0]) if condition else True
    found = _condition(body)
    inputs = [value.name for value in body.input]
    state = dict(zip(inputs[2:], node.input[2:], strict=False))
    read = {name for inner in found for name in captured_names(inner)} | {body.output[0].name}
    outside = read - {output for inner in found for output in inner.output}
    if any(state.get(name, name) not in constants for name in outside - set(inputs[:2])):
        return None
    fed = {name: constants[state.get(name, name)] for name in outside - set(inputs[:2])}
    carried = {name: body.output[1 + place].name for place, name in enumerate(inputs[2:]) if name in fed}
    wanted = list(dict.fromkeys([body.output[0].name, *carried.values()]))
    names = [*dict.fromkeys([*inputs[:2], *fed])]
    infos = [[onnx.helper.make_empty_tensor_value_info(name) for name in part] for part in (names, wanted)]
    whole = onnx.helper.make_model(
        onnx.helper.make_graph(found, "condition", *infos), opset_imports=graph.model.opset_import
    )
    trips = 0
    try:
        evaluator = ReferenceEvaluator(whole)
        while holds and (limit is None or trips < limit):
            _check_length(graph, node, trips + 1)
            known = {**fed, **dict(zip(inputs, (np.array(trips), np.array(holds)), strict=False))}
            results = dict(zip(wanted, evaluator.run(None, known), strict=True))
            fed |= {name: np.asarray(results[result]) for name, result in carried.items()}
            holds, trips = bool(np.all(results[wanted[0]])), trips + 1
    except PatcError:
        raise
    except Exception:  # what the evaluator cannot compute is not known
        return None
    return trips


def _condition(body: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the nodes of a body that its condition depends on, in this trip or a later one."""
    results = {value.name: body.output[1 + place].name for place, value in enumerate(body.input[2:])}
    needed, kept = {body.output[0].name}, set[int]()
    while True:
        before = len(needed)
        needed |= {results[name] for name in needed if name in results}
        for index in reversed(range(len(body.node))):
            if not needed.isdisjoint(body.node[index].output):
                kept.add(index)
                needed |= captured_names(body.node[index])
        if len(needed) == before:
            return [body.node[index] for index in sorted(kept)]


def _check_length(graph: OnnxGraph, node: onnx.NodeProto, trips: int) -> None:
    body = next(attribute.g for attribute in node.attribute if attribute.name == "body")
    if trips * max(1, len(body.node)) > _MOST_NODES:
        expected = f"expected a {node.op_type} of at most {_MOST_NODES} operations in all its trips"
        raise PatcError(f"{expected}, found {trips} trips or more of {len(body.node)}", f"{graph.path}: {node.name}")
