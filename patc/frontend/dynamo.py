"""`torch.compile(model, backend="patc")`.

torch finds the backend through the entry point `patc` of the group `torch_dynamo_backends`. It hands over one graph for
each part of the model that it could trace, with the parameters as arguments: they become constants of the compiled
code. When one of them changes, or when the shapes do, the next call compiles anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._guards import tracing

from patc.diagnostics import PatcError

OPTIONS = ("target", "threads", "tune", "dtype")
# Where dynamo found a parameter: L['self']._modules['conv1']._parameters['weight'].
_STEP = re.compile(r"\['(\w+)'\]|\.(\w+)")
# What dynamo calls the model: inside its own forward, and inside the wrapper around one of torch's modules.
_ROOTS = (["self"], ["fn"])
_STORES = ("_modules", "_parameters", "_buffers")


def backend(
    graph: fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    options: Mapping[str, Any] | None = None,
    mode: str | None = None,
) -> Callable[..., Sequence[Any]]:
    """Compile a graph of dynamo, for inference.

    Args:
        graph: torch functions; its parameters and buffers are arguments.
        example_inputs: the arguments, tensors and sizes that may be symbolic.
        options: those of `torch.compile`: `target`, `threads`, `tune` and `dtype`, see `patc.compile`.
        mode: that of `torch.compile`; patc has none.

    Raises:
        PatcError: an operation, input or option that patc cannot compile; torch wraps it into its BackendCompilerFailed
            and, with `torch._dynamo.config.suppress_errors`, runs the graph itself.
    """
    if mode is not None:
        raise PatcError(f"expected no mode for backend 'patc', got '{mode}'; options are {', '.join(OPTIONS)}")
    known = dict(options or {})
    for name in known:
        if name not in OPTIONS:
            raise PatcError(f"expected options of {', '.join(OPTIONS)}, got '{name}'")
    compiled = _CompiledGraph(graph, known)
    if all(isinstance(value, Tensor) and _is_static(value) for value in example_inputs):
        # Errors are best found now: torch can still run the graph itself.
        with tracing(None):
            compiled.compile(example_inputs)
    return compiled


class _CompiledGraph:
    """A graph as a callable on its arguments; it compiles for the parameters and shapes that it is called with."""

    def __init__(self, graph: fx.GraphModule, options: dict[str, Any]) -> None:
        self._graph = graph
        self._options = options
        for node in graph.graph.nodes:
            _name_layers(node)
        nodes = graph.graph.find_nodes(op="placeholder")
        self._constants = [place for place, node in enumerate(nodes) if _is_parameter(node)]
        self._inputs = [place for place in range(len(nodes)) if place not in set(self._constants)]
        self._names = [_parameter_name(nodes[place]) for place in self._constants]
        self._state: tuple[Any, ...] = ()
        self._by_shape: dict[tuple[Any, ...], Any] = {}

    def __call__(self, *arguments: Any) -> Sequence[Any]:
        if torch.is_grad_enabled() and any(_needs_gradient(value) for value in arguments):
            outputs: Sequence[Any] = _WithoutBackward.apply(self._run, *arguments)
            return outputs
        return self._run(*arguments)

    def compile(self, arguments: Sequence[Any]) -> Any:
        """Return the model that is compiled for these parameters and shapes, from the last time or anew."""
        state = tuple(_identify(arguments[place]) for place in self._constants)
        if state != self._state:
            self._by_shape.clear()
            self._state = state
        key = tuple(_shape_of(arguments[place]) for place in self._inputs)
        if key not in self._by_shape:
            self._by_shape[key] = self._compile(arguments)
        return self._by_shape[key]

    def _run(self, *arguments: Any) -> Sequence[Any]:
        compiled = self.compile(arguments)
        outputs: Sequence[Any] = compiled(*self._tensors(arguments))
        return outputs

    def _compile(self, arguments: Sequence[Any]) -> Any:
        from patc.compiler import compile_model

        parameters = {name: arguments[place] for name, place in zip(self._names, self._constants, strict=True)}
        sizes = {place: arguments[place] for place in self._inputs if not isinstance(arguments[place], Tensor)}
        module = _BoundGraph(self._graph, parameters, dict(zip(self._constants, self._names, strict=True)), sizes)
        return compile_model(module.eval(), self._tensors(arguments), **self._options)

    def _tensors(self, arguments: Sequence[Any]) -> tuple[Tensor, ...]:
        values = (arguments[place] for place in self._inputs)
        return tuple(value.detach() for value in values if isinstance(value, Tensor))


class _BoundGraph(nn.Module):
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


class _WithoutBackward(torch.autograd.Function):
    """Runs a compiled graph where autograd expects to get gradients, which there are none of."""

    @staticmethod
    def forward(ctx: Any, run: Callable[..., Sequence[Any]], *arguments: Any) -> tuple[Any, ...]:
        return tuple(run(*arguments))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise PatcError("patc compiles for inference only, got a call of backward; use torch.no_grad()")


def _is_static(value: Tensor) -> bool:
    return all(isinstance(size, int) for size in value.shape)


def _needs_gradient(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _is_parameter(node: fx.Node) -> bool:
    """Return whether an argument is a parameter or buffer of a module, not an input of the user."""
    argument = node.meta.get("grapharg")
    if argument is not None and argument.is_tensor and isinstance(argument.example, nn.Parameter):
        return True
    return any(f".{store}[" in _source(node) for store in _STORES[1:])


def _source(node: fx.Node) -> str:
    argument = node.meta.get("grapharg")
    source = getattr(argument, "source", None)
    name = getattr(source, "name", "")
    return name() if callable(name) else name


def _parameter_name(node: fx.Node) -> str:
    """Return the name in the state dict, or where there is none that of the argument."""
    return _path(_source(node)) or node.name


def _name_layers(node: fx.Node) -> None:
    """Give the modules around a node the names they have in the model: conv1 for L['self'].conv1."""
    stack = node.meta.get("nn_module_stack")
    if stack:
        node.meta["nn_module_stack"] = {key: (_path(path), kind) for key, (path, kind) in stack.items()}


def _path(expression: str) -> str:
    """Return an expression of dynamo as a path below the model."""
    steps = [first or second for first, second in _STEP.findall(expression)]
    start = 1 if steps[:1] in _ROOTS else 0
    return ".".join(step for step in steps[start:] if step not in _STORES)


def _identify(tensor: Tensor) -> tuple[Any, ...]:
    """Return what changes when a tensor or its values do."""
    version = 0 if tensor.is_inference() else tensor._version
    return id(tensor), tensor.data_ptr(), version


def _shape_of(value: Any) -> Any:
    return value.shape if isinstance(value, Tensor) else value


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
