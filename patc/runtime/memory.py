"""Memory for weights and activations."""

from __future__ import annotations

import mmap

import numpy as np

ALIGNMENT = 64
LARGE_PAGE = 2 << 20


def aligned_bytes(size: int) -> np.ndarray:
    """Return `size` bytes of zeros that start on a cache line; on large pages where the system has them.

    Planes of one tensor are far apart: on small pages, one tile touches more of them than the first-level
    translation buffer holds.

    Raises:
        MemoryError: there is not so much.
    """
    alignment = _alignment(size)
    if alignment == LARGE_PAGE:
        # Private: the pages of a shared mapping are small, and a forked child would write to them too.
        try:
            block = mmap.mmap(-1, size + LARGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, OverflowError):
            raise MemoryError(f"Unable to allocate {size / 2**20:.0f} MiB") from None
        block.madvise(mmap.MADV_HUGEPAGE)
        memory = np.frombuffer(block, np.uint8)
    else:
        memory = np.zeros(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % alignment
    return memory[start : start + size]


def is_resident(memory: np.ndarray) -> bool:
    """Return whether contiguous bytes start where `aligned_bytes` would put them."""
    return bool(memory.flags.c_contiguous) and memory.ctypes.data % _alignment(memory.nbytes) == 0


def _alignment(size: int) -> int:
    return LARGE_PAGE if size >= LARGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE") else ALIGNMENT
