"""The files that torch writes, read without torch: .pt2 programs, TorchScript, and what `torch.save` makes.

torch stores every entry of a zip file as it is, once, below one folder. No other is read here, so that a small file
never takes much memory.
"""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import zipfile
from collections.abc import Callable
from typing import TypeVar

from patc.diagnostics import PatcError, first_line
from patc.files import check_regular

_CHUNK = 1 << 18  # bytes
_ENCRYPTED = 0x1
# What state dicts are made of.
_TENSORS = ("collections.OrderedDict", "torch._utils.", "torch.FloatStorage")
# `torch.save` before PyTorch 1.6: pickles of this number, of a version, of the machine and of what was saved.
_OLD_START = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
_OLD_PICKLES, _OLD_BYTES = 3, 1 << 20

T = TypeVar("T")


class TorchArchive:
    """A zip file of torch, opened for reading; a context manager.

    Args:
        what: is expected, as in "a .pt2 file".
        data: of an archive that is an entry of another one, at `path`.

    Attributes:
        path: of the file.
        sizes: bytes of each entry, by its name without the folder that all entries are in.

    Raises:
        PatcError: the file cannot be read, or is no zip file as torch writes it.
    """

    def __init__(self, path: str | os.PathLike[str], what: str, data: bytes | None = None) -> None:
        self.path = os.fspath(path)
        if data is None:
            check_regular(path, what)
        source = self.path if data is None else io.BytesIO(data)
        if not _guarded(self.path, lambda: zipfile.is_zipfile(source)):
            raise PatcError(f"expected {what}, found damaged data or another format", self.path)
        self._file = _guarded(self.path, lambda: zipfile.ZipFile(source))
        self._bytes = os.path.getsize(path) if data is None else len(data)
        try:
            self._entries = self._check_entries()
        except PatcError:
            self.close()
            raise
        self.sizes = {name: entry.file_size for name, entry in self._entries.items()}

    def __enter__(self) -> TorchArchive:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, name: str) -> bytes:
        """Return the bytes of an entry.

        Raises:
            PatcError: there is no such entry, or it is damaged.
        """
        data = bytearray(self.sizes.get(name, 0))
        self.read_into(name, memoryview(data))
        return bytes(data)

    def read_into(self, name: str, buffer: memoryview) -> None:
        """Read an entry into a buffer of its size.

        Raises:
            PatcError: there is no such entry, or it is damaged.
        """
        if name not in self._entries:
            raise PatcError(f"expected an entry '{name}', found none", self.path)
        _guarded(self.path, lambda: self._read_into(name, buffer))

    def check_stored(self) -> None:
        """Refuse an archive that takes more memory than the file has bytes.

        Raises:
            PatcError: entries are compressed, encrypted, or share bytes.
        """
        for name in self._entries:
            self._check_stored(name)
        found = sum(self.sizes.values())
        if found > self._bytes:
            raise PatcError(f"expected entries of at most the file's {self._bytes} bytes, found {found}", self.path)

    def _check_stored(self, name: str) -> None:
        entry = self._entries[name]
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise PatcError(f"expected stored entries, found {name!a} compressed", self.path)
        if entry.flag_bits & _ENCRYPTED:
            raise PatcError(f"expected stored entries, found {name!a} encrypted", self.path)

    def _read_into(self, name: str, buffer: memoryview) -> None:
        filled = 0
        with self._file.open(self._entries[name]) as stream:
            while filled < len(buffer):
                count = stream.readinto(buffer[filled : filled + _CHUNK])  # type: ignore[attr-defined]
                if not count:
                    raise EOFError(f"'{name}' ends after {filled} of {len(buffer)} bytes")
                filled += count

    def _check_entries(self) -> dict[str, zipfile.ZipInfo]:
        entries: dict[str, zipfile.ZipInfo] = {}
        infos = [info for info in self._file.infolist() if not info.filename.endswith("/")]
        # Before PyTorch 2.8 programs were in no folder: their version is at the top.
        folders = {info.filename.partition("/")[0] for info in infos}
        depth = 0 if "version" in folders or not folders else 1
        if depth and len(folders) > 1:
            raise PatcError(f"expected entries below one folder, found {len(folders)} folders", self.path)
        for info in infos:
            name = info.filename if depth == 0 else info.filename.partition("/")[2]
            if name in entries:
                raise PatcError(f"expected each entry once, found {name!a} twice", self.path)
            entries[name] = info
        return entries


def _guarded(path: str, read: Callable[[], T]) -> T:
    """Return what `read` returns."""
    try:
        return read()
    except PermissionError as error:
        raise PatcError(f"cannot read the file: {error.strerror or error}", path) from None
    except Exception as error:  # zipfile raises nearly anything on damaged data
        raise PatcError(f"expected a zip file, found damaged data: {first_line(error)}", path) from None


_EXPORT = "with torch.export.export and torch.export.save"


def describe_content(path: str | os.PathLike[str]) -> str | None:
    """Return what a file of torch holds that is no program, and what to do with it; None for other files."""
    try:
        with TorchArchive(path, "a file of torch") as archive:
            if "constants.pkl" in archive.sizes:
                return f"a TorchScript archive: export the module it was made of, {_EXPORT}"
            archive.check_stored()
            content = archive.read("data.pkl")
    except PatcError:
        old = _read_old(path)
        if old is None:
            return None
        content = old
    made = _first_class(content)
    if made is None or made.startswith(_TENSORS):
        return "weights of torch.save: give them as --weights together with the name of a model"
    return f"a pickled '{made}' of torch.save: export the module to a .pt2 file, {_EXPORT}"


def _read_old(path: str | os.PathLike[str]) -> bytes | None:
    """Return the beginning of the pickle of what an older PyTorch saved; None for other files."""
    try:
        with open(path, "rb") as file:
            stream = io.BytesIO(file.read(_OLD_BYTES))
    except OSError:
        return None
    if not stream.getvalue().startswith(_OLD_START):
        return None
    try:
        for _ in range(_OLD_PICKLES):
            for _ in pickletools.genops(stream):
                pass
    except ValueError:
        return None
    return stream.read()


def _first_class(content: bytes) -> str | None:
    """Return the first class or function that a pickle names, without reading it."""
    try:
        for operation, argument, _ in pickletools.genops(content):
            if operation.name == "GLOBAL":
                return str(argument).replace(" ", ".")
    except ValueError:
        return None
    return None
