"""What is said where memory ran out: how much was asked for, and how much there is."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator

_BYTES = re.compile(r"(?:tried to allocate|unable to mmap) (\d+) bytes")  # torch
_WORDS = re.compile(r"can(?:not|'t) allocate memory|failed to map segment|bad_alloc", re.IGNORECASE)


def describe_shortage(error: BaseException) -> str | None:
    """Return what could not be allocated and what the process may have; None for an error of another kind.

    Libraries wrap the error that says so in others, as patc does: the first one of that kind counts.
    """
    for part in _chain(error):
        words = " ".join(str(part).split())
        if found := _BYTES.search(words):
            return f"unable to allocate {int(found[1]) / 1e6:,.1f} MB{_limits()}"
        if isinstance(part, MemoryError):
            return f"{words or 'an allocation failed'}{_limits()}"
        if isinstance(part, OSError) and part.errno == errno.ENOMEM:
            return f"{part.strerror}{_limits()}"
        if isinstance(part, (RuntimeError, ImportError)) and _WORDS.search(words):
            return f"{words}{_limits()}"
    return None


def memory_limit() -> int | None:
    """Return how many bytes this process may have; None where nothing limits it but the machine."""
    try:
        import resource
    except ImportError:
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen = set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _limits() -> str:
    try:
        with open("/proc/self/statm", "rb") as file:
            used = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        if limit := memory_limit():
            return f"; {used / 1e9:.2f} GB are in use, {limit / 1e9:.2f} GB are allowed (ulimit -v)"
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return f"; {used / 1e9:.2f} GB are in use, the machine has {there / 1e9:.2f} GB"
    except (OSError, ValueError, AttributeError, MemoryError):
        return ""
