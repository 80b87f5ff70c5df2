"""Object files linked in memory, with functions of the C library."""

from __future__ import annotations

import ctypes
import platform
import struct
from collections.abc import Mapping

from patc.diagnostics import PatcError
from patc.runtime.code_pages import EXECUTABLE, LARGEST_PAGE, WRITABLE, Pages, c_library
from patc.runtime.image import read_object
from patc.runtime.object_code import AARCH64, machine_number

_BRIDGE = bytes.fromhex("50000058 00021fd6")  # ldr x16, 8 bytes from here; br x16
_BRIDGE_BYTES, _ENTRY_BYTES = 16, 8


class LinkedCode:
    """An object file in memory: its code can be run as long as this object lives.

    Args:
        code: an object file for this machine that passed `check_object`.
        outside: addresses of functions that it uses, beside those of the C library.

    Raises:
        PatcError: a function is missing, or the system grants no memory for code.
    """

    def __init__(self, code: bytes, outside: Mapping[str, int]) -> None:
        machine = machine_number(platform.machine())
        found = read_object(code, machine)
        names = found.undefined
        addresses = {**{name: function_address(name) for name in names if name not in outside}, **outside}
        # Behind the image: a table of addresses, and bridges to what calls of AArch64 do not reach.
        table = _round_up(found.size)
        bridges = _round_up(table + _ENTRY_BYTES * len(found.symbols))
        self._pages = Pages(bridges + _BRIDGE_BYTES * len(names))
        base = self._pages.address
        if machine == AARCH64:
            content = b"".join(_BRIDGE + struct.pack("<Q", addresses[name]) for name in names)
            self._pages.write(bridges, content)
            addresses = {name: base + bridges + _BRIDGE_BYTES * place for place, name in enumerate(names)}
        self._pages.write(0, bytes(found.load(base, addresses, base + table)))
        self._pages.write(table, found.address_table(base, addresses))
        self._pages.protect(0, self._pages.size, 0)
        for section in found.sections:
            rights = EXECUTABLE * section.is_code | WRITABLE * section.is_writable
            self._pages.protect(section.offset, len(section.data), rights)
        self._pages.protect(bridges, _BRIDGE_BYTES * len(names), EXECUTABLE)
        defined = [symbol for symbol in found.symbols if symbol.offset is not None]
        self._addresses = {symbol.name: base + (symbol.offset or 0) for symbol in defined}

    def address_of(self, name: str) -> int:
        """Return where a function starts that the object defines."""
        return self._addresses[name]


def function_address(name: str) -> int:
    """Return the address of a function of the C library.

    Raises:
        PatcError: there is none.
    """
    library = c_library()
    found = ctypes.cast(getattr(library, name), ctypes.c_void_p).value if hasattr(library, name) else None
    if found is None:
        raise PatcError(f"cannot link the compiled code: expected a C library with '{name}', found one without")
    return found


def _round_up(size: int) -> int:
    return size + -size % LARGEST_PAGE
