"""`torch.compile(model, backend="patc")`.

torch finds the backend through the entry point `patc` of the group `torch_dynamo_backends`. It hands over one graph for
each part of the model that it could trace, with the parameters as arguments: they become constants of the compiled
code. When one of them changes, or when the shapes do, the next call compiles anew: each call reads all weights for
that, which took 6 ms for the 45 MB of ResNet-18 and 60 ms for the 550 MB of VGG-16 on a Sapphire Rapids core.
With the option `freeze`, as inductor's `freezing`, they are taken once and not looked at again.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor, fx, nn
from torch._guards import tracing

from patc.diagnostics import PatcError
from patc.locks import compiling

OPTIONS = ("target", "threads", "tune", "dtype", "freeze")
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
        options: those of `torch.compile`: `target`, `threads`, `tune` and `dtype`, see `patc.compile`; and `freeze`,
            with which later changes of parameters and buffers do not count.
        mode: that of `torch.compile`; patc has none.

    Raises:
        PatcError: an operation, input or option that patc cannot compile; torch wraps it into its BackendCompilerFailed
            and, with `torch._dynamo.config.suppress_errors`, runs the graph itself. Where shapes are symbolic it comes
            from the first call with some shapes, and the graph runs itself under the same condition, with a warning.
    """
    if mode is not None:
        raise PatcError(f"expected no mode for backend 'patc', got '{mode}'; options are {', '.join(OPTIONS)}")
    known = dict(options or {})
    for name in known:
        if name not in OPTIONS:
            raise PatcError(f"expected options of {', '.join(OPTIONS)}, got '{name}'")
    freeze = known.pop("freeze", False)
    if not isinstance(freeze, bool):
        raise PatcError(f"expected option freeze to be True or False, got {freeze!r}")
    compiled = _CompiledGraph(graph, known, freeze)
    if all(isinstance(value, Tensor) and _is_static(value) for value in example_inputs):
        # Errors are best found now: torch can still run the graph itself.
        with tracing(None):
            compiled.compile(example_inputs)
    return compiled


class _CompiledGraph:
    """A graph as a callable on its arguments; it compiles for the parameters and shapes that it is called with.

    Args:
        graph: what to compile.
        options: of `patc.compile`.
        freeze: whether the parameters of the first call count for all.
    """

    def __init__(self, graph: fx.GraphModule, options: dict[str, Any], freeze: bool) -> None:
        self._graph = graph
        self._options = options
        self._freeze = freeze
        for node in graph.graph.nodes:
            _name_layers(node)
        nodes = graph.graph.find_nodes(op="placeholder")
        self._constants = [place for place, node in enumerate(nodes) if _is_parameter(node)]
        self._inputs = [place for place in range(len(nodes)) if place not in set(self._constants)]
        self._names = [_parameter_name(nodes[place]) for place in self._constants]
        self._scalars = {place for place, node in enumerate(nodes) if _is_scalar(node)}
        # The contents of the parameters, and the models compiled for them by shape; replaced as one, since other
        # threads may be calling.
        self._compiled: tuple[tuple[Any, ...] | None, dict[tuple[Any, ...], Any]] = (None, {})

    def __call__(self, *arguments: Any) -> Sequence[Any]:
        try:
            model = self.compile(arguments)
        except PatcError as error:
            if not torch._dynamo.config.suppress_errors:
                raise
            warnings.warn(f"torch runs a graph that patc cannot compile: {error}", stacklevel=2)
            model = self._models(arguments)[self._key(arguments)] = self._graph
        if model is self._graph:
            return self._graph(*arguments)

        def run(*values: Any) -> Sequence[Any]:
            outputs: Sequence[Any] = model(*self._tensors(values))
            return outputs

        if torch.is_grad_enabled() and any(_needs_gradient(value) for value in arguments):
            recorded: Sequence[Any] = _WithoutBackward.apply(run, *arguments)
            return recorded
        return run(*arguments)

    def compile(self, arguments: Sequence[Any]) -> Any:
        """Return the model that is compiled for these parameters and shapes, from the last time or anew.

        It is the graph where an earlier call found that patc cannot compile it.
        """
        models, key = self._models(arguments), self._key(arguments)
        if key not in models:
            with compiling():
                if key not in models:
                    models[key] = self._compile(arguments)
        return models[key]

    def _key(self, arguments: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(_shape_of(value) for value in self._values(arguments))

    def _models(self, arguments: Sequence[Any]) -> dict[tuple[Any, ...], Any]:
        """Return the models compiled for the parameters as they are now; those for earlier ones are dropped."""
        contents, models = self._compiled
        if contents is None or not self._freeze:
            now = tuple(_content(arguments[place]) for place in self._constants)
            if now != contents:
                models = {}
                self._compiled = (now, models)
        return models

    def _compile(self, arguments: Sequence[Any]) -> Any:
        from patc.compiler import compile_model

        parameters = {name: arguments[place] for name, place in zip(self._names, self._constants, strict=True)}
        values = dict(zip(self._inputs, self._values(arguments), strict=True))
        sizes = {place: value for place, value in values.items() if not isinstance(value, Tensor)}
        module = _BoundGraph(self._graph, parameters, dict(zip(self._constants, self._names, strict=True)), sizes)
        return compile_model(module.eval(), self._tensors(arguments), **self._options)

    def _tensors(self, arguments: Sequence[Any]) -> tuple[Tensor, ...]:
        return tuple(value.detach() for value in self._values(arguments) if isinstance(value, Tensor))

    def _values(self, arguments: Sequence[Any]) -> list[Any]:
        """Return inputs, with numbers as objects that are none of torch's and still have `item`."""
        return [
            np.float64(arguments[place].item()) if place in self._scalars else arguments[place]
            for place in self._inputs
        ]


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


def _is_scalar(node: fx.Node) -> bool:
    """Return whether an argument is a number of Python that dynamo hands over as a tensor, as with dynamic shapes."""
    return bool(getattr(node.meta.get("grapharg"), "pass_arg_as_tensor", False))


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


def _content(tensor: Tensor) -> tuple[Any, ...]:
    """Return what changes when the numbers of a tensor do, by whatever way: many raise no version."""
    if tensor.layout != torch.strided or tensor.device.type == "meta":
        return (id(tensor),)  # patc refuses it
    plain = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    return tuple(plain.shape), plain.dtype, xxhash.xxh3_128_digest(plain.reshape(-1).view(torch.uint8).numpy())


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
