"""`patc quantize`: compile a model to integers of eight bits, with ranges from samples."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from patc.diagnostics import PatcError, nearest
from patc.tools import arguments
from patc.tools.samples import DATA_HELP, find_samples

if TYPE_CHECKING:
    from patc.layers import LayerReport

_EMITTED = ("patc", "so", "spirv")
_DESCRIPTION = """\
Compile MODEL so that its layers compute on integers of eight bits, and write a file that `patc run`, `patc bench` and
`patc.load` read. The net is run in f32 with samples of its inputs first: the ranges of its activations follow from
that. Layers without kernels for integers stay in f32, and a remark names them. With --weights-only layers compute in
f32, and weights alone are integers in memory.
"""
_EPILOG = """\
examples:
  patc quantize net.py:build --weights net.safetensors --calibrate pictures/ -o net.patc
  patc quantize model.onnx --calibrate samples.npz -o net.patc              an array for each input, samples in a row
  patc quantize model.pt2 --calibrate data.py:samples -o net.patc           a function that returns a list of samples
  patc quantize model.onnx --calibrate samples.npz --target aarch64-android --emit so -o library
  patc quantize model.pt2 --weights-only 8 -o net.patc                      one byte a weight, activations in f32
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the sub-command to what `ArgumentParser.add_subparsers` returned."""
    parser = arguments.add_command(
        subparsers, "quantize", "compile a model to integers of eight bits", _DESCRIPTION, _EPILOG
    )
    arguments.add_model(parser)
    parser.add_argument(
        "-o", "--output", metavar="OUT", required=True, type=arguments.output_path, help="file or folder to write"
    )
    parser.add_argument(
        "--emit",
        metavar="WHAT",
        default="patc",
        help="patc: a compiled file; so: a folder with a library for C; spirv: one with modules for Vulkan (patc)",
    )
    group = parser.add_argument_group("quantisation")
    group.add_argument(
        "--calibrate",
        metavar="DATA",
        help=DATA_HELP,
    )
    group.add_argument(
        "--weights-only",
        metavar="BITS",
        type=int,
        help="compute in f32, with weights of 8 or 1 bits in memory, of layers that wait for these; needs no samples",
    )
    group.add_argument("--limit", metavar="N", type=int, help="samples to use, the first ones (all)")
    group.add_argument(
        "--ranges", metavar="HOW", default="histogram", help="histogram: least squared error; minmax: all that was seen"
    )
    group.add_argument(
        "--keep", metavar="LAYER", action="append", default=[], help="a layer that stays in f32, or a pattern: layer4.*"
    )
    group.add_argument(
        "--least-snr",
        metavar="DB",
        type=float,
        help="keep layers in f32 that have a smaller signal-to-noise on integers by themselves (none)",
    )
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    arguments.add_pruning(parser)
    group = parser.add_argument_group("compilation")
    group.add_argument("--target", metavar="T", default="host", help=arguments.TARGET_HELP)
    group.add_argument("--threads", metavar="N", type=int, help="threads that divide each layer (all cores)")
    group.add_argument("--tune", metavar="HOW", default="cost", help=arguments.TUNE_HELP)
    arguments.add_save_ir(group)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the sub-command and return its exit status.

    Raises:
        PatcError: an argument is wrong, samples do not fit, or the model cannot be compiled or written.
    """
    from patc.files import check_folder
    from patc.library import require_library
    from patc.options import make_options, require_emits
    from patc.quantisation.quantised import Quantised
    from patc.quantisation.quantize import quantize_model
    from patc.spirv_files import MANIFEST, WEIGHTS, write_spirv
    from patc.tools.compile import build_library, check_library_output, print_diagnostics
    from patc.tools.console import compilation_progress

    arguments.check_threads(args.threads)
    if args.limit is not None and args.limit < 1:
        raise PatcError(f"expected --limit of 1 or more, got {args.limit}")
    if args.emit not in _EMITTED:
        hint = nearest(args.emit, _EMITTED)
        raise PatcError(f"expected --emit to be {', '.join(_EMITTED[:-1])} or {_EMITTED[-1]}, got '{args.emit}'{hint}")
    if args.emit == "so":
        check_library_output(args, "embed")
    elif args.emit == "spirv":
        check_folder(args.output, [MANIFEST, WEIGHTS])
    else:
        arguments.check_output(args.output)
    arguments.check_not_input(args.output, args.model)
    options = make_options(args.target, args.threads, tune=args.tune)
    if args.emit == "so":
        require_library(options.target)
    elif args.emit == "spirv":
        require_emits(options.target, args.emit, "together with --emit spirv")
    if (args.calibrate is None) == (args.weights_only is None):
        raise PatcError(f"expected --calibrate or --weights-only, got {'both' if args.calibrate else 'neither'}")
    samples = (lambda infos: ()) if args.calibrate is None else find_samples(args.calibrate, args.limit)
    how = Quantised(samples, args.ranges, tuple(args.keep), args.least_snr, args.weights_only)
    with compilation_progress(args.quiet) as report:
        loaded = arguments.load_model(args)
        if loaded.shapes:
            raise PatcError("expected --shape once for each input, got several", args.model)
        if args.emit == "so":
            library = build_library(args, loaded, report, tune=args.tune, quantised=how)
        else:
            compiled = quantize_model(loaded.model, loaded.example_inputs, how, options, report, args.save_ir)
    if args.emit == "so":
        files = library.write(args.output)
        if not args.quiet:
            print_diagnostics(library.diagnostics)
            _print_summary(args, library.program.layers, sum(file.stat().st_size for file in files))
        return 0
    size = None
    if args.emit == "spirv":
        size = sum(file.stat().st_size for file in write_spirv(compiled.program, args.output))
    else:
        compiled.save(args.output)
        if os.path.isfile(args.output):
            size = os.path.getsize(args.output)
    if not args.quiet:
        print_diagnostics(compiled.diagnostics)
        _print_summary(args, compiled.layers, size)
    return 0


def _print_summary(args: argparse.Namespace, layers: Sequence[LayerReport], size: int | None) -> None:
    from patc.tools.console import describe_bytes, plural

    with_weights = [layer for layer in layers if layer.weights]
    integers = sum(layer.dtype == "i8" or bool(layer.weight_dtype) for layer in with_weights)
    what = "on integers" if args.weights_only is None else "that are integers in memory"
    written = "written" if size is None else describe_bytes(size)
    print(f"{args.output}: {integers} of {plural(len(with_weights), 'layer')} with weights {what}, {written}")
