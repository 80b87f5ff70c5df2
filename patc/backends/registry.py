"""Which backends there are. A package of its own registers another one before it compiles for it or loads its files."""

from __future__ import annotations

from patc.backends.base import Backend
from patc.diagnostics import PatcError, nearest
from patc.discovery import implementations

_BACKENDS: dict[str, Backend] = {}


def register(backend: Backend) -> None:
    """Let targets and compiled files that name a backend find it.

    Raises:
        ValueError: there is another one of that name.
    """
    if backend.name in _BACKENDS:
        raise ValueError(f"expected a new name for a backend, got '{backend.name}'")
    _BACKENDS[backend.name] = backend


def find_backend(name: str) -> Backend:
    """Return the backend of a name: that of `Target.backend` or of `Program.backend`.

    Raises:
        PatcError: there is none.
    """
    if name not in _BACKENDS:
        raise PatcError(f"expected a backend of {', '.join(_BACKENDS)}, got '{name}'{nearest(name, _BACKENDS)}")
    return _BACKENDS[name]


for _backend in implementations(__name__, Backend):
    register(_backend())
