"""What users say about how to compile, checked before anything takes time."""

from __future__ import annotations

from patc.backends.base import Options
from patc.backends.registry import find_backend
from patc.diagnostics import PatcError, nearest
from patc.locks import compiling
from patc.numerics import NUMERICS
from patc.targets import MOST_THREADS, Target, get_target, known_targets

TUNE_MODES = ("off", "cost", "measure")


@compiling()
def make_options(
    target: str | Target = "host", threads: int | None = None, dtype: str = "f32", tune: str = "cost"
) -> Options:
    """Return options that go together. See `patc.compile` for the arguments.

    Raises:
        PatcError: one of them is unknown or out of range, or the target does not go with another one.
    """
    if threads is not None and (type(threads) is not int or threads < 1):
        raise PatcError(f"expected threads of 1 or more, got {threads!r}")
    if threads is not None and threads > MOST_THREADS:
        raise PatcError(f"expected at most {MOST_THREADS} threads, got {threads}")
    machine = get_target(target)
    if dtype not in NUMERICS:
        known = list(NUMERICS)
        raise PatcError(f"expected dtype to be one of {', '.join(known)}, got '{dtype}'{nearest(dtype, known)}")
    if tune not in TUNE_MODES:
        raise PatcError(f"expected tune to be one of {', '.join(TUNE_MODES)}, got '{tune}'")
    backend = find_backend(machine.backend)
    options = Options(machine, threads or backend.default_threads(), dtype, tune)
    backend.check(options)
    return options


def require_emits(target: Target, emitted: str, why: str) -> None:
    """Refuse a target whose backend does not write a format, one of `Backend.emits`.

    Args:
        why: ends "expected a target of ...".

    Raises:
        PatcError: it does not; the message lists the targets whose backends do.
    """
    if emitted in find_backend(target.backend).emits:
        return
    backends = {"host": "host"} | {known.name: known.backend for known in known_targets()}
    able = [name for name, backend in backends.items() if emitted in find_backend(backend).emits]
    raise PatcError(f"expected a target of {', '.join(able)} {why}, got '{target.name}'")
