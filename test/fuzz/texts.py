"""MLIR texts to start from, and edits of text: words, numbers, lines, and nesting."""

from __future__ import annotations

import random
import re
from pathlib import Path

from edits import ODD_NUMBERS, Edit, draw_bytes_edit, edit_bytes

TESTS = Path(__file__).parents[1]
_WORD = re.compile(r"[%@#!]?[A-Za-z_][\w.$-]*")
_NUMBER = re.compile(r"-?\b\d+(?:\.\d+)?(?:e[+-]?\d+)?")
_WORDS = (
    "tensor", "f32", "f16", "f64", "i1", "i32", "index", "memref", "vector", "?", "*", "loc(unknown)", "none", "->", "()",
    "pattern.conv2d", "pattern.parameter", "func.func", "@main", "dense", "array<i64>", "affine_map<(d0) -> (d0)>",
    "tensor<*xf32>", "tensor<?x?xf32>", "tuple<>", "complex<f32>", "i0", "i16777215", "#pattern.fkw<[3, 3], [27]>",
)  # fmt: skip
_NESTS = {
    "region": ("scf.if %true {\n", "}\n"),
    "attribute": ("[", "]"),
    "dictionary": ("{a = ", "}"),
    "tuple": ("tuple<", ">"),
    "location": ('loc(fused[', '])'),
    "function": ("(", ")"),
}  # fmt: skip
_DEPTHS = (3, 40, 500, 8_000, 100_000)


def lit_texts() -> dict[str, str]:
    """Return the texts of the lit tests, part by part, by name."""
    found = {}
    for path in sorted(TESTS.glob("*/**/*.mlir")):
        for number, part in enumerate(path.read_text().split("// -----\n")):
            text = "\n".join(line for line in part.splitlines() if not line.strip().startswith("//"))
            found[f"{path.relative_to(TESTS)}:{number}"] = text.strip() + "\n"
    return found


def draw_edit(choices: random.Random, text: str, others: list[str]) -> Edit:
    """Draw an edit of a text.

    Args:
        others: texts that lines are taken from.
    """
    lines = text.splitlines() or [""]
    kind = choices.choices(
        ["bytes", "number", "word", "delete", "double", "swap", "take", "nest"], [2, 5, 5, 2, 2, 2, 3, 0.4]
    )[0]
    if kind == "bytes":
        return [kind, *draw_bytes_edit(choices, len(text))]
    if kind == "number":
        return [kind, choices.randrange(400), str(choices.choice([*ODD_NUMBERS, *range(9)]))]
    if kind == "word":
        words = _WORD.findall(text) or [""]
        return [kind, choices.randrange(400), choices.choice([*_WORDS, choices.choice(words), choices.choice(words)])]
    if kind == "take":
        other = choices.choice(others).splitlines() or [""]
        return [kind, choices.randrange(len(lines)), choices.choice(other)]
    if kind == "nest":
        return [kind, choices.choice(list(_NESTS)), choices.choice(_DEPTHS), choices.randrange(len(lines))]
    return [kind, choices.randrange(len(lines)), choices.randrange(len(lines))]


def edit_text(data: bytes, edit: Edit) -> bytes:
    """Return the bytes of a text after an edit."""
    kind, *rest = edit
    if kind == "bytes":
        return edit_bytes(data, rest)
    text = data.decode(errors="surrogateescape")
    if kind in ("number", "word"):
        text = _replace(text, _NUMBER if kind == "number" else _WORD, *rest)
    else:
        text = "\n".join(_edit_lines(text.split("\n"), kind, rest))
    return text.encode(errors="surrogateescape")


def _replace(text: str, what: re.Pattern[str], number: int, new: str) -> str:
    found = list(what.finditer(text))
    if not found:
        return text
    match = found[number % len(found)]
    return text[: match.start()] + new + text[match.end() :]


def _edit_lines(lines: list[str], kind: str, rest: Edit) -> list[str]:
    if kind == "nest":
        name, depth, place = rest
        before, after = _NESTS[name]
        nested = before * depth + after * depth
        line = lines[place % len(lines)]
        lines[place % len(lines)] = nested if name == "region" else line.replace("{", "{nested = " + nested + ", ", 1)
        return lines
    first, second = rest[0] % len(lines), rest[1]
    if kind == "take":
        return [*lines[:first], second, *lines[first:]]
    if kind == "delete":
        return lines[:first] + lines[first + 1 :]
    if kind == "double":
        return lines[: first + 1] + lines[first:]
    lines[first], lines[second % len(lines)] = lines[second % len(lines)], lines[first]
    return lines
