"""Search for a net that is as good as can be within a time, which the compiler's cost model says.

A `Task` has a `Space` of architectures, whose nets share the weights of one `SuperNet`; with what is pruned, and how
far, they are the candidates. `patc search` runs it for `SuperResolution` and `Classification`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from patc.search.space import Choice, Point, Space

if TYPE_CHECKING:
    from patc.search.classification import Classification
    from patc.search.cost import Cost
    from patc.search.run import Found, search
    from patc.search.super_resolution import SuperResolution
    from patc.search.supernet import SuperNet
    from patc.search.task import Effort, Rung, Task

__all__ = [
    "Choice",
    "Classification",
    "Cost",
    "Effort",
    "Found",
    "Point",
    "Rung",
    "Space",
    "SuperNet",
    "SuperResolution",
    "Task",
    "search",
]

_LAZY = {
    "Classification": "classification",
    "Cost": "cost",
    "Effort": "task",
    "Found": "run",
    "Rung": "task",
    "SuperNet": "supernet",
    "SuperResolution": "super_resolution",
    "Task": "task",
    "search": "run",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"patc.search.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
