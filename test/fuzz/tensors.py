"""Edits of safetensors files: of bytes, and of the header as JSON."""

from __future__ import annotations

import json
import random

from edits import Edit, draw_bytes_edit, draw_json_edit, dump, edit_bytes, edit_json

_ODD = (
    "BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F16", "BF16", "F32", "F64", "I64", "U64", "F4", "C64", "f32",
    [0, 4], [4, 0], [0, 1 << 40], [-4, 0], [1 << 62, (1 << 62) + 4],
)  # fmt: skip


def draw_edit(choices: random.Random, data: bytes) -> Edit:
    """Draw an edit of a file."""
    if choices.random() < 0.3:
        return ["raw", *draw_bytes_edit(choices, len(data))]
    if choices.random() < 0.1:
        return ["length", choices.choice([0, 1, 8, len(data), 1 << 31, 1 << 62, (1 << 64) - 1])]
    return ["header", *draw_json_edit(choices, json.loads(header(data)), _ODD)]


def header(data: bytes) -> bytes:
    """Return the JSON text at the start of a file."""
    return data[8 : 8 + int.from_bytes(data[:8], "little")]


def apply(data: bytes, edit: Edit) -> bytes:
    """Return a file after an edit; its header stays a multiple of eight bytes."""
    kind, *rest = edit
    if kind == "raw":
        return edit_bytes(data, rest)
    if kind == "length":
        return rest[0].to_bytes(8, "little") + data[8:]
    old = header(data)
    try:
        new = dump(edit_json(json.loads(old), rest))
    except ValueError:
        return data  # damaged by an edit before
    new += b" " * (-len(new) % 8)
    return len(new).to_bytes(8, "little") + new + data[8 + len(old) :]
