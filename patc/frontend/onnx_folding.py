"""What of an ONNX graph does not depend on its inputs is computed: shape arithmetic, conditions, rearranged weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from patc.diagnostics import PatcError
from patc.frontend.onnx_files import load_onnx
from patc.frontend.onnx_graph import OnnxGraph, unique, value_type
from patc.frontend.onnx_loops import copy_body, rename, unroll
from patc.frontend.onnx_sequences import Sequences
from patc.passes.ir.ranges import lost_biases

if TYPE_CHECKING:
    import onnx

# Of all constants that a network computes of its weights, which are a few times as large as these; more than that takes
# the machine's memory.
_LEAST_ROOM, _ROOM = 1 << 30, 16
_ROUNDS = 64

RANDOM = {
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}
# Beside these: what runs as long as its subgraph says, works on text, or reads formats of files.
_KEPT = RANDOM | {
    "ImageDecoder",
    "Loop",
    "Optional",
    "RegexFullMatch",
    "Scan",
    "SequenceMap",
    "StringNormalizer",
    "StringSplit",
    "TfIdfVectorizer",
}
# Ops whose result has at most as many elements as their first input, even where its shape is not known.
_SHRINKING = {"Compress", "NonZero", "Squeeze", "Unique"}


def fold_constants(graph: OnnxGraph) -> None:
    """Compute what does not depend on the inputs, inline conditions that are known, and drop identities.

    Raises:
        PatcError: the constants take more memory than those of networks do.
    """
    folding = _Folding(graph)
    for _ in range(_ROUNDS):
        graph.infer()
        if not folding.run():
            return


class _Folding:
    def __init__(self, graph: OnnxGraph) -> None:
        self._graph = graph
        self._room = max(_LEAST_ROOM, _ROOM * sum(array.nbytes for array in graph.constants.values()))
        self._sequences = Sequences(graph)
        self._names: dict[str, str] = {}  # of values that are others

    def run(self) -> bool:
        """Go through all nodes once; return whether something changed."""
        kept, before = [], list(self._graph.nodes)
        for node in before:
            rename(node, self._names)
            kept += self._fold(node)
        for value in self._graph.model.graph.output:
            # What a caller knows keeps its name.
            if (source := self._names.get(value.name)) is not None:
                kept.append(load_onnx().helper.make_node("Identity", [source], [value.name], name=value.name))
        changed = len(kept) != len(before) or any(one is not other for one, other in zip(kept, before, strict=True))
        if changed:
            self._names = {}
            self._graph.replace_nodes(kept)
        return changed

    def _fold(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Return what a node becomes."""
        constants = self._graph.constants
        if not node.domain and node.op_type in ("Loop", "Scan"):
            return unroll(self._graph, node)
        if node.domain or node.op_type in _KEPT:
            return [node]
        if (found := self._sequences.fold(node)) is not None:
            return found
        if node.op_type in ("Identity", "Dropout") and self._is_identity(node):
            if node.output[0] in self._graph.outputs:
                return [node] if node.op_type == "Identity" else [_identity(node)]
            self._names[node.output[0]] = node.input[0]
            return []
        if node.op_type in ("Shape", "Size"):
            return self._shape(node)
        if node.op_type == "If":
            return self._branches(node)
        if any(node.input) and all(not name or name in constants for name in node.input):
            return [] if self._evaluate(node) else [node]
        return [node]

    def _is_identity(self, node: onnx.NodeProto) -> bool:
        if node.op_type == "Identity":
            return node.input[0] not in self._graph.constants or node.output[0] not in self._graph.outputs
        is_read = len(node.output) > 1 and node.output[1]
        training = self._graph.constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else False
        return not is_read and training is not None and not np.any(training)

    def _shape(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        type_ = self._graph.types.get(node.input[0])
        if type_ is None or not type_.is_static:
            return [node]
        ends = {attribute.name: attribute.i for attribute in node.attribute}
        sizes = np.array(type_.sizes, np.int64)
        value = sizes[ends.get("start", 0) : ends.get("end", len(sizes))] if node.op_type == "Shape" else sizes.prod()
        self._graph.constants[node.output[0]] = np.asarray(value, np.int64)
        return []

    def _branches(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Return the nodes of the branch that is taken, where that is known; or of both, and what selects."""
        condition = self._graph.constants.get(node.input[0])
        if condition is not None and condition.size == 1:
            name = "then_branch" if condition.reshape(-1)[0] else "else_branch"
            return self._inline(node, name, list(node.output))
        if condition is not None or not self._is_select(node):
            return [node]
        taken = self._graph.taken()
        names = [(unique(f"{name}/then", taken), unique(f"{name}/else", taken)) for name in node.output]
        then = self._inline(node, "then_branch", [one for one, _ in names])
        otherwise = self._inline(node, "else_branch", [other for _, other in names])
        make = load_onnx().helper.make_node
        pairs = zip(node.output, names, strict=True)
        chosen = [make("Where", [node.input[0], *both], [name], name=node.name) for name, both in pairs]
        return [*then, *otherwise, *chosen]

    def _is_select(self, node: onnx.NodeProto) -> bool:
        """Return whether both branches of an If make tensors of the same static types: then both may be computed."""
        results = [
            [self._graph.types.get(value.name) or value_type(value) for value in attribute.g.output]
            for attribute in node.attribute
        ]
        known = all(type_.is_static and type_.element for type_ in results[0]) if len(results) == 2 else False
        return known and results[0] == results[1]

    def _inline(self, node: onnx.NodeProto, attribute: str, outputs: list[str]) -> list[onnx.NodeProto]:
        """Return the nodes of a branch, whose results get the names of `outputs`."""
        branch = next((each.g for each in node.attribute if each.name == attribute), None)
        if branch is None or len(branch.output) != len(outputs):
            expected = f"expected If with a {attribute} of {len(outputs)} outputs"
            raise PatcError(f"{expected}, found another", f"{self._graph.path}: {node.name}")
        nodes, results = copy_body(branch, {}, f"{node.name}/{attribute}", self._graph.taken())
        make = load_onnx().helper.make_node
        pairs = zip(results, outputs, strict=True)
        return [*nodes, *(make("Identity", [one], [other], name=other) for one, other in pairs)]

    def _evaluate(self, node: onnx.NodeProto) -> bool:
        """Compute a node of constants; return whether that went well."""
        graph, outputs = self._graph, [name for name in node.output if name]
        inputs = {name: graph.constants[name] for name in node.input if name}
        shapes = [graph.types.get(name) for name in outputs]
        known = [type_.sizes for type_ in shapes if type_ is not None and type_.is_static]
        if node.op_type == "Range":  # whose shape onnx does not find where a bound is no scalar
            start, limit, step = (float(array.reshape(-1)[0]) for array in inputs.values())
            known = [(max(0, int((limit - start) / (step or 1))) + 1,)]
        if len(known) < len(outputs) and node.op_type not in _SHRINKING:
            return False
        size = sum(8 * int(np.prod(sizes, dtype=np.float64)) for sizes in known)
        if size > self._room:
            expected = f"expected at most {self._room / 1e9:.1f} GB of constants, for these weights"
            raise PatcError(
                f"{expected}, found {node.op_type} of {size / 1e9:.1f} GB more", f"{graph.path}: {node.name}"
            )
        results = _run(node, inputs, graph)
        if results is None:
            return False
        self._room -= size
        graph.constants.update(zip(outputs, results, strict=True))
        if node.op_type == "DequantizeLinear" and inputs[node.input[1]].dtype == np.float32:
            graph.steps.update(inputs[node.input[1]].ravel())
            if inputs[node.input[0]].dtype == np.int32:
                graph.biases |= lost_biases(inputs[node.input[0]], results[0])
        return True


def _run(node: onnx.NodeProto, inputs: dict[str, np.ndarray], graph: OnnxGraph) -> list[np.ndarray] | None:
    from onnx.reference import ReferenceEvaluator

    onnx = load_onnx()
    outputs = [onnx.helper.make_empty_tensor_value_info(name) for name in node.output if name]
    arguments = [onnx.helper.make_empty_tensor_value_info(name) for name in inputs]
    alone = onnx.helper.make_graph([node], "node", arguments, outputs)
    model = onnx.helper.make_model(alone, opset_imports=graph.model.opset_import)
    try:
        with np.errstate(all="ignore"):
            found: Any = ReferenceEvaluator(model).run(None, inputs)
    except Exception:  # what the evaluator cannot compute stays, and is refused where patc cannot either
        return None
    results = [
        np.ascontiguousarray(value).reshape(np.shape(value))
        for value in found
        if isinstance(value, (np.ndarray, np.generic))
    ]
    is_number = all(result.dtype.kind not in "OUSM" for result in results)
    return results if len(results) == len(found) and is_number else None


def _identity(node: onnx.NodeProto) -> onnx.NodeProto:
    return load_onnx().helper.make_node("Identity", [node.input[0]], [node.output[0]], name=node.name)
