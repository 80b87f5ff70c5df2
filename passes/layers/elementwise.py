"""Layers that work element by element: additions, activations and changes of layout."""

from __future__ import annotations

from patc.dialects import pattern
from patc.passes.layers.base import LayerKind


class Add(LayerKind):
    """`pattern.add`."""

    op = pattern.AddOp
    host = ()
    gpu = ()


class Activate(LayerKind):
    """`pattern.activate`."""

    op = pattern.ActivateOp
    host = ()
    gpu = ()


class Relayout(LayerKind):
    """`pattern.relayout`."""

    op = pattern.RelayoutOp
    host = ()
    gpu = ()
