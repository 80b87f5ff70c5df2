"""The copy of a model that is traced in its place."""

from __future__ import annotations

import contextlib
import copy
import functools
import linecache
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.fx import graph_module

# Copies of graphs have leaves of a class that torch itself has deprecated; it copies them where no memo reaches.
warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning, "copyreg")


class ForwardError(Exception):
    """Stands for an error of the model's own code, its cause; torch prints parts of the graph about some others."""


def copy_for_tracing(model: nn.Module) -> nn.Module:
    """Return a copy of a model over the same tensors; what its forward raises comes as a `ForwardError`.

    Tracing puts stand-ins into the modules' places for tensors, and another thread may be running the model. A model
    that cannot be copied is returned as it is.
    """
    modules = list(model.modules())
    attributes = [value for module in modules for value in vars(module).values() if isinstance(value, torch.Tensor)]
    memo: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers(), *attributes)}
    try:
        twin = copy.deepcopy(model, memo)
    except Exception:  # whatever the model's own attributes raise
        return model
    vars(twin)["forward"] = _explained(twin, twin.forward)
    return twin


def _explained(model: nn.Module, forward: Any) -> Any:
    @functools.wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            with _attributes_kept(model):
                return forward(*args, **kwargs)
        except Exception as error:
            raise ForwardError(str(error)) from error

    return run


@contextlib.contextmanager
def _attributes_kept(model: nn.Module) -> Iterator[None]:
    """Put back the attributes that forward sets, as hooks of `torch.nn.utils.prune` do; torch would warn of them."""
    before = [(vars(module), dict(vars(module))) for module in model.modules()]
    try:
        yield
    finally:
        for attributes, values in before:
            for name in attributes.keys() - values.keys():
                del attributes[name]
            attributes.update(values)


@contextlib.contextmanager
def forgetting_sources() -> Iterator[None]:
    """Drop the Python text of the graphs that are made meanwhile: torch keeps all of it, 18 texts for each import of a
    net, for tracebacks that nobody will see."""
    kept = getattr(getattr(graph_module, "_loader", None), "eval_cache", {})  # not public: it may be elsewhere one day
    known = set(kept)
    try:
        yield
    finally:
        for name in set(kept) - known:
            kept.pop(name, None)
            linecache.cache.pop(name, None)
