"""Inputs of nets that stand for those to come: what numbers inside of a net are like is found with them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from patc.diagnostics import PatcError
from patc.runtime.inputs import take_array
from patc.runtime.program import TensorInfo

Sample = Sequence[np.ndarray]


def check(samples: Iterable[Sample], infos: Sequence[TensorInfo]) -> list[Sample]:
    """Return samples that a net with such inputs takes.

    Raises:
        PatcError: there is none, or one has other inputs, or numbers that are not finite.
    """
    found: list[Sample] = []
    for number, sample in enumerate(samples):
        with naming(f"sample {number}"):
            if len(sample) != len(infos):
                raise PatcError(f"expected inputs {', '.join(map(str, infos))}, got {len(sample)}")
            arrays = [take_array(info, array)[0] for info, array in zip(infos, sample, strict=True)]
            if not all(np.all(np.isfinite(array)) for array in arrays if array.dtype.kind == "f"):
                raise PatcError("expected finite numbers to calibrate with, got NaN or infinite ones")
        found.append(arrays)
    if not found:
        raise PatcError("expected a sample or more to calibrate with, got none")
    return found


@contextlib.contextmanager
def naming(what: str) -> Iterator[None]:
    """Let errors inside say what they are about."""
    try:
        yield
    except PatcError as error:
        raise PatcError(f"{what}: {error.message}", error.location) from None


def as_samples(inputs: Any) -> Iterator[list[np.ndarray]]:
    """Yield the samples that a user gives: a list has one each, anything else is a single one.

    A sample is a tensor or an array, or a tuple of them, one for each input.
    """
    for sample in inputs if isinstance(inputs, list) else [inputs]:
        parts = sample if isinstance(sample, (tuple, list)) else (sample,)
        yield [part.detach().cpu().numpy() if hasattr(part, "detach") else np.asarray(part) for part in parts]


def cut(arrays: Sequence[np.ndarray], infos: Sequence[TensorInfo]) -> Iterator[list[np.ndarray]]:
    """Yield samples from an array for each input that holds those of many samples behind each other.

    Raises:
        PatcError: there are not as many arrays as inputs, or they do not hold equally many samples.
    """
    if len(arrays) != len(infos):
        raise PatcError(f"expected inputs {', '.join(map(str, infos))}, got {len(arrays)} arrays")
    counts = set()
    for info, array in zip(infos, arrays, strict=True):
        batch = info.shape[0] if info.shape else 0
        if not batch or array.shape[1:] != info.shape[1:] or array.ndim < 1 or not len(array) or len(array) % batch:
            raise PatcError(f"expected samples of input {info}, behind each other, got shape {list(array.shape)}")
        counts.add(len(array) // batch)
    if len(counts) > 1:
        raise PatcError(f"expected as many samples of each input, got {' and '.join(map(str, sorted(counts)))}")
    for number in range(counts.pop()):
        yield [
            array[number * info.shape[0] : (number + 1) * info.shape[0]]
            for info, array in zip(infos, arrays, strict=True)
        ]
