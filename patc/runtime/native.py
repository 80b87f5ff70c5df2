"""Machine code from an object file: linked in memory and called through a C function pointer."""

from __future__ import annotations

import ctypes
import functools
import itertools
import mmap
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from patc.diagnostics import PatcError, first_line
from patc.runtime import openmp

ALIGNMENT = 64
LARGE_PAGE = 2 << 20
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
        builder = llvm.JITLibraryBuilder().add_object_img(code).add_current_process().export_symbol(name)
        for symbol, address in openmp.entry_points().items() if threaded else ():
            builder.import_symbol(symbol, address)
        try:
            # The tracker owns the code: it lives as long as this object.
            self._tracker = builder.link(_linker(), f"patc.{next(_COUNTER)}")
            address = self._tracker[name]
        except RuntimeError as error:
            raise PatcError(f"cannot link the compiled code: {first_line(error)}") from None
        self._function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * arguments)(address)

    def __call__(self, *addresses: int) -> None:
        self._function(*addresses)


def aligned_bytes(size: int) -> np.ndarray:
    """Return `size` bytes of zeros that start on a cache line; on large pages where the system has them.

    Planes of one tensor are far apart: on small pages, one tile touches more of them than the first-level
    translation buffer holds.
    """
    if size >= LARGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
        # Private: the pages of a shared mapping are small, and a forked child would write to them too.
        block = mmap.mmap(-1, size + LARGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        block.madvise(mmap.MADV_HUGEPAGE)
        memory, alignment = np.frombuffer(block, np.uint8), LARGE_PAGE
    else:
        memory, alignment = np.zeros(size + ALIGNMENT, np.uint8), ALIGNMENT
    start = -memory.ctypes.data % alignment
    return memory[start : start + size]
