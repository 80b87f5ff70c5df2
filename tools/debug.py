"""`patc debug`: which layer and which pass make a model's numbers wrong, and the smallest case that shows it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patc.diagnostics import PatcError
from patc.tools import arguments

if TYPE_CHECKING:
    from patc.backends.base import Options
    from patc.debugging.numbers import Fault, Right

SHOWN_LAYERS = 10

_DESCRIPTION = """\
Compile MODEL, run it, and compare its numbers with the reference: those of modules and .pt2 files with float64 PyTorch,
others with plain loops. Where they are off, find the first layer and the first pass that make them so, reduce them to a
case as small as possible, and write that to a folder. Given such a folder, show what it shows. Exit status 1 where
something is off.
"""
_EPILOG = """\
examples:
  patc debug model.onnx --input x.npz
  patc debug net.py:build --threads 2 --dtype f16
  patc debug debug-model/                       what comes out of a folder that was written, beside what should
  patc debug model.onnx --crash                 for a pass that fails or ends the process
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the sub-command to what `ArgumentParser.add_subparsers` returned."""
    parser = arguments.add_command(
        subparsers, "debug", "find the layer and the pass that make numbers wrong", _DESCRIPTION, _EPILOG
    )
    arguments.add_model(parser, f"{arguments.MODEL_HELP}; or a folder that this command wrote")
    parser.add_argument(
        "--input",
        metavar="X.npy",
        nargs="+",
        help="one array for each input, of its element type; or a .npz file of arrays by the names of inputs (random)",
    )
    parser.add_argument(
        "--crash", action="store_true", help="find the pass that fails or ends the process, in child processes"
    )
    parser.add_argument("-o", "--output", metavar="DIR", help="where a case is written to (debug-MODEL)")
    arguments.add_pruning(parser)
    arguments.add_compilation(parser, cpu=True)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the sub-command and return its exit status.

    Raises:
        PatcError: an argument is wrong, or the model cannot be compiled or run.
    """
    from patc.debugging.folders import is_reproducer

    if is_reproducer(args.model):
        return _replay(args.model)
    args.target = arguments.choose_cpu(args.target, args.cpu)
    arguments.check_threads(args.threads)
    folder = args.output or f"debug-{Path(args.model.partition(':')[0]).stem}"
    arguments.ir_folder(folder)
    if args.streaming:
        raise PatcError("expected no --streaming: one call is debugged, got it", args.model)
    if args.zeros is not None:
        raise PatcError("expected no --zeros: what is debugged is compiled without samples, got it", args.model)
    if args.dynamic_batch:
        raise PatcError("expected no --dynamic-batch: one batch is debugged, got it", args.model)
    from patc.debugging.numbers import Fault
    from patc.options import make_options

    options = make_options(args.target, args.threads, args.dtype or "f32", args.tune or "cost")
    if args.crash:
        return _crash(args, options, folder)
    verdict = _debug(args, options)
    if not isinstance(verdict, Fault):
        _print_right(verdict)
        return 0
    from patc.debugging.folders import write

    write(folder, verdict.what, verdict.suspect, verdict.trial, verdict.inputs)
    _print_fault(verdict, folder)
    return 1


def _debug(args: argparse.Namespace, options: Options) -> Fault | Right:
    from patc.backends.registry import find_backend
    from patc.context import make_context
    from patc.debugging.cuts import Case
    from patc.debugging.numbers import debug, float64_outputs
    from patc.debugging.points import run_passes
    from patc.instruments import SaveIr
    from patc.sources import import_source
    from patc.tools.arrays import arrange, read_arrays
    from patc.tools.console import steps_shown

    arrays, named = read_arrays(args.input or ())
    loaded = arguments.load_model(args)
    if loaded.shapes:
        raise PatcError("expected --shape once for each input, got several", args.model)
    with steps_shown() as tell:
        tell("reading the model")
        source = import_source(loaded.model, loaded.example_inputs, make_context())
        inputs = arrange(source.inputs, arrays, named)
        tell("running it in float64 PyTorch, where it runs there")
        expected = float64_outputs(loaded.model, loaded.example_inputs, inputs, source)
        print(f"reference: {'plain loops' if expected is None else 'PyTorch in float64, and plain loops'}")
        for instrument in SaveIr.into(args.save_ir):
            pipeline = find_backend(options.target.backend).pipeline(options)
            for point in run_passes(Case(source.module, source.parameters, inputs), pipeline):
                instrument.after(point.step, point.module, 0.0)
        return debug(source, options, inputs, expected, tell)


def _crash(args: argparse.Namespace, options: Options, folder: str) -> int:
    """Look for a crash, and return the exit status."""
    from patc.context import make_context
    from patc.debugging.crash import find_crash, write_crash
    from patc.instruments import SaveIr
    from patc.sources import import_source
    from patc.tools.console import plural, steps_shown

    loaded = arguments.load_model(args)
    with steps_shown() as tell:
        crash = find_crash(
            lambda: import_source(loaded.model, loaded.example_inputs, make_context()),
            options,
            tell,
            SaveIr.into(args.save_ir),
        )
    if crash is None:
        print("nothing fails: it compiles and runs")
        return 0
    write_crash(folder, crash, options, args.model)
    print(crash.what)
    if crash.before is None:
        print(f"{folder}: what to report it with")
        return 1
    shapes = ", ".join("x".join(map(str, array.shape)) for array in crash.inputs)
    size = plural(crash.layers, "layer") if crash.layer else "the whole net"
    print(f"reduced to {size} with inputs of {shapes}, in {crash.tries} tries")
    print(f"{folder}: patc debug {folder} shows it")
    return 1


def _print_right(right: Right) -> None:
    from patc.tools.console import make_console, make_table

    console = make_console()
    if right.layers:
        table = make_table(("layer", "largest error"), 1)
        shown = sorted(right.layers, key=lambda item: -item[1])[:SHOWN_LAYERS]
        for name, error in shown:
            table.add_row(name, f"{error:.1e}")
        console.print(table)
        if len(right.layers) > len(shown):
            print(f"{len(right.layers) - len(shown)} more layers have smaller ones")
    print(f"nothing is off: the outputs' error is {right.error:.1e} of the largest")


def _print_fault(fault: Fault, folder: str) -> None:
    from patc.debugging.folders import Replay
    from patc.tools.console import plural

    suspect, trial = fault.suspect, fault.trial
    print(f"outputs are off by {fault.error:.1e} of the largest; {suspect.tolerance:.0e} is allowed")
    if fault.layer is not None:
        print(f"first layer: {fault.layer}")
    right = f", right after {suspect.good}" if suspect.good else ""
    print(f"first pass:  {' or '.join(suspect.names)}{right}")
    shapes = ", ".join("x".join(map(str, array.shape)) for array in fault.inputs)
    print(f"reduced to {plural(fault.layers, 'layer')} with inputs of {shapes}, in {fault.tries} tries")
    _print_lines(Replay(fault.what, trial.found, trial.expected, suspect.tolerance).lines())
    print(f"{folder}: patc debug {folder} shows it")


def _replay(folder: str) -> int:
    from patc.debugging.crash import replay_crash
    from patc.debugging.folders import read_recipe, replay

    if read_recipe(folder)[1]["kind"] == "crash":
        what, end = replay_crash(folder)
        print(what)
        print(f"{end.step} ends with {end.how}" if end.kind else "it ends well")
        return int(bool(end.kind))
    shown = replay(folder)
    print(shown.what)
    _print_lines(shown.lines())
    is_off = shown.error > shown.tolerance
    print(f"{'off' if is_off else 'right'}: {shown.tolerance:.0e} is allowed")
    return int(is_off)


def _print_lines(lines: list[str]) -> None:
    for line in lines:
        print(f"  {line}")
