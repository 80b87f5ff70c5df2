"""JSON values checked against dataclasses, before anything is made of them."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import json
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from patc.diagnostics import PatcError, first_line

_INTEGERS = range(-(1 << 63), 1 << 63)
# How JSON without NaN and infinity writes them.
_NOT_FINITE = ("NaN", "Infinity", "-Infinity")


class Mismatch(Exception):
    """A value is not what it is expected to be.

    Args:
        expected: what would be right.
        found: what it is, in words; see `quote`.
        place: fields and indices that lead to it from where it is checked; see `placed`.
    """

    def __init__(self, expected: str, found: str, *place: str | int) -> None:
        super().__init__(expected, found)
        self.expected, self.found, self.place = expected, found, list(place)

    def __str__(self) -> str:
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{ascii(part)[1:-1]}" for part in self.place)
        return f"expected {place[1:] or 'the text'} to be {self.expected}, found {self.found}"


@contextlib.contextmanager
def placed(*place: str | int) -> Iterator[None]:
    """Say where the values are that are checked inside."""
    try:
        yield
    except Mismatch as error:
        error.place[:0] = place
        raise


def parse_json(data: bytes, name: str, path: str) -> Any:
    """Return the value of JSON text in UTF-8.

    Args:
        name: of the entry that the text is in, for messages.
        path: of the file.

    Raises:
        PatcError: the text is damaged, or nested too deeply.
    """
    try:
        return json.loads(data.decode())
    except RecursionError:
        raise PatcError(f"expected '{name}' to be JSON, found text that is nested too deeply", path) from None
    except ValueError as error:
        raise PatcError(f"expected '{name}' to be JSON, found damaged text: {first_line(error)}", path) from None


def check_value(expected: Any, value: Any, is_union: Callable[[type], bool]) -> None:
    """Check a JSON value against a type: of dataclasses, enums, lists, dictionaries with text as keys, and scalars.

    Fields that a dataclass does not have are let pass: a later version may have added them.

    Args:
        expected: the type, with forward references resolved.
        value: what `json.loads` returned.
        is_union: whether a dataclass is a union: its value is an object of one field.

    Raises:
        Mismatch: the value is of another type.
    """
    _Checker(is_union).check(expected, value)


class _Checker:
    def __init__(self, is_union: Callable[[type], bool]) -> None:
        self._is_union = is_union

    def check(self, expected: Any, value: Any) -> None:
        origin = typing.get_origin(expected)
        if origin in (typing.Union, types.UnionType):
            if value is not None:
                self.check(typing.get_args(expected)[0], value)
        elif origin is list:
            if not isinstance(value, list):
                raise Mismatch("a list", quote(value))
            for index, item in enumerate(value):
                self._check_part(typing.get_args(expected)[0], item, index)
        elif origin is dict:
            if not isinstance(value, dict):
                raise Mismatch("an object", quote(value))
            for key, item in value.items():
                _check_text(key)
                self._check_part(typing.get_args(expected)[1], item, key)
        elif dataclasses.is_dataclass(expected):
            self._check_object(typing.cast(type, expected), value)
        else:
            _check_scalar(expected, value)

    def _check_part(self, expected: Any, value: Any, key: str | int) -> None:
        try:  # as `placed`, which costs more
            self.check(expected, value)
        except Mismatch as error:
            error.place.insert(0, key)
            raise

    def _check_object(self, expected: type, value: Any) -> None:
        fields, needed = _fields(expected)
        if not isinstance(value, dict):
            raise Mismatch("an object", quote(value))
        if self._is_union(expected):
            if len(value) != 1 or next(iter(value)) not in fields:
                raise Mismatch(f"an object of one {expected.__name__}", quote(value))
        elif not value.keys() >= needed:
            raise Mismatch(f"an object with '{min(needed - value.keys())}'", quote(value))
        for name, item in value.items():
            if name in fields:
                self._check_part(fields[name], item, name)


@functools.cache
def _fields(cls: type) -> tuple[Mapping[str, Any], frozenset[str]]:
    """Return the types of a dataclass's fields, and the names of those without a default."""
    missing = dataclasses.MISSING
    needed = [
        field.name for field in dataclasses.fields(cls) if field.default is missing and field.default_factory is missing
    ]
    return typing.get_type_hints(cls), frozenset(needed)


def _check_scalar(expected: Any, value: Any) -> None:
    if expected is str:
        _check_text(value)
    elif expected is bool:
        if not isinstance(value, bool):
            raise Mismatch("true or false", quote(value))
    elif expected is float:
        if (isinstance(value, bool) or not isinstance(value, (int, float))) and value not in _NOT_FINITE:
            raise Mismatch("a number", quote(value))
        if isinstance(value, int) and value not in _INTEGERS:
            raise Mismatch("a number of 64 bits", quote(value))
    elif isinstance(value, bool) or not isinstance(value, int) or value not in _INTEGERS:
        raise Mismatch("a whole number of 64 bits", quote(value))
    elif issubclass(expected, enum.IntEnum) and value not in expected._value2member_map_:
        raise Mismatch(f"a {expected.__name__}", quote(value))


def _check_text(value: Any) -> None:
    if not isinstance(value, str):
        raise Mismatch("text", quote(value))
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a pair of code units
        raise Mismatch("valid Unicode", quote(value)) from None


def quote(value: Any) -> str:
    """Return how messages call a JSON value, on one short line."""
    if isinstance(value, Mapping):
        return f"an object of {', '.join(map(ascii, list(value)[:3])) or 'nothing'}"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
