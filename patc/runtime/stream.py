"""A model compiled with `streaming=True`, and its states between calls."""

from __future__ import annotations

from typing import Any

import numpy as np

from patc.diagnostics import PatcError
from patc.runtime.model import CompiledModel


class Stream:
    """Calls of a model with the states of the call before; the first one begins with zeros. Several streams may share a
    model::

        stream = patc.Stream(model)
        for frame in frames:
            y = stream(frame)
        stream.reset()

    Args:
        model: compiled with `streaming=True`.

    Attributes:
        states: by the names of the model's inputs.

    Raises:
        PatcError: the model takes no states.
    """

    def __init__(self, model: CompiledModel) -> None:
        self.model = model
        names = _state_names(model.program.structure)
        self._infos = [info for info in model.program.inputs if info.name in names]
        if not names or len(self._infos) != len(names):
            raise PatcError("expected a model compiled with streaming=True, got one that takes no states")
        self.states: dict[str, Any] = {}
        self.reset()

    def reset(self) -> None:
        """Begin anew, with zeros."""
        self.states = {info.name: np.zeros(info.shape, info.dtype) for info in self._infos}

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Return what the model makes of the next inputs, as it is called without states."""
        result, self.states = self.model(*inputs, **named, **self.states)
        return result


def _state_names(structure: Any) -> list[str]:
    """Return the names in the dictionary that is second of two results; none where the results are others."""
    parts = structure.get("tuple", [])
    return [key for key, _ in parts[1].get("dict", [])] if len(parts) == 2 else []
