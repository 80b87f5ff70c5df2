"""MLIR contexts with every dialect patc needs."""

from __future__ import annotations

from torch_mlir import ir

from patc.dialects import pattern


def make_context() -> ir.Context:
    """Return a context with the upstream dialects and the `pattern` dialect."""
    context = ir.Context()
    pattern.load(context)
    return context
