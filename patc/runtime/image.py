"""Relocatable ELF objects, as `patc.compile` makes them: what they hold, and what they are in memory.

Numbers and formulas of relocations are those of the "System V Application Binary Interface" for AMD64 and of "ELF for
the Arm 64-bit Architecture".
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from patc.diagnostics import PatcError
from patc.runtime import elf
from patc.runtime.code_pages import LARGEST_PAGE
from patc.runtime.object_code import MACHINES

_RELOCATABLE = 1
_FUNCTION = 2  # type of symbols
_PAGE = 0xFFF
_VECTOR_ALIGNMENT = 64
_ABSOLUTE, _RELATIVE = (1, 257), (24, 260)  # R_X86_64_64 and _PC64, R_AARCH64_ABS64 and _PREL64: 64 bits

# Relocations of the instructions that hold the low bits of an address: by how many bits the offset is scaled.
_LOW_BITS = {277: 0, 278: 0, 284: 1, 285: 2, 286: 3, 299: 4, 312: 3}
_MOVE_WIDE = {263: 0, 264: 0, 265: 16, 266: 16, 267: 32, 268: 32, 269: 48}  # shift of the 16 bits that are moved


@dataclass(frozen=True)
class Section:
    """A part of the object that is in memory when the code runs.

    Attributes:
        offset: from the start of the image, in bytes.
        data: its bytes before relocation.
        is_code: whether it holds instructions.
        is_writable: whether the code writes to it.
    """

    offset: int
    data: bytes
    is_code: bool
    is_writable: bool


@dataclass(frozen=True)
class Relocation:
    """A place in the image that depends on where a symbol is.

    Attributes:
        offset: of the place, from the start of the image.
        kind: number of the relocation.
        symbol: place in the table of symbols.
        addend: added to the symbol's address.
    """

    offset: int
    kind: int
    symbol: int
    addend: int


@dataclass(frozen=True)
class Symbol:
    """A name; `offset` is None where the object does not define it."""

    name: str
    offset: int | None
    is_function: bool = False


@dataclass(frozen=True)
class ObjectFile:
    """What is in an object file: an image of sections one behind the other, symbols and relocations."""

    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]
    relocations: tuple[Relocation, ...]

    @property
    def undefined(self) -> tuple[str, ...]:
        """Names that something else has to define."""
        used = {relocation.symbol for relocation in self.relocations}
        return tuple(self.symbols[place].name for place in sorted(used) if self.symbols[place].offset is None)

    @property
    def size(self) -> int:
        """Bytes of the image."""
        return max((section.offset + len(section.data) for section in self.sections), default=0)

    def load(self, base: int, outside: Mapping[str, int], table: int) -> bytearray:
        """Return the image as it is in memory at address `base`.

        Args:
            base: a multiple of the largest alignment, 4096 for instance.
            outside: addresses of the names in `undefined`.
            table: address of a table of addresses (GOT), 8 bytes for each symbol, for code that asks for one; see
                `address_table`.

        Raises:
            PatcError: a relocation of another kind, or one whose target is out of reach.
        """
        image = bytearray(self.size)
        for section in self.sections:
            image[section.offset : section.offset + len(section.data)] = section.data
        for relocation in self.relocations:
            target = self._address(relocation.symbol, base, outside) + relocation.addend
            entry = table + 8 * relocation.symbol
            _relocate(image, relocation, base + relocation.offset, target, entry)
        return image

    def address_table(self, base: int, outside: Mapping[str, int]) -> bytes:
        """Return the table that `load` refers to."""
        addresses = (self._address(place, base, outside) for place in range(len(self.symbols)))
        return b"".join(struct.pack("<Q", address) for address in addresses)

    def _address(self, place: int, base: int, outside: Mapping[str, int]) -> int:
        symbol = self.symbols[place]
        return outside.get(symbol.name, 0) if symbol.offset is None else base + symbol.offset


def read_object(data: bytes, machine: int) -> ObjectFile:
    """Return what is in an object file for the machine of a number, see `patc.runtime.object_code`.

    Raises:
        PatcError: it is no relocatable ELF file for that machine.
    """
    expected = f"expected a relocatable ELF file for {MACHINES[machine]}"
    if not data.startswith(elf.MAGIC):
        raise PatcError(f"{expected}, found something else")
    try:
        header = elf.read_header(data)
        if (header.type, header.machine) != (_RELOCATABLE, machine):
            raise PatcError(f"{expected}, found something else")
        return _read(data)
    except (IndexError, ValueError):
        raise PatcError(f"{expected}, found a damaged one") from None


def _read(data: bytes) -> ObjectFile:
    headers = elf.sections(data)
    offsets: dict[int, int] = {}
    sections: list[Section] = []
    end = 0
    for number, header in enumerate(headers):
        if header.flags & elf.ALLOCATED:
            rights = bool(header.flags & elf.EXECUTABLE), bool(header.flags & elf.WRITABLE)
            changes = bool(sections) and rights != (sections[-1].is_code, sections[-1].is_writable)
            end += -end % max(header.alignment, LARGEST_PAGE if changes else _VECTOR_ALIGNMENT)
            offsets[number] = end
            stored = data[header.offset : header.offset + header.size]
            content = bytes(header.size) if header.type == elf.NO_BITS else stored
            sections.append(Section(end, content, *rights))
            end += header.size
    relocations = [
        Relocation(offsets[found.section] + found.offset, found.kind, found.symbol, found.addend)
        for found in elf.relocations(data, headers)
        if found.section in offsets
    ]
    symbols = tuple(_symbol(symbol, offsets) for symbol in elf.symbols(data, headers))
    return ObjectFile(tuple(sections), symbols, tuple(relocations))


def _symbol(symbol: elf.Symbol, offsets: Mapping[int, int]) -> Symbol:
    if symbol.section == elf.UNDEFINED:
        return Symbol(symbol.name, None)
    if symbol.section == elf.ABSOLUTE:
        return Symbol(symbol.name, symbol.value)
    return Symbol(symbol.name, offsets.get(symbol.section, 0) + symbol.value, symbol.type == _FUNCTION)


def _relocate(image: bytearray, relocation: Relocation, place: int, target: int, entry: int) -> None:
    """Write what one relocation asks for, at address `place`."""
    kind, offset = relocation.kind, relocation.offset
    if kind in (*_ABSOLUTE, *_RELATIVE):
        value = target if kind in _ABSOLUTE else target - place
        struct.pack_into("<Q", image, offset, value & 0xFFFFFFFFFFFFFFFF)
        return
    (word,) = struct.unpack_from("<I", image, offset)
    if kind == 261:  # PREL32
        word = _signed(target - place, 32, relocation)
    elif kind in (275, 311):  # ADR_PREL_PG_HI21, ADR_GOT_PAGE
        pages = ((entry if kind == 311 else target) >> 12) - (place >> 12)
        pages = _signed(pages, 21, relocation)
        word = word & ~(3 << 29 | 0x7FFFF << 5) | (pages & 3) << 29 | (pages >> 2) << 5
    elif kind in _LOW_BITS:
        low = ((entry if kind == 312 else target) & _PAGE) >> _LOW_BITS[kind]
        word = word & ~(_PAGE << 10) | low << 10
    elif kind in _MOVE_WIDE:
        word = word & ~(0xFFFF << 5) | (target >> _MOVE_WIDE[kind] & 0xFFFF) << 5
    elif kind in (282, 283):  # JUMP26, CALL26
        word = word & 0xFC000000 | _signed((target - place) >> 2, 26, relocation)
    else:
        raise PatcError(f"expected relocations that patc's code has, found number {kind}")
    struct.pack_into("<I", image, offset, word)


def _signed(value: int, bits: int, relocation: Relocation) -> int:
    """Return a number as `bits` bits."""
    if not -(1 << bits - 1) <= value < 1 << bits - 1:
        raise PatcError(f"expected the target of relocation {relocation.kind} within reach, found it {value} away")
    return value & (1 << bits) - 1
