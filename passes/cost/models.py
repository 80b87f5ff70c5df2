"""Which cost models there are. Others may register theirs; see `register`."""

from __future__ import annotations

import functools
from typing import Any

from patc.diagnostics import PatcError, nearest
from patc.passes.cost.gpu import GpuModel
from patc.passes.cost.host import HostModel
from patc.passes.cost.neon import NeonModel
from patc.targets import Target

_models: dict[str, type[Any]] = {"host": HostModel, "neon": NeonModel, "gpu": GpuModel}


def register(name: str, model: type[Any]) -> None:
    """Let targets name a cost model.

    Args:
        model: called as model(target, element_bytes); a `CoreModel` for targets whose algorithms are those of "host", a
            `GpuModel` for those of "gpu".

    Raises:
        TypeError: there is one of that name already.
    """
    if name in _models:
        raise TypeError(f"expected one cost model a name, got two called '{name}'")
    _models[name] = model


@functools.lru_cache(maxsize=64)
def cost_model(target: Target, element_bytes: int = 4) -> Any:
    """Return the cost model that a target names; equal targets have the same one, with the costs that it found.

    Args:
        element_bytes: of the tensors of a layer.

    Raises:
        PatcError: there is none of that name, or it cannot read the target's costs.
    """
    if target.model not in _models:
        known = f"a cost model of {', '.join(_models)}"
        raise PatcError(
            f"target '{target.name}' expected {known}, got '{target.model}'{nearest(target.model, _models)}"
        )
    return _models[target.model](target, element_bytes)
