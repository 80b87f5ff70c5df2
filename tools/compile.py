"""`patc compile`: from a model to a file that runs without torch, or to the IR of a stage."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patc.diagnostics import Diagnostic, PatcError, nearest
from patc.tools import arguments

if TYPE_CHECKING:
    from patc.runtime.model import CompiledModel

MLIR_PREFIX = "mlir@"
PLANNED_FORMATS = ("llvm", "asm", "obj", "so", "spirv")

_DESCRIPTION = """\
Compile MODEL to OUT, a file that `patc run` and `patc.load` read without torch. Convolutions whose zeros follow
patterns are computed from their kept weights alone; the others stay dense, and a remark says why.
"""
_EPILOG = """\
examples:
  patc compile resnet18 --compression 8 -o resnet18.patc
  patc compile resnet18 --compression 8 --tune measure -o resnet18.patc        time schedules on this machine
  patc compile model.pt2 --threads 1 -o model.patc
  patc compile resnet18 --compression 8 --emit mlir@encode -o resnet18.mlir    stop after pattern-encode
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the sub-command to what `ArgumentParser.add_subparsers` returned."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "compile",
        help="compile a model to a file",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    arguments.add_model(parser)
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="file to write")
    parser.add_argument(
        "--emit",
        metavar="FORMAT",
        default="patc",
        help="patc (default), or mlir@STAGE for the IR: linalg, fold-batch-norm, raise, encode, ...",
    )
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    arguments.add_pruning(parser)
    arguments.add_compilation(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the sub-command and return its exit status.

    Raises:
        PatcError: an argument is wrong, or the model cannot be compiled or written.
    """
    _check_format(args.emit)
    arguments.check_threads(args.threads)
    arguments.check_output(args.output)
    if args.emit.startswith(MLIR_PREFIX):
        _emit_mlir(args)
        return 0
    start = time.perf_counter()
    compiled = compile_arguments(args, quiet=args.quiet)
    compiled.save(args.output)
    if not args.quiet:
        _print_summary(args.output, compiled, time.perf_counter() - start)
    return 0


def compile_arguments(args: argparse.Namespace, quiet: bool = False) -> CompiledModel:
    """Compile the model that the arguments describe, with progress on a terminal."""
    from patc.compiler import compile_model
    from patc.tools.console import compilation_progress

    tune = args.tune or "cost"
    arguments.check_tuning(tune, args.target)
    with compilation_progress(quiet) as report:
        loaded = arguments.load_model(args)
        return compile_model(
            loaded.model, loaded.example_inputs, target=args.target, threads=args.threads, tune=tune, report=report
        )


def _check_format(name: str) -> None:
    if name in PLANNED_FORMATS:
        raise PatcError(f"--emit {name} is not part of this version: expected patc or mlir@STAGE")
    if name != "patc" and not name.startswith(MLIR_PREFIX):
        known = ("patc", f"{MLIR_PREFIX}encode")
        raise PatcError(f"expected --emit to be patc or mlir@STAGE, got '{name}'{nearest(name, known)}")


def _emit_mlir(args: argparse.Namespace) -> None:
    from patc.compiler import find_measure, find_target, host_pipeline, lower_model
    from patc.mlir_files import write_module

    pipeline = host_pipeline(args.target, args.threads).until(args.emit.removeprefix(MLIR_PREFIX))
    measure = find_measure(args.tune or "cost", find_target(args.target), args.threads)
    loaded = arguments.load_model(args)
    module, state = lower_model(loaded.model, loaded.example_inputs, pipeline, measure)
    write_module(module, state.parameters, args.output)
    if not args.quiet:
        _print_diagnostics(state.diagnostics)


def _print_diagnostics(diagnostics: Sequence[Diagnostic]) -> None:
    for diagnostic in diagnostics:
        print(diagnostic)


def _print_summary(output: str, compiled: CompiledModel, seconds: float) -> None:
    from patc.tools.console import describe_bytes, make_console, plural, shorten

    _print_diagnostics(compiled.diagnostics)
    program = compiled.program
    dense = [layer for layer in compiled.layers if layer.weights and layer.kept_weights == layer.weights]
    weights = sum(layer.weights for layer in compiled.layers)
    kept = sum(layer.kept_weights for layer in compiled.layers)
    make_console().print(
        f"{output}: {plural(len(compiled.layers), 'layer')} ({len(dense)} with dense weights), "
        f"{shorten(kept)} of {shorten(weights)} weights, {describe_bytes(Path(output).stat().st_size)}; "
        f"target {program.target}, {plural(program.threads, 'thread')}, {seconds:.1f} s",
        markup=False,
        soft_wrap=True,
    )
