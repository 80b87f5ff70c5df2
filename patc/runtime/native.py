"""Machine code from an object file: linked in memory and called through a C function pointer."""

from __future__ import annotations

import ctypes
import platform

from patc.diagnostics import PatcError
from patc.runtime.json_values import printable
from patc.runtime.linking import LinkedCode
from patc.runtime.object_code import check_object, machine_number
from patc.runtime.team import ENTRY_POINTS, team_functions


class NativeFunction:
    """A C function of pointer arguments from an object file.

    Args:
        code: the object file.
        name: the function.
        arguments: number of pointers.
        threads: of the team that the code calls; 1 where it calls none.

    Raises:
        PatcError: the object is damaged, is for another machine or has no such function.
    """

    def __init__(self, code: bytes, name: str, arguments: int, threads: int) -> None:
        try:
            check_object(code, machine_number(platform.machine()), name, ENTRY_POINTS if threads > 1 else ())
        except ValueError as error:
            raise PatcError(f"cannot link the compiled code: {printable(str(error))}") from None
        self._code = LinkedCode(code, team_functions(threads) if threads > 1 else {})
        self._function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * arguments)(self._code.address_of(name))

    def __call__(self, *addresses: int) -> None:
        self._function(*addresses)
