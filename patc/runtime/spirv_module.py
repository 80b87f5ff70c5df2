"""SPIR-V modules before a driver gets them: their frame is checked, instructions are the driver's business."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from patc.capabilities import CAPABILITIES
from patc.runtime.expected import require

_MAGIC = 0x07230203
_VERSIONS = tuple(1 << 16 | minor << 8 for minor in range(4))  # 1.0 to 1.3, which Vulkan 1.1 takes
_HEADER_WORDS = 5
_LARGEST_BOUND = 1 << 22
_SOURCE_EXTENSION, _EXTENSION, _ENTRY_POINT, _EXECUTION_MODE, _CAPABILITY, _FUNCTION_END = 4, 10, 15, 16, 17, 56
_COMPUTE, _LOCAL_SIZE = 5, 17
_KEEP_NAN, _ROUND_TO_NEAREST = (4461, 4466), (4462, 4467)  # execution modes, and the capabilities that they need
_FLOAT_CONTROLS = "SPV_KHR_float_controls"
_CAPABILITIES = {"Matrix": 0, "Shader": 1, **{item.name: item.number for item in CAPABILITIES.values()}}
_STATEMENT = "patc_interface "

_Instruction = tuple[int, tuple[int, ...]]


@dataclass(frozen=True)
class FloatControls:
    """What a driver can promise of floats, if kernels ask for it.

    Attributes:
        keeps_nan: bits of those whose NaN and infinities are kept.
        rounds: whether results of f32 are rounded to nearest.
    """

    keeps_nan: frozenset[int] = frozenset()
    rounds: bool = False

    def __bool__(self) -> bool:
        return bool(self.keeps_nan) or self.rounds


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
            require(words in allowed, f"a module '{entry}' of the capabilities that its kernel tells")
        if code == _EXTENSION:
            require(_text(words) in extensions, f"a module '{entry}' of the extensions that its kernel tells")
    entries = [words for code, words in found if code == _ENTRY_POINT]
    right = len(entries) == 1 and entries[0][:1] == (_COMPUTE,) and _text(entries[0][2:]) == entry
    require(right, f"a module of one kernel '{entry}'")
    modes = [words for code, words in found if code == _EXECUTION_MODE]
    require(modes == [(entries[0][1], _LOCAL_SIZE, threads, 1, 1)], f"a module '{entry}' of {threads} threads")
    require(found[-1][0] == _FUNCTION_END, f"a module '{entry}' that ends with a function")


def add_statement(data: bytes, statement: str) -> bytes:
    """Return a module that says in a comment what it was compiled for."""
    return _insert(data, _EXECUTION_MODE, _instruction(_SOURCE_EXTENSION, _words(_STATEMENT + statement)))


def ask_for(data: bytes, controls: FloatControls) -> bytes:
    """Return a module of one kernel that asks for NaN and infinities to be kept (SignedZeroInfNanPreserve), and for
    results to be rounded to nearest (RoundingModeRTE).

    Compiled code does not ask: a device whose driver cannot promise it would refuse the module.
    """
    found = list(_instructions(data))
    (kernel,) = (words[1] for code, words in found if code == _ENTRY_POINT)
    half = (_CAPABILITY, (_CAPABILITIES["Float16"],)) in found
    asked = [(_KEEP_NAN, bits) for bits in (16, 32) if bits in controls.keeps_nan and (bits == 32 or half)]
    asked += [(_ROUND_TO_NEAREST, 32)] * controls.rounds
    if not asked:
        return data
    modes = b"".join(_instruction(_EXECUTION_MODE, (kernel, mode, bits)) for (mode, _), bits in asked)
    needed = dict.fromkeys(capability for (_, capability), _ in asked)
    capabilities = b"".join(_instruction(_CAPABILITY, (capability,)) for capability in needed)
    extension = _instruction(_EXTENSION, _words(_FLOAT_CONTROLS))
    return _insert(_insert(data, _EXECUTION_MODE, modes), _CAPABILITY, capabilities + extension)


def _insert(data: bytes, code: int, instructions: bytes) -> bytes:
    """Return a module with `instructions` behind the last one of a kind."""
    place, end = _HEADER_WORDS, 0
    for kind, words in _instructions(data):
        place += 1 + len(words)
        if kind == code:
            end = place
    return data[: 4 * end] + instructions + data[4 * end :]


def _instruction(code: int, operands: Sequence[int]) -> bytes:
    return struct.pack(f"<{1 + len(operands)}I", (1 + len(operands)) << 16 | code, *operands)


def _words(text: str) -> tuple[int, ...]:
    """Return a text as operands: with a zero at its end, in whole words."""
    data = text.encode()
    data += bytes(4 - len(data) % 4)
    return struct.unpack(f"<{len(data) // 4}I", data)


def read_statement(data: bytes) -> str:
    """Return what `add_statement` added.

    Raises:
        ValueError: there is none, or several.
    """
    texts = [_text(words) for code, words in _instructions(data) if code == _SOURCE_EXTENSION]
    require(len(texts) == 1 and texts[0].startswith(_STATEMENT), "a module that says what it was compiled for")
    return texts[0].removeprefix(_STATEMENT)


def _instructions(data: bytes) -> Iterator[_Instruction]:
    """Yield the number and the operands of each instruction."""
    require(len(data) % 4 == 0 and len(data) > 4 * _HEADER_WORDS, "SPIR-V of whole words")
    words = struct.unpack(f"<{len(data) // 4}I", data)
    magic, version, _, bound, schema = words[:_HEADER_WORDS]
    known = magic == _MAGIC and version in _VERSIONS and 0 < bound <= _LARGEST_BOUND and schema == 0
    require(known, "SPIR-V of version 1.0 to 1.3")
    place = _HEADER_WORDS
    while place < len(words):
        count = words[place] >> 16
        require(0 < count <= len(words) - place, "SPIR-V of whole instructions")
        yield words[place] & 0xFFFF, words[place + 1 : place + count]
        place += count


def _text(words: tuple[int, ...]) -> str:
    data = struct.pack(f"<{len(words)}I", *words)
    require(b"\0" in data, "a text that ends")
    return data[: data.index(b"\0")].decode()
