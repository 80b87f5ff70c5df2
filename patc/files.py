"""Files that appear whole or not at all, and where those go that can be made again."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from patc.diagnostics import PatcError


def cache_folder(name: str) -> Path:
    """Return the folder `patc`/`name` in the one that the user keeps such things in."""
    given, home = os.environ.get("XDG_CACHE_HOME", ""), os.path.expanduser("~")
    # A relative one is to be ignored, says the specification; a user without a home has "~".
    base = given if os.path.isabs(given) else os.path.join(home if home != "~" else tempfile.gettempdir(), ".cache")
    return Path(base) / "patc" / name


def atomic_write(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write `data` to a temporary file in the same folder, then rename it to `path`.

    Raises:
        PatcError: the folder is missing or not writable, or the disk is full; nothing is left behind.
    """
    target = Path(path)
    content = data.encode() if isinstance(data, str) else data
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        # mkstemp makes the file private; give it what a plain open() would have given.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, target)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise PatcError(f"cannot write the file: {error.strerror or error}", str(path)) from None
