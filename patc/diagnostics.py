"""One-line errors and remarks, each with the place it is about.

Everything a user can cause ends in a `PatcError`. The command-line tools print its message as one
line and exit with status 1; Python callers catch it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

_LONGEST = 400  # characters of what another library says: some quote a file's content
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f]")

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
        line = f"{place}: {self.message}" if place else self.message
        return _printable(line)

    def __reduce__(self) -> Any:
        # Locations of MLIR live in one process only; their text goes everywhere.
        return _restore_error, (type(self), self.args), {**self.__dict__, "location": describe_location(self.location)}


def _restore_error(kind: type[PatcError], args: tuple[Any, ...]) -> PatcError:
    """Return an error that a copy's attributes go into; subclasses are made of other arguments."""
    return kind.__new__(kind, *args)


@dataclass(frozen=True)
class Diagnostic:
    """A message about one place in the IR, as `patc-opt` prints it."""

    severity: Severity
    message: str
    location: Any = None

    def __str__(self) -> str:
        place = describe_location(self.location)
        line = f"{self.severity}: {self.message.replace(chr(0), '')}"  # MLIR ends some words with a NUL
        return _printable(f"{place}: {line}" if place else line)

    def plain(self) -> Diagnostic:
        """Return the same message with the text of its place, which needs no MLIR."""
        return replace(self, location=describe_location(self.location))

    def __reduce__(self) -> Any:
        return Diagnostic, (self.severity, self.message, describe_location(self.location))


def _printable(line: str) -> str:
    """Return a message as one line: what it quotes may have several, or move a terminal's cursor."""
    return _UNPRINTABLE.sub("?", " ".join(line.splitlines()))


def first_line(error: BaseException) -> str:
    """Return the first line of what another library's error says, shortened, or its type where that is nothing."""
    line = (str(error).lstrip()[:_LONGEST].splitlines() or [""])[0] or type(error).__name__
    return f"{line}..." if len(line) == _LONGEST else line


def some(names: Iterable[str], count: int = 3) -> str:
    """Return the first names of many for a message, in quotes, and how many more there are."""
    listed = list(names)
    if not listed:
        return "none"
    more = f" and {len(listed) - count} more" if len(listed) > count else ""
    return ", ".join(map(repr, listed[:count])) + more


def describe_seconds(seconds: float) -> str:
    """Return a time in three digits and the unit that fits: 1.2 s, 3.39 ms, 143 us, 829 ns."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if abs(seconds) >= 0.9995 * size:
            return f"{_three_digits(seconds / size)} {unit}"
    return f"{_three_digits(seconds / 1e-9)} ns"


def _three_digits(number: float) -> str:
    return f"{number:.3g}" if abs(number) < 999.5 else f"{number:.0f}"  # 1234, not 1.23e+03


def describe_location(location: Any) -> str:
    """Return the place a location names, on one line; "" for an unknown one.

    `layer1.0.conv1 (model.py:42)` for a layer of an imported model, `file:line:column` for a place in a text.
    """
    if location is None or isinstance(location, str):
        return location or ""
    place = _find_place(location)
    if place is None or layer_name(location) is not None:
        return describe_origin(location)
    return _describe_place(place, place.filename)


def describe_origin(location: Any) -> str:
    """Return what a layer of a model is called: as `describe_location`, of files the names alone."""
    layer, place = layer_name(location), _find_place(location)
    line = "" if place is None else _describe_place(place, Path(place.filename).name)
    if layer is None:
        return line
    return f"{layer} ({line})" if line else layer


def layer_name(location: Any) -> str | None:
    """Return the layer (or parameter) that an MLIR location names, as in `layer1.0.conv1`."""
    named = _find(location, "name_str")
    return None if named is None else named.name_str


def source_line(location: Any) -> str | None:
    """Return the `file:line` of an MLIR location: of the user's model, or of the text it was read from."""
    place = _find_place(location)
    return None if place is None else f"{place.filename}:{place.start_line}"


def _find_place(location: Any) -> Any:
    """Return the file location of the layer that `layer_name` finds, or else the first one there is."""
    return _find(_find(location, "name_str") or location, "filename")


def _describe_place(place: Any, file: str) -> str:
    # Python source lines have no column.
    column = f":{place.start_col}" if place.start_col else ""
    return f"{file}:{place.start_line}{column}"


def _find(location: Any, attribute: str) -> Any:
    """Return the first part of a nested location that has an attribute, depth first; None without one.

    The kind of a location is known by its attributes, so that nothing here has to load MLIR.
    """
    if location is None or hasattr(location, attribute):
        return location
    inner = [getattr(location, name) for name in ("child_loc", "callee", "caller") if hasattr(location, name)]
    for part in [*inner, *getattr(location, "locations", ())]:
        found = _find(part, attribute)
        if found is not None:
            return found
    return None


def nearest(name: str, candidates: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the candidate nearest to `name`, or "" when none is near."""
    near = difflib.get_close_matches(name, list(candidates), n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else ""
