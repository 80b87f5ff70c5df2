"""Files that appear whole or not at all, and where those go that can be made again."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from patc.diagnostics import PatcError


def cache_folder(name: str) -> Path:
    """Return the folder `patc`/`name` in the one that the user keeps such things in."""
    given, home = os.environ.get("XDG_CACHE_HOME", ""), os.path.expanduser("~")
    # A relative one is to be ignored, says the specification; a user without a home has "~".
    base = given if os.path.isabs(given) else os.path.join(home if home != "~" else tempfile.gettempdir(), ".cache")
    return Path(base) / "patc" / name


def make_folder(path: str | os.PathLike[str]) -> None:
    """Make a folder, and those it is in, where they are missing.

    Raises:
        PatcError: a file is in the way, or the folder around it is not writable.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PatcError(f"cannot make the folder: {error.strerror or error}", str(path)) from None


def atomic_write(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write `data` to a temporary file in the same folder, then rename it to `path`.

    Raises:
        PatcError: the folder is missing or not writable, or the disk is full; nothing is left behind.
    """
    atomic_write_all({path: data})


def atomic_write_all(files: Mapping[str | os.PathLike[str], bytes | memoryview | str]) -> None:
    """Write several files: all of them to temporary ones first, which are then renamed.

    Args:
        files: data by path.

    Raises:
        PatcError: as for `atomic_write`; no file is left behind.
    """
    umask = os.umask(0)
    os.umask(umask)
    left: list[str] = []
    path: str | os.PathLike[str] = ""
    try:
        for path, data in files.items():
            target = Path(path)
            handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
            left.append(temporary)
            with os.fdopen(handle, "wb") as stream:
                stream.write(data.encode() if isinstance(data, str) else data)
            # mkstemp makes the file private; give it what a plain open() would have given.
            os.chmod(temporary, 0o666 & ~umask)
        for i, path in enumerate(files):
            os.replace(left[i], path)
            left[i] = os.fspath(path)
    except OSError as error:
        for name in left:
            with contextlib.suppress(OSError):
                os.unlink(name)
        raise PatcError(f"cannot write the file: {error.strerror or error}", str(path)) from None


def check_regular(path: str | os.PathLike[str], what: str) -> None:
    """Refuse what is no regular file, or a link to one: reading a pipe or a device may never end.

    Args:
        what: the file that is expected, with its article, as in "a .pt2 file".

    Raises:
        PatcError: it is refused, or cannot be reached.
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise PatcError(f"expected {what}, found no such file", str(path)) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise PatcError(f"cannot read the file: {getattr(error, 'strerror', None) or error}", str(path)) from None
    if not stat.S_ISREG(mode):
        found = "a folder" if stat.S_ISDIR(mode) else "a pipe, device or socket"
        raise PatcError(f"expected {what}, found {found}", str(path))
