"""Object files before they are linked: the linker trusts what it is given, so nothing else reaches it.

What instructions do is not checked, and cannot be: an object file is a program.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Sequence

from patc.runtime import elf
from patc.runtime.elf import Relocation, Section, Symbol
from patc.runtime.expected import require

INTERFACE = "patc_interface"  # a constant that says what the code was compiled for, see `patc.runtime.description`
X86_64, AARCH64 = 62, 183
# What code may call beside its team of threads: what LLVM makes of loops that copy, and of functions that no CPU has.
_MATH = (
    "acos acosh asin asinh atan atan2 atanh cbrt ceil cos cosh erf erfc exp exp2 expm1 floor fma fmax fmin fmod ldexp "
    "log log10 log1p log2 nearbyint pow remainder rint round roundeven sin sinh sqrt tan tanh trunc"
)
LIBRARY_FUNCTIONS = frozenset(["memcpy", "memmove", "memset", *_MATH.split(), *(f"{name}f" for name in _MATH.split())])
_RELOCATABLE = 1
_LARGEST_ALIGNMENT = 4096
_NAME = re.compile("[!-~]+")
# What the process gets; of others, such as .eh_frame, unwinders take the content on trust.
_ALLOCATED_NAME = re.compile(r"\.(l?text|l?rodata|l?bss)(\..*)?")
_MERGED = re.compile(r"\.l?rodata\.cst([0-9]+)")  # constants of so many bytes each
_LARGEST_ZEROS = 1 << 20  # bytes of sections without content
_TYPES = (elf.NULL, elf.PROGRAM_BITS, elf.SYMBOL_TABLE, elf.STRING_TABLE, elf.RELOCATIONS, elf.NO_BITS)
_MERGE, _STRINGS, _LINKS, _LARGE = 0x10, 0x20, 0x40, 0x10000000  # flags of sections
_FLAGS = elf.WRITABLE | elf.ALLOCATED | elf.EXECUTABLE | _MERGE | _STRINGS | _LINKS | _LARGE
_LOCAL, _GLOBAL, _WEAK = 0, 1, 2  # bindings of symbols
_NO_TYPE, _OBJECT, _FUNCTION, _SECTION, _FILE = 0, 1, 2, 3, 4  # types of symbols
# By machine: how many bytes a relocation of each kind changes. Of those that may not reach their target there are only
# calls on AArch64, for which the linker makes bridges.
_WORDS = (261, *range(263, 270), 275, 277, 278, *range(282, 287), 299, 311, 312)
_RELOCATIONS = {X86_64: {1: 8, 24: 8}, AARCH64: {257: 8, 260: 8, **dict.fromkeys(_WORDS, 4)}}
MACHINES = {X86_64: "x86-64", AARCH64: "AArch64"}
_NAMES = {"x86_64": X86_64, "amd64": X86_64, "aarch64": AARCH64, "arm64": AARCH64}


def machine_number(name: str) -> int:
    """Return the number that ELF has for what `platform.machine()` returns; 0 for another machine."""
    return _NAMES.get(name.lower(), 0)


def check_object(code: bytes, machine: int, entry: str, outside: Collection[str] = ()) -> None:
    """Refuse everything but a relocatable file like those that LLVM writes for patc.

    Args:
        code: of the file.
        machine: number of the machine that it has to be for.
        entry: function that it has to define.
        outside: names that it may use without defining them, beside `LIBRARY_FUNCTIONS`.

    Raises:
        ValueError: what was expected, in one line.
    """
    header = elf.read_header(code)
    require(header.type == _RELOCATABLE, "an object file that is relocatable")
    require(header.machine == machine, f"an object file for machine {machine}, found machine {header.machine}")
    rest = (header.version, header.entry, header.program_headers, header.flags)
    require(rest == (1, 0, 0, 0), "an object file of ELF version 1 without segments, entry and flags")
    sections = elf.sections(code)
    _check_sections(code, sections)
    symbols = elf.symbols(code, sections)
    _check_symbols(symbols, sections)
    _check_names(symbols, {*outside, *LIBRARY_FUNCTIONS})
    for relocation in elf.relocations(code, sections):
        _check_relocation(relocation, sections, symbols, machine)
    function = _find(symbols, entry)
    executable = function.type == _FUNCTION and sections[function.section].flags & elf.EXECUTABLE
    require(bool(executable) and function.value < sections[function.section].size, f"a function '{entry}'")


def read_constant(code: bytes, name: str) -> bytes:
    """Return the bytes of a constant, which no relocation changes, of an object file.

    Raises:
        ValueError: there is none.
    """
    sections = elf.sections(code)
    symbol = _find(elf.symbols(code, sections), name)
    require(symbol.section < len(sections), f"code that defines '{name}'")
    section = sections[symbol.section]
    constant = symbol.type == _OBJECT and section.type == elf.PROGRAM_BITS and not section.flags & elf.WRITABLE
    end = symbol.value + symbol.size
    places = [item.offset for item in elf.relocations(code, sections) if item.section == symbol.section]
    require(constant and not any(symbol.value - 8 < place < end for place in places), f"a constant '{name}'")
    return code[section.offset + symbol.value : section.offset + end]


def _find(symbols: Sequence[Symbol], name: str) -> Symbol:
    """Return the symbol that others see under a name."""
    found = [symbol for symbol in symbols if symbol.name == name and symbol.binding == _GLOBAL]
    defined = len(found) == 1 and found[0].section not in (elf.UNDEFINED, elf.ABSOLUTE)
    require(defined, f"code that defines '{name}'")
    return found[0]


def _check_sections(code: bytes, sections: Sequence[Section]) -> None:
    require(sections[0] == Section("", 0, 0, 0, 0, 0, 0, 0, 0), "an empty first section")
    for section in sections[1:]:
        name = section.name
        require(section.type in _TYPES and not section.flags & ~_FLAGS, f"section {name} of a known kind")
        content = section.type in (elf.PROGRAM_BITS, elf.NO_BITS)
        allocated = content and _ALLOCATED_NAME.fullmatch(name) is not None
        require(allocated or not section.flags & elf.ALLOCATED, f"code, constants or zeros in section {name}")
        # Constants stay constants, and zeros are no constants.
        require(bool(section.flags & elf.WRITABLE) == (section.type == elf.NO_BITS), f"section {name} of constants")
        require(section.address == 0, f"section {name} without an address")
        alignment = max(section.alignment, 1)
        require(alignment & (alignment - 1) == 0 and alignment <= _LARGEST_ALIGNMENT, f"section {name} aligned")
        merged = _MERGED.fullmatch(name)
        require(merged is None or section.size % max(int(merged[1]), 1) == 0, f"section {name} of whole constants")
        if section.type == elf.NO_BITS:
            require(section.size <= _LARGEST_ZEROS, f"at most {_LARGEST_ZEROS} bytes in {name}")
        relocates = section.type == elf.RELOCATIONS
        require(relocates == name.startswith(".rela."), f"relocations in {name}")
        if relocates:
            known = max(section.link, section.info) < len(sections)
            require(known and sections[section.link].type == elf.SYMBOL_TABLE, f"relocations {name} by symbols")
            target = sections[section.info]
            require(target.type == elf.PROGRAM_BITS and name == f".rela{target.name}", f"the section of {name}")
    _check_layout(code, sections)


def _check_layout(code: bytes, sections: Sequence[Section]) -> None:
    """Refuse sections that are not one behind the other, between the header and the table of sections."""
    table = int.from_bytes(code[40:48], "little")
    areas = [(item.offset, item.stored, max(item.alignment, 1)) for item in sections if item.stored]
    end = 64
    for start, size, alignment in [*sorted(areas), (table, 64 * len(sections), 8)]:
        require(start == end + -end % alignment, "sections one behind the other")
        end = start + size
    require(end == len(code), "an object file that ends with the table of sections")


def _check_symbols(symbols: Sequence[Symbol], sections: Sequence[Section]) -> None:
    require(bool(symbols) and symbols[0] == Symbol("", 0, 0, 0, 0, 0, 0), "an empty first symbol")
    (table,) = (section for section in sections if section.type == elf.SYMBOL_TABLE)
    local = sum(symbol.binding == _LOCAL for symbol in symbols)
    first = all(symbol.binding == _LOCAL for symbol in symbols[:local])
    require(first and table.info == local, "local symbols before the others")
    for symbol in symbols[1:]:
        known = symbol.binding in (_LOCAL, _GLOBAL, _WEAK) and symbol.type <= _FILE and symbol.visibility == 0
        require(known, f"symbol '{symbol.name}' of a known kind")
        if symbol.section == elf.UNDEFINED:
            plain = symbol.binding == _GLOBAL and symbol.type == _NO_TYPE and symbol.value == symbol.size == 0
            require(plain, f"symbol '{symbol.name}' with nothing but a name")
        elif symbol.section == elf.ABSOLUTE or symbol.type == _FILE:
            file = symbol.section == elf.ABSOLUTE and symbol.type == _FILE and symbol.binding == _LOCAL
            require(file, f"symbol '{symbol.name}' in a section")
        else:
            require(symbol.section < len(sections), f"symbol '{symbol.name}' in a section")
            require(bool(_NAME.fullmatch(symbol.name)) or symbol.type == _SECTION, "symbols with names")
            _check_defined(symbol, sections[symbol.section])
    whole = [symbol.section for symbol in symbols if symbol.type == _SECTION]
    require(all(one < other for one, other in itertools.pairwise(whole)), "sections with one symbol each")
    # The linker takes a section for what has its name.
    names = {symbol.name for symbol in symbols[1:] if symbol.type != _SECTION}
    require(names.isdisjoint(section.name for section in sections), "names of sections that nothing else has")
    named = {symbol.section for symbol in symbols}
    for place, section in enumerate(sections):
        require(place in named or not section.size * (section.flags & elf.ALLOCATED), f"a use of {section.name}")


def _check_defined(symbol: Symbol, section: Section) -> None:
    inside = section.flags & elf.ALLOCATED and symbol.value + symbol.size <= section.size
    require(bool(inside), f"symbol '{symbol.name}' inside its section")
    executable = bool(section.flags & elf.EXECUTABLE)
    fits = {
        _NO_TYPE: symbol.binding == _LOCAL,  # says where code and data begin on AArch64
        _OBJECT: not executable,
        _FUNCTION: executable,
        _SECTION: symbol.binding == _LOCAL and symbol.value == symbol.size == 0,
    }
    require(fits[symbol.type], f"symbol '{symbol.name}' of the kind of its section")


def _check_names(symbols: Sequence[Symbol], outside: Collection[str]) -> None:
    defined = [symbol.name for symbol in symbols if symbol.binding != _LOCAL and symbol.section != elf.UNDEFINED]
    require(len(set(defined)) == len(defined) and "" not in defined, "names that are defined once")
    used = [symbol.name for symbol in symbols[1:] if symbol.section == elf.UNDEFINED]
    require(len(set(used)) == len(used), "names that are used once")
    unknown = sorted(set(used) - set(outside))
    require(
        not unknown,
        f"code that calls its team and the C library for numbers, found {', '.join(unknown)[:60]}",
    )
    # Local ones, too: the linker takes the one that it finds first.
    own = {symbol.name for symbol in symbols[1:] if symbol.section != elf.UNDEFINED}
    require(own.isdisjoint(outside), "code that defines no function of a library")


def _check_relocation(
    relocation: Relocation, sections: Sequence[Section], symbols: Sequence[Symbol], machine: int
) -> None:
    name = sections[relocation.section].name
    width = _RELOCATIONS[machine].get(relocation.kind)
    if width is None:
        raise ValueError(f"expected relocations of known kinds in {name}, found {relocation.kind}")
    require(relocation.offset + width <= sections[relocation.section].size, f"relocations inside {name}")
    known = 0 < relocation.symbol < len(symbols) and symbols[relocation.symbol].section != elf.ABSOLUTE
    require(known, f"relocations in {name} by symbols that there are")
    symbol = symbols[relocation.symbol]
    size = symbol.size if symbol.type == _OBJECT else 0
    size = sections[symbol.section].size if symbol.type == _SECTION else size
    # A negative one belongs to a distance.
    require(-8 <= relocation.addend <= size, f"relocations in {name} that stay within their symbols")
