"""Pattern pruning: libraries, specifications and one-shot projection (paper, sections 3 to 6.1).

Libraries and specifications are plain Python; `prune_` and `resolve` import torch when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from patc.pruning.library import (
    ELOG,
    GAUSSIAN,
    LIBRARIES,
    PHASE1,
    PHASE2,
    PHASE3,
    draw,
    entries,
    library,
    pattern,
    taps,
)
from patc.pruning.report import LayerReport, PruneReport
from patc.pruning.spec import PatternSpec

if TYPE_CHECKING:
    from patc.pruning.prune import prune_, resolve

__all__ = [
    "ELOG",
    "GAUSSIAN",
    "LIBRARIES",
    "PHASE1",
    "PHASE2",
    "PHASE3",
    "LayerReport",
    "PatternSpec",
    "PruneReport",
    "draw",
    "entries",
    "library",
    "pattern",
    "prune_",
    "resolve",
    "taps",
]


def __getattr__(name: str) -> Any:
    if name in ("prune_", "resolve"):
        from patc.pruning import prune

        return getattr(prune, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
