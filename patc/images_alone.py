"""Whether compiled code computes each image of a batch on its own, for models that nothing else here can run."""

from __future__ import annotations

from collections.abc import Sequence

import ml_dtypes
import numpy as np

from patc.diagnostics import PatcError
from patc.runtime.model import CompiledModel
from patc.runtime.program import Program

TOLERANCE = 1e-3  # of the largest magnitude
MOST_DIFFERENT = 0.01  # of integers, which follow from numbers that are rounded


def require_batches(program: Program) -> None:
    """Refuse a program of dynamic batch whose inputs and outputs do not have it as first dimension.

    Raises:
        PatcError: which one.
    """
    for entry in program.entries:
        for word, infos in (("input", entry.inputs), ("output", entry.outputs)):
            for info in infos:
                if info.shape[:1] != (entry.block,):
                    found = f"found {info} for a batch of {entry.block}"
                    raise PatcError(f"expected {word} with the batch as first dimension for dynamic_batch, {found}")


def require_alone(model: CompiledModel) -> None:
    """Run a model of dynamic batch on a block of random images, together and each alone: both must be the same.

    Raises:
        PatcError: they are not.
    """
    several, *_, one = model.blocks()
    inputs = several.random_inputs()
    together = _run(several, inputs)
    for place in range(several.program.block):
        alone = _run(one, [array[place : place + 1] for array in inputs])
        for info, found, wanted in zip(one.program.outputs, together, alone, strict=True):
            if not _are_same(found[place : place + 1], wanted):
                expected = "expected images that are computed alone for dynamic_batch"
                raise PatcError(f"{expected}, found that output '{info.name}' mixes them")


def _run(model: CompiledModel, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    arrays = [np.ascontiguousarray(array) for array in inputs]
    outputs = [np.empty(info.shape, info.dtype) for info in model.program.outputs]
    model._run([array.ctypes.data for array in arrays], [array.ctypes.data for array in outputs])
    return outputs


def _are_same(found: np.ndarray, wanted: np.ndarray) -> bool:
    if found.dtype.kind in "biu":
        return float(np.mean(found != wanted)) <= MOST_DIFFERENT
    found_numbers, numbers = found.astype(np.float64), wanted.astype(np.float64)
    scale = float(np.abs(np.nan_to_num(numbers, nan=0, posinf=0, neginf=0)).max(initial=0.0))
    tolerance = scale * max(TOLERANCE, float(ml_dtypes.finfo(found.dtype).eps))  # of halves the last bit may differ
    return np.allclose(found_numbers, numbers, rtol=0, atol=tolerance, equal_nan=True)
