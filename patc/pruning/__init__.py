"""Pruning: patterns, their theory and extraction (paper, sections 3 to 6.1), other schemes, and ways to train to them.

Libraries, schemes, plans and reports are plain Python; what needs torch or numpy imports it when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from patc.pruning.libraries import (
    ELOG,
    GAUSSIAN,
    LIBRARIES,
    LIBRARIES_5X5,
    PHASE1,
    PHASE2,
    PHASE3,
    candidates,
    draw,
    entries,
    library,
    pattern,
    taps,
)
from patc.pruning.plan import Plan
from patc.pruning.report import LayerReport, PruneReport
from patc.pruning.schemes import (
    Block,
    Both,
    Crossbar,
    Filters,
    GatherScatter,
    KernelBlocks,
    Levels,
    Pattern,
    Unstructured,
)
from patc.pruning.spec import PatternSpec
from patc.pruning.windows import Window

if TYPE_CHECKING:
    from patc.pruning.activations import Activations
    from patc.pruning.extraction import LibraryExtractor
    from patc.pruning.latency import choose_rates
    from patc.pruning.methods.admm import Admm, AdmmSchedule
    from patc.pruning.methods.group_lasso import GroupLasso
    from patc.pruning.methods.magnitude import Magnitude
    from patc.pruning.methods.reweighted import Reweighted
    from patc.pruning.progressive import Progressive, Stage
    from patc.pruning.prune import prune_, resolve
    from patc.pruning.pruner import PatternPruner, Pruner
    from patc.pruning.selection import select_libraries

__all__ = [
    "ELOG",
    "GAUSSIAN",
    "LIBRARIES",
    "LIBRARIES_5X5",
    "PHASE1",
    "PHASE2",
    "PHASE3",
    "Activations",
    "Admm",
    "AdmmSchedule",
    "Block",
    "Both",
    "Crossbar",
    "Filters",
    "GatherScatter",
    "GroupLasso",
    "KernelBlocks",
    "LayerReport",
    "Levels",
    "LibraryExtractor",
    "Magnitude",
    "Pattern",
    "PatternPruner",
    "PatternSpec",
    "Plan",
    "Progressive",
    "PruneReport",
    "Pruner",
    "Reweighted",
    "Stage",
    "Unstructured",
    "Window",
    "candidates",
    "choose_rates",
    "draw",
    "entries",
    "library",
    "pattern",
    "prune_",
    "resolve",
    "select_libraries",
    "taps",
]

_LAZY = {
    "Activations": "activations",
    "Admm": "methods.admm",
    "AdmmSchedule": "methods.admm",
    "GroupLasso": "methods.group_lasso",
    "LibraryExtractor": "extraction",
    "Magnitude": "methods.magnitude",
    "PatternPruner": "pruner",
    "Progressive": "progressive",
    "Pruner": "pruner",
    "Reweighted": "methods.reweighted",
    "Stage": "progressive",
    "choose_rates": "latency",
    "prune_": "prune",
    "resolve": "prune",
    "select_libraries": "selection",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"patc.pruning.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
