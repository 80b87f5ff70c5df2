"""What a command says where memory ran out: how much was asked for, and how much there is."""

from __future__ import annotations

import os
import re

_ASKED = re.compile(r"tried to allocate (\d+) bytes")  # torch


def describe_shortage(error: Exception) -> str | None:
    """Return what could not be allocated and what the process may have; None for an error of another kind."""
    if isinstance(error, MemoryError):
        asked = " ".join(str(error).split()) or "an allocation failed"
    elif isinstance(error, RuntimeError) and (found := _ASKED.search(str(error))):
        asked = f"unable to allocate {int(found[1]) / 1e6:,.1f} MB"
    else:
        return None
    return f"{asked}{_limits()}"


def _limits() -> str:
    try:
        import resource

        used = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")  # noqa: SIM115
        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            return f"; {used / 1e9:.2f} GB are in use, {limit / 1e9:.2f} GB are allowed (ulimit -v)"
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return f"; {used / 1e9:.2f} GB are in use, the machine has {there / 1e9:.2f} GB"
    except (ImportError, OSError, ValueError, AttributeError):
        return ""
