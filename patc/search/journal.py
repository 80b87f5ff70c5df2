"""The file in which Optuna keeps the records of a search."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from patc.diagnostics import PatcError


class Journal(JournalFileBackend):
    """A file of a line for each record, to which several processes and machines write.

    Args:
        path: of the file, which is made if there is none. A last line without an end, of a full disk or a machine that
            lost its power, goes: nobody went on from it, and what is written behind it could not be read.

    Raises:
        OSError: the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        lock = JournalFileSymlinkLock(str(path))
        super().__init__(str(path), lock)
        self._path = path
        lock.acquire()
        try:
            _end_with_a_line(path)
        finally:
            lock.release()

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write records.

        Raises:
            PatcError: the file cannot be written.
        """
        try:
            super().append_logs(logs)
        except OSError as error:
            raise PatcError(
                f"cannot write the records of a search: {error.strerror or error}", str(self._path)
            ) from None


def _end_with_a_line(path: Path) -> None:
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
