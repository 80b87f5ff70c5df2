"""Relocatable ELF objects for AArch64, as `patc.compile` makes them: what they hold, and placing them in memory.

Numbers and formulas of relocations are those of "ELF for the Arm 64-bit Architecture".
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from patc.diagnostics import PatcError

_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQq")
_MAGIC = b"\x7fELF\x02\x01"  # 64 bits, little-endian
_RELOCATABLE, _AARCH64 = 1, 183
_SYMBOL_TABLE, _RELOCATIONS, _NO_BITS = 2, 4, 8
_ALLOCATED, _EXECUTABLE = 2, 4
_SECTION_SYMBOL = 3
_ABSOLUTE = 0xFFF1
_PAGE = 0xFFF

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
    """

    offset: int
    data: bytes
    is_code: bool


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


def read_object(data: bytes) -> ObjectFile:
    """Return what is in an object file.

    Raises:
        PatcError: it is no relocatable AArch64 ELF file.
    """
    expected = "expected a relocatable AArch64 ELF file"
    try:
        if data[:6] != _MAGIC or struct.unpack_from("<HH", data, 16) != (_RELOCATABLE, _AARCH64):
            raise PatcError(f"{expected}, found something else")
        return _read(data)
    except (struct.error, IndexError, ValueError):
        raise PatcError(f"{expected}, found a damaged one") from None


def _read(data: bytes) -> ObjectFile:
    (table,) = struct.unpack_from("<Q", data, 40)
    (count,) = struct.unpack_from("<H", data, 60)
    headers = [_SECTION.unpack_from(data, table + _SECTION.size * number) for number in range(count)]
    offsets: dict[int, int] = {}
    sections, end = [], 0
    for number, (_, kind, flags, _, start, size, _, _, alignment, _) in enumerate(headers):
        if flags & _ALLOCATED:
            end += -end % max(alignment, 1)
            offsets[number] = end
            content = bytes(size) if kind == _NO_BITS else data[start : start + size]
            sections.append(Section(end, content, bool(flags & _EXECUTABLE)))
            end += size
    symbols: tuple[Symbol, ...] = ()
    relocations = []
    for _, kind, _, _, start, size, link, info, _, _ in headers:
        if kind == _SYMBOL_TABLE:
            names = headers[link][4]
            entries = (_SYMBOL.unpack_from(data, start + place) for place in range(0, size, _SYMBOL.size))
            symbols = tuple(_symbol(data, names, entry, offsets) for entry in entries)
        elif kind == _RELOCATIONS and info in offsets:
            for place in range(0, size, _RELOCATION.size):
                offset, what, addend = _RELOCATION.unpack_from(data, start + place)
                relocations.append(Relocation(offsets[info] + offset, what & 0xFFFFFFFF, what >> 32, addend))
    return ObjectFile(tuple(sections), symbols, tuple(relocations))


def _symbol(data: bytes, names: int, entry: tuple[int, ...], offsets: Mapping[int, int]) -> Symbol:
    name, info, _, section, value, _ = entry
    text = data[names + name : data.index(b"\0", names + name)].decode()
    if section == 0:
        return Symbol(text, None)
    if section == _ABSOLUTE:
        return Symbol(text, value)
    return Symbol(text, offsets.get(section, 0) + value, info & 15 == 2)


def _relocate(image: bytearray, relocation: Relocation, place: int, target: int, entry: int) -> None:
    """Write what one relocation asks for, at address `place`."""
    kind, offset = relocation.kind, relocation.offset
    (word,) = struct.unpack_from("<I", image, offset)
    if kind == 257:  # ABS64
        struct.pack_into("<Q", image, offset, target & 0xFFFFFFFFFFFFFFFF)
        return
    if kind == 260:  # PREL64
        struct.pack_into("<q", image, offset, target - place)
        return
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
