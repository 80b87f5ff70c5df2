"""Pooling."""

from __future__ import annotations

from patc.dialects import pattern
from patc.passes.layers.base import LayerKind


class MaxPool2d(LayerKind):
    """`pattern.max_pool2d`."""

    op = pattern.MaxPool2dOp
    host = ()
    gpu = ()


class AvgPool2d(LayerKind):
    """`pattern.avg_pool2d`."""

    op = pattern.AvgPool2dOp
    host = ()
    gpu = ()
