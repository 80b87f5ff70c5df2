"""Faults of patc itself: one line, and a folder with what it takes to see the fault again, in the user's cache.

    report.json     what happened and where, the command or the call, versions, environment, digests of the inputs
    inputs/         the files that the command names, as they are
    traceback.txt   of an exception
    ir/             the IR after each pass that ended, without weights

An error of the user's making is a `PatcError`, and none of this.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from patc.diagnostics import PatcError, first_line
from patc.files import cache_folder
from patc.shortages import describe_shortage
from patc.versions import versions

MOST_FOLDERS = 20  # the oldest ones make room
MOST_BYTES = 64 << 20  # of a file that is copied
SHOWS_TRACEBACKS = "PATC_TRACEBACK"
REPORT = "report.json"
_PACKAGES = ("torch", "torch-mlir", "llvmlite", "numpy", "onnx")
_VARIABLES = ("PATC_", "OMP_", "TORCH", "PYTORCH", "MLIR_", "VK_")


class InternalError(RuntimeError):
    """A fault of patc, in one line that says how to report it.

    Attributes:
        folder: what to report it with; None where none could be written.
    """

    def __init__(self, message: str, folder: Path | None) -> None:
        super().__init__(message, folder)
        self.message, self.folder = message, folder

    def __str__(self) -> str:
        return f"internal error: {self.message}; this is a fault of patc{how_to_report(self.folder)}"


def shows_tracebacks() -> bool:
    """Return whether unexpected errors are to be shown as they are."""
    return os.environ.get(SHOWS_TRACEBACKS, "") not in ("", "0")


def is_fault(error: Exception) -> bool:
    """Return whether an error is one of patc, and not of its input, the system, or the memory there is."""
    return not isinstance(error, (PatcError, OSError, RecursionError)) and describe_shortage(error) is None


def describe_fault(error: BaseException) -> str:
    """Return an unexpected error and the line that raised it, on one line."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {first_line(error)}{where}"


def how_to_report(folder: Path | None) -> str:
    """Return the rest of a line about a fault."""
    if folder is None:
        return f": please report it together with the command and its input ({SHOWS_TRACEBACKS}=1 shows more)"
    return f": please report it with the folder {folder} ({SHOWS_TRACEBACKS}=1 shows more)"


@contextlib.contextmanager
def explained(call: Mapping[str, Any], again: Callable[[Path], object]) -> Iterator[None]:
    """Turn a fault inside the block into an `InternalError`.

    Args:
        call: what was asked for.
        again: does it again, and writes the IR after each pass into a folder.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, InternalError) or not is_fault(error) or shows_tracebacks():
            raise
        from patc.plugins import blamed

        foreign = blamed(error)
        if foreign is not None:
            raise foreign from error
        folder = make_folder()
        if folder is not None:
            write_report(folder, {"what": describe_fault(error), **call}, error=error)
            with contextlib.suppress(Exception):  # the same one
                again(folder / "ir")
        raise InternalError(describe_fault(error), folder) from error


def make_folder() -> Path | None:
    """Make the folder of a fault; None where that is not possible."""
    home = cache_folder("failures")
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        there = sorted((path for path in home.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
        for old in there[: max(0, len(there) + 1 - MOST_FOLDERS)]:
            shutil.rmtree(old, ignore_errors=True)
        return Path(tempfile.mkdtemp(prefix="failure-", dir=home))
    except OSError:
        return None


def write_report(
    folder: Path, said: Mapping[str, Any], words: Sequence[str] = (), error: BaseException | None = None
) -> None:
    """Write what is known of a fault; what is in the report already stays, and what cannot be written is left out.

    Args:
        said: what happened, by name.
        words: of the command line: files among them are copied.
        error: whose traceback is written.
    """
    with contextlib.suppress(OSError, ValueError):
        report = folder / REPORT
        known = json.loads(report.read_bytes()) if report.exists() else {}
        variables = {name: value for name, value in os.environ.items() if name.startswith(_VARIABLES)}
        about = {"versions": versions(_PACKAGES), "system": list(os.uname()), "environment": variables}
        inputs = {str(path): _keep(path, folder / "inputs") for path in _files(words)}
        values = {**said, **about, **({"inputs": inputs} if inputs else {}), **known}
        report.write_text(json.dumps(values, indent=1, default=str) + "\n", errors="backslashreplace")
        if error is not None and not (folder / "traceback.txt").exists():
            lines = traceback.format_exception(type(error), error, error.__traceback__)
            (folder / "traceback.txt").write_text("".join(lines), errors="backslashreplace")


def _files(words: Sequence[str]) -> Iterator[Path]:
    """Yield the files that a command names, and the parameters beside an .mlir file."""
    for word in words:
        for text in {word: None, word.partition("=")[2]: None}:
            with contextlib.suppress(OSError, ValueError):
                path = Path(text)
                if text and path.is_file():
                    yield path
                    beside = path.with_suffix(".safetensors")
                    if path.suffix == ".mlir" and beside.is_file():
                        yield beside


def _keep(path: Path, folder: Path) -> str:
    """Copy a file unless it is large, and return its size and digest."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while piece := file.read(1 << 20):
            digest.update(piece)
    if size <= MOST_BYTES:
        folder.mkdir(exist_ok=True)
        shutil.copyfile(path, folder / path.name)
    return f"{size} bytes, SHA-256 {digest.hexdigest()}{'' if size <= MOST_BYTES else ', not copied'}"
