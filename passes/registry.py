"""Which passes there are: their names in pipeline order. A pass is imported when it is first asked for."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from patc.diagnostics import PatcError, nearest
from patc.plugins import PASSES, Plugin, plugins

if TYPE_CHECKING:  # naming the passes must not load MLIR
    from patc.passes.base import Pass

PASS_NAMES = (
    "pattern-promote",
    "pattern-fold-batch-norm",
    "pattern-raise",
    "pattern-outline",
    "pattern-shrink",
    "pattern-encode",
    "pattern-reorder",
    "pattern-quantize",
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


_registered: dict[str, type[Pass]] = {}


def register(kind: type[Pass]) -> None:
    """Let pipelines know a pass by its name.

    Raises:
        TypeError: it has no name, its options are none, or there is a pass of the name already.
    """
    name = getattr(kind, "name", None)
    if not isinstance(name, str):
        raise TypeError(f"expected a pass with a name, got {kind.__name__} without")
    from patc.upstream import is_upstream

    if is_pass(name) or is_upstream(name):
        raise TypeError(f"expected one pass of a name, got two of '{name}'")
    kind.options()
    _registered[name] = kind


def is_registered(kind: type[Pass]) -> bool:
    """Return whether `register` got a pass."""
    return kind in _registered.values()


def is_pass(name: str) -> bool:
    """Return whether a name is that of a pass of patc, of one that was registered, or of a plugin."""
    return name in PASS_NAMES or name in known_passes()


def known_passes() -> tuple[str, ...]:
    """Return the names of all passes that `find_pass` finds, patc's own first."""
    return tuple(dict.fromkeys((*PASS_NAMES, *_registered, *(plugin.name for plugin in plugins(PASSES)))))


def find_pass(name: str) -> type[Pass]:
    """Return the class of a pass: `pattern-encode` is `PatternEncode` in `passes/pattern_encode.py`.

    Raises:
        PatcError: there is no such pass, the plugin that has it cannot be loaded, or it is not the only one.
    """
    if name in PASS_NAMES:
        _require_free(name, plugins(PASSES), "a pass of patc")
        module = importlib.import_module(f"patc.passes.{name.replace('-', '_')}")
        own: type[Pass] = getattr(module, name.title().replace("-", ""))
        return own
    if name not in _registered:
        _register_plugin(name)
    return _registered[name]


def _register_plugin(name: str) -> None:
    from patc.passes.base import Pass
    from patc.upstream import is_upstream

    found = [plugin for plugin in plugins(PASSES) if plugin.name == name]
    if not found:
        raise PatcError(f"unknown pass '{name}'{nearest(name, known_passes())}")
    plugin, *others = found
    if is_upstream(name):
        _require_free(name, found, "a pass of MLIR")
    _require_free(name, others, str(plugin))
    kind = plugin.load(Pass)
    with plugin.errors():
        if getattr(kind, "name", None) != name:
            raise TypeError(f"expected a pass of this name, got {getattr(kind, 'name', None)!r}")
        kind.options()
        _registered[name] = kind


def _require_free(name: str, found: Sequence[Plugin], owner: str) -> None:
    """Refuse a name that others than its owner have: which of them is meant nobody could tell."""
    for plugin in found:
        if plugin.name == name:
            raise PatcError(f"{plugin}: expected a name of its own, found that of {owner}")
