"""Which kinds of layers there are: those that the modules of this package define, and what others register."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from patc.discovery import implementations
from patc.passes.layers.base import LayerKind
from patc.plugins import LAYERS, plugins

_kinds: dict[type, LayerKind] = {}


def register(kind: LayerKind) -> None:
    """Let passes know a kind of layer.

    Raises:
        TypeError: it lacks an attribute of `LayerKind`, or there is a kind for its op already. One that lacks a method
            cannot be made.
    """
    missing = [name for name in LayerKind.__annotations__ if not hasattr(kind, name)]
    if missing:
        raise TypeError(f"expected a kind of layer with {', '.join(missing)}, got {type(kind).__name__} without")
    if kind.op in _kinds:
        raise TypeError(f"expected one kind of layer an op, got two of {kind.op.__name__}")
    _kinds[kind.op] = kind


def kinds() -> Iterator[LayerKind]:
    """Yield all kinds, in the order of registration."""
    yield from _kinds.values()


def kind_of(op: Any) -> LayerKind | None:
    """Return the kind of an op, or None for one that is no layer."""
    kind = _kinds.get(type(op))
    return kind if kind is not None and kind.claims(op) else None


for _kind in implementations(__name__, LayerKind):
    register(_kind())

for _plugin in plugins(LAYERS):
    with _plugin.errors():
        if (_kind := _plugin.load(LayerKind)) not in map(type, kinds()):
            register(_kind())
