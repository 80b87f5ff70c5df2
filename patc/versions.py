"""Versions of what is installed."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterable


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """Return the versions of Python, patc and the installed ones of `distributions`."""
    from patc import __version__

    found = {"python": platform.python_version(), "patc": __version__}
    for name in distributions:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
