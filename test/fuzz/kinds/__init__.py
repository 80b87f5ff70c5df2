"""What can be mutated: one file a kind.

A kind is a class `Kind` in a file of its name. A new kind is a new file; nothing lists them.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from outcome import Case


class Kind(Protocol):
    """How cases of one kind are drawn, run and made smaller.

    A kind is made once in each worker, with a folder for what its cases share.
    """

    def __init__(self, folder: Path) -> None: ...

    def draw(self, choices: random.Random) -> Case:
        """Return a case of JSON values that says all that `run` needs."""
        ...

    def run(self, case: Case, folder: Path) -> str:
        """Run a case in an empty folder and return a word for how it ended.

        Raises:
            Refusal: a proper error.
            Fault: what must not happen.
        """
        ...

    def smaller(self, case: Case) -> Iterator[Case]:
        """Yield cases with less in them, the smallest first."""
        ...


def kind_names() -> list[str]:
    """Return the names of all kinds."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem != "__init__")


def make_kind(name: str, folder: Path) -> Kind:
    """Return a kind, with a folder of its own that exists."""
    kind: Kind = importlib.import_module(f"kinds.{name}").Kind(folder)
    return kind
