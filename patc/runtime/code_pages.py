"""Memory whose content can be run."""

from __future__ import annotations

import ctypes
import mmap

from patc.diagnostics import PatcError
from patc.locks import once

WRITABLE, EXECUTABLE = mmap.PROT_WRITE, mmap.PROT_EXEC
LARGEST_PAGE = 1 << 16  # of all systems


class Pages:
    """Memory of zeros that can be written, until `protect` says otherwise; it is there as long as this object.

    Attributes:
        size: in bytes.
        address: of the first one, a multiple of `LARGEST_PAGE`.

    Raises:
        PatcError: there is not so much.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        try:
            self._memory = mmap.mmap(-1, size + LARGEST_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise PatcError(f"cannot link the compiled code: {error.strerror}") from None
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self.address = start + -start % LARGEST_PAGE

    def write(self, offset: int, content: bytes) -> None:
        """Copy bytes to a place."""
        ctypes.memmove(self.address + offset, content, len(content))

    def protect(self, offset: int, size: int, rights: int) -> None:
        """Let the pages of some bytes be read, and what `rights` says, alone.

        The kernel makes pages that become executable visible to the instruction caches of all CPUs.

        Raises:
            PatcError: the system does not let programs make code.
        """
        begin = self.address + offset
        start = begin - begin % mmap.PAGESIZE
        length = begin + size - start
        if size and c_library().mprotect(ctypes.c_void_p(start), ctypes.c_size_t(length), mmap.PROT_READ | rights):
            raise PatcError("cannot link the compiled code: the system does not let programs make code in memory")


@once
def c_library() -> ctypes.CDLL:
    """Return the C library, with its functions for numbers."""
    try:
        return ctypes.CDLL("libm.so.6")  # and the C library, which it needs itself
    except OSError:
        return ctypes.CDLL(None)
