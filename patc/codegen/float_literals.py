"""Floating-point literals of LLVM IR text, from the spelling of one LLVM to that of another.

The torch-mlir wheel's LLVM 24 prints a literal as the bits of its own type (`f0x3EAAAAAB`), as a name (`+inf`, `+qnan`,
`+nan(0x1)`, `+snan(0x1)`), or as the shortest decimal that its type reads back. llvmlite's LLVM 22 wants the bits of
the double of equal value (`0x3FD5555560000000`) for float and double, `0xH3555` for half and `0xR3EAB` for bfloat. That
is all the two disagree on in what patc emits; LLVM 22 refuses a spelling that it does not know.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class _Format:
    """An IEEE format: bits in all, and of the fraction; prefix and hexadecimal digits of LLVM 22's spelling."""

    bits: int
    fraction: int
    prefix: str
    digits: int

    @property
    def infinity(self) -> int:
        """The bits of +infinity: all of the exponent."""
        return (1 << (self.bits - 1)) - (1 << self.fraction)


_FORMATS = {
    "half": _Format(16, 10, "0xH", 4),
    "bfloat": _Format(16, 7, "0xR", 4),
    "float": _Format(32, 23, "0x", 16),
    "double": _Format(64, 52, "0x", 16),
}
_LITERAL = r"(?:f0x[0-9A-Fa-f]+|[+-](?:inf|qnan|s?nan\(0x[0-9A-Fa-f]+\))|[+-]?\d+\.\d*(?:[eE][+-]?\d+)?)"
_TYPED = re.compile(rf"\b(half|bfloat|float|double) ({_LITERAL})(?![\w.])")
# Operands that follow the type of the operation: `fadd float %a, 1.5`, and the values of a phi.
_OPERATION = re.compile(r"= (?:fadd|fsub|fmul|fdiv|frem|fneg|fcmp|phi)\b[^%\[,]*?\b(half|bfloat|float|double) (?!\()")
_UNTYPED = re.compile(rf'(?<![\w.%@"])({_LITERAL})(?![\w.])')
_HINTS = (".", "f0x", "inf", "nan")


def respell(text: str) -> str:
    """Return LLVM IR text of LLVM 24 with its floating-point literals as LLVM 22 reads them, bit for bit."""
    return "\n".join(_respell_line(line) if any(hint in line for hint in _HINTS) else line for line in text.split("\n"))


def _respell_line(line: str) -> str:
    operation = _OPERATION.search(line)
    if operation:
        kind, start = operation.group(1), operation.start(1)
        return line[:start] + _UNTYPED.sub(lambda match: _spell(kind, match.group(1)), line[start:])
    return _TYPED.sub(lambda match: f"{match.group(1)} {_spell(*match.groups())}", line)


def _spell(kind: str, literal: str) -> str:
    layout, bits = _FORMATS[kind], literal_bits(kind, literal)
    if kind == "float":
        bits = _widen(bits)
    return f"{layout.prefix}{bits:0{layout.digits}X}"


def literal_bits(kind: str, literal: str) -> int:
    """Return the bits of a literal in LLVM 24's spelling; `kind` is half, bfloat, float or double."""
    layout = _FORMATS[kind]
    if literal.startswith("f0x"):
        return int(literal[3:], 16)
    sign = (literal[0] == "-") << (layout.bits - 1)
    name = literal[1:]
    if name == "inf":
        return sign | layout.infinity
    quiet = 1 << (layout.fraction - 1)
    if name == "qnan":
        return sign | layout.infinity | quiet
    if name.startswith("nan("):
        return sign | layout.infinity | quiet | int(name[4:-1], 16)
    if name.startswith("snan("):
        return sign | layout.infinity | int(name[5:-1], 16)
    return _decimal_bits(kind, literal)


def _decimal_bits(kind: str, literal: str) -> int:
    if kind == "double":
        return int(np.float64(literal).view(np.uint64))
    if kind == "float":
        return int(np.float32(literal).view(np.uint32))
    if kind == "half":
        return int(np.float16(literal).view(np.uint16))
    # The shortest decimal of a bfloat is nearer to it than to any other; so is the float that is nearest to it.
    wide = int(np.float32(literal).view(np.uint32))
    return (wide + 0x7FFF + (wide >> 16 & 1)) >> 16


def _widen(bits: int) -> int:
    """Return the bits of the double that equals a float; a NaN keeps its payload."""
    if bits >> 23 & 0xFF == 0xFF:
        return bits >> 31 << 63 | 0x7FF << 52 | (bits & 0x7FFFFF) << 29
    (wide,) = struct.unpack("<Q", struct.pack("<d", float(np.uint32(bits).view(np.float32))))
    return int(wide)
