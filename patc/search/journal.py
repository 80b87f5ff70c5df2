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
        path: of the file, which is made if there is none. Before something is written, a last line without an end
            goes, of a full disk or a machine that lost its power: nobody went on from it, and what is written behind it
            could not be read.

    Raises:
        OSError: the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        lock = _Lock(path)
        super().__init__(str(path), lock)
        self._path = path
        lock.acquire()
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


class _Lock(JournalFileSymlinkLock):
    """A lock of a journal, which ends with a whole line when it is acquired."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    def acquire(self) -> bool:
        super().acquire()
        try:
            _end_with_a_line(self._path)
        except OSError:
            self.release()
            raise
        return True


def _end_with_a_line(path: Path) -> None:
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return
        file.seek(-1, os.SEEK_END)
        if file.read() == b"\n":
            return
    os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
