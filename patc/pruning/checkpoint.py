"""Checkpoints of training runs: read as data, and each field checked before a run goes on from it.

What a field must be follows from the run: the state of a model or an optimizer is compared with that of its own.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from patc.diagnostics import PatcError
from patc.torch_files import find_fault, load_data

_MASKS = range(1, 512)


def read_checkpoint(path: str | os.PathLike[str], needed: Collection[str]) -> dict[str, Any]:
    """Return what `save_state` wrote.

    Args:
        needed: the fields that a checkpoint of this kind has.

    Raises:
        PatcError: the file is missing, unreadable, or no such checkpoint.
    """
    if not os.path.exists(path):
        raise PatcError("expected the checkpoint of a run, found no such file", str(path))
    state = load_data(path, "checkpoint")
    if not isinstance(state, dict) or "model" not in state:
        raise PatcError("expected the checkpoint of a run, found another file", str(path))
    missing = next((name for name in needed if name not in state), None)
    if missing is not None:
        raise PatcError(f"expected the checkpoint of a run with '{missing}', found none", str(path))
    return state


class Fault(Exception):
    """A field is not what it has to be."""

    def __init__(self, place: str, expected: str, found: object) -> None:
        super().__init__(f"expected '{place}' to be {expected}, found {describe(found)}")


@contextmanager
def blamed(path: str | os.PathLike[str]) -> Iterator[None]:
    """Make errors of a `PatcError` that names the file out of what is wrong with its fields.

    Raises:
        PatcError: as said.
    """
    try:
        yield
    except Fault as error:
        raise PatcError(str(error), str(path)) from None
    except PatcError as error:
        raise PatcError(error.message, str(path)) from None


def check_number(place: str, value: Any, least: float, most: float = math.inf) -> None:
    """Require a finite number of a range; whole where `least` is an int.

    Raises:
        Fault: it is none.
    """
    kinds = int if isinstance(least, int) else (int, float)
    kind = "whole number" if isinstance(least, int) else "finite number"
    bounds = "" if math.isinf(least) else f" of {least} or more" if math.isinf(most) else f" from {least} to {most}"
    if (
        isinstance(value, bool)
        or not isinstance(value, kinds)
        or not math.isfinite(value)
        or not least <= value <= most
    ):
        raise Fault(place, f"a {kind}{bounds}", value)


def check_list(place: str, value: Any, length: int | None = None) -> None:
    """Require a list or tuple, of a length where one is given.

    Raises:
        Fault: it is none.
    """
    if not isinstance(value, (list, tuple)) or length not in (None, len(value)):
        raise Fault(place, "a list" if length is None else f"a list of {length}", value)


def check_dict(place: str, value: Any, keys: Collection[Any] | None = None) -> None:
    """Require a dictionary, with exactly these keys where they are given.

    Raises:
        Fault: it is none, or which key is missing or too much.
    """
    if not isinstance(value, dict):
        raise Fault(place, "a dictionary", value)
    if keys is None:
        return
    for key in keys:
        if key not in value:
            raise Fault(place, f"a dictionary with '{key}'", Words("none"))
    extra = next((key for key in value if key not in keys), None)
    if extra is not None or len(value) != len(keys):
        raise Fault(place, f"a dictionary of {len(keys)} keys", Words(f"also {describe(extra)}"))


def check_tensor(place: str, value: Any, like: Tensor) -> None:
    """Require a tensor of finite numbers, of the shape and element type of another.

    Raises:
        Fault: it is none.
    """
    found = find_fault(place, value)
    expected = f"a tensor of {_shape(like)} {str(like.dtype).removeprefix('torch.')}"
    if found is not None:
        raise Fault(place, expected, Words(found))
    if value.shape != like.shape or value.dtype != like.dtype:
        raise Fault(place, expected, value)
    if value.is_floating_point() and not bool(torch.isfinite(value).all()):
        raise Fault(place, "finite", Words("NaN or infinity"))


def check_model(place: str, value: Any, model: nn.Module) -> None:
    """Require the state dict of a model like this one.

    Raises:
        Fault: a tensor is missing, too much, or another one.
    """
    own = model.state_dict()
    check_dict(place, value, own)
    for name, tensor in own.items():
        check_tensor(f"{place}.{name}", value[name], tensor)


def check_optimizer(place: str, value: Any, optimizer: torch.optim.Optimizer) -> None:
    """Require the state of an optimizer like this one, of parameters like these.

    Raises:
        Fault: a part is missing or another one.
    """
    check_dict(place, value, ("state", "param_groups"))
    own = optimizer.state_dict()["param_groups"]
    check_list(f"{place}.param_groups", value["param_groups"], len(own))
    for index, group in enumerate(own):
        part = f"{place}.param_groups.{index}"
        check_dict(part, value["param_groups"][index], group)
        for name, wanted in group.items():
            found = value["param_groups"][index][name]
            if name == "lr":
                check_number(f"{part}.lr", found, 0.0)
            elif repr(found) != repr(wanted):
                raise Fault(f"{part}.{name}", repr(wanted)[:60], found)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    # The tensors that each of the two optimizers keeps a parameter, and which of them are squares.
    momenta = ("exp_avg", "exp_avg_sq") if isinstance(optimizer, torch.optim.AdamW) else ("momentum_buffer",)
    check_dict(f"{place}.state", value["state"])
    for key, moments in value["state"].items():
        part = f"{place}.state.{key}"
        if isinstance(key, bool) or not isinstance(key, int) or not 0 <= key < len(parameters):
            raise Fault(f"{place}.state", f"of parameters 0 to {len(parameters) - 1}", key)
        check_dict(part, moments, (*momenta, "step") if len(momenta) > 1 else momenta)
        for name in momenta:
            check_tensor(f"{part}.{name}", moments[name], parameters[key].detach())
        if len(momenta) > 1:
            check_tensor(f"{part}.step", moments["step"], torch.zeros(()))
            check_number(f"{part}.step", float(moments["step"]), 0.0)
            check_number(
                f"{part}.exp_avg_sq", float(moments["exp_avg_sq"].min()) if parameters[key].numel() else 0.0, 0.0
            )


def check_scaler(place: str, value: Any, scaler: torch.amp.GradScaler) -> None:
    """Require the state of a gradient scaler like this one; one that is off has none.

    Raises:
        Fault: a number is missing or out of range.
    """
    check_dict(place, value, scaler.state_dict())
    for name, wanted in scaler.state_dict().items():
        check_number(f"{place}.{name}", value[name], 0 if isinstance(wanted, int) else 0.0)


def check_histogram(place: str, value: Any) -> None:
    """Require numbers of kernels by pattern.

    Raises:
        Fault: a mask or a number is none.
    """
    check_dict(place, value)
    for mask, count in value.items():
        check_mask(place, mask)
        check_number(f"{place}.{mask}", count, 0)


def check_mask(place: str, value: Any) -> None:
    """Require a mask of a 3x3 pattern.

    Raises:
        Fault: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value not in _MASKS:
        raise Fault(place, "of masks from 1 to 511", value)


class Words(str):
    """A description of what was found, where `Fault` would quote a text."""


def describe(value: object) -> str:
    """Return how messages call a value, on one short line."""
    if isinstance(value, Words):
        return str(value)
    if isinstance(value, Tensor):
        return f"a tensor of {_shape(value)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, (Mapping, list, tuple, set)):
        return f"a {type(value).__name__} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
