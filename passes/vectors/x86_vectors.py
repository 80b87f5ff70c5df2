"""What x86-64 does best: maxima that keep NaN by comparisons of pairs and, with AVX-512, loads from aligned vectors.

See `maxima` and `shifted_loads`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch_mlir import ir

from patc.passes.raising.maxima import expand_maxima
from patc.passes.vectors.shifted_loads import shift_loads
from patc.passes.vectors.vector_addresses import Offsets
from patc.targets import Target


def rewrite(module: ir.Module, function: Any, bodies: Sequence[ir.Block], target: Target) -> None:
    """Rewrite the loop bodies of a function, in place; a second time changes nothing."""
    for block in bodies:
        expand_maxima(block)
    if target.cheap_shift:
        offsets = Offsets(function)
        for block in bodies:
            shift_loads(block, offsets, target.lanes)
