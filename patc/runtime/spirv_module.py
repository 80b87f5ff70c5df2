"""SPIR-V modules before a driver gets them: their frame is checked, instructions are the driver's business."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator

_MAGIC = 0x07230203
_VERSIONS = tuple(1 << 16 | minor << 8 for minor in range(4))  # 1.0 to 1.3, which Vulkan 1.1 takes
_HEADER_WORDS = 5
_LARGEST_BOUND = 1 << 22
_SOURCE_EXTENSION, _EXTENSION, _ENTRY_POINT, _EXECUTION_MODE, _CAPABILITY, _FUNCTION_END = 4, 10, 15, 16, 17, 56
_COMPUTE, _LOCAL_SIZE = 5, 17
_CAPABILITIES = {"Matrix": 0, "Shader": 1, "Float16": 9, "StorageBuffer16BitAccess": 4433}
_STATEMENT = "patc_interface "

_Instruction = tuple[int, tuple[int, ...]]


def check_module(
    data: bytes, entry: str, threads: int, capabilities: Collection[str], extensions: Collection[str]
) -> None:
    """Refuse what is no module of one kernel.

    Args:
        data: of the module.
        entry: name of the kernel.
        threads: of a workgroup, along x.
        capabilities, extensions: that it may need.

    Raises:
        ValueError: what was expected, in one line.
    """
    found = list(_instructions(data))
    for code, words in found:
        if code == _CAPABILITY:
            allowed = {(_CAPABILITIES[name],) for name in ("Matrix", *capabilities) if name in _CAPABILITIES}
            _require(words in allowed, f"a module '{entry}' of the capabilities that its kernel tells")
        if code == _EXTENSION:
            _require(_text(words) in extensions, f"a module '{entry}' of the extensions that its kernel tells")
    entries = [words for code, words in found if code == _ENTRY_POINT]
    right = len(entries) == 1 and entries[0][:1] == (_COMPUTE,) and _text(entries[0][2:]) == entry
    _require(right, f"a module of one kernel '{entry}'")
    modes = [words for code, words in found if code == _EXECUTION_MODE]
    _require(modes == [(entries[0][1], _LOCAL_SIZE, threads, 1, 1)], f"a module '{entry}' of {threads} threads")
    _require(found[-1][0] == _FUNCTION_END, f"a module '{entry}' that ends with a function")


def add_statement(data: bytes, statement: str) -> bytes:
    """Return a module that says in a comment what it was compiled for."""
    place = _HEADER_WORDS
    for code, words in _instructions(data):
        place += 1 + len(words)
        if code == _EXECUTION_MODE:
            break
    text = (_STATEMENT + statement).encode()
    text += bytes(4 - len(text) % 4)
    head = struct.pack("<I", (1 + len(text) // 4) << 16 | _SOURCE_EXTENSION)
    return data[: 4 * place] + head + text + data[4 * place :]


def read_statement(data: bytes) -> str:
    """Return what `add_statement` added.

    Raises:
        ValueError: there is none, or several.
    """
    texts = [_text(words) for code, words in _instructions(data) if code == _SOURCE_EXTENSION]
    _require(len(texts) == 1 and texts[0].startswith(_STATEMENT), "a module that says what it was compiled for")
    return texts[0].removeprefix(_STATEMENT)


def _instructions(data: bytes) -> Iterator[_Instruction]:
    """Yield the number and the operands of each instruction."""
    _require(len(data) % 4 == 0 and len(data) > 4 * _HEADER_WORDS, "SPIR-V of whole words")
    words = struct.unpack(f"<{len(data) // 4}I", data)
    magic, version, _, bound, schema = words[:_HEADER_WORDS]
    known = magic == _MAGIC and version in _VERSIONS and 0 < bound <= _LARGEST_BOUND and schema == 0
    _require(known, "SPIR-V of version 1.0 to 1.3")
    place = _HEADER_WORDS
    while place < len(words):
        count = words[place] >> 16
        _require(0 < count <= len(words) - place, "SPIR-V of whole instructions")
        yield words[place] & 0xFFFF, words[place + 1 : place + count]
        place += count


def _text(words: tuple[int, ...]) -> str:
    data = struct.pack(f"<{len(words)}I", *words)
    _require(b"\0" in data, "a text that ends")
    return data[: data.index(b"\0")].decode()


def _require(condition: bool, expected: str) -> None:
    if not condition:
        raise ValueError(f"expected {expected}")
