"""Observers of a running pipeline: IR printing, timing, progress."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, TextIO


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
