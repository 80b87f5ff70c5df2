"""`.patc` files, most of them with a fresh digest: refused in one line, or with the outputs that they had.

What instructions do, constants among them, and where relocations point in a range that is right, is other code, and no
loader can tell: such edits are not made.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import bases
import numpy as np
from edits import Edit, draw_bytes_edit, draw_json_edit, dump, edit_bytes, edit_json, fewer
from outcome import Case, Fault, attempt

import patc
from patc.runtime import artefact
from patc.runtime.description import interface

_FILES = {
    "plain": ("plain", {"threads": 1}),
    "threads": ("plain", {"threads": 2}),
    "several": ("several", {"threads": 1}),
    "gpu": ("several", {"target": "spirv-vulkan"}),
    "arm": ("plain", {"target": "aarch64-linux"}),
}
_SECTION = {"name": (0, 4), "type": (4, 4), "flags": (8, 8), "address": (16, 8), "offset": (24, 8), "size": (32, 8),
            "link": (40, 4), "info": (44, 4), "align": (48, 8), "entry": (56, 8)}  # fmt: skip
_SYMBOL = {"name": (0, 4), "info": (4, 1), "other": (5, 1), "section": (6, 2), "value": (8, 8), "size": (16, 8)}
_SYMBOLS, _RELOCATIONS = 2, 4  # types of sections


class Kind:
    def __init__(self, folder: Path) -> None:
        self.files: dict[str, bytes] = {}
        self.wanted: dict[str, list[np.ndarray]] = {}
        self.inputs: dict[str, list[np.ndarray]] = {}
        for name, (base, options) in _FILES.items():
            model, inputs = bases.make(base)
            compiled = patc.compile(model, inputs, **options)
            path = folder / f"{name}.patc"
            compiled.save(path)
            self.files[name] = path.read_bytes()
            self.inputs[name] = [x.numpy() for x in inputs]
            if name not in ("gpu", "arm"):
                self.wanted[name] = bases.leaves(patc.load(path)(*self.inputs[name]))

    def draw(self, choices: random.Random) -> Case:
        base = choices.choice(["plain"] * 4 + ["threads", "threads", "several", "several", "gpu", "gpu", "arm"])
        parts = artefact.split(self.files[base])
        fresh = choices.random() < 0.85
        edits = [
            self._draw_edit(choices, base, parts)
            if fresh
            else ["raw", *draw_bytes_edit(choices, len(self.files[base]))]
            for _ in range(choices.choice([1, 1, 1, 2, 3]))
        ]
        return {"base": base, "edits": edits}

    def _draw_edit(self, choices: random.Random, base: str, parts: artefact.Parts) -> Edit:
        if base != "gpu" and choices.random() < 0.15:
            return ["stated", *_draw_described(choices, _values(parts.description))]
        kinds = ["json"] * 8 + ["description", "weights", "size", "signature"]
        kinds += (
            ["gpu"] * 6 if base == "gpu" else ["elf"] * 3 + ["section"] * 4 + ["symbol"] * 4 + ["relocation", "code"]
        )
        kind = choices.choice(kinds)
        if kind == "json":
            return [kind, *draw_json_edit(choices, _values(parts.description))]
        if kind == "gpu":
            return [kind, *draw_json_edit(choices, _values(_gpu_text(parts.code)))]
        if kind == "description":
            return [kind, *draw_bytes_edit(choices, len(parts.description))]
        if kind == "weights":
            return [kind, *draw_bytes_edit(choices, parts.weights.nbytes)]
        if kind == "code":
            return [
                kind,
                *choices.choice(
                    [["truncate", choices.randrange(len(parts.code))], ["insert", 0, "00"], ["cut", 0, 64]]
                ),
            ]
        number = choices.choice(
            [0, 1, 2, 3, 7, 8, 64, 4096, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 63) - 1, (1 << 64) - 1]
        )
        number = choices.choice([number, choices.randrange(1 << 8)])
        if kind == "elf":
            return [kind, choices.randrange(64), choices.choice([1, 2, 4, 8]), number]
        if kind == "section":
            return [kind, choices.randrange(12), choices.choice(list(_SECTION)), number]
        if kind == "symbol":
            return [kind, choices.randrange(24), choices.choice([name for name in _SYMBOL if name != "value"]), number]
        if kind == "relocation":
            return [
                kind,
                choices.randrange(40),
                *choices.choice([("place", 1 << choices.randrange(24, 64)), ("kind", 200)]),
            ]
        return [kind, choices.randrange(8), number]

    def run(self, case: Case, folder: Path) -> str:
        base = case["base"]
        data = self.apply(case)
        path = folder / "edited.patc"
        path.write_bytes(data)
        model = attempt(lambda: patc.load(path), path.name)
        with contextlib.redirect_stdout(io.StringIO()):
            from patc.tools.patc import main

            if main(["report", str(path)]):
                raise Fault("a model that loads, and has no report")
        if data == self.files[base]:
            return "as before"
        if base == "gpu":
            return "another model for a GPU"  # which is not here
        shapes = [(info.name, info.shape) for info in model.program.inputs]
        if [shape for _, shape in shapes] != [x.shape for x in self.inputs[base]]:
            raise Fault("another shape of the inputs is taken", str(shapes))
        self._compare(model, base)
        return "the same numbers"

    def _compare(self, model: Any, base: str) -> None:
        inputs = self.inputs[base]
        found = bases.leaves(attempt(lambda: model(*inputs)))
        wanted = self.wanted[base]
        if sorted(y.shape for y in found) != sorted(y.shape for y in wanted):
            raise Fault("outputs of another shape", str([y.shape for y in found]))
        for y in found:
            if not any(np.array_equal(y, other, equal_nan=True) for other in wanted):
                raise Fault("wrong numbers")

    def apply(self, case: Case) -> bytes:
        """Return the edited file."""
        data = self.files[case["base"]]
        for kind, *edit in case["edits"]:
            if kind == "raw":
                data = edit_bytes(data, edit)
                continue
            try:
                parts = artefact.split(data)
            except ValueError:
                break  # an edit of the file as a whole came before
            data = artefact.join(_edit_parts(parts, kind, edit))
            if kind == "size":  # one of the sizes in the header, and the digest as if it were right
                data = edit_bytes(data, ["word", edit[0] * 8, (edit[1] % (1 << 64)).to_bytes(8, "little").hex()])
        return data

    def smaller(self, case: Case) -> Iterator[Case]:
        yield from fewer(case)


def _edit_parts(parts: artefact.Parts, kind: str, edit: Edit) -> artefact.Parts:
    if kind == "json":
        try:
            return replace(parts, description=dump(edit_json(_values(parts.description), edit)))
        except ValueError:
            return parts  # its bytes were edited before
    if kind == "stated":
        return _state(parts, edit)
    if kind == "gpu":
        return replace(parts, code=_edit_gpu(parts.code, edit))
    if kind == "description":
        return replace(parts, description=edit_bytes(parts.description, edit))
    if kind == "weights":
        return replace(parts, weights=np.frombuffer(edit_bytes(parts.weights.tobytes(), edit), np.uint8))
    if kind == "signature":
        return replace(parts, signature=bytes([edit[0] + 1]) * 64)
    if kind == "code":
        return replace(parts, code=edit_bytes(parts.code, edit))
    if kind in ("elf", "section", "symbol", "relocation"):
        return replace(parts, code=_edit_elf(parts.code, kind, edit))
    return parts


def _draw_described(choices: random.Random, values: Any) -> Edit:
    """Draw an edit of what a description says beside sizes, threads and numbers, which code is compiled for."""
    while True:
        edit = draw_json_edit(choices, values)
        place = edit[1]
        is_name = len(place) == 3 and place[0] in ("inputs", "outputs") and place[2] == "name"
        if place and (
            is_name or place[0] in ("structure", "target", "features") or (place[0] == "layers" and len(place) > 2)
        ):
            return edit


def _state(parts: artefact.Parts, edit: Edit) -> artefact.Parts:
    """Edit the description, and let the code say that it was compiled for that."""
    try:
        edited = replace(parts, description=dump(edit_json(_values(parts.description), edit)))
    except ValueError:
        return parts  # its bytes were edited before
    old, new = (interface(item.description, parts.weights_digest, 0) for item in (parts, edited))
    return replace(edited, code=parts.code.replace(old, new))


def _values(description: bytes) -> Any:
    return json.loads(description)


def _gpu_text(code: bytes) -> bytes:
    return code[16 : 16 + int.from_bytes(code[8:16], "little")]


def _edit_gpu(code: bytes, edit: Edit) -> bytes:
    """Edit the JSON in front of SPIR-V modules."""
    text = _gpu_text(code)
    try:
        new = dump(edit_json(_values(text), edit))
    except ValueError:
        return code
    return code[:8] + len(new).to_bytes(8, "little") + new + code[16 + len(text) :]


def _edit_elf(code: bytes, kind: str, edit: Edit) -> bytes:
    """Write a number to a field of the headers, of a section, a symbol or a relocation."""
    if len(code) < 64 or code[:4] != b"\x7fELF":
        return code
    if kind == "elf":
        place, width, number = edit
        return _write(code, place // width * width, width, number)
    index, field, number = edit
    table, count = struct.unpack_from("<Q", code, 40)[0], struct.unpack_from("<H", code, 60)[0]
    if not count or table + 64 * count > len(code):
        return code
    if kind == "section":
        place, width = _SECTION[field]
        return _write(code, table + 64 * (index % count) + place, width, number)
    wanted = _SYMBOLS if kind == "symbol" else _RELOCATIONS
    for i in range(count):
        type_, start, size = (
            struct.unpack_from(f, code, table + 64 * i + p)[0] for f, p in (("<I", 4), ("<Q", 24), ("<Q", 32))
        )
        if type_ == wanted and size >= 24 and start + size <= len(code):
            entry = start + 24 * (index % (size // 24))
            place, width = _SYMBOL[field] if kind == "symbol" else {"place": (0, 8), "kind": (8, 4)}[field]
            return _write(code, entry + place, width, number)
    return code


def _write(code: bytes, place: int, width: int, number: int) -> bytes:
    return code[:place] + (number % (1 << 8 * width)).to_bytes(width, "little") + code[place + width :]
