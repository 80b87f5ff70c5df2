"""Which passes there are: their names in pipeline order. A pass is imported when it is first asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from patc.diagnostics import PatcError, nearest

if TYPE_CHECKING:  # naming the passes must not load MLIR
    from patc.passes.base import Pass

PASS_NAMES = (
    "pattern-promote",
    "pattern-fold-batch-norm",
    "pattern-raise",
    "pattern-outline",
    "pattern-encode",
    "pattern-reorder",
    "pattern-demote",
    "pattern-layout",
    "pattern-schedule",
    "pattern-specialize",
    "pattern-vectorize",
    "pattern-plan-memory",
    "pattern-parallelize",
    "pattern-map-to-gpu",
    "pattern-to-spirv",
    "convert-pattern-to-linalg",
)


def find_pass(name: str) -> type[Pass]:
    """Return the class of a pass: `pattern-encode` is `PatternEncode` in `passes/pattern_encode.py`.

    Raises:
        PatcError: there is no such pass.
    """
    if name not in PASS_NAMES:
        raise PatcError(f"unknown pass '{name}'{nearest(name, PASS_NAMES)}")
    module = importlib.import_module(f"patc.passes.{name.replace('-', '_')}")
    return getattr(module, name.title().replace("-", ""))
