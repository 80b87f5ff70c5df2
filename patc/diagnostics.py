"""One-line errors and remarks, each with the place it is about.

Everything a user can cause ends in a `PatcError`. The command-line tools print its message as one
line and exit with status 1; Python callers catch it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "remark", "note"]


class PatcError(Exception):
    """An error a user can cause: one line that names the place, what was expected and what was found.

    Args:
        message: the line, without a trailing full stop.
        location: an `mlir.ir.Location`, a file name, or None; printed in front of the message.
    """

    def __init__(self, message: str, location: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.location = location

    def __str__(self) -> str:
        place = describe_location(self.location)
        return f"{place}: {self.message}" if place else self.message


@dataclass(frozen=True)
class Diagnostic:
    """A message about one place in the IR, as `patc-opt` prints it."""

    severity: Severity
    message: str
    location: Any = None

    def __str__(self) -> str:
        place = describe_location(self.location)
        return f"{place}: {self.severity}: {self.message}" if place else f"{self.severity}: {self.message}"


def describe_location(location: Any) -> str:
    """Return `file:line:column` or the layer name of an MLIR location; "" for an unknown one."""
    if location is None:
        return ""
    text = str(location)
    if text.startswith("loc(") and text.endswith(")"):
        text = text[len("loc(") : -1]
    return "" if text == "unknown" else text.replace('"', "")


def nearest(name: str, candidates: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the candidate nearest to `name`, or "" when none is near."""
    near = difflib.get_close_matches(name, list(candidates), n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else ""
