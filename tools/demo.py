"""`patc demo`: prune, compile, check and time ResNet-18 on this machine."""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from patc.diagnostics import PatcError, describe_seconds
from patc.numerics import FLOAT32, NUMERICS
from patc.tools import arguments

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console
    from rich.table import Table
    from torch import Tensor, nn

    from patc.bench.limits import MeasuredLayer
    from patc.bench.peak import Peak
    from patc.bench.timing import Times
    from patc.runtime.model import CompiledModel

MODEL = "resnet18"
REPETITIONS = 40
RACE_SECONDS = 8.0
# Quartiles this far apart mean that other programs had the cores for part of the time.
STEADY_SPREAD = 1.25
# What is promised for float32: the largest error relative to the largest output.
ERROR_BOUND = NUMERICS[FLOAT32.mlir].error_bound

_DESCRIPTION = """\
Prune ResNet-18 in one shot with the paper's pattern library, compile it for this machine, check the result against
PyTorch and time both. Takes ten seconds on two idle cores of a current
server; nothing is downloaded or written.
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the sub-command to what `ArgumentParser.add_subparsers` returned."""
    parser = arguments.add_command(subparsers, "demo", "prune, compile, check and time ResNet-18", _DESCRIPTION)
    parser.add_argument("--weights", metavar="FILE", help="torchvision's state dict of ResNet-18 (seeded weights)")
    arguments.add_trust(parser)
    parser.add_argument("--image", metavar="FILE", help="a picture to classify (a drawn one)")
    parser.add_argument(
        "--compression", metavar="R", type=float, default=8.0, help="all convolution weights / kept ones (8)"
    )
    parser.add_argument("--threads", metavar="N", type=int, help="threads, for PyTorch too (all cores)")
    arguments.add_save_ir(parser)
    return parser


@dataclass(frozen=True)
class _Demo:
    """What the demo works on.

    Attributes:
        dense, pruned: the network before and after pruning.
        x: 1 x 3 x 224 x 224.
        threads: of PyTorch and of patc.
    """

    dense: nn.Module
    pruned: nn.Module
    x: Tensor
    threads: int


def run(args: argparse.Namespace) -> int:
    """Run the sub-command and return its exit status; 1 if the result is wrong.

    Raises:
        PatcError: an argument is wrong.
    """
    from patc.backends.host import available_threads
    from patc.tools.console import make_console, plural

    arguments.check_threads(args.threads)
    threads = args.threads or available_threads()
    console = make_console()
    console.print(f"[bold]ResNet-18 in patc[/bold], on {_describe_machine()}, {plural(threads, 'thread')}\n")
    with _step(console, "prepare") as notes:
        demo = _prepare(args, threads, notes)
    with _step(console, "compile") as notes:
        compiled = _compile(demo, args.save_ir, notes)
    with _step(console, "check") as notes:
        is_right = _check(demo, compiled, notes)
    with _step(console, "measure") as notes:
        layers, peak = _measure_layers(demo, compiled, notes)
        pytorch, patc = _race(demo, compiled)
    console.print()
    console.print(_make_table(layers, peak))
    _print_legend(console, demo, peak)
    _print_result(console, demo, pytorch, patc)
    if args.weights is not None:
        _print_scores(console, demo, compiled)
    return 0 if is_right else 1


@contextmanager
def _step(console: Console, name: str) -> Iterator[list[str]]:
    """Run a step of the demo, and print its name, the notes that it took and how long it lasted."""
    from patc.tools.console import make_console

    notes: list[str] = []
    start = time.perf_counter()
    status = make_console(stderr=True)
    if status.is_terminal and name != "compile":  # which shows its own progress
        with status.status(name):
            yield notes
    else:
        yield notes
    seconds = f"{time.perf_counter() - start:5.1f} s"
    for place, note in enumerate(notes or [""]):
        head = f"[bold]{name:9}[/bold]{seconds}  " if place == 0 else " " * 18
        console.print(f"{head}{note}", soft_wrap=True)


def _prepare(args: argparse.Namespace, threads: int, notes: list[str]) -> _Demo:
    import torch

    from patc import models, pruning
    from patc.tools.images import drawn_input, picture_input

    spec = pruning.PatternSpec.for_compression(args.compression)
    shape = models.MODELS[MODEL].input_shape
    picture = picture_input(args.image, shape) if args.image is not None else drawn_input(shape)
    dense = models.build(MODEL, arguments.read_weights(args.weights, args.trust_pickle))
    torch.set_num_threads(threads)
    pruned = copy.deepcopy(dense)
    report = pruning.prune_(pruned, spec)
    weights = args.weights or "random weights (--weights FILE takes trained ones)"
    notes.append(f"ResNet-18 with {weights}")
    notes.append(
        f"pruned to {report.compression:.2f}x: {report.kept_weights:,} of {report.weights:,} convolution weights kept"
    )
    return _Demo(dense, pruned, torch.from_numpy(picture), threads)


def _compile(demo: _Demo, save_ir: str | None, notes: list[str]) -> CompiledModel:
    from patc.compiler import compile_model
    from patc.tools.console import compilation_progress

    with compilation_progress() as report:
        compiled = compile_model(demo.pruned, (demo.x,), threads=demo.threads, report=report, save_ir=save_ir)
    sparse = sum(layer.op == "sparse_conv2d" for layer in compiled.layers)
    size = compiled.program.weights.nbytes
    dense = sum(4 * parameter.numel() for parameter in demo.dense.parameters())
    notes.append(
        f"{len(compiled.layers)} layers, {sparse} by patterns; "
        f"{size / 1e6:.1f} MB of weights and indices instead of {dense / 1e6:.1f} MB"
    )
    return compiled


def _check(demo: _Demo, compiled: CompiledModel, notes: list[str]) -> bool:
    import torch

    with torch.no_grad():
        wanted = copy.deepcopy(demo.pruned).double()(demo.x.double())
    error = float((compiled(demo.x) - wanted).abs().max() / wanted.abs().max())
    verdict = "[green]right[/green]" if error <= ERROR_BOUND else "[bold red]WRONG[/bold red]"
    notes.append(f"{verdict}: {error:.1e} of the largest output off PyTorch in float64 ({ERROR_BOUND:g} is promised)")
    return error <= ERROR_BOUND


def _measure_layers(demo: _Demo, compiled: CompiledModel, notes: list[str]) -> tuple[list[MeasuredLayer], Peak]:
    from patc.bench.limits import measure_layers
    from patc.bench.machine import find_caches
    from patc.bench.peak import measure_peak
    from patc.targets import host

    peak = measure_peak(demo.threads)
    times = compiled.profile(demo.x, repetitions=REPETITIONS)
    program = compiled.program
    footprint = program.weights.nbytes + program.arena_bytes
    notes.append("each layer, and both networks in turns; medians")
    return measure_layers(times, peak, find_caches(), footprint, host().fma_lanes), peak


@dataclass(frozen=True)
class _Runner:
    """A network with its input, to take turns with another."""

    network: Any
    x: Tensor

    def run(self, calls: int) -> list[float]:
        """Call once to warm up, then `calls` times; return the seconds of these."""
        import torch

        from patc.bench.timing import time_calls

        with torch.inference_mode():
            return time_calls(lambda: self.network(self.x), calls)


def _race(demo: _Demo, compiled: CompiledModel) -> tuple[Times, Times]:
    """Return the times of dense PyTorch and of patc, measured in turns."""
    from patc.bench.timing import take_turns

    runners = [_Runner(demo.dense, demo.x), _Runner(compiled, demo.x)]
    estimate = sum(runner.run(1)[0] for runner in runners)
    repetitions = max(4, min(REPETITIONS, round(RACE_SECONDS / estimate)))
    results = take_turns(runners, repetitions)
    for result in results:
        if isinstance(result, PatcError):
            raise result
    return results[0], results[1]  # type: ignore[return-value] # no errors are left


def _make_table(layers: Sequence[MeasuredLayer], peak: Peak) -> Table:
    from patc.tools import console

    titles = ("layer", "computes", "algorithm", "kept weights", "time", "speed", "of peak")
    table = console.make_table(titles, words=3)
    for item in layers:
        speed, share = _describe_speed(item, peak)
        table.add_row(
            item.layer.name,
            console.describe_op(item.layer),
            item.layer.algorithm,
            console.describe_kept(item.layer),
            describe_seconds(item.seconds),
            speed,
            share,
        )
    return table


def _describe_speed(item: MeasuredLayer, peak: Peak) -> tuple[str, str]:
    """Return operations a second and their share of the peak; bytes a second where memory is the limit."""
    if item.limit.bound == "FMA":
        return f"{item.gflops:.0f} GFLOP/s", f"{item.gflops / peak.gflops:.0%}"
    return f"{item.layer.moved_bytes / item.seconds / 1e9:.1f} GB/s", ""


def _print_legend(console: Console, demo: _Demo, peak: Peak) -> None:
    from patc.tools.console import plural

    peak_speed = f"{peak.gflops:.0f} GFLOP/s that multiply-adds alone reach with {plural(demo.threads, 'thread')}"
    console.print(
        f"\nspeed: of kept weights only, beside the {peak_speed};\nGB/s where caches or memory are the limit.",
        style="dim",
        soft_wrap=True,
    )


def _print_result(console: Console, demo: _Demo, pytorch: Times, patc: Times) -> None:
    import torch

    from patc.bench.timing import Ratio
    from patc.tools.console import plural

    ratio = Ratio.of(pytorch, patc)
    dense = f"PyTorch {torch.__version__.partition('+')[0]}, eager, dense"
    console.print()
    for name, times in ((dense, pytorch), ("patc, pruned", patc)):
        low, high = (f"{value * 1e3:.2f}" for value in times.quartiles)
        console.print(f"{name:32} {times.median * 1e3:8.2f} ms   (quartiles {low} to {high})", soft_wrap=True)
    console.print(
        f"\n[bold green]{ratio.median:.1f}x as fast[/bold green] with {plural(demo.threads, 'thread')} each. "
        "PyTorch computes the dense network, patc the pruned one, which\nhas other outputs and needs training to be as "
        "accurate. patc bench compares more.",
        soft_wrap=True,
    )
    spread = max(high / low for low, high in (pytorch.quartiles, patc.quartiles))
    if spread > STEADY_SPREAD:
        console.print(
            f"[yellow]The times vary by {spread - 1:.0%}: other programs are running. "
            "Run this again on an idle machine.[/yellow]",
            soft_wrap=True,
        )


def _print_scores(console: Console, demo: _Demo, compiled: CompiledModel) -> None:
    """Print the classes that both networks find in the picture."""
    import torch

    with torch.inference_mode():
        dense = demo.dense(demo.x)[0].softmax(0).numpy()
    pruned = torch.softmax(compiled(demo.x)[0], 0).numpy()
    console.print()
    for name, scores in (("PyTorch, dense", dense), ("patc, pruned", pruned)):
        console.print(f"{name:16} finds class {_top(scores)}", soft_wrap=True)


def _top(scores: np.ndarray) -> str:
    best = scores.argsort(kind="stable")[::-1][:5]
    return ", ".join(f"{index} ({scores[index]:.0%})" for index in best)


def _describe_machine() -> str:
    from patc.bench.machine import this_machine

    machine = this_machine()
    vectors = {"avx512f": "AVX-512", "avx2": "AVX2", "neon": "NEON"}
    best = next((word for name, word in vectors.items() if name in machine.features), machine.architecture)
    return f"{machine.cpu} ({best})"
