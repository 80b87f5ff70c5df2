"""Fully connected layers."""

from __future__ import annotations

from patc.dialects import pattern
from patc.passes.layers.base import LayerKind


class Linear(LayerKind):
    """`pattern.linear`."""

    op = pattern.LinearOp
    host = ()
    gpu = ()
