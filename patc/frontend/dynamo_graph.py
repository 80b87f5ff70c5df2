"""The graphs that dynamo hands over: what their arguments are, and graphs with parameters and sizes in place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import xxhash
from torch import Tensor, fx, nn

# Where dynamo found a parameter: L['self']._modules['conv1']._parameters['weight'].
_STEP = re.compile(r"\['(\w+)'\]|\.(\w+)")
# What dynamo calls the model: inside its own forward, and inside the wrapper around one of torch's modules.
_ROOTS = (["self"], ["fn"])
_STORES = ("_modules", "_parameters", "_buffers")


class BoundGraph(nn.Module):
    """A graph with its parameters and sizes in place; it takes the tensors that are left.

    Args:
        graph: what to run.
        parameters: by name, with dots between the names of modules.
        names: argument number -> name of the parameter.
        sizes: argument number -> value.
    """

    def __init__(
        self,
        graph: fx.GraphModule,
        parameters: Mapping[str, Tensor],
        names: Mapping[int, str],
        sizes: Mapping[int, Any],
    ) -> None:
        super().__init__()
        for name, tensor in parameters.items():
            _register(self, name.split("."), tensor)
        self._names, self._sizes = names, sizes
        # In a tuple, so that it is no submodule: its parameters are here.
        self._graph = (graph,)

    def forward(self, *inputs: Tensor) -> Any:
        graph, rest = self._graph[0], iter(inputs)
        arguments = []
        for place in range(len(graph.graph.find_nodes(op="placeholder"))):
            if place in self._names:
                arguments.append(_find(self, self._names[place]))
            else:
                arguments.append(self._sizes[place] if place in self._sizes else next(rest))
        # What dynamo noted about layers and source lines goes with the operations.
        with fx.traceback.preserve_node_meta():
            return fx.Interpreter(graph).run(*arguments)


def is_parameter(node: fx.Node) -> bool:
    """Return whether an argument is a parameter or buffer of a module, not an input of the user."""
    argument = node.meta.get("grapharg")
    if argument is not None and argument.is_tensor and isinstance(argument.example, nn.Parameter):
        return True
    return any(f".{store}[" in _source(node) for store in _STORES[1:])


def is_scalar(node: fx.Node) -> bool:
    """Return whether an argument is a number of Python that dynamo hands over as a tensor, as with dynamic shapes."""
    return bool(getattr(node.meta.get("grapharg"), "pass_arg_as_tensor", False))


def parameter_name(node: fx.Node) -> str:
    """Return the name in the state dict, or where there is none that of the argument."""
    return _path(_source(node)) or node.name


def name_layers(nodes: Iterable[fx.Node]) -> None:
    """Give the modules around nodes the names they have in the model: conv1 for L['self'].conv1."""
    for node in nodes:
        stack = node.meta.get("nn_module_stack")
        if stack:
            node.meta["nn_module_stack"] = {key: (_path(path), kind) for key, (path, kind) in stack.items()}


def content(tensor: Tensor) -> tuple[Any, ...]:
    """Return what changes when the numbers of a tensor do, by whatever way: many raise no version."""
    if tensor.layout != torch.strided or tensor.device.type == "meta":
        return (id(tensor),)  # patc refuses it
    plain = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    return tuple(plain.shape), plain.dtype, xxhash.xxh3_128_digest(plain.reshape(-1).view(torch.uint8).numpy())


def _source(node: fx.Node) -> str:
    argument = node.meta.get("grapharg")
    source = getattr(argument, "source", None)
    name = getattr(source, "name", "")
    return name() if callable(name) else name


def _path(expression: str) -> str:
    """Return an expression of dynamo as a path below the model."""
    steps = [first or second for first, second in _STEP.findall(expression)]
    start = 1 if steps[:1] in _ROOTS else 0
    return ".".join(step for step in steps[start:] if step not in _STORES)


def _register(module: nn.Module, path: list[str], tensor: Tensor) -> None:
    for name in path[:-1]:
        if name not in module._modules:
            module.add_module(name, nn.Module())
        module = module._modules[name]
    if isinstance(tensor, nn.Parameter):
        module.register_parameter(path[-1], tensor)
    else:
        module.register_buffer(path[-1], tensor)


def _find(module: Any, name: str) -> Any:
    for step in name.split("."):
        module = getattr(module, step)
    return module
