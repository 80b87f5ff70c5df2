"""Machine code from an object file: linked in memory and called through a C function pointer."""

from __future__ import annotations

import ctypes
import functools
import itertools
import platform
from typing import Any

import llvmlite.binding as llvm

from patc.diagnostics import PatcError, first_line
from patc.locks import once
from patc.runtime import openmp
from patc.runtime.json_values import printable
from patc.runtime.object_code import HAS_ELF_OBJECTS, check_object, machine_number, with_aligned_sections

_COUNTER = itertools.count()
# A linker keeps some kilobytes of all that it ever linked, and takes more than that itself.
_FUNCTIONS_PER_LINKER = 64


@once
def _initialize() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


@functools.lru_cache(maxsize=1)
def _linker(generation: int) -> Any:
    """Return the linker of some functions in a row; their trackers keep it."""
    _initialize()
    return llvm.create_lljit_compiler()


class NativeFunction:
    """A C function of pointer arguments from an object file.

    Args:
        code: the object file.
        name: the function.
        arguments: number of pointers.
        threaded: the code calls the OpenMP runtime.

    Raises:
        PatcError: the object is damaged, is for another machine or has no such function.
    """

    def __init__(self, code: bytes, name: str, arguments: int, threaded: bool) -> None:
        if HAS_ELF_OBJECTS:
            try:
                check_object(code, machine_number(platform.machine()), name, openmp.ENTRY_POINTS if threaded else ())
            except ValueError as error:
                raise PatcError(f"cannot link the compiled code: {printable(str(error))}") from None
            code = with_aligned_sections(code)
        builder = llvm.JITLibraryBuilder().add_object_img(code).add_current_process().export_symbol(name)
        for symbol, address in openmp.entry_points().items() if threaded else ():
            builder.import_symbol(symbol, address)
        try:
            number = next(_COUNTER)
            # The tracker owns the code: it lives as long as this object.
            self._tracker = builder.link(_linker(number // _FUNCTIONS_PER_LINKER), f"patc.{number}")
            address = self._tracker[name]
        except RuntimeError as error:
            raise PatcError(f"cannot link the compiled code: {first_line(error)}") from None
        self._function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * arguments)(address)

    def __call__(self, *addresses: int) -> None:
        self._function(*addresses)
