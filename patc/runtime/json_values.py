"""JSON from files that may have been changed: every value is checked before it is used."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

# What would break a line or change a terminal, and halves of characters, which nothing can print.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SHOWN = 40


def read_json(text: bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: it is none, a key comes twice, or it has numbers that JSON does not know.
    """
    try:
        return json.loads(
            text.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite
        )
    except UnicodeDecodeError:
        raise ValueError("its text is not UTF-8") from None
    except RecursionError:
        raise ValueError("its text is nested too deep") from None


def printable(text: str) -> str:
    """Return a text of one line that can be printed: every other character becomes "?"."""
    return _UNPRINTABLE.sub("?", text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key comes twice")
    return found


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large")
    return value


class JsonValue:
    """A value and its place in the text, as in `inputs[0].shape`; methods return what was asked for.

    Raises:
        ValueError: the value is of another type or out of range.
    """

    def __init__(self, value: Any, place: str) -> None:
        self.value, self.place = value, place

    def refuse(self, expected: str) -> NoReturn:
        """Raise an error that says what was expected and what is there."""
        try:
            found = json.dumps(self.value)
        except RecursionError:
            found = "one nested too deep"
        found = found if len(found) <= _SHOWN else f"{found[:_SHOWN]}..."
        raise ValueError(f"{self.place or 'description'}: expected {expected}, found {found}")

    def integer(self, low: int, high: int) -> int:
        """Return an integer from `low` to `high`."""
        if type(self.value) is not int or not low <= self.value <= high:
            self.refuse(f"an integer from {low} to {high}")
        return self.value

    def number(self) -> float:
        """Return a number of 0 or more that is written with a point or an exponent."""
        if type(self.value) is not float or self.value < 0:
            self.refuse("a number of 0 or more, written with a point")
        return self.value

    def truth(self) -> bool:
        """Return true or false."""
        if not isinstance(self.value, bool):
            self.refuse("true or false")
        return self.value

    def text(self, longest: int = 1 << 16) -> str:
        """Return a text of one line."""
        if not isinstance(self.value, str) or len(self.value) > longest or _UNPRINTABLE.search(self.value):
            self.refuse(f"a line of at most {longest} characters")
        return self.value

    def items(self, fewest: int, most: int) -> list[JsonValue]:
        """Return the items of a list."""
        if not isinstance(self.value, list) or not fewest <= len(self.value) <= most:
            self.refuse(f"a list of {fewest} items" if fewest == most else f"a list of {fewest} to {most} items")
        return [JsonValue(item, f"{self.place}[{place}]") for place, item in enumerate(self.value)]

    def integers(self, fewest: int, most: int, low: int, high: int) -> tuple[int, ...]:
        """Return a list of integers."""
        return tuple(item.integer(low, high) for item in self.items(fewest, most))

    def fields(self, *names: str) -> list[JsonValue]:
        """Return the values of an object that has these keys and no others."""
        if not isinstance(self.value, dict) or self.value.keys() != set(names):
            self.refuse(f"an object of {', '.join(names)}")
        return [JsonValue(self.value[name], f"{self.place}.{name}".lstrip(".")) for name in names]

    def members(self, most: int) -> list[tuple[str, JsonValue]]:
        """Return keys and values of an object."""
        if not isinstance(self.value, dict) or len(self.value) > most:
            self.refuse(f"an object of at most {most} keys")
        return [(key, JsonValue(value, f"{self.place}.{printable(key)}")) for key, value in self.value.items()]
