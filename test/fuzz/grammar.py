"""Edits of MLIR text that follow its grammar: attributes, types, ops and operands put in the place of others."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator

from edits import Edit

_VALUES = (
    "0", "-1", "9223372036854775807", "1 : i64", "0 : index", "-7 : i8", "1.0e+40 : f32", '"x"', '""', "true", "unit", "[]", "{}",
    "[0, 0]", "[-1]", "array<i64>", "array<i64: -1, 0>", "array<i64: 1, 2, 3, 4, 5>", "array<f32: 1.0>", "dense<0> : tensor<1xi64>",
    "dense<[1, 2]> : vector<2xi64>", "dense<> : tensor<0xf32>", "@main", "@nothing", "f32", "tensor<?xf32>", "() -> ()",
    "affine_map<(d0, d1) -> (d1, d0)>", "affine_map<() -> ()>", "affine_map<(d0) -> (d0 floordiv 0)>", "affine_set<() : ()>",
    "#pattern.fkw<[3, 3], [27]>", "#pattern.activation<relu>", "#spirv.vce<v1.0, [], []>", "strided<[1], offset: ?>", "loc(unknown)",
)  # fmt: skip
_TYPES = (
    "f32", "f16", "f64", "bf16", "i1", "i8", "i32", "i64", "ui8", "si32", "index", "none", "tensor<f32>", "tensor<0xf32>", "tensor<?xf32>",
    "tensor<*xf32>", "tensor<1x4x8x9xf32>", "tensor<1x4x8x9xi64>", "tensor<2x3xindex>", "memref<4xf32>", "memref<?x?xf32>",
    "memref<4x4xf32, strided<[1, 1], offset: 7>>", "memref<4xf32, 3>", "vector<4xf32>", "vector<[4]xf32>", "vector<1xf32>", "tuple<>",
    "!llvm.ptr", "complex<f32>", "() -> ()", "!pattern.nothing", "tensor<9223372036854775807xf32>", "tensor<3000000000x3000000000xf32>",
)  # fmt: skip
_OPS = (
    "pattern.conv2d", "pattern.sparse_conv2d", "pattern.linear", "pattern.pool", "pattern.parameter", "linalg.fill", "tensor.pad", "scf.for",
    "arith.constant", "arith.addf", "memref.load", "memref.alloc", "vector.transfer_read", "func.call", "func.return", "tensor.empty",
    "tensor.collapse_shape", "tensor.expand_shape", "tensor.extract_slice", "omp.parallel", "gpu.launch_func", "spirv.Load", "builtin.module",
)  # fmt: skip
_FINDERS: dict[str, re.Pattern[str]] = {
    "operand": re.compile(r"%[\w.#-]+"),
    "op": re.compile(r"(?<![\w.#!@%])[a-z_]\w*\.\w[\w.]*"),
    "name": re.compile(r"(?<![\w.#!@%])[a-z_]\w*(?=\s*=\s)"),
}
_TYPE = re.compile(r"\b(?:tensor|memref|vector)(?=<)|\b(?:f32|f16|i64|i32|i1|i8|index)\b")
_ATTRIBUTE = re.compile(r"(?<![%\w])[a-z_][\w.]*\s*=\s*")
_OPENING, _CLOSING = "([{<", ")]}>"


def draw_edit(choices: random.Random, text: str) -> Edit:
    """Draw an edit: a kind of part, which one of it, and what comes in its place."""
    kind = choices.choices(["attribute", "type", "operand", "op", "name", "drop"], [5, 4, 2, 2, 1, 2])[0]
    ends = list(_parts(text, "attribute" if kind == "drop" else kind))
    own = [text[start:end] for start, end in choices.sample(ends, min(len(ends), 4))]
    more = {"attribute": _VALUES, "type": _TYPES, "op": _OPS}.get(kind, ())
    word = "" if kind == "drop" else choices.choice([*own, *own, *more] or [""])
    return [kind, choices.randrange(max(len(ends), 1)), word]


def edit_text(text: str, edit: Edit) -> str:
    """Return a text after an edit; one without such parts stays as it is."""
    kind, number, word = edit
    found = list(_parts(text, "attribute" if kind == "drop" else kind))
    if not found:
        return text
    start, end = found[number % len(found)]
    if kind == "drop":  # the attribute with its name and its comma
        head = re.search(r"[a-z_][\w.]*\s*=\s*$", text[:start])
        start = head.start() if head else start
        end += len(re.match(r"\s*,?\s*", text[end:])[0])  # type: ignore[index]
    return text[:start] + word + text[end:]


def _parts(text: str, kind: str) -> Iterator[tuple[int, int]]:
    if kind == "type":
        for match in _TYPE.finditer(text):
            yield match.start(), _end_of(text, match.end(), lambda char: False)
    elif kind == "attribute":
        for match in _ATTRIBUTE.finditer(text):
            yield match.end(), _end_of(text, match.end(), lambda char: char not in ",\n")
    else:
        for match in _FINDERS[kind].finditer(text):
            yield match.span()


def _end_of(text: str, start: int, goes_on: Callable[[str], bool]) -> int:
    """Return where brackets that open at `start` are closed again, and what goes on behind them ends."""
    depth = 0
    for place in range(start, min(len(text), start + 4000)):
        char = text[place]
        if char in _OPENING:
            depth += 1
        elif char in _CLOSING and text[place - 1 : place + 1] != "->":
            if depth == 0:
                return place
            depth -= 1
            if depth == 0 and not goes_on(char):
                return place + 1
        elif depth == 0 and not goes_on(char):
            return place
    return start
