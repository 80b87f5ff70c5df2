"""Machine code from an object file: linked in memory and called through a C function pointer."""

from __future__ import annotations

import ctypes
import functools
import itertools
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from patc.diagnostics import PatcError
from patc.runtime import openmp

ALIGNMENT = 64
_COUNTER = itertools.count()


@functools.cache
def _linker() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.create_lljit_compiler()


class NativeFunction:
    """A C function of pointer arguments from an object file.

    Args:
        code: the object file.
        name: the function.
        arguments: number of pointers.
        threaded: the code calls the OpenMP runtime.

    Raises:
        PatcError: the object is damaged or has no such function.
    """

    def __init__(self, code: bytes, name: str, arguments: int, threaded: bool) -> None:
        if threaded:
            openmp.load()
        builder = llvm.JITLibraryBuilder().add_object_img(code).add_current_process().export_symbol(name)
        try:
            # The tracker owns the code: it lives as long as this object.
            self._tracker = builder.link(_linker(), f"patc.{next(_COUNTER)}")
            address = self._tracker[name]
        except RuntimeError as error:
            raise PatcError(f"cannot link the compiled code: {str(error).splitlines()[0]}") from None
        self._function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * arguments)(address)

    def __call__(self, *addresses: int) -> None:
        self._function(*addresses)


def aligned_bytes(size: int) -> np.ndarray:
    """Return `size` bytes of zeros that start on a cache line."""
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size]
