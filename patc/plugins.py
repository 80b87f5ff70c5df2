"""What other packages add to patc: passes, kinds of layers and weight formats, by entry points or from a file.

    [project.entry-points."patc.passes"]
    zero-small-weights = "patc_zero_small_weights:ZeroSmallWeights"

An entry point of `patc.passes` has the name of its pass and is loaded when that is asked for; those of `patc.layers`
and `patc.formats` are loaded with the first module that knows layers or formats.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patc.diagnostics import PatcError, first_line
from patc.files import check_regular
from patc.python_files import naming_errors, run_file

PASSES, LAYERS, FORMATS = GROUPS = ("patc.passes", "patc.layers", "patc.formats")

_loaded: set[Path] = set()  # by `load_file`


@dataclass(frozen=True)
class Plugin:
    """One entry point of another package."""

    entry: importlib.metadata.EntryPoint

    @property
    def name(self) -> str:
        """Its name, which that of a pass is."""
        return self.entry.name

    def load(self, base: type) -> Any:
        """Return the class that it names.

        Raises:
            PatcError: its code raises, or it is no subclass of `base`; the line names the plugin.
        """
        with self.errors():
            found = self.entry.load()
            if not (inspect.isclass(found) and issubclass(found, base)):
                raise TypeError(f"expected a subclass of {base.__name__}, found {found!r}")
            return found

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Turn what its code raises into one line that names it."""
        with naming_errors(str(self)):
            yield

    def __str__(self) -> str:
        package = self.entry.dist
        of = "" if package is None else f" of {package.metadata['Name']} {package.version}"
        return f"plugin '{self.name}' ({self.entry.group}{of})"


@functools.cache
def plugins(group: str) -> tuple[Plugin, ...]:
    """Return the plugins of a group, one of `GROUPS`, by their names."""
    found = importlib.metadata.entry_points(group=group)
    return tuple(Plugin(entry) for entry in sorted(found, key=lambda entry: (entry.name, entry.value)))


def fingerprint() -> list[str]:
    """Return what tells the code of all plugins from others; nothing is loaded for it."""
    return [f"{plugin.entry.value} {plugin} {_digest(plugin.entry)}" for group in GROUPS for plugin in plugins(group)]


def blamed(error: BaseException) -> PatcError | None:
    """Return the line about an error that code of a plugin or of a loaded file raised, or what that called, while patc
    ran it; None where none of them took part."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        owner = _owner(Path(os.path.abspath(frame.filename)))
        if owner is not None:
            line = f"{owner} raised {type(error).__name__}: {first_line(error)}"
            return PatcError(line, f"{frame.filename}:{frame.lineno}")
    return None


def _owner(file: Path) -> str | None:
    """Return what a line calls the code in a file that was loaded for a plugin or by `load_file`."""
    if file in _loaded:
        return "its code"
    for plugin in (plugin for group in GROUPS for plugin in plugins(group)):
        module = sys.modules.get(plugin.entry.module.partition(".")[0])
        folders = [Path(place).absolute() for place in getattr(module, "__path__", ())]
        own = getattr(module, "__file__", None)
        if any(folder in file.parents for folder in folders) or (own and file == Path(own).absolute()):
            return str(plugin)
    return None


def load_file(path: str) -> None:
    """Run a file of Python code, and register the passes, kinds of layers and formats that it defines and does not
    register itself.

    Raises:
        PatcError: there is no such file, its code raises, or what it defines cannot be registered; the line names it.
    """
    check_regular(path, "a Python file")
    _loaded.add(Path(path).absolute())
    with naming_errors("its code", path):
        module = run_file(Path(path))
        for value in list(vars(module).values()):
            is_own = inspect.isclass(value) and value.__module__ == module.__name__ and value.__name__[0] != "_"
            if is_own and not inspect.isabstract(value):
                _register(value)


def _register(kind: type) -> None:
    """Register a class of a file, if it is of a sort that can be."""
    from patc.passes import registry
    from patc.passes.base import Pass
    from patc.passes.formats import registry as formats
    from patc.passes.formats.base import WeightFormat
    from patc.passes.layers import registry as layers
    from patc.passes.layers.base import LayerKind

    if issubclass(kind, Pass) and not registry.is_registered(kind):
        registry.register(kind)
    elif issubclass(kind, WeightFormat) and kind not in formats.formats():
        formats.register(kind)
    elif issubclass(kind, LayerKind) and kind not in map(type, layers.kinds()):
        layers.register(kind())


def _digest(entry: importlib.metadata.EntryPoint) -> str:
    """Return the digest of the Python files of an entry point's package, or of its one module."""
    digest = hashlib.sha256()
    with contextlib.suppress(ImportError, OSError, ValueError):
        spec = importlib.util.find_spec(entry.module.partition(".")[0])
        folders = [Path(place) for place in (spec.submodule_search_locations or ())] if spec is not None else []
        files = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
        if spec is not None and spec.origin is not None:
            files.append(Path(spec.origin))
        for path in files:
            digest.update(f"{path}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
