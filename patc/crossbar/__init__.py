"""Weights on crossbars of memory devices: how many tiles, columns and pairs of devices a pruned net needs, training
that bears mismatch, and the net in aihwkit, whose noise is the judge.

    plan = Plan([("*", Both(Crossbar(128), Levels(5)), 4.0)])         # 16 conductances a device
    ...                                                               # train with a Pruner of it, and a Mismatch
    print(patc.crossbar.map(model, size=128, bits=5))
    analog = patc.crossbar.to_aihwkit(model, patc.crossbar.map(model))

Counts only: nothing is said of power or area.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from patc.crossbar.analog import to_aihwkit
    from patc.crossbar.mapping import CrossbarMap, LayerMap
    from patc.crossbar.mapping import map_model as map
    from patc.crossbar.mismatch import Mismatch

__all__ = ["CrossbarMap", "LayerMap", "Mismatch", "map", "to_aihwkit"]

_HOMES = {
    "CrossbarMap": ("mapping", "CrossbarMap"),
    "LayerMap": ("mapping", "LayerMap"),
    "Mismatch": ("mismatch", "Mismatch"),
    "map": ("mapping", "map_model"),
    "to_aihwkit": ("analog", "to_aihwkit"),
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        home, own = _HOMES[name]
        return getattr(importlib.import_module(f"patc.crossbar.{home}"), own)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
