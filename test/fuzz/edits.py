"""Edits of bytes, of JSON values and of text, as JSON values themselves: drawn, applied, and simple to shrink."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator, Sequence
from typing import Any

from outcome import Case

Edit = list[Any]

# Numbers at the ends of types, and a little beyond.
ODD_NUMBERS = (
    0, 1, -1, 2, 3, 7, 8, 16, 63, 64, 127, 128, 255, 256, 4095, 4096, 65535, 65536, (1 << 31) - 1, 1 << 31, (1 << 32) - 1,
    1 << 32, (1 << 62) - 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 64, -(1 << 31), -(1 << 63), 10**30, 0.5, -0.0, 1e308,
)  # fmt: skip
ODD_TEXTS = (
    "", " ", "\n", "a\nb", "\0", "\x1b[31m", "é", "\u2028", "\ud800", "../../x", "/", "x" * 5000, "main", "0", "None", "%s%n",
    "__import__('os').mkdir('payload-ran')", "os.system", "[link=http://x]y[/link]", "[/]", "{}", "{0.__class__}",
)  # fmt: skip
ODD_VALUES = (None, True, False, [], {}, [[]], [0], [-1], {"a": 1}, {"leaf": 0}, [1, 2, 3, 4], "NaN")


def draw_bytes_edit(choices: random.Random, size: int) -> Edit:
    """Draw an edit of some bytes."""
    place = choices.randrange(max(size, 1)) if choices.random() < 0.6 else choices.randrange(max(min(size, 512), 1))
    kind = choices.choice(["flip", "flip", "set", "set", "cut", "insert", "truncate", "word", "swap", "zeros"])
    if kind == "flip":
        return [kind, place, choices.randrange(8)]
    if kind == "set":
        return [kind, place, choices.choice([0, 1, 0x7F, 0x80, 0xFF, choices.randrange(256)])]
    if kind == "insert":
        return [kind, place, bytes(choices.randrange(256) for _ in range(choices.randint(1, 16))).hex()]
    if kind == "truncate":
        return [kind, place]
    if kind == "word":
        width = choices.choice([2, 4, 8])
        number = choices.choice([n for n in ODD_NUMBERS if isinstance(n, int)])
        return [kind, place // width * width, (number % (1 << 8 * width)).to_bytes(width, "little").hex()]
    return [kind, place, choices.choice([1, 2, 8, 64, 1000])]


def edit_bytes(data: bytes, edit: Edit) -> bytes:
    """Return bytes after an edit; places beyond the end are taken from the start."""
    kind, place, *rest = edit
    if not data:
        return data
    changed, place = bytearray(data), place % len(data)
    if kind == "flip":
        changed[place] ^= 1 << rest[0]
    elif kind == "set":
        changed[place] = rest[0]
    elif kind == "insert":
        changed[place:place] = bytes.fromhex(rest[0])
    elif kind == "word":
        word = bytes.fromhex(rest[0])
        changed[place : place + len(word)] = word
        del changed[len(data) :]
    elif kind == "truncate":
        del changed[place:]
    elif kind == "cut":
        del changed[place : place + rest[0]]
    elif kind == "zeros":
        changed[place : place + rest[0]] = bytes(len(changed[place : place + rest[0]]))
    elif kind == "swap":
        first, second = changed[place : place + rest[0]], changed[place + rest[0] : place + 2 * rest[0]]
        changed[place : place + 2 * rest[0]] = second + first
    return bytes(changed)


# -- JSON ----------------------------------------------------------------------------------------------


def draw_json_edit(choices: random.Random, value: Any, odd: Sequence[Any] = ()) -> Edit:
    """Draw an edit of a JSON value: a place, what to do there, and with what.

    Args:
        odd: values to put in beside those that are always tried.
    """
    place = choices.choice(list(places(value)))
    old = at(value, place)
    kind = choices.choice(["put", "put", "put", "near", "near", "delete", "double", "from", "rename"])
    if kind == "near":
        return ["put", place, _near(choices, old)]
    if kind == "from":
        return ["put", place, copy.deepcopy(at(value, choices.choice(list(places(value)))))]
    if kind == "put":
        new = choices.choice([*ODD_NUMBERS, *ODD_TEXTS, *ODD_VALUES, *odd, *odd])
        return ["put", place, new if isinstance(new, (list, dict)) or choices.random() < 0.9 else [new]]
    return [kind, place, choices.choice(["", "x", "leaf", "constant", "format", "__class__"])]


def _near(choices: random.Random, value: Any) -> Any:
    """Return a value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return choices.choice(
            [value + 1, value - 1, value * 2, value // 2, -value, 0, str(value), float(value), [value]]
        )
    if isinstance(value, str):
        return choices.choice([value + "x", value[:-1], value.upper(), value[::-1], [value], *ODD_TEXTS])
    if isinstance(value, list):
        return choices.choice(
            [value[::-1], value + value, value[:-1], value[1:], {str(i): v for i, v in enumerate(value)}]
        )
    if isinstance(value, dict):
        return choices.choice([list(value.values()), dict(list(value.items())[::-1]), list(value)])
    return 0


def edit_json(value: Any, edit: Edit) -> Any:
    """Return a JSON value after an edit; a place that is not there changes nothing."""
    kind, place, argument = edit
    value = copy.deepcopy(value)
    if not place:
        return argument if kind == "put" else value
    try:
        parent = at(value, place[:-1])
        old = parent[place[-1]]
    except (KeyError, IndexError, TypeError):
        return value
    if not isinstance(parent, (dict, list)):
        return value
    if kind == "put":
        parent[place[-1]] = argument
    elif kind == "delete":
        del parent[place[-1]]
    elif isinstance(parent, list) and kind == "double":
        parent.insert(place[-1], copy.deepcopy(old))
    elif isinstance(parent, dict):
        parent[argument if kind == "rename" else f"{place[-1]}{argument}"] = old
        if kind == "rename" and argument != place[-1]:
            del parent[place[-1]]
    return value


def places(value: Any, start: tuple[Any, ...] = ()) -> Iterator[list[Any]]:
    """Yield the paths of all parts of a JSON value."""
    yield list(start)
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from places(part, (*start, key))


def at(value: Any, place: Sequence[Any]) -> Any:
    """Return the part of a JSON value at a path."""
    for key in place:
        value = value[key]
    return value


def dump(value: Any) -> bytes:
    """Return JSON text; halves of characters stay escaped."""
    return json.dumps(value, separators=(",", ":")).encode()


# -- Shrinking -----------------------------------------------------------------------------------------


def fewer(case: Case, name: str = "edits") -> Iterator[Case]:
    """Yield cases with fewer edits: halves first, then one less."""
    edits = case[name]
    if len(edits) > 2:
        yield case | {name: edits[: len(edits) // 2]}
        yield case | {name: edits[len(edits) // 2 :]}
    if len(edits) > 1:
        for i in range(len(edits)):
            yield case | {name: edits[:i] + edits[i + 1 :]}
