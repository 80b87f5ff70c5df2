"""Inputs from files of numpy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from patc.diagnostics import PatcError
from patc.files import check_regular
from patc.runtime.inputs import random_arrays, take_array
from patc.runtime.program import TensorInfo


def read_arrays(paths: Sequence[str]) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """Return the arrays of .npy files in order, and those of .npz files by name.

    Raises:
        PatcError: a file is missing, unreadable or damaged.
    """
    arrays: list[np.ndarray] = []
    named: dict[str, np.ndarray] = {}
    for path in paths:
        if Path(path).suffix.lower() == ".npz":
            named.update(_read_archive(path))
        else:
            arrays.append(_read_array(path))
    return arrays, named


def _read_archive(path: str) -> dict[str, np.ndarray]:
    check_regular(path, "a .npz file")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except PermissionError as error:
        raise PatcError(f"cannot read the input: {error.strerror or error}", path) from None
    except Exception:  # numpy and zipfile raise nearly anything on damaged data
        raise PatcError("expected a .npz file of arrays, found damaged data or another format", path) from None


def _read_array(path: str) -> np.ndarray:
    check_regular(path, "a .npy file")
    try:
        # Mapped first: a header can ask for any amount of memory.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except PermissionError as error:
        raise PatcError(f"cannot read the input: {error.strerror or error}", path) from None
    except Exception:  # numpy raises nearly anything on damaged data
        raise PatcError("expected a .npy file of numbers, found damaged data or another format", path) from None
    if not isinstance(array, np.ndarray):
        raise PatcError("expected a .npy file of one array, found several", path)
    return np.array(array)


def arrange(
    infos: Sequence[TensorInfo], arrays: Sequence[np.ndarray], named: dict[str, np.ndarray]
) -> list[np.ndarray]:
    """Return an array for each of a model's inputs: what `read_arrays` read, or random ones where it read none.

    Raises:
        PatcError: there are others, or they have other shapes or element types.
    """
    if not arrays and not named:
        print("no --input: random numbers (seed 0)")
        return list(random_arrays(infos, 0))
    rest = [info.name for info in infos[len(arrays) :]]
    if len(arrays) > len(infos) or set(rest) != set(named):
        given = f"{len(arrays)} by place and {', '.join(named) or 'none'} by name"
        raise PatcError(f"expected inputs {', '.join(map(str, infos))}, got {given}")
    given_arrays = [*arrays, *(named[name] for name in rest)]
    return [take_array(info, array)[0] for info, array in zip(infos, given_arrays, strict=True)]
