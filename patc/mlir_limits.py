"""Limits of MLIR text, checked before it is parsed.

The parser, and what works on its result, recurse as deeply as the text nests, and end the process where that is too
deep for the stack. A stack of 1 MB holds more than twice `MOST_NESTED` levels; IR of real programs has some ten.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import numpy as np

from patc.diagnostics import PatcError

MOST_NESTED = 256
MOST_OPERATORS = 1000  # of an affine expression
MOST_ELEMENTS = 1 << 40  # of a tensor, whose bytes can still be counted
MOST_EXPANDED = 1_000_000  # types, attributes and locations that one alias stands for, all that it names written out

_BYTECODE = b"ML\xefR"
# Strings and comments hold no brackets that count; arrows and comparisons no closing ones.
# (One class in front is three times as fast as alternatives alone. A string that does not end is where parsing ends.)
_SKIPPED = re.compile(rb'["/<=>-](?:(?<=")(?:[^"\\\n]|\\.)*"?|(?<=/)/[^\n]*|(?<=[-<=>])=|(?<=-)>)')
_ESCAPE = re.compile(rb"\\(?:([0-9A-Fa-f]{2})|.)")
_OPERATOR = re.compile(rb"[-+*]|\b(?:mod|floordiv|ceildiv)\b")
# Ops of linalg whose parsers go on without a list of numbers that they could not read.
_LIST = re.compile(
    rb"\blinalg\.(?:transpose|broadcast|reduce)\b(?:(?!\blinalg\.).)*?\b(?:permutation|dimensions)\s*=\s*"
    rb"(?P<list>\[\s*(?P<numbers>(?:-?\d+(?:\s*,\s*-?\d+)*)?)\s*\])?",
    re.DOTALL,
)
_ALIAS = re.compile(rb"^[ \t]*[#!]", re.MULTILINE)
# A line that begins an alias or an op, and not what an alias stands for.
_STATEMENT = re.compile(rb'\n[^\S\n]*(?:[#!][\w$.]+\s*=|module\b|func\b|[A-Za-z_]\w*\.\w|["%{])')
_NAME = re.compile(rb"([#!][\w$.]+)(\s*=)?")
_LOCATION = re.compile(rb"\bloc\s*\(")
# What stands before a location that is the value of an attribute or a part of one: of an op it follows its type.
_VALUE = re.compile(rb"(?:(?P<alias>#[\w$.]+)\s*=|[=\[,{<(])\s*\Z")
_LONGEST_ALIAS = 200  # bytes
_PARENTHESIS = re.compile(rb"[()]")
_STEPS = np.zeros(256, np.int8)
_STEPS[list(b"([{<")] = 1
_STEPS[list(b")]}>")] = -1
_ENDS = np.zeros(256, bool)
_ENDS[list(b",:={}<>@!")] = True


def check_text(text: bytes, place: str) -> None:
    """Refuse text that the bindings could not survive.

    Args:
        text: MLIR text; other text is left to the parser.
        place: the file's name.

    Raises:
        PatcError: it nests too deeply, by brackets or by aliases, is bytecode, has names that are not UTF-8, a list of
            dimensions that is none, or a location as an attribute, of which the bindings make no object.
    """
    if text.startswith(_BYTECODE):
        raise PatcError("expected MLIR text, found bytecode", place)
    _check_strings(text, place)
    code = _SKIPPED.sub(lambda match: b'"' if match[0].startswith(b'"') else b" ", text)
    steps = _steps(code)
    brackets = np.flatnonzero(steps)
    levels = _levels(steps[brackets])
    deepest = int(levels.max(initial=0))
    if deepest > MOST_NESTED:
        line = 1 + code.count(b"\n", 0, int(brackets[np.argmax(levels > MOST_NESTED)]))
        found = f"{deepest} (too many from line {line} on)"
        raise PatcError(f"expected at most {MOST_NESTED} brackets in each other, found {found}", place)
    _check_expressions(code, place)
    _check_lists(code, place)
    _check_locations(code, place)
    if _ALIAS.search(code):
        _check_aliases(code, place)


def _check_strings(text: bytes, place: str) -> None:
    """Refuse strings that Python could not read: the bindings do not say which."""
    if text.isascii() and b"\\" not in text:
        return
    for match in _SKIPPED.finditer(text):
        try:
            if match[0].startswith(b'"'):
                _ESCAPE.sub(lambda escape: bytes.fromhex(escape[1].decode()) if escape[1] else b"", match[0]).decode()
        except UnicodeDecodeError:
            line = 1 + text.count(b"\n", 0, match.start())
            expected = "expected MLIR text with strings in UTF-8"
            raise PatcError(f"{expected}, found other bytes in line {line}", place) from None


def _steps(code: bytes) -> np.ndarray:
    """Return 1 for each opening bracket, -1 for each closing one, and 0 for other bytes."""
    return np.frombuffer(code.translate(_STEPS.tobytes()), np.int8)


def _levels(steps: np.ndarray) -> np.ndarray:
    """Return in how many brackets one is after each step; closing ones that nothing opens do not count."""
    sums = np.cumsum(steps, dtype=np.int32)
    return sums - np.minimum(np.minimum.accumulate(sums), 0)


def _check_lists(code: bytes, place: str) -> None:
    for found in _LIST.finditer(code):
        numbers = (found["numbers"] or b"").replace(b",", b" ").split()
        # (Python converts no text of thousands of digits.)
        if found["list"] is None or any(len(number) > 20 or not _is_i64(int(number)) for number in numbers):
            line = 1 + code.count(b"\n", 0, found.end())
            raise PatcError(f"expected a list of dimensions such as [0, 1] in line {line}, found another", place)


def _check_locations(code: bytes, place: str) -> None:
    """Refuse locations where attributes are, written out or as aliases."""
    names, begin = set[bytes](), 0
    others: list[tuple[int, bytes]] = []  # what is in no location, and where
    for match in _LOCATION.finditer(code):
        if match.start() < begin:
            continue
        others.append((begin, code[begin : match.start()]))
        before = _VALUE.search(code, max(0, match.start() - _LONGEST_ALIAS), match.start())
        if before is not None and before["alias"] is None:
            raise _no_attribute(code, match.start(), place)
        if before is not None:
            names.add(before["alias"])
        begin = _end_of_parentheses(code, match.end())
    others.append((begin, code[begin:]))
    for start, text in others if names else ():
        for name in _NAME.finditer(text):
            if name[2] is None and name[1] in names:
                raise _no_attribute(code, start + name.start(), place)


def _end_of_parentheses(code: bytes, start: int) -> int:
    """Return where those end that opened before `start`."""
    depth = 1
    for match in _PARENTHESIS.finditer(code, start):
        depth += 1 if match[0] == b"(" else -1
        if depth == 0:
            return match.end()
    return len(code)


def _no_attribute(code: bytes, position: int, place: str) -> PatcError:
    line = 1 + code.count(b"\n", 0, position)
    return PatcError(f"expected attributes that are no locations, found one in line {line}", place)


def _is_i64(number: int) -> bool:
    return -(1 << 63) <= number < 1 << 63


def _check_expressions(code: bytes, place: str) -> None:
    """Refuse affine expressions of very many operators: each nests in the next, without a bracket."""
    ends = np.flatnonzero(_ENDS[np.frombuffer(code, np.uint8)])
    bounds = np.concatenate(([0], ends, [len(code)]))
    for index in np.flatnonzero(np.diff(bounds) > MOST_OPERATORS).tolist():
        count = len(_OPERATOR.findall(code, int(bounds[index]), int(bounds[index + 1])))
        if count > MOST_OPERATORS:
            raise PatcError(f"expected expressions of at most {MOST_OPERATORS} operators, found {count}", place)


def _check_aliases(code: bytes, place: str) -> None:
    """Refuse aliases that nest too deeply, or would take too much room, with what they name put in."""
    uses = dict(_definitions(code, _levels(_steps(code))))
    depths: dict[bytes, int] = {}
    sizes: dict[bytes, int] = {}
    for name in _inner_first({name: used for name, (_, used) in uses.items()}):
        own, used = uses[name]
        depths[name] = own + max((depths.get(other, 0) for other in used), default=0)
        sizes[name] = 1 + sum(sizes.get(other, 0) for other in used)
        if depths[name] > MOST_NESTED:
            found = f"{depths[name]} with all that alias {name.decode()} stands for"
            raise PatcError(f"expected at most {MOST_NESTED} brackets in each other, found {found}", place)
        if sizes[name] > MOST_EXPANDED:
            found = f"alias {name.decode()} of {sizes[name]} parts"
            raise PatcError(f"expected aliases of at most {MOST_EXPANDED} parts, all written out, found {found}", place)


def _definitions(code: bytes, levels: np.ndarray) -> Iterator[tuple[bytes, tuple[int, list[bytes]]]]:
    """Yield each alias with the levels of its brackets and the aliases that it names."""
    outside = np.flatnonzero((np.frombuffer(code, np.uint8) == ord("\n")) & (levels == 0))
    start = 0
    for end in (*(place for place in outside.tolist() if _STATEMENT.match(code, place)), len(code)):
        if code[start:end].lstrip()[:1] in (b"#", b"!"):
            yield from _split(code[start:end], levels[start:end])
        start = end


def _split(statement: bytes, levels: np.ndarray) -> Iterator[tuple[bytes, tuple[int, list[bytes]]]]:
    """Yield the aliases that one or more definitions on a line define."""
    name, begin, used = b"", 0, list[bytes]()
    for match in _NAME.finditer(statement):
        if match[2] is None:
            used.append(match[1])
            continue
        if name:
            yield name, (int(levels[begin : match.start()].max(initial=0)), used)
        name, begin, used = match[1], match.start(), []
    if name:
        yield name, (int(levels[begin:].max(initial=0)), used)


def _inner_first(uses: dict[bytes, list[bytes]]) -> Iterable[bytes]:
    """Return names so that each comes after those it uses; locations may be used before they are defined."""
    order: dict[bytes, None] = {}
    for root in uses:
        path = [root]
        entered = set[bytes]()
        while path:
            name = path[-1]
            waiting = [] if name in entered else [other for other in uses[name] if other in uses and other not in order]
            entered.add(name)
            if waiting:
                path += waiting
            else:
                order[path.pop()] = None
    return order
