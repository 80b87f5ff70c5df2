"""Graphs of torch functions in parts: those that patc compiles, and those between them that torch runs."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor, fx
from torch.fx.passes.split_module import split_module

from patc.frontend.modules import describe_dtype
from patc.numerics import TORCH_TYPES

EAGER = "eager_"


def split(graph: fx.GraphModule, calls: frozenset[str]) -> fx.GraphModule | None:
    """Return a module of parts of a graph, one behind the other; those that torch runs have names with `EAGER`.

    Args:
        graph: of dynamo, whose nodes say their values; getters of parts of tuples move to these.
        calls: names of the nodes that torch has to run; so it does with those that need what patc has no numbers for.

    Returns:
        None where nothing is left to compile, or a tensor is written to in another part than it is used in.
    """
    _gather_getters(graph.graph)
    numbers: dict[str, int] = {}
    number, was_eager = 0, False
    for node in graph.graph.nodes:
        if node.op in ("placeholder", "output", "get_attr"):
            continue
        is_eager = node.name in calls or not all(map(_is_known, _tensors_of(node)))
        number += is_eager != was_eager
        numbers[node.name], was_eager = number, is_eager
    if not any(number % 2 == 0 for number in numbers.values()) or _writes_across(graph.graph, numbers):
        return None
    parts = split_module(graph, graph, lambda node: numbers.get(node.name, 0), keep_original_order=True)
    for name, _ in list(parts.named_children()):
        if name.startswith("submod_") and int(name.removeprefix("submod_")) % 2:
            parts.add_submodule(EAGER + name, parts.get_submodule(name))
            for node in parts.graph.find_nodes(op="call_module", target=name):
                node.target = EAGER + name
            delattr(parts, name)
    parts.recompile()
    return parts


def shared_views(graph: fx.Graph) -> frozenset[str]:
    """Return the nodes that make results share memory with arguments or other results: copies would not."""
    (output,) = graph.find_nodes(op="output")
    returned = Counter(_storage(node) for node in dict.fromkeys(output.all_input_nodes))
    arguments = {_storage(node) for node in graph.find_nodes(op="placeholder")}
    shared = {storage for storage, count in returned.items() if storage and (count > 1 or storage in arguments)}
    return frozenset(
        node.name for node in graph.nodes if _storage(node) in shared and (node.op == "placeholder" or _is_view(node))
    )


def _gather_getters(graph: fx.Graph) -> None:
    """Put the getters of a tuple's parts behind what makes the tuple, so that only tensors go between parts."""
    for node in graph.nodes:
        if node.target is operator.getitem and isinstance(node.args[0].meta.get("example_value"), (tuple, list)):
            node.args[0].append(node)


def _writes_across(graph: fx.Graph, numbers: dict[str, int]) -> bool:
    """Return whether a node writes to memory that nodes of another part read: a part has copies of what it gets."""
    users: dict[int, set[int]] = {}
    written: set[int] = set()
    for node in graph.nodes:
        for used in node.all_input_nodes:
            storage = _storage(used)
            if storage and node.name in numbers:
                users.setdefault(storage, set()).add(numbers[node.name])
                if _writes(node):
                    written.add(storage)
    return any(len(users[storage]) > 1 for storage in written)


def _writes(node: fx.Node) -> bool:
    name = getattr(node.target, "__name__", str(node.target))
    is_in_place = name.endswith("_") and not name.endswith("__")
    return is_in_place or name in ("setitem", "__setitem__") or "out" in node.kwargs or bool(node.kwargs.get("inplace"))


def _is_view(node: fx.Node) -> bool:
    return any(_storage(used) == _storage(node) for used in node.all_input_nodes)


def _tensors_of(node: fx.Node) -> Iterator[Tensor]:
    for used in (node, *node.all_input_nodes):
        value = used.meta.get("example_value")
        values = value if isinstance(value, (tuple, list)) else [value]
        yield from (each for each in values if isinstance(each, Tensor))


def _is_known(value: Tensor) -> bool:
    return describe_dtype(value.dtype) in TORCH_TYPES


def _storage(node: fx.Node) -> int:
    """Return a number for the memory of a node's tensor; 0 where it has none."""
    value = node.meta.get("example_value")
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        return 0
    return int(value.untyped_storage()._cdata)
