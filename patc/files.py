"""Files that appear whole or not at all, and where those go that can be made again.

Symbolic links are followed. A regular file, or none, becomes the new one in one step and keeps its permissions; other
names of it (hard links) keep the old content. Devices, pipes and open files such as /dev/stdout get what is
written, and stay.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from patc.diagnostics import PatcError

AnyPath: TypeAlias = str | os.PathLike[str]
Data: TypeAlias = bytes | memoryview | str

STANDARD_OUTPUT = "/dev/stdout"

_LINKS = 40  # that lead from one to the next, as on Linux
_CHUNK = 1 << 24  # bytes between two moments at which Ctrl-C is heard
_OPEN_FILES = re.compile(r"/dev/fd|/proc/\d+(/task/\d+)?/fd")


def cache_folder(name: str) -> Path:
    """Return the folder `patc`/`name` in the one that the user keeps such things in."""
    from platformdirs import user_cache_path

    try:
        return user_cache_path("patc", appauthor=False) / name
    except RuntimeError:  # a user without a home
        return Path(tempfile.gettempdir()) / ".cache" / "patc" / name


# -- Before anything takes time ------------------------------------------------------------------------


def check_file(path: AnyPath) -> None:
    """Refuse a file that could not be written.

    Raises:
        PatcError: the name is none, the folder is missing or read-only, or what has the name cannot be written to.
    """
    name = _check_name(path)
    if name.endswith(os.sep) or os.path.isdir(name):
        raise PatcError("expected a file to write, got a folder", name)
    with _one_line(name):
        target = _find_target(name)
        if isinstance(target, int):
            _require_open_for_writing(target)
            return
        folder, found = os.path.dirname(target), _status(target)
        if not os.path.isdir(folder):
            raise PatcError("expected a file in a folder that exists", name)
        if found is not None and stat.S_ISSOCK(found.st_mode):
            raise PatcError("expected a file to write, got a socket", name)
        if found is not None and not os.access(target, os.W_OK):
            raise PatcError("expected a file that can be written to, got a read-only one", name)
        if not _is_stream(target):
            _status(_temporary_name(target))  # the longest name that will be needed
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PatcError("expected a file in a folder that can be written to", name)


def check_folder(path: AnyPath, files: Sequence[str] = (), what: str = "a folder") -> None:
    """Refuse a folder that could not be made, or in which a file could not be written.

    Args:
        path: the folder, which may be missing together with those that it is in.
        files: names of what will be written to it.
        what: how messages call it.

    Raises:
        PatcError: the name is none or that of a file, or what there is of the folder is read-only.
    """
    name = _check_name(path)
    with _one_line(name, "make the folder"):
        target = Path(os.path.realpath(name))
        found = [folder for folder in (target, *target.parents) if _status(os.fspath(folder)) is not None]
        if not found[0].is_dir():
            raise PatcError(f"expected {what}, got a file", name)
        if not os.access(found[0], os.W_OK | os.X_OK):
            raise PatcError("expected a folder that can be written to", name)
        for file in files:
            if found[0] == target:
                check_file(os.path.join(name, file))
            else:
                _status(os.path.join(found[0], file))  # its name may be too long


def is_stream(path: AnyPath) -> bool:
    """Return whether `path` is a device, a pipe or an open file: nothing replaces it, and nothing can lie beside it."""
    with _one_line(path):
        target = _find_target(_check_name(path))
        return isinstance(target, int) or _is_stream(target)


def is_standard_output(path: AnyPath) -> bool:
    """Return whether what is written to `path` goes to standard output, so that nothing else may be printed there."""
    with _one_line(path):
        return _find_target(_check_name(path)) == 1


# -- Writing -------------------------------------------------------------------------------------------


def make_folder(path: AnyPath) -> None:
    """Make a folder, and those it is in, where they are missing.

    Raises:
        PatcError: a file is in the way, or the folder around it is not writable.
    """
    with _one_line(path, "make the folder"):
        Path(_check_name(path)).mkdir(parents=True, exist_ok=True)


def atomic_write(path: AnyPath, data: Data) -> None:
    """Write `data` to a temporary file beside `path`, then rename it; a device, pipe or open file gets it as it is.

    Raises:
        PatcError: the folder is missing or not writable, or the disk is full; nothing is left behind.
    """
    atomic_write_all({path: data})


def write_folder(folder: AnyPath, files: Mapping[str, Data]) -> list[Path]:
    """Write several files to a folder, which is made if it is missing, and return their paths.

    Args:
        files: data by name.

    Raises:
        PatcError: as for `make_folder` and `atomic_write`; neither file nor folder is left behind.
    """
    place = Path(_check_name(folder))
    made = [path for path in (place, *place.parents) if not os.path.lexists(path)]
    try:
        make_folder(folder)
        atomic_write_all({place / name: data for name, data in files.items()})
    except BaseException:
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise
    return [place / name for name in files]


def atomic_write_all(files: Mapping[AnyPath, Data]) -> None:
    """Write several files: all of them to temporary ones first, which are then renamed.

    Args:
        files: data by path.

    Raises:
        PatcError: as for `atomic_write`; every file is as it was.
    """
    staged: list[_Staged] = []
    streams: dict[AnyPath, str | int] = {}
    try:
        for path, data in files.items():
            with _one_line(path):
                target = _find_target(_check_name(path))
                if isinstance(target, int) or _is_stream(target):
                    streams[path] = target
                else:
                    staged.append(_Staged(path, target))
                    staged[-1].write(data)
        for path, place in streams.items():
            with _one_line(path, "write the output"):
                _write_through(place, files[path])
        _rename_all(staged)
    finally:
        _clean_all(staged)


class _Staged:
    """A file on its way: `temporary` becomes `target`, and `backup` is the old one while others may still fail."""

    def __init__(self, path: AnyPath, target: str) -> None:
        self.path, self.target = path, target
        self.temporary, self.backup = _temporary_name(target), _temporary_name(target)

    def write(self, data: Data) -> None:
        old = _status(self.target)
        if old is not None and stat.S_ISDIR(old.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if old is not None and not os.access(self.target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        # Private until it has the permissions of the file that it replaces; a new one has those that open() gives.
        mode = 0o666 if old is None else 0o600
        handle = os.open(self.temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            _write_all(handle, data)
            if old is not None:
                with contextlib.suppress(OSError):
                    os.fchown(handle, old.st_uid, old.st_gid)
                os.fchmod(handle, stat.S_IMODE(old.st_mode))
        finally:
            os.close(handle)

    def keep_old(self) -> None:
        if not os.path.lexists(self.target):
            return
        try:
            os.link(self.target, self.backup)
        except OSError:  # a file system without hard links
            os.rename(self.target, self.backup)

    def restore(self) -> None:
        with contextlib.suppress(OSError):
            if os.path.lexists(self.backup):
                os.replace(self.backup, self.target)
            elif not os.path.lexists(self.temporary):
                os.unlink(self.target)

    def clean(self) -> None:
        for name in (self.temporary, self.backup):
            with contextlib.suppress(OSError):
                os.unlink(name)


def _clean_all(staged: Sequence[_Staged]) -> None:
    """Remove what is left of every file, also where Ctrl-C comes in between."""
    try:
        for item in staged:
            item.clean()
    except BaseException:
        for item in staged:
            item.clean()
        raise


def _rename_all(staged: Sequence[_Staged]) -> None:
    """Rename every file; when that fails for one, or is interrupted, all targets are as they were."""
    if len(staged) == 1:
        with _one_line(staged[0].path):
            os.replace(staged[0].temporary, staged[0].target)
        return
    try:
        for item in staged:
            with _one_line(item.path):
                item.keep_old()
        for item in staged:
            with _one_line(item.path):
                os.replace(item.temporary, item.target)
    except BaseException:
        for item in staged:
            item.restore()
        raise


def _write_through(target: str | int, data: Data) -> None:
    if isinstance(target, int):
        for stream in (sys.__stdout__, sys.__stderr__):
            if stream is not None:
                stream.flush()
        _write_all(target, data)
    else:
        handle = os.open(target, os.O_WRONLY)
        try:
            _write_all(handle, data)
        finally:
            os.close(handle)


def _write_all(handle: int, data: Data) -> None:
    rest = memoryview(data.encode() if isinstance(data, str) else data).cast("B")
    while rest:
        rest = rest[os.write(handle, rest[:_CHUNK]) :]


# -- Names ---------------------------------------------------------------------------------------------


def _check_name(path: AnyPath) -> str:
    name = os.fspath(path)
    if not name:
        raise PatcError("expected the name of a file or folder, got an empty one")
    if "\0" in name:
        raise PatcError("expected a name without null characters", name.replace("\0", "\\0"))
    return name


def _find_target(name: str) -> str | int:
    """Follow symbolic links to the file that is meant, or to the number of a file that this process has open."""
    own = f"/proc/{os.getpid()}/"
    for _ in range(_LINKS):
        folder, last = os.path.realpath(os.path.dirname(name) or os.curdir), os.path.basename(name)
        place = os.path.join(folder, last)
        if last.isdecimal() and _OPEN_FILES.fullmatch(folder):
            return int(last) if folder == "/dev/fd" or folder.startswith(own) else place
        if not os.path.islink(place):
            return place
        name = os.path.join(folder, os.readlink(place))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _is_stream(target: str) -> bool:
    found = _status(target)
    return found is not None and not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode)


def _status(target: str) -> os.stat_result | None:
    """Return what there is; None for nothing.

    Raises:
        OSError: there could be nothing of that name, either.
    """
    try:
        return os.stat(target)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _require_open_for_writing(descriptor: int) -> None:
    import fcntl

    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def _temporary_name(target: str) -> str:
    # Not made of the target's name, which may be as long as names can be.
    return os.path.join(os.path.dirname(target), f".patc-{os.urandom(8).hex()}")


@contextlib.contextmanager
def _one_line(path: AnyPath, what: str = "write the file") -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise PatcError(f"cannot {what}: {error.strerror or error}", os.fspath(path)) from None


# -- Reading -----------------------------------------------------------------------------------------


def check_regular(path: str | os.PathLike[str], what: str) -> None:
    """Refuse what is no regular file, or a link to one: reading a pipe or a device may never end.

    Args:
        what: the file that is expected, with its article, as in "a .pt2 file".

    Raises:
        PatcError: it is refused, or cannot be reached.
    """
    name = _check_name(path)
    try:
        mode = os.stat(name).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise PatcError(f"expected {what}, found no such file", name) from None
    except (OSError, ValueError) as error:  # ValueError: what no name of a file can have
        raise PatcError(f"cannot read the file: {getattr(error, 'strerror', None) or error}", name) from None
    if not stat.S_ISREG(mode):
        found = "a folder" if stat.S_ISDIR(mode) else "a pipe, device or socket"
        raise PatcError(f"expected {what}, found {found}", name)
    note_read(name)


_recorders: list[dict[str, int]] = []


def note_read(path: str | os.PathLike[str]) -> None:
    """Say that a file is about to be read, to those who record it."""
    for recorder in _recorders:
        recorder.setdefault(os.path.abspath(path), os.stat(path).st_mtime_ns)


@contextlib.contextmanager
def recording_reads() -> Iterator[dict[str, int]]:
    """Record the files that `check_regular` or `note_read` hears of meanwhile, in any thread.

    Yields:
        The time of change, in nanoseconds, by the absolute path, as they were before the file was read.
    """
    found: dict[str, int] = {}
    _recorders.append(found)
    try:
        yield found
    finally:
        _recorders[:] = [each for each in _recorders if each is not found]
