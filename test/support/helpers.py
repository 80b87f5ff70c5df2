"""What numeric tests share."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves
from torch_mlir import ir

import patc
from patc.context import make_context
from patc.frontend import import_model
from patc.passes.base import PassState
from patc.passes.pattern_fold_batch_norm import PatternFoldBatchNorm
from patc.passes.pattern_raise import PatternRaise


def assert_close(found: Sequence[np.ndarray], wanted: Sequence[np.ndarray], bound: float = 1e-5) -> None:
    """Require every result within `bound`, relative to the result's largest magnitude."""
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == tuple(other.shape)
        scale = np.abs(other).max(initial=1e-30)
        assert np.abs(one - other).max(initial=0.0) <= bound * scale


def torch_results(model: torch.nn.Module, inputs: Sequence[torch.Tensor]) -> list[np.ndarray]:
    """Return what a model computes in float64; the model stays as it is."""
    with torch.no_grad():
        results = copy.deepcopy(model).double()(*(x.double() for x in inputs))
    return [y.numpy() for y in tree_leaves(results)]


def check_convolutions(model: torch.nn.Module, x: torch.Tensor, target: str, algorithm: str, least: int) -> None:
    """Require the results of PyTorch with one and two threads, bit by bit the same, of so many pruned convolutions, or
    more, that an algorithm computes."""
    results = []
    for threads in (1, 2):
        compiled = patc.compile(model, (x,), target=target, threads=threads)
        used = [layer.schedule.algorithm for layer in compiled.layers if layer.op == "sparse_conv2d" and layer.schedule]
        assert used.count(algorithm) >= least
        results.append(compiled(x))
        assert_close([results[-1].numpy()], torch_results(model, (x,)))
    assert torch.equal(*results)


def raised_model(model: torch.nn.Module, inputs: Sequence[torch.Tensor]) -> tuple[ir.Module, PassState]:
    """Return a model as `pattern` ops, with its parameters."""
    imported = import_model(model.eval(), tuple(inputs), make_context())
    state = PassState(imported.parameters)
    PatternFoldBatchNorm().run(imported.module, state)
    PatternRaise().run(imported.module, state)
    assert imported.module.operation.verify()
    return imported.module, state


def layer_ops(module: ir.Module, function: str = "main") -> list[Any]:
    """Return the ops of a function but its constants and its return."""
    body = next(op for op in module.body.operations if op.name.value == function).entry_block
    silent = ("pattern.parameter", "arith.constant", "func.return")
    return [op for op in body.operations if op.operation.name not in silent]
