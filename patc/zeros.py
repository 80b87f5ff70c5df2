"""How much of what layers multiply is zero: their weights, and their inputs on the samples of a user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch_mlir import ir

from patc.codegen.program import find_main
from patc.passes.base import Calibrate, PassState
from patc.passes.formats.layer_weights import find_dense_weight
from patc.passes.ir.functions import top_level_ops
from patc.passes.ir.modules import clone_module
from patc.passes.ir.zeros import Zeros, write_zeros
from patc.passes.layers.registry import kind_of
from patc.running import returning
from patc.samples import Sample

_STAGE = "reorder"  # the last pass before those that the state calibrates for
_DIGITS = 4


def zero_counter(samples: Sequence[Sample]) -> Calibrate:
    """Return what writes the zeros of a module's layers with weights, see `PassState.calibrate`.

    Args:
        samples: as `check` returns them.
    """

    def count(module: ir.Module, state: PassState) -> None:
        found = _weighted(module, state)
        if not found:
            return
        work = clone_module(module)
        inputs = [op.operands[0] for op, _ in _weighted(work, state)]
        computed = [value for value in inputs if not isinstance(value.owner, ir.Block)]
        run = returning(work, computed, state, _STAGE) if computed else lambda sample: list[np.ndarray]()
        zeros = np.zeros(len(inputs))
        for sample in samples:
            made = iter(run(sample))
            for number, value in enumerate(inputs):
                is_given = isinstance(value.owner, ir.Block)
                array = sample[ir.BlockArgument(value).arg_number] if is_given else next(made)
                zeros[number] += np.mean(array == 0)
        for (op, weight), sum_ in zip(found, zeros, strict=True):
            parts = float(np.mean(weight == 0)), float(sum_ / len(samples))
            write_zeros(op, Zeros(*(round(part, _DIGITS) for part in parts)))

    return count


def _weighted(module: ir.Module, state: PassState) -> list[tuple[Any, np.ndarray]]:
    """Return the layers of @main that multiply by constants, with these."""
    found = []
    for op in top_level_ops(find_main(module)):
        kind = kind_of(op)
        if kind is not None and kind.work(op).weights and (dense := find_dense_weight(op, state)) is not None:
            found.append((op, dense.array))
    return found
