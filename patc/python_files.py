"""Files of the user's own Python code, as modules."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from patc.diagnostics import PatcError, first_line
from patc.failures import shows_tracebacks


def run_file(path: Path) -> ModuleType:
    """Run a file that exists, named .py, and return it as a module. Raises whatever its code raises."""
    # Where its classes are looked up when they are copied; a file may be called as a module that is loaded.
    name = path.stem if path.stem not in sys.modules else f"{path.stem}_{abs(hash(str(path.resolve())))}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError("expected a file named .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def naming_errors(what: str, place: str | None = None) -> Iterator[None]:
    """Turn what code of others raises into one line.

    Args:
        what: how the line calls the code.
        place: its file, of which the line names the last line that was reached, or its module.
    """
    try:
        yield
    except (PatcError, KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:  # code may also ask to exit
        if isinstance(error, Exception) and shows_tracebacks():
            raise
        lines = [error.lineno] if isinstance(error, SyntaxError) and error.lineno else []
        frames = traceback.extract_tb(error.__traceback__)
        file = os.path.abspath(place or "")  # as which Python names it, whatever it was asked for
        lines += [frame.lineno for frame in frames if os.path.abspath(frame.filename) == file and frame.lineno]
        at = f"{place}:{lines[-1]}" if lines else place
        raise PatcError(f"{what} raised {type(error).__name__}: {first_line(error)}", at) from error
