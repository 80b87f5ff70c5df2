"""Pickles that run code when they are read: they make a folder, or start a process, which a worker notices."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import random
import zipfile
from typing import Any

from worker import MARKER


class _Call:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.arguments


_CODE = f"__import__('os').mkdir('{MARKER}')"
_CALLS = {
    "mkdir": (os.mkdir, MARKER),
    "eval": (builtins.eval, _CODE),
    "exec": (builtins.exec, _CODE),
    "system": (os.system, f"mkdir {MARKER}"),
}


def names() -> list[str]:
    """Return the names of all payloads."""
    return [f"{form}-{call}" for form in ("plain", "archive", "legacy") for call in _CALLS]


def make(name: str) -> bytes:
    """Return a payload: a pickle, an archive as `torch.save` writes it, or the older form of that."""
    form, _, call = name.partition("-")
    value = {"state_dict": _Call(*_CALLS[call])}
    if form == "plain":
        return pickle.dumps(value, 2)
    if form == "legacy":
        # A magic number, a protocol version and the system's sizes come before the value.
        parts = (
            0x1950A86A20F9469CFC6C,
            1001,
            {"protocol_version": 1001, "little_endian": True, "type_sizes": {}},
            value,
            [],
        )
        return b"".join(pickle.dumps(part, 2) for part in parts)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(value, 2))
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return stream.getvalue()


def draw(choices: random.Random) -> str:
    """Draw the name of a payload."""
    return choices.choice(names())
