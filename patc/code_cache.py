"""Compiled models that the command line made before, kept in the user's cache folder.

An entry is found by all that decides about the code but the files that were read, and counts where each of these has
the bytes that it had; that of a module by what was imported of it. It is two files: what `CompiledModel.save` wrote,
and a text with the files and the remarks.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patc.diagnostics import Diagnostic, PatcError
from patc.files import atomic_write, cache_folder, recording_reads
from patc.plugins import fingerprint
from patc.versions import versions

if TYPE_CHECKING:
    from patc.runtime.model import CompiledModel

MOST_BYTES = 2 << 30
DISABLED = "PATC_NO_CACHE"
_PACKAGES = ("torch", "torch-mlir", "llvmlite", "numpy", "onnx")


def is_disabled() -> bool:
    """Return whether the environment says that nothing is to be kept."""
    return os.environ.get(DISABLED, "") not in ("", "0")


@dataclass
class CodeCache:
    """Compiled models by a key, the most bytes of them that are kept, and where."""

    folder: Path = field(default_factory=lambda: cache_folder("code"))
    most_bytes: int = MOST_BYTES

    def load(self, key: str) -> CompiledModel | None:
        """Return the model that was stored under a key; None where there is none, or what it came from changed."""
        from patc.backends.registry import find_backend
        from patc.loading import load

        text, code = self._paths(key)
        try:
            entry = json.loads(text.read_bytes())
            if any(_digest_file(path) != digest for path, digest in entry["files"].items()):
                return None
            remarks = [Diagnostic(*map(str, words)) for words in entry["remarks"]]  # type: ignore[arg-type]
            program = load(code).program
            for path in (text, code):
                os.utime(path)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, PatcError):
            return None  # compiling says what is wrong, if anything is
        return find_backend(program.backend).load(program, remarks)

    @contextlib.contextmanager
    def storing(self, key: str) -> Iterator[list[CompiledModel]]:
        """Store the model that is put into the list under a key, with the files that are read meanwhile; not where one
        of them changes, or where the folder cannot be written to."""
        made: list[CompiledModel] = []
        with recording_reads() as files:
            yield made
        with contextlib.suppress(OSError, PatcError):
            digests = {path: (_digest_file(path), os.stat(path).st_mtime_ns) for path in sorted(files)}
            if made and all(files[path] == seen for path, (_, seen) in digests.items()):
                self._store(key, made[0], {path: digest for path, (digest, _) in digests.items()})

    def _store(self, key: str, model: CompiledModel, files: dict[str, str]) -> None:
        data = model.to_bytes()
        if len(data) > self.most_bytes:
            return
        text, code = self._paths(key)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # what is in it is run
        remarks = [(item.severity, item.message, item.plain().location) for item in model.diagnostics]
        atomic_write(code, data)
        atomic_write(text, json.dumps({"files": files, "remarks": remarks}) + "\n")
        self._shrink()

    def _shrink(self) -> None:
        """Remove what was used longest ago, until the rest is small enough."""
        found = sorted((path.stat().st_mtime_ns, path.stat().st_size, path) for path in self.folder.glob("*.patc"))
        total = sum(size for _, size, _ in found)
        for _, size, path in found:
            if total <= self.most_bytes:
                break
            path.unlink(missing_ok=True)
            path.with_suffix(".json").unlink(missing_ok=True)
            total -= size

    def _paths(self, key: str) -> tuple[Path, Path]:
        return self.folder / f"{key}.json", self.folder / f"{key}.patc"


def make_key(given: dict[str, Any]) -> str:
    """Return the key for options of a command: they, patc's own code, plugins and the packages
    that it is built on decide."""
    known = {**given, **versions(_PACKAGES), "sources": _digest_sources(), "plugins": fingerprint()}
    return hashlib.sha256(json.dumps(known, sort_keys=True, default=repr).encode()).hexdigest()


def _digest_sources() -> str:
    digest = hashlib.sha256()
    for folder, folders, names in os.walk(Path(__file__).parent, followlinks=True):
        folders.sort()
        for name in sorted(names):
            if name.endswith(".py"):
                digest.update(f"{name}\0".encode())
                digest.update(Path(folder, name).read_bytes())
    return digest.hexdigest()


def _digest_file(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
