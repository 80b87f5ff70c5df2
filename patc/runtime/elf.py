"""The little of ELF that patc reads and writes: sections, symbols, relocations, and the bytes of a section.

Only files of 64 bits, little-endian, which is what LLVM writes for the CPUs that patc knows. Whatever a file says, what
is returned lies within it. pyelftools leaves that to check, writes nothing, and takes 7 ms in place of 0.2 for the
object of a small net, which each loading would wait for.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from patc.runtime.expected import require

MAGIC = b"\x7fELF\x02\x01\x01\0"
UNDEFINED, ABSOLUTE = 0, 0xFFF1  # sections of symbols: that something else defines, and of a number
NULL, PROGRAM_BITS, SYMBOL_TABLE, STRING_TABLE, RELOCATIONS, NO_BITS = 0, 1, 2, 3, 4, 8  # types of sections
WRITABLE, ALLOCATED, EXECUTABLE = 1, 2, 4  # flags of sections
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQq")
_MOST_SECTIONS = 0xFF00  # numbers from here on mean something else
_LONGEST_NAME = 4096
_ENTRY_SIZES = {SYMBOL_TABLE: _SYMBOL.size, RELOCATIONS: _RELOCATION.size}


@dataclass(frozen=True)
class Header:
    """What the header says, but for the places of tables."""

    type: int
    machine: int
    version: int
    entry: int
    program_headers: int
    flags: int


@dataclass(frozen=True)
class Section:
    """A section, as its header says: offset and size are those in the file, in bytes; link is the index of the section
    that it refers to, and info that of the section that relocations are for."""

    name: str
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int

    @property
    def stored(self) -> int:
        """Bytes in the file."""
        return 0 if self.type in (NULL, NO_BITS) else self.size


@dataclass(frozen=True)
class Symbol:
    """A symbol: binding and type, index of its section, its place there, and its size in bytes."""

    name: str
    binding: int
    type: int
    visibility: int
    section: int
    value: int
    size: int


@dataclass(frozen=True)
class Relocation:
    """A place that depends on a symbol.

    Attributes:
        section: index of the section that the place is in.
        offset: of the place in the section.
        kind: number of the relocation.
        symbol: index of the symbol.
        addend: added to the symbol's address.
    """

    section: int
    offset: int
    kind: int
    symbol: int
    addend: int


def read_header(image: bytes) -> Header:
    """Return what the header of an ELF file says.

    Raises:
        ValueError: this is no little-endian ELF file of 64 bits.
    """
    require(image.startswith(MAGIC) and len(image) >= _HEADER.size, "a little-endian ELF file of 64 bits")
    _, kind, machine, version, entry, segments, _, flags, *sizes, _, _ = _HEADER.unpack_from(image)
    require(
        sizes[0] == _HEADER.size and sizes[3] == _SECTION.size, "headers of the size that ELF files of 64 bits have"
    )
    return Header(kind, machine, version, entry, segments + sizes[2], flags)


def sections(image: bytes) -> list[Section]:
    """Return the sections of an ELF file, in its own order.

    Raises:
        ValueError: this is no little-endian ELF file of 64 bits, or a section lies outside of it.
    """
    read_header(image)
    (table,) = struct.unpack_from("<Q", image, 40)
    count, names = struct.unpack_from("<HH", image, 60)
    inside = table % 8 == 0 and table + count * _SECTION.size <= len(image) and names < count
    require(inside and 0 < count < _MOST_SECTIONS, "a table of sections inside the file")
    rows = [_SECTION.unpack_from(image, table + i * _SECTION.size) for i in range(count)]
    require(rows[names][1] == STRING_TABLE, "a table of the sections' names")
    start, size = rows[names][4:6]
    texts = _texts(image, start, size)
    found = [Section(_text(texts, row[0]), *row[1:9]) for row in rows]
    for section, row in zip(found, rows, strict=True):
        require(section.offset + section.stored <= len(image), f"section {section.name} inside the file")
        entry = _ENTRY_SIZES.get(section.type)
        if entry is not None:
            whole = row[9] == entry and section.size % entry == 0 and section.offset % 8 == 0
            require(whole, f"section {section.name} of whole entries")
    return found


def symbols(image: bytes, found: Sequence[Section]) -> list[Symbol]:
    """Return the symbols of a relocatable file, whose `sections` are `found`; a file has one table of them.

    Raises:
        ValueError: the table is damaged, or there are several.
    """
    tables = [section for section in found if section.type == SYMBOL_TABLE]
    require(len(tables) <= 1, "one table of symbols")
    return [symbol for table in tables for symbol in _symbols(image, found, table)]


def _symbols(image: bytes, found: Sequence[Section], table: Section) -> list[Symbol]:
    require(table.link < len(found) and found[table.link].type == STRING_TABLE, "symbols with a table of names")
    names = found[table.link]
    texts = _texts(image, names.offset, names.size)
    rows = _SYMBOL.iter_unpack(image[table.offset : table.offset + table.size])
    return [
        Symbol(_text(texts, name), info >> 4, info & 15, other, section, value, size)
        for name, info, other, section, value, size in rows
    ]


def relocations(image: bytes, found: Sequence[Section]) -> list[Relocation]:
    """Return the relocations of a relocatable file, whose `sections` are `found`; no index is checked."""
    return [
        Relocation(table.info, offset, what & 0xFFFFFFFF, what >> 32, addend)
        for table in found
        if table.type == RELOCATIONS
        for offset, what, addend in _RELOCATION.iter_unpack(image[table.offset : table.offset + table.size])
    ]


def fill_section(image: bytes, name: str, data: bytes | memoryview) -> bytes:
    """Return an ELF file with `data` in place of the bytes of the section called `name`, which has that size.

    Raises:
        ValueError: there is no such section, or its size is another one.
    """
    found = [section for section in sections(image) if section.name == name]
    require(len(found) == 1 and found[0].size == len(data), f"one section {name} of {len(data)} bytes")
    start = found[0].offset
    return b"".join((image[:start], data, image[start + len(data) :]))


def _texts(image: bytes, start: int, size: int) -> bytes:
    """Return a table of texts, each of which ends inside it."""
    require(size > 0 and start + size <= len(image) and image[start + size - 1] == 0, "a table of names that end")
    return image[start : start + size]


def _text(texts: bytes, start: int) -> str:
    require(start < len(texts), "a name inside its table")
    # Without a limit, many names that end at the same place would take very long.
    end = texts.find(b"\0", start, start + _LONGEST_NAME + 1)
    require(end >= 0, f"names of at most {_LONGEST_NAME} bytes")
    return texts[start:end].decode()
