"""The little of ELF that writing a library takes: where an object's sections are, and which symbols it leaves open.

Only relocatable and shared files of 64 bits, little-endian, which is what LLVM writes for AArch64.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_MAGIC = b"\x7fELF\x02\x01"
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_SYMTAB = 2
_GLOBAL, _WEAK = 1, 2


@dataclass(frozen=True)
class Section:
    """A section: type, offset and size in the file in bytes, and the index of the section that it refers to."""

    name: str
    type: int
    offset: int
    size: int
    link: int


def sections(image: bytes) -> list[Section]:
    """Return the sections of an ELF file, in its own order.

    Raises:
        ValueError: this is no little-endian ELF file of 64 bits.
    """
    if not image.startswith(_MAGIC):
        raise ValueError("expected a little-endian ELF file of 64 bits")
    (table,) = struct.unpack_from("<Q", image, 40)
    count, names = struct.unpack_from("<HH", image, 60)
    rows = [_SECTION.unpack_from(image, table + i * _SECTION.size) for i in range(count)]
    start = rows[names][4]
    return [Section(_text(image, start + row[0]), row[1], row[4], row[5], row[6]) for row in rows]


def fill_section(image: bytes, name: str, data: bytes | memoryview) -> bytes:
    """Return an ELF file with `data` in place of the bytes of the section called `name`, which has that size.

    Raises:
        ValueError: there is no such section, or its size is another one.
    """
    found = [section for section in sections(image) if section.name == name]
    if len(found) != 1 or found[0].size != len(data):
        raise ValueError(f"expected one section {name} of {len(data)} bytes")
    start = found[0].offset
    return b"".join((image[:start], data, image[start + len(data) :]))


def undefined_symbols(image: bytes) -> set[str]:
    """Return the names of the symbols that a relocatable file leaves to others."""
    return {name for name, section in _symbols(image) if section == 0}


def defined_symbols(image: bytes) -> set[str]:
    """Return the names of the symbols that a relocatable file offers to others."""
    return {name for name, section in _symbols(image) if section != 0}


def _symbols(image: bytes) -> Iterator[tuple[str, int]]:
    """Yield name and section index of each global symbol; index 0 stands for a symbol without a definition."""
    found = sections(image)
    for table in found:
        if table.type != _SYMTAB:
            continue
        names = found[table.link].offset
        for start in range(table.offset, table.offset + table.size, _SYMBOL.size):
            name, info, _, section, _, _ = _SYMBOL.unpack_from(image, start)
            if info >> 4 in (_GLOBAL, _WEAK):
                yield _text(image, names + name), section


def _text(image: bytes, start: int) -> str:
    return image[start : image.index(b"\0", start)].decode()
