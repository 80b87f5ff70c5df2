"""`torch.compile(model, backend="patc")`.

torch finds the backend through the entry point `patc` of the group `torch_dynamo_backends`. It hands over one graph for
each part of the model that it could trace, with the parameters as arguments: they become constants of the compiled
code. When one of them changes, or when the shapes do, the next call compiles anew: each call reads all weights for
that, which took 6 ms for the 45 MB of ResNet-18 and 60 ms for the 550 MB of VGG-16 on a Sapphire Rapids core.
With the option `freeze`, as inductor's `freezing`, they are taken once and not looked at again.

What patc cannot compile torch runs: the operations themselves where they are known, and the graph between them goes to
patc in parts; else the whole graph, as where gradients are wanted. A warning says so, once for each reason.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch._guards import tracing

from patc.diagnostics import PatcError
from patc.frontend.dynamo_graph import BoundGraph, content, is_parameter, is_scalar, name_layers, parameter_name
from patc.frontend.operations import mark_calls
from patc.frontend.partition import EAGER, shared_views, split
from patc.frontend.unsupported import UnsupportedOperations
from patc.locks import compiling
from patc.options import make_options

OPTIONS = ("target", "threads", "tune", "dtype", "freeze")
_SAID: set[str] = set()

Run = Callable[..., Any]


class EagerWarning(UserWarning):
    """Something of a model that torch runs, not patc, and why."""


def backend(
    graph: fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    options: Mapping[str, Any] | None = None,
    mode: str | None = None,
) -> Callable[..., Any]:
    """Compile a graph of dynamo, for inference.

    What cannot be compiled is left to torch, with an `EagerWarning`: operations that patc does not know, graphs in
    training mode or that write to their arguments, graphs with gradients, and more shapes than
    `torch._dynamo.config.recompile_limit`.

    Args:
        graph: torch functions; its parameters and buffers are arguments.
        example_inputs: the arguments, tensors and sizes that may be symbolic.
        options: those of `torch.compile`: `target`, `threads`, `tune` and `dtype`, see `patc.compile`; and `freeze`,
            with which later changes of parameters and buffers do not count.
        mode: that of `torch.compile`; patc has none.

    Raises:
        PatcError: an option that patc does not have; torch wraps it into its BackendCompilerFailed.
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
    make_options(**known)
    name_layers(graph.graph.nodes)
    compiled = _CompiledGraph(graph, known, freeze)
    arguments = [_hint(value) for value in example_inputs]
    if None not in arguments:
        with tracing(None):
            compiled.prepare(arguments)
    return compiled


class _CompiledGraph(nn.Module):
    """A graph as a callable on its arguments; it compiles for the parameters and shapes that it is called with.

    Args:
        graph: what to compile.
        options: of `patc.compile`.
        freeze: whether the parameters of the first call count for all.
    """

    def __init__(self, graph: fx.GraphModule, options: dict[str, Any], freeze: bool) -> None:
        super().__init__()
        self._graph = graph
        self._options = options
        self._freeze = freeze
        nodes = graph.graph.find_nodes(op="placeholder")
        self._constants = [place for place, node in enumerate(nodes) if is_parameter(node)]
        self._inputs = [place for place in range(len(nodes)) if place not in set(self._constants)]
        self._names = [parameter_name(nodes[place]) for place in self._constants]
        self._scalars = {place for place, node in enumerate(nodes) if is_scalar(node)}
        # The contents of the parameters, and what to call by shape; replaced as one, since other threads may be
        # calling.
        self._compiled: tuple[tuple[Any, ...] | None, dict[tuple[Any, ...], Run]] = (None, {})
        # What to call for all shapes, once the graph is in parts.
        self._parts: Run | None = None
        views = shared_views(graph.graph)
        if views:
            self._parts = self._split(views)

    def forward(self, *arguments: Any) -> Any:
        if torch.is_grad_enabled() and any(_needs_gradient(value) for value in arguments):
            _say("gradients are wanted; call it under torch.no_grad()")
            return self._graph(*arguments)
        return self.prepare(arguments)(*arguments)

    def prepare(self, arguments: Sequence[Any]) -> Run:
        """Return what computes the graph for these parameters and shapes, from the last time or compiled anew."""
        if self._parts is not None:
            return self._parts
        models, key = self._models(arguments), tuple(_shape_of(value) for value in self._values(arguments))
        if key not in models:
            with compiling():
                if key not in models and self._parts is None:
                    models[key] = self._compile(arguments, len(models))
        return self._parts or models[key]

    def _models(self, arguments: Sequence[Any]) -> dict[tuple[Any, ...], Run]:
        """Return what was compiled for the parameters as they are now; that for earlier ones is dropped."""
        contents, models = self._compiled
        if contents is None or not self._freeze:
            now = tuple(content(arguments[place]) for place in self._constants)
            if now != contents:
                models = {}
                self._compiled = (now, models)
        return models

    def _compile(self, arguments: Sequence[Any], shapes: int) -> Run:
        """Return what computes the graph for some arguments, or the graph itself.

        Args:
            shapes: how many it is compiled for already.
        """
        limit = torch._dynamo.config.recompile_limit
        if shapes >= limit:
            _say(f"more than {limit} shapes, which is torch._dynamo.config.recompile_limit")
            return self._graph
        try:
            return self._compile_whole(arguments)
        except UnsupportedOperations as error:
            _say(str(error))
            self._parts = self._split(error.calls) if error.calls else self._graph
            return self._parts
        except PatcError as error:
            _say(str(error))
            return self._graph

    def _compile_whole(self, arguments: Sequence[Any]) -> Run:
        from patc.compiler import compile_model

        for value in arguments:
            if isinstance(value, Tensor) and value.device.type != "cpu":
                raise PatcError(f"expected tensors on the CPU, got one on {value.device}")
        mark_calls(self._graph.graph)
        parameters = {name: arguments[place] for name, place in zip(self._names, self._constants, strict=True)}
        values = dict(zip(self._inputs, self._values(arguments), strict=True))
        sizes = {place: value for place, value in values.items() if not isinstance(value, Tensor)}
        module = BoundGraph(self._graph, parameters, dict(zip(self._constants, self._names, strict=True)), sizes)
        model = compile_model(module.eval(), self._tensors(arguments), **self._options)
        return lambda *values: model(*self._tensors(values))

    def _split(self, calls: frozenset[str]) -> Run:
        """Return the graph in parts, of which torch runs some calls, or the graph itself."""
        parts = split(self._graph, calls)
        if parts is None:
            return self._graph
        for name, part in list(parts.named_children()):
            if isinstance(part, fx.GraphModule) and not name.startswith(EAGER):
                parts.add_submodule(name, _CompiledGraph(part, self._options, self._freeze))
        return parts

    def _tensors(self, arguments: Sequence[Any]) -> tuple[Tensor, ...]:
        return tuple(value.detach() for value in self._values(arguments) if isinstance(value, Tensor))

    def _values(self, arguments: Sequence[Any]) -> list[Any]:
        """Return inputs, with numbers as objects that are none of torch's and still have `item`."""
        return [
            np.float64(arguments[place].item()) if place in self._scalars else arguments[place]
            for place in self._inputs
        ]


def _say(reason: str) -> None:
    """Warn of what torch runs, once for each reason."""
    if reason not in _SAID:
        _SAID.add(reason)
        warnings.warn(f"patc leaves a part of a model to torch: {reason}", EagerWarning, stacklevel=2)


def _hint(value: Any) -> Any:
    """Return an example argument as it may be in a call; None for a size of which nothing is known."""
    return value.node.hint if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)) else value


def _needs_gradient(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _shape_of(value: Any) -> Any:
    return value.shape if isinstance(value, Tensor) else value
