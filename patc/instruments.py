"""Observers of a running pipeline: IR printing, timing, progress."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from patc.files import atomic_write, make_folder


class Instrument:
    """What a pipeline tells about each pass; both methods do nothing unless overridden."""

    def before(self, name: str, index: int, total: int) -> None:
        """Called before pass `index`, counted from 0, of `total`."""

    def after(self, name: str, module: Any, seconds: float) -> None:
        """Called after a pass that succeeded, with the rewritten module."""


@dataclass
class PrintAfter(Instrument):
    """Print the whole module after passes.

    Attributes:
        stream: where to.
        names: the passes; None for all.
        print_options: arguments of `Operation.print`.
    """

    stream: TextIO
    names: Collection[str] | None = None
    print_options: dict[str, Any] = field(default_factory=dict)

    def after(self, name: str, module: Any, seconds: float) -> None:
        if self.names is None or name in self.names:
            text = module.operation.get_asm(assume_verified=True, **self.print_options)
            self.stream.write(f"// -----// IR Dump After {name} //----- //\n{text}\n")


# Elements of a constant that are written: enough for shapes and patterns.
_MOST_ELEMENTS = 16


@dataclass
class SaveIr(Instrument):
    """Write the module after each pass to a file of its own, `02-pattern-raise.mlir`: weights are left out, and values
    are called as their layers are, so that two files, or those of two runs, can be compared line by line.

    Attributes:
        folder: made where it is missing.
        written: the files, in the order of the passes.
    """

    folder: Path
    written: list[Path] = field(default_factory=list)

    @classmethod
    def into(cls, folder: str | os.PathLike[str] | None) -> tuple[SaveIr, ...]:
        """Return an instrument for a folder; none for None."""
        return () if folder is None else (cls(Path(folder)),)

    def after(self, name: str, module: Any, seconds: float) -> None:
        text = module.operation.get_asm(
            assume_verified=True, large_elements_limit=_MOST_ELEMENTS, use_name_loc_as_prefix=True
        )
        make_folder(self.folder)
        self.written.append(self.folder / f"{len(self.written):02d}-{name}.mlir")
        atomic_write(self.written[-1], text.rstrip() + "\n")


@dataclass
class Timing(Instrument):
    """Wall time of each pass, its own verification included.

    Attributes:
        seconds: (name, seconds), in the order of the runs.
    """

    seconds: list[tuple[str, float]] = field(default_factory=list)

    def after(self, name: str, module: Any, seconds: float) -> None:
        self.seconds.append((name, seconds))

    def report(self) -> str:
        """Return a table with one line a pass."""
        total = sum(seconds for _, seconds in self.seconds)
        rows = [*self.seconds, ("Total", total)]
        lines = [f"  {seconds:9.4f} ({seconds / (total or 1.0):6.1%})  {name}" for name, seconds in rows]
        return "\n".join(["Execution time report, wall seconds", *lines, ""])


@dataclass
class Progress(Instrument):
    """Call `callback(name, index, total)` before each pass."""

    callback: Callable[[str, int, int], None]

    def before(self, name: str, index: int, total: int) -> None:
        self.callback(name, index, total)
