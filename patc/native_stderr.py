"""What native code prints to standard error."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def native_stderr() -> Iterator[list[str]]:
    """Collect what is printed inside the block, by any thread; it is in the list when the block ends."""
    printed: list[str] = []
    with tempfile.TemporaryFile() as stream:
        saved = os.dup(2)
        os.dup2(stream.fileno(), 2)
        try:
            yield printed
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            stream.seek(0)
            printed.append(stream.read().decode(errors="replace"))
