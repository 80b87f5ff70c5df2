"""What was measured on this machine, kept in the user's cache folder: one small file for each layer.

Any number of processes may use the folder at once: a file appears whole or not at all, and who comes last wins.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path

from patc.diagnostics import PatcError
from patc.files import atomic_write, cache_folder, make_folder

FORMAT = 1


def default_folder() -> Path:
    """Return where times are kept unless another folder is given."""
    return cache_folder("tuning")


class TuningCache:
    """Times of candidates by a key: a text that says all that they depend on.

    Args:
        folder: made when the first entry is stored; `default_folder()` by default.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = default_folder() if folder is None else folder
        self._known: dict[str, list[float]] = {}

    def load(self, key: str, count: int) -> list[float] | None:
        """Return the seconds of the `count` candidates that were stored under a key, or None.

        Raises:
            PatcError: the entry is damaged.
        """
        name = _digest(key)
        if name not in self._known:
            path = self._path(name)
            try:
                if not path.is_file():  # a pipe would never end
                    return None
                self._known[name] = _parse(path.read_bytes(), name, count)
            except OSError:
                return None  # `store` says what is wrong with the folder
            except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
                raise PatcError("expected measured times, found damaged data", str(path)) from None
        return self._known[name]

    def store(self, key: str, seconds: Sequence[float]) -> None:
        """Keep times; they are known to this object even when they cannot be written.

        Raises:
            PatcError: the folder cannot be made or written to.
        """
        name = _digest(key)
        self._known[name] = list(seconds)
        make_folder(self.folder)
        entry = {"format": FORMAT, "key": name, "seconds": self._known[name]}
        atomic_write(self._path(name), json.dumps(entry) + "\n")

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _parse(data: bytes, name: str, count: int) -> list[float]:
    """Return the times of an entry.

    Raises:
        ValueError, TypeError, KeyError: the entry is damaged, or not the one it is named for.
    """
    entry = json.loads(data)
    seconds = [float(value) for value in entry["seconds"]]
    whole = entry["format"] == FORMAT and entry["key"] == name and len(seconds) == count
    if not whole or not all(math.isfinite(value) and value > 0 for value in seconds):
        raise ValueError
    return seconds
