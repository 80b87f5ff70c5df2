"""How sub-commands print: a console, progress of a compilation, and numbers in few characters."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from patc.diagnostics import describe_seconds
from patc.tools import guard

if TYPE_CHECKING:
    from patc.compiler import Report
    from patc.dialects.schedules import Alternative, Explanation, Schedule
    from patc.layers import LayerReport

WIDTH = 100  # where the output is no terminal

_STEPS = {
    "import": "reading the model",
    "pattern-promote": "widening numbers of half precision",
    "pattern-fold-batch-norm": "folding batch norms",
    "pattern-raise": "finding layers",
    "pattern-shrink": "removing channels without a purpose",
    "pattern-encode": "finding patterns in the zeros",
    "pattern-reorder": "sorting filters and kernels",
    "pattern-quantize": "quantising layers",
    "pattern-layout": "laying out activations",
    "pattern-schedule": "choosing schedules",
    "pattern-specialize": "writing loops for each pattern",
    "pattern-vectorize": "vectorizing",
    "pattern-plan-memory": "planning memory",
    "pattern-parallelize": "dividing work among threads",
    "pattern-map-to-gpu": "writing kernels for a GPU",
    "pattern-to-spirv": "converting kernels to SPIR-V",
    "codegen": "generating machine code",
}
_OPS = {"conv2d": "conv", "sparse_conv2d": "conv", "max_pool2d": "maxpool", "avg_pool2d": "avgpool"}


def make_console(stderr: bool = False) -> Console:
    """Return a console; files and pipes get lines of `WIDTH` columns."""
    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=WIDTH)


def make_table(titles: Sequence[str], words: int) -> Table:
    """Return an empty table; the first `words` columns hold words, the others numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for place, title in enumerate(titles):
        table.add_column(title, justify="left" if place < words else "right", no_wrap=True, overflow="ellipsis")
    return table


@contextlib.contextmanager
def compilation_progress(quiet: bool = False) -> Iterator[Report]:
    """Show the steps of a compilation on standard error while it lasts; nothing where that is no terminal.

    Yields:
        What `patc.compile` takes as `report`.
    """
    console = make_console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda step, index, total: guard.note(_STEPS.get(step, step))
        return
    columns = (SpinnerColumn(), BarColumn(bar_width=24), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("compiling", total=None)

        def report(step: str, index: int, total: int) -> None:
            guard.note(_STEPS.get(step, step))
            progress.update(task, description=_STEPS.get(step, step), completed=index, total=total)
            # Steps hold the interpreter's lock for seconds: what is not shown now would not be shown.
            progress.refresh()

        yield report


@contextlib.contextmanager
def steps_shown() -> Iterator[Callable[[str], None]]:
    """Show what is done on standard error while it lasts; nothing where that is no terminal.

    Yields:
        What to call before each step, in words.
    """
    console = make_console(stderr=True)
    if not console.is_terminal:
        yield guard.note
        return
    with console.status("") as status:

        def tell(step: str) -> None:
            guard.note(step)
            status.update(step)

        yield tell


def describe_op(layer: LayerReport) -> str:
    """Return what a layer computes, as in `conv 3x3/2` for a stride of 2."""
    words = _OPS.get(layer.op, layer.op)
    if layer.op in _OPS:
        words += f" {join_sizes(layer.kernel)}"
    if max(layer.strides) > 1:
        words += f"/{layer.strides[0] if len(set(layer.strides)) == 1 else join_sizes(layer.strides)}"
    return words


def describe_tile(schedule: Schedule) -> str:
    """Return rows x columns, x filters if there are several, as in `1x16x4`."""
    return join_sizes((schedule.rows, schedule.columns, *([schedule.filters] if schedule.filters > 1 else [])))


def describe_schedule(schedule: Schedule) -> str:
    """Return all of a schedule, as in `pattern-direct, 4x48, lanes 16, 2 sums, 2 threads by rows`."""
    words = [schedule.algorithm, f"{schedule.rows}x{schedule.columns}", f"lanes {schedule.lanes}"]
    words += [f"{schedule.filters} filters"] if schedule.filters > 1 else []
    words += [f"{schedule.sums} sums"] if schedule.sums > 1 else []
    words += [f"{schedule.threads} threads by {schedule.split}"] if schedule.threads > 1 else []
    return ", ".join(words)


def describe_explanation(explanation: Explanation | None) -> str:
    """Return why a layer has its schedule, as in `best of 211 tiles, bound by multiply-adds; winograd 2.31x`."""
    if explanation is None:
        return "given"
    measured = [item for item in explanation.alternatives if item.seconds is not None]
    if measured:
        found = [f"fastest of {len(measured)} measured ({'; next '.join(map(_describe_time, measured[:2]))})"]
    else:
        best = f"best of {explanation.considered} tiles, " if explanation.considered > 1 else ""
        found = [f"{best}bound by {explanation.bound}"]
        found += [f"{item.schedule.algorithm} {item.ratio:.2f}x" for item in explanation.alternatives[1:]]
    return "; ".join([*found, *explanation.notes])


def _describe_time(alternative: Alternative) -> str:
    """Return algorithm, tile and time."""
    schedule, seconds = alternative.schedule, alternative.seconds or 0.0
    sums = f" with {schedule.sums} sums" if schedule.sums > 1 else ""
    return f"{schedule.algorithm} {describe_tile(schedule)}{sums} {describe_seconds(seconds)}"


def describe_kept(layer: LayerReport) -> str:
    """Return how many weights a layer keeps; "" for one without."""
    if not layer.weights:
        return ""
    share = layer.kept_weights / layer.weights
    return f"{shorten(layer.kept_weights)} ({share:.0%})" if share < 1 else shorten(layer.kept_weights)


def join_sizes(sizes: Sequence[int]) -> str:
    """Return 64x56x56."""
    return "x".join(map(str, sizes))


def shorten(number: float) -> str:
    """Return three digits and a unit: 4.08k, 261k, 11.7M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def describe_bytes(count: int) -> str:
    """Return 512 B, 6.5 kB or 503 MB."""
    for unit, size in (("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} B"


def format_time(seconds: float | None, cycles: float | None = None) -> str:
    """Return a time in the unit that fits, or cycles where these are all that is known."""
    if seconds is None:
        return "" if cycles is None else f"{shorten(cycles)} cycles"
    return describe_seconds(seconds)


def format_part(part: float) -> str:
    """Return a part of 1 as `75.0%`."""
    return f"{part:.1%}"


def format_speedup(factor: float | None) -> str:
    """Return `3.96x`; "" for one that is not known."""
    return "" if factor is None else f"{factor:.2f}x"


def plural(number: int, thing: str) -> str:
    """Return `1 thread`, `2 threads`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
