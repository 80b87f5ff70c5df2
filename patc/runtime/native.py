"""Machine code from an object file: linked in memory and called through a C function pointer."""

from __future__ import annotations

import ctypes
import platform

from patc.diagnostics import PatcError
from patc.runtime import openmp
from patc.runtime.json_values import printable
from patc.runtime.linking import LinkedCode
from patc.runtime.object_code import check_object, machine_number


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
        try:
            check_object(code, machine_number(platform.machine()), name, openmp.ENTRY_POINTS if threaded else ())
        except ValueError as error:
            raise PatcError(f"cannot link the compiled code: {printable(str(error))}") from None
        self._code = LinkedCode(code, openmp.entry_points() if threaded else {})
        self._function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * arguments)(self._code.address_of(name))

    def __call__(self, *addresses: int) -> None:
        self._function(*addresses)
