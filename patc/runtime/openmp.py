"""The OpenMP runtime that compiled models fork their threads with."""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import sys
from pathlib import Path

from patc.diagnostics import PatcError

# A team that spins for long after a call takes its cores from whatever runs next, torch's own team included.
BLOCK_TIME_MS = 1


@functools.cache
def load() -> None:
    """Load the runtime with its symbols visible to compiled code; later calls do nothing.

    Raises:
        PatcError: neither intel-openmp nor a system libomp is installed.
    """
    for candidate in _candidates():
        try:
            library = ctypes.CDLL(candidate, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
        library.kmp_set_blocktime(BLOCK_TIME_MS)
        return
    raise PatcError("expected an OpenMP runtime, found none: pip install intel-openmp, or install libomp")


def _candidates() -> list[str]:
    names = ["libiomp5.so", "libomp.so", "libomp.so.5", "libomp.dylib"]
    installed = [str(path) for path in (Path(sys.prefix) / "lib" / name for name in names) if path.is_file()]
    found = ctypes.util.find_library("omp") or ctypes.util.find_library("iomp5")
    return [*installed, *names, *([found] if found else [])]
