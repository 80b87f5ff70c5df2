"""What keeps threads and forks apart while patc imports, loads and compiles.

`torch.export` and the MLIR bindings take one thread at a time. Whatever enters them is a door, and a door is
`@compiling()`: another compilation waits for it, and so does a fork, whose child would otherwise find their globals and
locks half-way. Nothing here is held while a compiled model runs.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

Made = TypeVar("Made")

# Taken in this order where both are.
_compiling = threading.RLock()
_loading = threading.RLock()
_compiler: int | None = None  # the thread that compiles
_PATIENCE = 60.0  # seconds
_CONVERT_FRAME = "torch._dynamo.convert_frame"


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Keep other compilations and forks waiting; one inside another is fine."""
    global _compiler
    if _compiler == threading.get_ident():
        yield
        return
    with _torch_compiling(), _compiling:
        _compiler = threading.get_ident()
        try:
            yield
        finally:
            _compiler = None


def loading() -> contextlib.AbstractContextManager[Any]:
    """Keep forks waiting, and others that import modules of patc or load libraries."""
    return _loading


def compile_no_more() -> None:
    """Wait for the compilation of a daemon thread, and keep the next ones waiting: for the end of the process."""
    _compiling.acquire(timeout=_PATIENCE)


def once(make: Callable[[], Made]) -> Callable[[], Made]:
    """As `functools.cache`, and threads that ask at once get the same object."""
    made: list[Made] = []

    @functools.wraps(make)
    def get() -> Made:
        with _loading if not made else contextlib.nullcontext():
            if not made:
                made.append(make())
        return made[0]

    return get


def _torch_compiling() -> contextlib.AbstractContextManager[Any]:
    """Return the lock that `torch.compile` holds when it calls patc, so that both are always taken in this order."""
    if "torch" not in sys.modules:
        return contextlib.nullcontext()
    with _loading:
        lock: contextlib.AbstractContextManager[Any] = importlib.import_module(_CONVERT_FRAME).compile_lock
    return lock


# -- Forks -------------------------------------------------------------------------------------------------


_taken: list[Any] = []


def _before_fork() -> None:
    for lock in (_compiling, _loading, _llvmlite_lock()):
        lock.__enter__()
        _taken.append(lock)


def _after_fork() -> None:
    while _taken:
        _taken.pop().__exit__(None, None, None)


def _after_fork_in_child() -> None:
    _after_fork()
    convert_frame: Any = sys.modules.get(_CONVERT_FRAME)
    lock = getattr(convert_frame, "compile_lock", None)
    if lock is None:
        return
    if lock.acquire(blocking=False):
        lock.release()
    else:  # its owner is a thread that the child does not have
        convert_frame.compile_lock = threading.RLock()


def _llvmlite_lock() -> Any:
    """Return the lock around all that llvmlite asks of LLVM, in finalizers too."""
    ffi = sys.modules.get("llvmlite.binding.ffi")
    lib = getattr(ffi, "lib", None)
    return contextlib.nullcontext() if lib is None else lib._lock


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
