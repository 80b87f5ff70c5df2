"""`patc report`: what every layer of a compiled model is and why, and what would make it faster."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patc.diagnostics import describe_seconds
from patc.tools import arguments, visualize

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from patc.explain.report import Advice, ModelReport, Net, Pair, Report, ReportedLayer
    from patc.runtime.model import CompiledModel

_SHOWN_ADVICE = 5

_DESCRIPTION = """\
Print for every layer of MODEL the weights that it keeps, the algorithm and the schedule that were chosen, the cycles
that the cost model predicts for one thread, and the reason of the choice; then what would make the model faster. A
second model is set beside the first. With -o, write a page (.html) or the same as data (.json). With --visualize, draw
a named network's kernels and what it looks at in a picture instead.
"""
_EPILOG = """\
examples:
  patc report resnet18.patc -o report.html
  patc report net.onnx --measure -o report.html -o report.json
  patc report before.patc after.patc --measure -o report.html
  patc report yesterday.json net.onnx --measure
  patc report net.onnx --zeros pictures/
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the sub-command to what `ArgumentParser.add_subparsers` returned."""
    parser = arguments.add_command(
        subparsers, "report", "say how each layer is computed, why, and what would be faster", _DESCRIPTION, _EPILOG
    )
    arguments.add_model(parser, f"a file of patc compile, a report (.json), {arguments.MODEL_HELP}")
    parser.add_argument("other", metavar="MODEL2", nargs="?", help="another one, to compare; options apply to both")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=arguments.output_path,
        action="append",
        default=[],
        help="write a page (.html) or data (.json, and - for standard output); may be given several times",
    )
    parser.add_argument("--measure", action="store_true", help="run the model on this machine and time its layers")
    arguments.add_pruning(parser)
    arguments.add_compilation(parser)
    visualize.add_options(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the sub-command and return its exit status.

    Raises:
        PatcError: an argument is wrong, or a model cannot be loaded, compiled or measured.
    """
    visualize.check(args)
    if args.visualize is not None:
        return visualize.draw(args)
    for path in args.output:
        arguments.check_output(path, (".html", ".json"))
        for model in filter(None, (args.model, args.other)):
            arguments.check_not_input(path, model)
    arguments.check_threads(args.threads)
    report = _make(args)
    for path in args.output:
        _write(report, path)
    if args.output:
        print(", ".join(args.output))
    else:
        _print(report)
    return 0


def _make(args: argparse.Namespace) -> Report:
    from patc.explain.build import make_report
    from patc.explain.saved import read_report
    from patc.tools.run import open_model
    from patc.tools.samples import find_samples

    def open_side(place: int, name: str) -> CompiledModel | Report:
        side = argparse.Namespace(**{**vars(args), "model": name})
        if args.save_ir is not None and len(names) > 1:
            side.save_ir = os.path.join(args.save_ir, f"model-{place + 1}")
        if Path(name).suffix.lower() != ".json":
            return open_model(side)
        if len(names) == 1:  # otherwise options are the other side's
            arguments.refuse_compilation(side)
        return read_report(name)

    names = [name for name in (args.model, args.other) if name is not None]
    models = [(name, open_side(place, name)) for place, name in enumerate(names)]
    samples = None if args.zeros is None else find_samples(args.zeros)
    return make_report(models, bool(args.output) or args.measure, args.measure, samples)


def _write(report: Report, path: str) -> None:
    from patc.files import atomic_write
    from patc.tools.report_page import render

    is_page = Path(path).suffix == ".html"
    atomic_write(path, render(report) if is_page else json.dumps(report.to_json(), indent=1) + "\n")


# On the terminal ----------------------------------------------------------------------------------


def _print(report: Report) -> None:
    from patc.tools.console import make_console, plural

    console = make_console()
    for place, model in enumerate(report.models):
        if place:
            console.print()
        if len(report.models) > 1:
            console.print(model.name, markup=False, style="bold")
        for number, net in enumerate(model.nets):
            if number:
                console.print()
            for line in _describe_net(net, len(model.nets) > 1):
                console.print(line, markup=False)
            console.print(f"target {model.target}, {plural(model.threads, 'thread')}\n")
            for row in _format_layers(net):
                console.print(row, soft_wrap=True)
            _print_zeros(console, net)
            _print_advice(console, net)
    _print_pairs(console, report)
    if report.is_busy and any(net.time is not None for model in report.models for net in model.nets):
        console.print(f"\nother programs ran meanwhile (load {report.load:.1f}): measured times are too long")


def _describe_net(net: Net, shared: bool) -> Iterator[str]:
    """Yield what code for some shapes takes and returns, and what it has for itself where weights are shared."""
    from patc.runtime.batches import describe_sizes
    from patc.tools.console import describe_bytes

    for word, infos in (("input", net.inputs), ("output", net.outputs)):
        for info in infos:
            yield f"{word} '{info.name}' of shape {describe_sizes(info, bool(net.block))} {info.dtype}"
    if net.block:
        yield f"computes {net.block} at once"
    if shared:
        yield f"adds {describe_bytes(net.own_bytes)} of weights, arranged as it reads them"


def _format_layers(net: Net) -> Iterator[Text]:
    """Yield two lines for each layer: what it computes, and how and why."""
    from rich.text import Text

    from patc.tools.console import describe_explanation, describe_schedule

    rows = [_cells(item) for item in net.layers]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row, item in zip(rows, net.layers, strict=True):
        layer = item.layer
        cells = [cell.ljust(width) for cell, width in zip(row[:3], widths[:3], strict=True)]
        cells += [cell.rjust(width) for cell, width in zip(row[3:], widths[3:], strict=True)]
        yield Text("  ".join(cells))
        how, why = describe_schedule(layer.schedule), describe_explanation(layer.explanation)
        place = f" ({layer.source})" if layer.source and layer.source not in why else ""
        yield Text(f"    {how}: {why}{place}", style="dim")


def _cells(item: ReportedLayer) -> list[str]:
    from patc.tools.console import describe_kept, describe_op, format_time, join_sizes, shorten

    layer = item.layer
    kept = describe_kept(layer) and f"{describe_kept(layer)} weights"
    cells = [layer.name, describe_op(layer), join_sizes(layer.shape), kept]
    if item.seconds is None:
        return [*cells, f"{shorten(layer.predicted_cycles)} cycles" if layer.predicted_cycles else "not modelled"]
    limit = "" if item.share_of_limit is None else f"{item.share_of_limit:.0%} of {item.limit_bound}"
    return [*cells, format_time(item.seconds), f"{item.share:.1%}", format_time(item.modelled_seconds), limit]


def _print_zeros(console: Console, net: Net) -> None:
    """Print what is zero of what layers multiply, where that is known."""
    from patc.tools.console import format_part, format_speedup, make_table

    table = make_table(("zeros of", "weights", "inputs", "ideal speed", "obtained"), 1)
    for item in net.layers:
        if item.layer.zeros is not None:
            parts = map(format_part, (item.layer.zeros.weights, item.layer.zeros.inputs))
            speeds = map(format_speedup, (item.ideal_speedup, item.obtained_speedup))
            table.add_row(item.layer.name, *parts, *speeds)
    if table.row_count:
        console.print()
        console.print(table)


def _print_advice(console: Console, net: Net) -> None:
    if not net.advice:
        return
    console.print("\nwhat would make it faster, estimated")
    for advice in net.advice[:_SHOWN_ADVICE]:
        name = "" if advice.layer is None else f"{net.layers[advice.layer].layer.name}: "
        console.print(f"  {describe_saving(advice)}  {name}{advice.text}", markup=False, soft_wrap=True)
    if len(net.advice) > _SHOWN_ADVICE:
        console.print(f"  {len(net.advice) - _SHOWN_ADVICE} more with -o report.html")


def describe_saving(advice: Advice) -> str:
    """Return what an advice saves: a time where the clock is known, else as a part of the net's time."""
    from patc.tools.console import format_time

    seconds = advice.saves_seconds
    amount = f"{advice.saves_share:.1%}" if seconds is None else format_time(seconds)
    return f"{'at most' if advice.is_bound else 'about'} {amount}"


def describe_change(pair: Pair) -> str:
    """Return what a layer takes more in the second net, as a time or cycles; "same" for less than a microsecond or a
    cycle of a layer that both have."""
    is_small = abs(pair.cycles) < 1 if pair.seconds is None else abs(pair.seconds) < 1e-6
    if is_small and None not in (pair.first, pair.second):
        return "same"
    if pair.seconds is None:
        return f"{pair.cycles:+,.0f}"
    return f"{'+' if pair.seconds > 0 else ''}{describe_seconds(pair.seconds)}"


def _print_pairs(console: Console, report: Report) -> None:
    """Print the layers of two models side by side."""
    from patc.tools.console import describe_op, format_time, make_table

    if not report.pairs:
        return
    nets = [model.nets[0] for model in report.models]
    table = make_table(("layer", "computes", *_titles(report.models)), 2)
    for pair in report.pairs:
        numbers = (pair.first, pair.second)
        items = [None if number is None else net.layers[number] for net, number in zip(nets, numbers, strict=True)]
        known = next(item.layer for item in items if item is not None)
        times = ["" if item is None else format_time(item.time, item.cycles) for item in items]
        table.add_row(known.name, describe_op(known), *times, describe_change(pair))
    console.print()
    console.print(table)
    console.print("together: " + ", ".join(format_time(net.time, net.cycles) for net in nets), markup=False)


def _titles(models: tuple[ModelReport, ...]) -> tuple[str, ...]:
    return (*(Path(model.name).name for model in models), "change")
