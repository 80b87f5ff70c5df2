"""The named parameter store: weights live here, the IR only names them.

A `pattern.parameter` op holds a name; the array behind it is in the store. On disk a store is a
safetensors file next to the `.mlir` text.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

import numpy as np

from patc.diagnostics import PatcError, first_line
from patc.files import atomic_write, check_regular


class ParameterStore:
    """A mutable mapping from parameter name to contiguous numpy array."""

    def __init__(self, arrays: Mapping[str, np.ndarray] | None = None) -> None:
        self._arrays: dict[str, np.ndarray] = {}
        for name, array in (arrays or {}).items():
            self[name] = array

    def __getitem__(self, name: str) -> np.ndarray:
        try:
            return self._arrays[name]
        except KeyError:
            raise PatcError(f"parameter '{name}' is not in the store") from None

    def __setitem__(self, name: str, array: np.ndarray) -> None:
        self._arrays[name] = np.asarray(array, order="C")  # which leaves a number without dimensions as it is

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def add(self, name: str, array: np.ndarray) -> str:
        """Store `array` under `name`, made unique with a suffix, and return the name used."""
        unique, suffix = name, 0
        while unique in self._arrays:
            suffix += 1
            unique = f"{name}.{suffix}"
        self[unique] = array
        return unique

    def copy(self) -> ParameterStore:
        """Return a store of the same arrays."""
        return ParameterStore(self._arrays)

    def keep_only(self, names: set[str]) -> None:
        """Drop every array whose name is not in `names`."""
        self._arrays = {name: array for name, array in self._arrays.items() if name in names}

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self._arrays.values())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file; the file appears whole or not at all."""
        atomic_write(path, self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return what a safetensors file of these arrays holds."""
        from safetensors.numpy import save

        return save(self._arrays)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> ParameterStore:
        """Read a safetensors file.

        Raises:
            PatcError: the file is missing, truncated, or not safetensors.
        """
        from safetensors.numpy import load_file

        check_regular(path, "a safetensors file with the parameters")
        try:
            return ParameterStore(load_file(path))
        except Exception as error:  # KeyError: element types that numpy has none for
            raise PatcError(
                f"expected a safetensors file, found damaged data ({first_line(error)})", str(path)
            ) from None
