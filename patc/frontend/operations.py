"""Which operations of a decomposed torch graph cannot be compiled whatever torch-mlir makes of them.

A graph is checked before it is imported, so that a model's unsupported operations are listed all at once, as
the user wrote them, with their source lines. What torch-mlir does not know is found later, see `patc.frontend.torch`.
"""

from __future__ import annotations

import contextlib
import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import Node

from patc.frontend.modules import describe_dtype
from patc.frontend.source import describe_place, layer_path, node_location, operation_name, source_place
from patc.frontend.unsupported import UnsupportedOperations
from patc.numerics import TORCH_TYPES

aten = torch.ops.aten
_MARK = "patc.call"


@dataclass
class _Unsupported:
    """Uses of one operation that cannot be compiled: why, its calls in the user's graph, and where they are.

    A call's place is its source line, or its layer where only torch's modules, as nn.Sequential, lead to it.
    """

    reasons: dict[str, None] = field(default_factory=dict)
    calls: set[str] = field(default_factory=set)
    marks: set[str] = field(default_factory=set)  # see `call_of`
    places: dict[str, None] = field(default_factory=dict)  # as `reasons`, a set that keeps the order

    def describe(self, name: str) -> str:
        reason = f" ({', '.join(self.reasons)})" if "" not in self.reasons else ""
        places = f" ({', '.join(self.places)})" if self.places else ""
        return f"{name}{reason} x{len(self.calls)}{places}"


def check_operations(graph: torch.fx.Graph, constants: set[Node]) -> None:
    """Require that every operation on activations can be compiled.

    Args:
        graph: aten operations, decomposed.
        constants: the nodes that do not depend on the model's inputs, see `constant_nodes`.

    Raises:
        UnsupportedOperations: names all operations that cannot, with their counts and source lines.
    """
    found: dict[str, _Unsupported] = {}
    for node in graph.nodes:
        if node.op != "call_function" or node in constants:
            continue
        reason = _find_fault(node)
        if reason is not None:
            _record(found.setdefault(operation_name(node), _Unsupported()), node, reason)
    if found:
        listed = ", ".join(uses.describe(name) for name, uses in found.items())
        raise UnsupportedOperations(listed, calls=frozenset().union(*(uses.marks for uses in found.values())))


def call_of(node: Node) -> str | None:
    """Return what `mark_calls` called the node of an earlier graph that a node was made of; None without a mark."""
    mark: str | None = (node.meta.get("custom") or {}).get(_MARK)
    return mark


def mark_calls(graph: torch.fx.Graph) -> None:
    """Give nodes their own names as marks, which go with them through tracing and decomposition."""
    for node in graph.nodes:
        node.meta["custom"] = {**(node.meta.get("custom") or {}), _MARK: node.name}


@contextlib.contextmanager
def naming_calls(graph: torch.fx.Graph, context: Any) -> Iterator[None]:
    """Let what is raised about ops of torch-mlir name the calls that they were made of.

    Args:
        graph: of which they were imported.
        context: MLIR's.
    """
    try:
        yield
    except UnsupportedOperations as error:
        marks = {call_of(node) for node in graph.nodes if str(node_location(node, context)) in error.places}
        error.calls |= {mark for mark in marks if mark is not None}
        raise


def constant_nodes(graph: torch.fx.Graph, inputs: set[str]) -> set[Node]:
    """Return the nodes whose values do not depend on the placeholders named in `inputs`."""
    constants: set[Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder":
            constant = node.name not in inputs
        elif node.op == "call_function":
            constant = _is_pure(node.target) and all(used in constants for used in node.all_input_nodes)
        else:
            constant = node.op == "get_attr"
        if constant:
            constants.add(node)
    return constants


def shape_of(node: Node) -> list[int]:
    """Return the shape of a node's tensor."""
    return list(node.meta["val"].shape)


def _is_pure(target: Any) -> bool:
    if target is operator.getitem:
        return True
    is_overload = isinstance(target, torch._ops.OpOverload)
    return is_overload and torch.Tag.nondeterministic_seeded not in target.tags


def _record(uses: _Unsupported, node: Node, reason: str) -> None:
    origin = node.meta.get("from_node")
    place = source_place(node)
    uses.reasons[reason] = None
    uses.calls.add(origin[-1].name if origin else node.name)
    mark = call_of(node)
    if mark is not None:
        uses.marks.add(mark)
    where = describe_place(place) if place is not None else _layer(node)
    if where:
        uses.places[where] = None


def _layer(node: Node) -> str:
    path = layer_path(node)
    return f"layer {path}" if path else ""


def _find_fault(node: Node) -> str | None:
    """Return why a node cannot be compiled, in a word or two or "", or None for one without a known fault."""
    if not _is_pure(node.target):
        return ""  # as torch.rand or torch.cond
    if node.target in (aten.clamp.default, aten.hardtanh.default):
        return _check_clamp(node)
    return _check_result(node)


def _check_clamp(node: Node) -> str | None:
    bounds = [bound for bound in (*node.args[1:], *node.kwargs.values()) if isinstance(bound, float)]
    return "a bound that is NaN" if any(math.isnan(bound) for bound in bounds) else _check_result(node)


def _check_result(node: Node) -> str | None:
    """Take tensors of known types and shapes; what follows from another one is not another fault."""
    known = [_describe_fault(value) is None for used in node.all_input_nodes for value in _tensors(used)]
    faults = [fault for value in _tensors(node) if (fault := _describe_fault(value)) is not None]
    return faults[0] if faults and all(known) else None


def _describe_fault(value: torch.Tensor) -> str | None:
    if describe_dtype(value.dtype) not in TORCH_TYPES:
        return f"{describe_dtype(value.dtype)} result"
    is_static = all(isinstance(size, int) for size in value.shape)
    return None if is_static else "a shape that depends on values"


def _tensors(node: Node) -> list[torch.Tensor]:
    value = node.meta.get("val")
    values = value if isinstance(value, (tuple, list)) else [value]
    return [each for each in values if isinstance(each, torch.Tensor)]


ARITHMETIC = (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor)
