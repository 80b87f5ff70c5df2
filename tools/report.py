"""`patc report`: what every layer of a compiled model is and why."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patc.tools import arguments, visualize

if TYPE_CHECKING:
    from rich.text import Text

    from patc.layers import LayerReport
    from patc.runtime.program import Program

_DESCRIPTION = """\
Print for every layer of MODEL the weights that it keeps, the algorithm and the schedule that were chosen, the cycles
that the cost model predicts for one thread, and the reason of the choice. With --visualize, draw a named network's
kernels and what it looks at in a picture instead.
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the sub-command to what `ArgumentParser.add_subparsers` returned."""
    parser = arguments.add_command(subparsers, "report", "say how each layer is computed and why", _DESCRIPTION)
    arguments.add_model(parser, f"a file of patc compile, {arguments.MODEL_HELP}")
    arguments.add_pruning(parser)
    arguments.add_compilation(parser)
    visualize.add_options(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the sub-command and return its exit status.

    Raises:
        PatcError: an argument is wrong, or the model cannot be loaded or compiled.
    """
    from patc.tools.console import make_console, plural
    from patc.tools.run import open_model

    visualize.check(args)
    if args.visualize is not None:
        return visualize.draw(args)
    arguments.check_threads(args.threads)
    compiled = open_model(args)
    program = compiled.program
    console = make_console()
    for number, entry in enumerate(program.entries):
        if number:
            console.print()
        for line in _describe_entry(entry, bool(program.variants)):
            console.print(line, markup=False)
        console.print(f"target {program.target}, {plural(program.threads, 'thread')}\n")
        for row in _format_layers(entry.layers):
            console.print(row, soft_wrap=True)
    return 0


def _describe_entry(entry: Program, shared: bool) -> Iterator[str]:
    """Yield what code for some shapes takes and returns, and what it has for itself where weights are shared."""
    from patc.runtime.batches import describe_sizes
    from patc.tools.console import describe_bytes

    for word, infos in (("input", entry.inputs), ("output", entry.outputs)):
        for info in infos:
            yield f"{word} '{info.name}' of shape {describe_sizes(info, entry.dynamic_batch)} {info.dtype}"
    if entry.dynamic_batch:
        yield f"computes {entry.block} at once"
    if shared:
        yield f"adds {describe_bytes(entry.own_bytes)} of weights, arranged as it reads them"


def _format_layers(layers: Sequence[LayerReport]) -> Iterator[Text]:
    """Yield two lines for each layer: what it computes, and how and why."""
    from rich.text import Text

    from patc.tools.console import (
        describe_explanation,
        describe_kept,
        describe_op,
        describe_schedule,
        join_sizes,
        shorten,
    )

    rows = [
        (
            layer.name,
            describe_op(layer),
            join_sizes(layer.shape),
            describe_kept(layer) and f"{describe_kept(layer)} weights",
            f"{shorten(layer.predicted_cycles)} cycles",
        )
        for layer in layers
    ]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row, layer in zip(rows, layers, strict=True):
        cells = [cell.ljust(width) for cell, width in zip(row[:3], widths[:3], strict=True)]
        cells += [cell.rjust(width) for cell, width in zip(row[3:], widths[3:], strict=True)]
        yield Text("  ".join(cells))
        how, why = describe_schedule(layer.schedule), describe_explanation(layer.explanation)
        place = Path(layer.source).name
        place = f" ({place})" if place and place not in why else ""
        yield Text(f"    {how}: {why}{place}", style="dim")
