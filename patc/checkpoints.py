"""Checkpoints as people have them: a state dict, or what a training loop saved with one in it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from patc.diagnostics import PatcError, first_line, some
from patc.files import check_regular
from patc.torch_files import find_fault, load_data

PathLike = str | os.PathLike[str]
StateDict = dict[str, Tensor]

SAFETENSORS = ".safetensors"
# Of `torch.save`: .ckpt is Lightning's, .bin that of transformers, .tar that of torchvision's old .pth.tar.
_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".tar", SAFETENSORS)
_ADVICE = ": save model.state_dict(), or --trust-pickle reads it and runs what code it may hold"
# What training loops call the weights, averaged ones first: those are meant for inference.
_AVERAGED = re.compile(r"(^|_)ema(_|$)")
_ENTRIES = ("state_dict", "model_state_dict", "model_state", "model", "params", "network", "net", "weights")
# torch.compile's wrapper, wherever it is in the model.
_COMPILED = "_orig_mod."


@dataclass(frozen=True)
class Checkpoint:
    """The weights of a model.

    Attributes:
        state: tensors by name, as in the file.
        path: of the file; None for weights that came from none.
        entry: of the file's dictionary that holds them; None where the file is a state dict.
        others: entries that hold state dicts too.
    """

    state: StateDict
    path: str | None = None
    entry: str | None = None
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        more = f"; {', '.join(map(repr, self.others))} left alone" if self.others else ""
        return f"{self.path}: weights of '{self.entry}'{more}" if self.entry else str(self.path)


Weights = PathLike | StateDict | Checkpoint


def read_checkpoint(weights: Weights, trust_pickle: bool = False) -> Checkpoint:
    """Return the weights in a file: its tensors, or those of an entry, such as 'model' beside 'epoch' and 'optimizer'.

    Args:
        weights: a file of `torch.save`, named .pth, .pt, .ckpt, .bin or .tar, or a .safetensors file; a state dict or
            checkpoint is what it is.
        trust_pickle: read a file of `torch.save` by unpickling, which runs code that it may hold; a whole module will
            do.

    Raises:
        PatcError: the file is missing, unreadable, or holds something else.
    """
    if isinstance(weights, Checkpoint):
        return weights
    if isinstance(weights, dict):
        return Checkpoint(weights)
    path = str(weights)
    loaded = _read(path, trust_pickle)
    entry: str | None = None
    others: list[str] = []
    if isinstance(loaded, dict) and not _is_state_dict(loaded):
        entry, others = _choose_entry(loaded, path)
    state = loaded if entry is None else loaded[entry]
    state = state.state_dict() if isinstance(state, nn.Module) else state
    if not isinstance(state, dict):
        raise PatcError(f"expected a state dict, found a {type(state).__name__}", path)
    for name, value in state.items():
        found = find_fault(name, value)
        if found is not None:
            raise PatcError(f"expected a state dict of tensors, found {found}", path)
    return Checkpoint(state, path, entry, tuple(others))


def load_checkpoint(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Copy weights into a model; prefixes that wrappers around it gave to their names go.

    Raises:
        PatcError: an entry is missing, unexpected, or of another shape or kind; the model is as it was.
    """
    own = model.state_dict()
    state = _without_wrappers(checkpoint.state, own)
    for name, tensor in state.items():
        if name in own and own[name].shape != tensor.shape:
            raise PatcError(f"expected '{name}' of shape {_shape(own[name])}, found {_shape(tensor)}", checkpoint.path)
        if name in own and own[name].is_floating_point() and not tensor.is_floating_point():
            found = str(tensor.dtype).removeprefix("torch.")
            raise PatcError(f"expected '{name}' of floating-point numbers, found {found}", checkpoint.path)
    # Checkpoints from before PyTorch 0.4.1 (torchvision's resnet18-5c106cde.pth is one) lack this buffer.
    missing = [name for name in own if name not in state and not _is_counter(name)]
    unexpected = [name for name in state if name not in own]
    if missing or unexpected:
        raise PatcError(
            f"expected the {len(own)} entries of {type(model).__name__}; "
            f"missing {some(missing)}; unexpected {some(unexpected)}",
            checkpoint.path,
        )
    for name, tensor in own.items():
        if _is_counter(name):
            tensor.zero_()
    model.load_state_dict(state, strict=False)


def safetensors_bytes(state: Mapping[str, Tensor]) -> bytes:
    """Return a state dict as a .safetensors file has it; tensors that share memory are written one by one."""
    from safetensors.torch import save

    return save({name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()})


def _read(path: str, trust_pickle: bool) -> Any:
    suffix = Path(path).suffix.lower()
    if suffix not in _SUFFIXES:
        known = f"{', '.join(_SUFFIXES[:-1])} or {_SUFFIXES[-1]}"
        raise PatcError(f"expected a file named {known}, found '{Path(path).suffix}'", path)
    if suffix == SAFETENSORS:
        return _read_safetensors(path)
    return _unpickle(path) if trust_pickle else load_data(path, "state dict", _ADVICE)


def _read_safetensors(path: str) -> StateDict:
    from safetensors.torch import load_file

    check_regular(path, "a state dict file")
    try:
        return load_file(path)
    except Exception as error:  # what it raises is not documented
        raise PatcError(f"expected a readable state dict, found: {first_line(error)}", path) from None


def _unpickle(path: str) -> Any:
    check_regular(path, "a state dict file")
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # whatever the file's own code raises
        raise PatcError(f"expected a readable state dict, found: {first_line(error)}", path) from error


def _is_state_dict(value: Any) -> bool:
    if isinstance(value, nn.Module):
        return True
    return isinstance(value, dict) and bool(value) and all(isinstance(part, Tensor) for part in value.values())


def _choose_entry(loaded: dict[Any, Any], path: str) -> tuple[str | None, list[str]]:
    """Return the entry that holds the weights, None where none does, and the others that hold a state dict."""
    found = [name for name, value in loaded.items() if isinstance(name, str) and _is_state_dict(value)]
    averaged = [name for name in found if _AVERAGED.search(name)]
    known = [*averaged, *(name for name in _ENTRIES if name in found)]
    if not known and len(found) > 1:
        raise PatcError(f"expected one state dict, found {len(found)}: {some(found)}; save the one to take", path)
    entry = next(iter(known or found), None)
    return entry, [name for name in found if name != entry]


def _without_wrappers(state: StateDict, own: Iterable[str]) -> StateDict:
    """Return the tensors by the model's names: DistributedDataParallel puts 'module.' in front of them, Lightning the
    attribute that the model is, and what such wrappers hold beside the model is not the model's."""
    state = {name.replace(_COMPILED, ""): tensor for name, tensor in state.items()}
    needed = [name for name in own if not _is_counter(name)]
    if not needed or all(name in state for name in needed):
        return state
    for name in state:
        prefix = name.removesuffix(needed[0])
        if prefix != name and prefix.endswith(".") and all(prefix + part in state for part in needed):
            return {name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)}
    return state


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _shape(tensor: Tensor) -> str:
    return "x".join(str(size) for size in tensor.shape) or "scalar"
