"""`patc bench`: how fast a compiled model is, beside other run times and against the machine's limits."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from patc.diagnostics import PatcError
from patc.tools import arguments

if TYPE_CHECKING:  # `--help` must not load torch or MLIR
    from patc.bench.cycles import CycleResult
    from patc.bench.results import BenchResult
    from patc.bench.runner import Options
    from patc.bench.workload import Workload
    from patc.pruning import PatternSpec

Result = TypeVar("Result")

_DESCRIPTION = """\
Compile MODEL and time it beside PyTorch eager on the dense network, an .onnx file beside ONNX Runtime, in turns in the
same run, for each number of threads. A .patc file is timed alone. The machine's peak of multiply-adds and its memory
bandwidth are measured in the same run, and outputs are checked against PyTorch in float64, or ONNX Runtime.

What is timed is how long a call takes. With --throughput it is how many images all cores compute in a second, each
with a model of its own and one thread.

--target x86-64-v3 times AVX2 code on a CPU that has more. PyTorch, OpenVINO (but for its linear layers) and DeepSparse
are kept to AVX2 then; the other run times cannot be, and the table says so.

With --model-cycles MODEL is compiled for an AArch64 CPU instead and runs in an emulator: what each layer executes is
counted, and its cycles are modelled, not measured.
"""
_PEERS_HELP = (
    "rivals: torch, onnxruntime, openvino, ncnn, mnn, litert, deepsparse (none); the last two are installed into "
    "environments of their own in your cache folder when first asked for"
)
_EPILOG = """\
examples:
  patc bench resnet18 --compression 8 --layers --threads 1,2
  patc bench vgg16 --compression 8 --peers onnxruntime,openvino,ncnn --json vgg16.json
  patc bench resnet18 --compression 8 --peers mnn,litert,deepsparse
  patc bench resnet18 --compression 8 --batch 8 --throughput --peers onnxruntime,openvino
  patc bench resnet18 --compression 8 --target x86-64-v3 --peers openvino,deepsparse
  patc bench resnet18 --compression 8 --target aarch64-linux --cpu cortex-a55 --model-cycles
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the sub-command to what `ArgumentParser.add_subparsers` returned."""
    parser = arguments.add_command(
        subparsers, "bench", "time a model beside PyTorch and other run times", _DESCRIPTION, _EPILOG
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help=f"a .pt2, .onnx, .param (ncnn) or .patc file, {arguments.BUILT_HELP}")
    add("--weights", metavar="FILE", help=arguments.WEIGHTS_HELP)
    arguments.add_trust(parser)
    arguments.add_shapes(parser)
    add("--batch", metavar="N", type=int, default=1, help="images a call of a named model (1)")
    threads = "numbers of threads, one run each (1; a .patc file has its own); of cores with --throughput (all)"
    add("--threads", metavar="N,N", help=threads)
    add(
        "--throughput",
        action="store_true",
        help="images a second of models of one thread, one a core and all at once; the peers run in the same way",
    )
    add("--repetitions", metavar="N", type=int, default=40, help="counted calls of each contestant (40)")
    add("--tune", metavar="HOW", help=arguments.TUNE_HELP)
    arguments.add_save_ir(parser)
    add("--layers", action="store_true", help="add a table of the layers, each beside its limit")
    add("--peers", metavar="NAME,NAME", default="", help=_PEERS_HELP)
    add(
        "--json",
        metavar="FILE",
        type=arguments.output_path,
        help="write everything that was measured or modelled to FILE, - for standard output",
    )
    target = "whose code to time, of those that this machine runs (host); with --model-cycles, such as aarch64-linux"
    add("--target", metavar="T", default="host", help=target)
    add("--cpu", metavar="CPU", help="of the target, such as haswell (znver3) or cortex-a55 (cortex-a76)")
    group = parser.add_argument_group("cycles without a device")
    group.add_argument("--model-cycles", action="store_true", help="model the cycles of each layer on an AArch64 CPU")
    group.add_argument("--dtype", metavar="TYPE", default="f32", help=arguments.DTYPE_HELP)
    arguments.add_pruning(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the sub-command and return its exit status; 1 if patc's outputs are wrong.

    Raises:
        PatcError: an argument is wrong, or the model cannot be compiled or run.
    """
    if args.json is not None:
        arguments.check_output(args.json)
    return _run_model(args) if args.model_cycles else _run_clock(args)


def _run_clock(args: argparse.Namespace) -> int:
    """Time MODEL on this machine."""
    target = arguments.choose_cpu(args.target, args.cpu)
    from patc.targets import get_target

    if get_target(target).backend != "host":
        raise PatcError(f"expected --model-cycles together with --target {target}: timing needs such a machine")
    if args.dtype != "f32":
        raise PatcError(f"expected --model-cycles together with --dtype {args.dtype}: this machine is timed with f32")
    options = _options(args, target)
    options.check()
    arguments.check_options(target, tune=options.tune)
    from patc.bench.results import wrong_entries
    from patc.bench.runner import run_bench
    from patc.tools.bench_tables import make_console, render

    result = _with_status(lambda notify: run_bench(options, notify))
    make_console().print(render(result))
    if args.json is not None:
        _write(result, args.json)
    return 1 if wrong_entries(result.runs) else 0


def _run_model(args: argparse.Namespace) -> int:
    """Model the cycles of MODEL on another machine."""
    target = arguments.choose_cpu(args.target, args.cpu)
    given = {
        "--peers": _words(args.peers) != [],
        "--threads": _threads(args) != (1,),
        "--throughput": args.throughput,
        "--layers": args.layers,
    }
    for option in (option for option, is_given in given.items() if is_given):
        raise PatcError(
            f"expected --model-cycles without {option}: it models all layers of patc's own code, in one thread"
        )
    from patc.bench.cycles import check_target, model_cycles
    from patc.targets import get_target
    from patc.tools.bench_tables import make_console
    from patc.tools.cycle_tables import render

    machine = get_target(target)
    check_target(machine)
    tune = args.tune or "cost"
    arguments.check_options(target, args.dtype, tune)
    workload = _workload(args)
    if workload.is_compiled:
        raise PatcError("expected a model to compile together with --model-cycles, got a compiled one", args.model)
    result = _with_status(lambda notify: model_cycles(workload, machine, tune, args.dtype, notify, args.save_ir))
    make_console().print(render(result))
    if args.json is not None:
        _write(result, args.json)
    return 1 if result.is_wrong else 0


def _options(args: argparse.Namespace, target: str) -> Options:
    from patc.bench.runner import Options

    workload = _workload(args)
    given = {"threads": args.threads, "tune": args.tune, "throughput": args.throughput, "target": target != "host"}
    for option, is_given in {**given, "save-ir": args.save_ir}.items():
        if workload.is_compiled and is_given:
            raise PatcError(f"expected a model to compile together with --{option}, got a compiled one", args.model)
    return Options(
        workload=workload,
        threads=_threads(args),
        repetitions=args.repetitions,
        peers=tuple(dict.fromkeys(_words(args.peers))),
        layers=args.layers,
        tune=args.tune or "cost",
        throughput=args.throughput,
        save_ir=args.save_ir,
        target=target,
    )


def _threads(args: argparse.Namespace) -> tuple[int, ...]:
    from patc.backends.host import available_threads

    default = available_threads() if args.throughput else 1
    return _numbers(args.threads, "--threads") if args.threads is not None else (default,)


def _workload(args: argparse.Namespace) -> Workload:
    from patc.bench.workload import Workload

    pruning = _pruning(arguments.pattern_spec(args))
    return Workload(
        args.model,
        args.weights,
        batch=args.batch,
        pruning=pruning,
        trust_pickle=args.trust_pickle,
        shapes=_one_shape(args),
    )


def _one_shape(args: argparse.Namespace) -> dict[str, tuple[int, ...]] | None:
    shapes = arguments.read_shapes(args)
    if shapes and not args.model.lower().endswith((".onnx", arguments.NCNN)):
        raise PatcError("expected an .onnx or .param file together with --shape, got another model", args.model)
    if len(shapes) > 1:
        raise PatcError("expected --shape once for each input, got several: shapes are timed one by one", args.model)
    return shapes[0] if shapes else None


def _pruning(spec: PatternSpec | None) -> dict[str, Any] | None:
    """Return the fields that differ from the defaults, and at least the rate."""
    if spec is None:
        return None
    values = {field.name: (getattr(spec, field.name), field.default) for field in fields(spec)}
    changed = {name: value for name, (value, default) in values.items() if value != default}
    return changed or {"connectivity": spec.connectivity}


def _words(text: str) -> list[str]:
    return [word for word in (part.strip() for part in text.split(",")) if word]


def _numbers(text: str, option: str) -> tuple[int, ...]:
    words = _words(text)
    if not words or not all(word.isdecimal() for word in words):
        raise PatcError(f"expected {option} to be numbers such as 1,2, got '{text}'")
    return tuple(sorted({int(word) for word in words}))


def _with_status(function: Callable[[Callable[[str], None]], Result]) -> Result:
    """Call a function that tells what is going on, while a line on standard error says so."""
    from patc.tools.console import make_console

    console = make_console(stderr=True)
    if not console.is_terminal:
        return function(lambda _: None)
    with console.status("starting") as status:
        return function(status.update)


def _write(result: BenchResult | CycleResult, path: str) -> None:
    from patc.files import atomic_write

    atomic_write(path, json.dumps(result.to_json(), indent=2) + "\n")
