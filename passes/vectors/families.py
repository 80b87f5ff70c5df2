"""Which rewritings of vector ops there are, by `Target.simd`. Others may register theirs; see `register`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from torch_mlir import ir

from patc.diagnostics import PatcError, nearest
from patc.passes.vectors import neon_vectors, x86_vectors
from patc.targets import Target

Rewriting: TypeAlias = Callable[[ir.Module, Any, Sequence[ir.Block], Target], None]


def _keep(module: ir.Module, function: Any, bodies: Sequence[ir.Block], target: Target) -> None:
    """Leave vector ops to LLVM."""


_families: dict[str, Rewriting] = {"": _keep, "x86": x86_vectors.rewrite, "neon": neon_vectors.rewrite}


def register(name: str, rewriting: Rewriting) -> None:
    """Let targets name a rewriting.

    Args:
        rewriting: called as rewriting(module, function, bodies, target); rewrites the loop bodies of a function in
            place, and changes nothing a second time.

    Raises:
        TypeError: there is one of that name already.
    """
    if name in _families:
        raise TypeError(f"expected one rewriting a name, got two called '{name}'")
    _families[name] = rewriting


def rewriting_of(target: Target) -> Rewriting:
    """Return the rewriting that a target names.

    Raises:
        PatcError: there is none of that name.
    """
    if target.simd not in _families:
        known = ", ".join(f"'{name}'" for name in _families)
        hint = nearest(target.simd, _families)
        raise PatcError(f"target '{target.name}' expected simd to be one of {known}, got '{target.simd}'{hint}")
    return _families[target.simd]
