"""Names of classes, and scores as probabilities."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from patc.diagnostics import PatcError
from patc.files import check_regular

if TYPE_CHECKING:
    import numpy as np

_MOST_BYTES = 1 << 24
_NUMBER = re.compile(r"(n\d+)\s+")  # WordNet's


@dataclass(frozen=True)
class Labels:
    """The names of classes, by the places of their scores, and the file that they are from."""

    names: tuple[str, ...]
    path: str

    def check(self, scores: int) -> None:
        """Refuse another number of scores.

        Raises:
            PatcError: the number differs.
        """
        if len(self.names) != scores:
            raise PatcError(f"expected {scores} labels, one for each score, found {len(self.names)}", self.path)

    def find(self, folder: str) -> int | None:
        """Return the class that a folder's name stands for: its whole label, or one of its names, or its number,
        as in `n01440764 tench, Tinca tinca`; None where there is none."""
        wanted = folder.lower().replace("_", " ")
        for place, name in enumerate(self.names):
            number = _NUMBER.match(name)
            rest = name[number.end() :] if number else name
            words = [name, rest, *rest.split(","), *([number[1]] if number else [])]
            if wanted in {word.strip().lower().replace("_", " ") for word in words}:
                return place
        return None


def read_labels(path: str) -> Labels:
    """Read labels: a line each, a JSON list, or a JSON object from the place of a score to a name, or to several, of
    which the last one counts (`{"0": ["n01440764", "tench"], ...}`).

    Raises:
        PatcError: the file is missing, or holds something else.
    """
    check_regular(path, "a file of labels")
    if os.path.getsize(path) > _MOST_BYTES:
        raise PatcError(f"expected labels, found more than {_MOST_BYTES} bytes", path)
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError):
        raise PatcError("expected labels as text in UTF-8, found something else", path) from None
    names = _from_json(text, path) if text.lstrip()[:1] in ("[", "{") else text.splitlines()
    names = [" ".join("".join(c if c.isprintable() else " " for c in name).split()) for name in names]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise PatcError("expected labels, a line each, found none", path)
    return Labels(tuple(names), path)


def _from_json(text: str, path: str) -> list[str]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise PatcError("expected a JSON list or object of labels, found damaged JSON", path) from None
    if isinstance(value, dict):
        if {*value} != {str(i) for i in range(len(value))}:
            raise PatcError(f"expected labels 0 to {len(value) - 1} in the JSON object, found other keys", path)
        value = [value[str(i)] for i in range(len(value))]
    names = [_last(name) for name in value]
    if not all(isinstance(name, str) for name in names):
        raise PatcError("expected names as labels in the JSON file, found something else", path)
    return names


def _last(name: Any) -> Any:
    return name[-1] if isinstance(name, list) and name else name


def probabilities(scores: Sequence[Any] | np.ndarray) -> np.ndarray:
    """Return the softmax of rows of scores; rows that are probabilities already stay."""
    import numpy as np

    values = np.asarray(scores, np.float64)
    sums = values.sum(axis=1, keepdims=True)
    done = (values >= 0).all(axis=1, keepdims=True) & (np.abs(sums - 1) < 1e-3)
    with np.errstate(invalid="ignore"):  # scores that are not finite have no probabilities
        powers = np.exp(values - values.max(axis=1, keepdims=True, initial=-np.inf))
        return np.where(done, values, powers / powers.sum(axis=1, keepdims=True))
