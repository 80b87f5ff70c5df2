"""The OpenMP runtime that compiled models fork their threads with.

Its functions are handed to compiled code by address and stay out of the process's symbols: torch brings a runtime of
its own, and a call such as `omp_get_thread_num` answered by the other one would give every thread all of the work.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from patc.diagnostics import PatcError
from patc.locks import once
from patc.runtime import placement

# A team that spins for long after a call takes its cores from whatever runs next, torch's own team included.
BLOCK_TIME_MS = 1

_LIBRARY = (
    "__kmpc_barrier",
    "__kmpc_for_static_fini",
    "__kmpc_for_static_init_8u",
    "__kmpc_fork_call",
    "__kmpc_global_thread_num",
    "__kmpc_push_num_threads",
    "omp_get_num_threads",
    "omp_get_thread_num",
)
# What MLIR's OpenMP dialect and `pattern-parallelize` call.
ENTRY_POINTS = (*_LIBRARY, *placement.NAMES)
_NAMES = ("libiomp5.so", "libomp.so", "libomp.so.5", "libomp.dylib")


@once
def entry_points() -> Mapping[str, int]:
    """Load the runtime and return the addresses of `ENTRY_POINTS`; later calls return the same.

    Python's fork is safe: the runtime starts a team anew in the child. Threads sleep `BLOCK_TIME_MS` after a call,
    unless the environment variable KMP_BLOCKTIME says otherwise.

    Raises:
        PatcError: neither intel-openmp nor a system libomp is installed.
    """
    library = _load()
    # scikit-learn sets the variable of this name to FALSE, and then a forked child waits for threads that it does not
    # have. What is set here, before the runtime starts, counts more than the environment.
    library.kmp_set_defaults(b"KMP_INIT_AT_FORK=TRUE")
    sleeps_soon = "KMP_BLOCKTIME" not in os.environ
    if sleeps_soon:  # for the Python threads that call a model later on
        library.kmp_set_defaults(f"KMP_BLOCKTIME={BLOCK_TIME_MS}".encode())
    library.kmp_get_blocktime()  # starts the runtime
    if sleeps_soon:  # for this thread
        library.kmp_set_blocktime(BLOCK_TIME_MS)
    addresses = {name: ctypes.cast(getattr(library, name), ctypes.c_void_p).value for name in _LIBRARY}
    found = {name: address for name, address in addresses.items() if address is not None}
    return MappingProxyType({**found, **placement.placement_functions()})


def _load() -> ctypes.CDLL:
    for name, mode in _candidates():
        try:
            library = ctypes.CDLL(name, mode=mode)
        except OSError:
            continue
        if all(hasattr(library, symbol) for symbol in _LIBRARY):
            return library
    raise PatcError(
        "expected an OpenMP runtime, found none: pip install intel-openmp, install libomp, or compile for one thread"
    )


def _candidates() -> Iterator[tuple[str, int]]:
    """Yield names and modes for dlopen; first what is loaded already, as a second copy ends the process."""
    only_loaded = getattr(os, "RTLD_NOLOAD", None)
    if only_loaded is not None:
        yield from ((name, only_loaded) for name in _NAMES)
    installed = (Path(sys.prefix) / "lib" / name for name in _NAMES)
    yield from ((str(path), ctypes.DEFAULT_MODE) for path in installed if path.is_file())
    yield from ((name, ctypes.DEFAULT_MODE) for name in _NAMES)
    found = ctypes.util.find_library("omp") or ctypes.util.find_library("iomp5")
    if found:
        yield found, ctypes.DEFAULT_MODE
