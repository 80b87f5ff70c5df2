"""The little of ELF that patc reads and writes: sections, symbols, and the bytes of a section.

Only files of 64 bits, little-endian, which is what LLVM writes for AArch64.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MAGIC = b"\x7fELF\x02\x01"
SYMBOL_TABLE = 2  # type of a section
UNDEFINED = 0  # section of a symbol that something else has to define
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")


@dataclass(frozen=True)
class Section:
    """A section, as its header says: offset and size are those in the file, in bytes; link is the index of the section
    that it refers to, and info that of the section that relocations are for."""

    name: str
    type: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int


@dataclass(frozen=True)
class Symbol:
    """A symbol: binding and type, index of its section, and its place there."""

    name: str
    binding: int
    type: int
    section: int
    value: int


def sections(image: bytes) -> list[Section]:
    """Return the sections of an ELF file, in its own order.

    Raises:
        ValueError: this is no little-endian ELF file of 64 bits.
    """
    if not image.startswith(MAGIC):
        raise ValueError("expected a little-endian ELF file of 64 bits")
    (table,) = struct.unpack_from("<Q", image, 40)
    count, names = struct.unpack_from("<HH", image, 60)
    rows = [_SECTION.unpack_from(image, table + i * _SECTION.size) for i in range(count)]
    start = rows[names][4]
    return [
        Section(_text(image, start + name), kind, flags, offset, size, link, info, alignment)
        for name, kind, flags, _, offset, size, link, info, alignment, _ in rows
    ]


def symbols(image: bytes, found: Sequence[Section]) -> Iterator[Symbol]:
    """Yield the symbols of a relocatable file, whose `sections` are `found`."""
    for table in found:
        if table.type != SYMBOL_TABLE:
            continue
        names = found[table.link].offset
        for start in range(table.offset, table.offset + table.size, _SYMBOL.size):
            name, info, _, section, value, _ = _SYMBOL.unpack_from(image, start)
            yield Symbol(_text(image, names + name), info >> 4, info & 15, section, value)


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


def _text(image: bytes, start: int) -> str:
    return image[start : image.index(b"\0", start)].decode()
