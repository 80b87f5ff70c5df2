"""Models by a word: a network of `patc.models`, or what a function of the user's own Python code builds.

resnet18                    patc.models
net.py:build                the function `build` of a file
torchvision.models:resnet50 a function of an installed module
net.param                   a file of ncnn
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from patc.diagnostics import PatcError, nearest
from patc.files import check_regular
from patc.python_files import naming_errors, run_file

if TYPE_CHECKING:  # `is_factory` is asked before torch is loaded
    from torch import Tensor, nn

    from patc.checkpoints import Weights

_FACTORY = re.compile(r"(?P<place>.+\.py|[A-Za-z_]\w*(\.[A-Za-z_]\w*)*):(?P<name>[A-Za-z_]\w*)")


@dataclass(frozen=True)
class Built:
    """A model in eval mode with what it takes.

    Attributes:
        inputs: tensors in the order of `forward`'s arguments or by their names; None where nothing says them.
    """

    model: nn.Module
    inputs: tuple[Tensor, ...] | dict[str, Tensor] | None

    def with_shape(self, shape: tuple[int, ...] | None, name: str) -> Built:
        """Return the model with one float32 input of `shape`; without one, with the inputs that it came with.

        Raises:
            PatcError: there are neither.
        """
        import torch

        if shape is not None:
            return replace(self, inputs=(torch.zeros(shape),))
        if self.inputs is None:
            raise PatcError("expected --input-shape, or a function that returns (model, inputs); got neither", name)
        return self

    @property
    def tensors(self) -> list[Tensor]:
        """The inputs in their order; none where nothing says them."""
        return list(self.inputs.values() if isinstance(self.inputs, dict) else self.inputs or ())


def is_factory(name: str) -> bool:
    """Return whether a word has the form FILE.py:function or module:function."""
    return _FACTORY.fullmatch(name) is not None


def build(name: str, weights: Weights | None = None, seed: int = 0) -> Built:
    """Return the model that a word stands for.

    A function is called without arguments. It returns a module, or a module and its inputs: a tensor, a tuple of
    tensors, or a dictionary of them. What it draws at random, it draws from `seed`.

    Raises:
        PatcError: there is no such network, file or function, its code raises, it returns something else, or `weights`
            do not fit.
    """
    import torch

    from patc import models
    from patc.checkpoints import load_checkpoint, read_checkpoint

    if name.lower().endswith(".param"):
        return _build_ncnn(Path(name), weights)
    if not is_factory(name):
        return Built(models.build(name, weights, seed), (torch.zeros(models.find(name).input_shape),))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = _as_built(name, call(name))
    if weights is not None:
        load_checkpoint(built.model, read_checkpoint(weights))
    built.model.eval()
    return built


def _build_ncnn(path: Path, weights: Weights | None) -> Built:
    from patc.checkpoints import load_checkpoint, read_checkpoint
    from patc.frontend.ncnn import has_shapes, load_net, net_inputs

    net = load_net(path)
    if weights is not None:
        load_checkpoint(net, read_checkpoint(weights))
    return Built(net, tuple(net_inputs(net).values()) if has_shapes(net) else None)


def call(name: str, code: str = "the model's code") -> Any:
    """Return what a function of a file or module returns, called without arguments, or a module that it names.

    Args:
        name: FILE.py:function or module:function.
        code: how lines about its errors call it.

    Raises:
        PatcError: there is no such file, module or function, or its code raises.
    """
    from torch import nn

    match = _FACTORY.fullmatch(name)
    assert match is not None, "is_factory says so"
    module = _load_module(match["place"], code)
    if not hasattr(module, match["name"]):
        known = [word for word, value in vars(module).items() if callable(value) and not word.startswith("_")]
        raise PatcError(
            f"expected a function '{match['name']}', found none{nearest(match['name'], known)}", match["place"]
        )
    value = getattr(module, match["name"])
    if isinstance(value, nn.Module) or not callable(value):
        return value
    with naming_errors(code, match["place"]):
        return value()


def _load_module(place: str, code: str) -> ModuleType:
    """Return a module of Python code, whose folder (of a module: the current one) it may import from."""
    path = Path(place)
    is_file = place.endswith(".py")
    if is_file:
        check_regular(path, "a Python file")
    folder = str(path.resolve().parent) if is_file else ""
    if folder not in sys.path:
        sys.path.insert(0, folder)
    with naming_errors(code, place):
        if not is_file:
            return importlib.import_module(place)
        return run_file(path)


def _as_built(name: str, value: Any) -> Built:
    from torch import Tensor, nn

    model, inputs = value if isinstance(value, tuple) and len(value) == 2 else (value, None)
    if not isinstance(model, nn.Module):
        found = type(model).__name__
        raise PatcError(f"expected a torch.nn.Module, or one and its inputs, found a {found}", name)
    if isinstance(inputs, Tensor):
        inputs = (inputs,)
    if isinstance(inputs, Mapping):
        inputs = dict(inputs)
    if isinstance(inputs, list):
        inputs = tuple(inputs)
    built = Built(model, inputs)
    is_known = inputs is None or isinstance(inputs, (tuple, dict))
    if not is_known or not all(isinstance(tensor, Tensor) for tensor in built.tensors):
        raise PatcError(f"expected inputs that are tensors beside the model, found a {type(value[1]).__name__}", name)
    return built
