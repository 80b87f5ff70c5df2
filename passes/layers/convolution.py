"""Convolutions with dense weights, and with sparse ones."""

from __future__ import annotations

from patc.dialects import pattern
from patc.passes.layers.base import LayerKind


class Conv2d(LayerKind):
    """`pattern.conv2d`."""

    op = pattern.Conv2dOp
    host = ()
    gpu = ()


class SparseConv2d(LayerKind):
    """`pattern.sparse_conv2d`."""

    op = pattern.SparseConv2dOp
    host = ()
    gpu = ()
