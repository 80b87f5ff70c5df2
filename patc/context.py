"""MLIR contexts with every dialect patc needs."""

from __future__ import annotations

from torch_mlir import ir

from patc.dialects import pattern
from patc.locks import compiling
from patc.upstream import load_torch_dialects


@compiling()
def make_context() -> ir.Context:
    """Return a context with the dialects of MLIR, torch-mlir and patc; its passes run in the calling thread."""
    context = ir.Context()
    # A program is one function, so that a pool gains nothing, and a forked child would wait for its threads forever.
    context.enable_multithreading(False)
    load_torch_dialects(context)
    pattern.load(context)
    return context
