"""`patc prune`: prune a network by magnitude in one shot, or train and prune it, and save its weights.

Several processes train together: `torchrun --nproc-per-node=2 -m patc.tools.patc prune ...`.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patc.diagnostics import PatcError
from patc.tools import arguments
from patc.tools.prune_options import PROGRAM, add_target, add_training, check, make_options, make_target

if TYPE_CHECKING:
    from rich.table import Table
    from torch import nn
    from torch.export import ExportedProgram

    from patc.pruning import PruneReport
    from patc.pruning.data import Data
    from patc.pruning.run_log import Epoch
    from patc.pruning.train_options import Phase, TrainOptions

SILENCE = 10.0  # seconds without a line
MOST_WEIGHTS = 1000  # for each item to train on, from which on a smaller net is the better choice
SMALL = "examples/small/net.py:build"

_DESCRIPTION = """\
Give every 3x3 kernel of MODEL the pattern that keeps the most of it, and remove the weakest kernels; or prune any layer
to another --scheme. With --data the model is trained for that: masks that grow, or another --method, drive the weights
there, then those that stay are trained alone. Without, accuracy has to be won back by training the kept weights.
"""
_EPILOG = """\
examples:
  patc prune resnet18 --weights resnet18.pth --compression 8 -o pruned.safetensors
  patc prune resnet18_cifar --data cifar10:cifar-10-batches-bin --dense-epochs 60 --compression 8 -o pruned.safetensors
  patc prune vgg16_cifar --data glyphs --dense-epochs 8 --extract 8 --compression 8 -o pruned.safetensors
  patc prune net.py:build --data data.py:open --scheme block --method reweighted --compression 4 -o pruned.safetensors
  torchrun --nproc-per-node=2 -m patc.tools.patc prune resnet18_cifar --data glyphs --compression 8 -o out.safetensors
  patc prune net.py:build --data data.py:open --scheme kernel-blocks --compression 8 --bits 8 -o pruned.safetensors
  patc prune vgg16_cifar --data glyphs --domains blur,noise,jpeg,linf,l2 --compression 8 -o pruned.safetensors
  patc prune net.pt2 --compression 4 -o pruned.pt2
  patc compile resnet18 --weights pruned.safetensors -o resnet18.patc
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the sub-command to what `ArgumentParser.add_subparsers` returned."""
    parser = arguments.add_command(
        subparsers, "prune", "prune a network, with or without training, and save its weights", _DESCRIPTION, _EPILOG
    )
    parser.add_argument("model", metavar="MODEL", help=f"a .pt2 or .param (ncnn) file, {arguments.BUILT_HELP}")
    parser.add_argument("--weights", metavar="FILE", help=arguments.WEIGHTS_HELP)
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=arguments.output_path,
        help="save the state dict (.safetensors or .pth; - for standard output), or the program of a .pt2 file (.pt2)",
    )
    arguments.add_trust(parser)
    arguments.add_pruning(parser, "what to prune to")
    add_target(parser)
    add_training(parser)
    arguments.add_input_shape(parser)
    arguments.add_save_ir(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the sub-command and return its exit status.

    Raises:
        PatcError: an argument is wrong, the rate is out of reach, data cannot be read, or a file cannot be written.
    """
    check(args)
    if Path(args.model).suffix.lower() == PROGRAM:
        _finish(args, *_prune_program(args))
        return 0
    if args.data is None:
        _finish(args, *_prune(args))
        return 0
    from patc.pruning.ranks import find_part, joined

    with joined(args.device), contextlib.ExitStack() as stack:
        if find_part()[0] > 0:  # the first process speaks and writes for all
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
            args.output = None
        _finish(args, *_train(args))
    return 0


def _finish(args: argparse.Namespace, report: PruneReport, model: nn.Module | ExportedProgram) -> None:
    from patc.tools.console import describe_bytes

    _print_report(report, args.speedup)
    if args.output is None:
        print("nothing saved: -o FILE saves the weights")
    else:
        size = _save(model, args.output)
        print(f"{args.output}: {describe_bytes(size)}")


def _prune(args: argparse.Namespace) -> tuple[PruneReport, nn.Module]:
    from patc import pruning
    from patc.factories import build
    from patc.tools.layer_times import modelled_times

    built, spec = build(args.model, arguments.read_weights(args.weights, args.trust_pickle)), make_target(args)
    model = built.model
    if args.speedup is not None:
        shape = tuple(built.with_shape(args.input_shape, args.model).tensors[0].shape)
        times = modelled_times(shape, model, spec, args.save_ir)
        spec = pruning.choose_rates(model, spec, times, args.speedup)
    return pruning.prune_(model, spec), model


def _prune_program(args: argparse.Namespace) -> tuple[PruneReport, ExportedProgram]:
    from patc.frontend.pt2 import load_program
    from patc.pruning.exported import prune_program_

    program = load_program(args.model, trust_pickle=args.trust_pickle)
    return prune_program_(program, make_target(args)), program


def _train(args: argparse.Namespace) -> tuple[PruneReport, nn.Module]:
    from patc.files import check_folder
    from patc.pruning import Pruner
    from patc.pruning.evaluation import evaluate
    from patc.pruning.train import LAST, LOG, make_run_folder, train
    from patc.pruning.train_options import plan_phases
    from patc.tools.layer_times import modelled_times

    options = make_options(args)
    folder = args.run_folder or re.sub(r"\W+", "-", f"prune-{args.model}")
    check_folder(folder, (LAST, LOG))
    model, data = _open_training(args, options.seed)
    spec = make_target(args)
    # `train` refuses the same, but only after the given weights were evaluated.
    Pruner(model, spec)
    if not args.resume:
        make_run_folder(folder)
    items = "images" if data.shape is not None else "items"
    size = f"{len(data.train)} {items} to train on, {len(data.test)} to test with"
    print(f"{data.name}: {size}" + ("" if data.classes is None else f", {data.classes} classes"), flush=True)
    if args.weights is not None and not args.resume:
        print(f"{args.weights}: test accuracy {evaluate(model.to(options.find_device()), data)[1]:.2%}", flush=True)
    weights = sum(parameter.numel() for parameter in model.parameters())
    if weights > MOST_WEIGHTS * len(data.train):
        words = f"{args.model} has {weights / 1e6:.1f} million weights, {weights // len(data.train):,} for each of them"
        small = SMALL if data.classes is None else f"{SMALL} with {data.classes} classes"
        print(f"{words}: a small net learns more of so few, such as {small}", flush=True)
    epochs = sum(phase.epochs for phase in plan_phases(options))
    with _progress(epochs, options) as (tell, tell_step):
        shape = None if data.shape is None else (1, *data.shape)
        times = None if shape is None else functools.partial(modelled_times, shape, save_ir=args.save_ir)
        report = train(model, data, spec, options, folder, bool(args.resume), tell, tell_step, times)
    for histogram in report.histograms:
        print(f"\nkernels that select each of {len(histogram)} patterns:")
        _print_histogram(histogram)
        _save_histogram(histogram, Path(folder))
    print(f"\n{folder}: log.csv, last.pt and best.pt; test accuracy {report.test_accuracy:.2%}\n")
    for name, (weight, accuracy) in report.domains.items():
        print(f"domain {name:6s} weight {weight:.3f}, test accuracy {accuracy:.2%}")
    return report.pruned, model


def _open_training(args: argparse.Namespace, seed: int) -> tuple[nn.Module, Data]:
    """Return the model and the data to train it on, which fit each other."""
    import torch

    from patc import models
    from patc.factories import build, call, is_factory
    from patc.pruning.data import KINDS, open_data
    from patc.pruning.own_data import as_data

    weights = arguments.read_weights(args.weights, args.trust_pickle)
    if is_factory(args.data) and args.data.partition(":")[0] not in KINDS:
        data = as_data(args.data, call(args.data, "the data set's code"))
        if args.speedup is not None and data.shape is None:
            raise PatcError("expected images to choose rates for a speedup, got a data set of other inputs", args.data)
        return build(args.model, weights, seed).model, data
    if not is_factory(args.model):
        info = models.find(args.model)
        data = open_data(args.data, info.input_shape[2], seed)
        return info.build(weights, seed=seed, num_classes=data.classes), data
    built = build(args.model, weights, seed)
    shape = tuple(built.with_shape(args.input_shape, args.model).tensors[0].shape)
    data = open_data(args.data, shape[-1], seed)
    if shape[1:] != data.shape:
        raise PatcError(f"expected a model of images {data.shape}, as {data.name} has, got {shape[1:]}", args.model)
    with torch.no_grad():
        found = tuple(built.model(torch.zeros(2, *data.shape)).shape)
    if found != (2, data.classes):
        scores = found[1] if len(found) == 2 else f"an output of shape {found} for two"
        raise PatcError(
            f"expected {data.classes} scores an image, as {data.name} has classes, got {scores}", args.model
        )
    return built.model, data


@dataclass
class _Steps:
    """Prints how far an epoch is where nothing was printed for a while.

    Attributes:
        epochs: of the whole run.
        last: when something was printed, by `time.monotonic`.
    """

    epochs: int
    last: float = field(default_factory=time.monotonic)

    def __call__(self, phase: Phase, epoch: int, step: int, steps: int) -> None:
        if step == steps:  # its line follows
            self.last = time.monotonic()
        elif time.monotonic() - self.last >= SILENCE:
            self.last = time.monotonic()
            print(f"epoch {epoch + 1}/{self.epochs} {phase.kind:8s} step {step} of {steps}", flush=True)


@contextlib.contextmanager
def _progress(epochs: int, options: TrainOptions) -> Iterator[tuple[Any, Any]]:
    """Print a line an epoch, and on a terminal show how far training is."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from patc.tools.console import make_console

    def line(phase: Phase, epoch: Epoch) -> str:
        worst = "" if epoch.worst_accuracy is None else f" (worst domain {epoch.worst_accuracy:.2%})"
        apart = "" if epoch.distance is None else f", {epoch.distance:.1%} from the target"
        return (
            f"epoch {epoch.epoch + 1}/{epochs} {epoch.phase:8s} loss {epoch.train_loss:.4f}, "
            f"test accuracy {epoch.test_accuracy:.2%}{worst}{apart}, {epoch.seconds:.1f} s"
        )

    console = make_console()
    if not console.is_terminal:
        yield (lambda phase, epoch: print(line(phase, epoch), flush=True)), _Steps(epochs)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("training", total=None)
        yield (
            lambda phase, epoch: progress.console.print(line(phase, epoch), markup=False),
            lambda phase, epoch, step, steps: progress.update(
                task, description=f"{phase.kind} {epoch + 1}/{epochs}", completed=step, total=steps
            ),
        )


def _print_report(report: PruneReport, speedup: float | None) -> None:
    from patc.tools.console import make_console

    console = make_console()
    console.print(_make_table(report))
    if not report.library:
        return
    if speedup is None:
        console.print(f"\nconnectivity {report.connectivity:.3f}: all kernels / kept ones of the layers named pattern")
    else:
        console.print(
            f"\nrates that the cost model expects to make these layers {speedup:g}x as fast as patterns alone"
        )
    print("kept kernels by pattern:")
    _print_histogram(report.histogram)


def _print_histogram(histogram: dict[int, int], rows: int = 32) -> None:
    from patc.pruning import draw

    by_count = (
        histogram if len(histogram) <= rows else dict(sorted(histogram.items(), key=lambda item: -item[1])[:rows])
    )
    for mask, count in by_count.items():
        print(f"  {mask:4d}  {draw(mask)}  {count:8d}")
    if len(by_count) < len(histogram):
        print(f"  {len(histogram) - rows} more patterns for {sum(histogram.values()) - sum(by_count.values())} kernels")


def _save_histogram(histogram: dict[int, int], folder: Path) -> None:
    """Write what a step of the extraction found as CSV, and as a picture where matplotlib is installed."""
    from patc.files import atomic_write

    path = folder / f"patterns-{len(histogram)}.csv"
    lines = [f"{mask},{count}\n" for mask, count in histogram.items()]
    atomic_write(path, "".join(["mask,kernels\n", *lines]))
    if importlib.util.find_spec("matplotlib") is not None:
        from patc.pruning.plots import save_histogram

        save_histogram(path.with_suffix(".png"), histogram)


def _make_table(report: PruneReport) -> Table:
    from patc.tools.console import join_sizes, make_table

    units = "kernels" if report.library else "units"
    table = make_table(("layer", "weight", "pruned by", units, "kept", "weights", "kept", "rate"), words=3)
    for layer in report.layers:
        rate = layer.weights / layer.kept_weights if layer.kept_weights else float("inf")
        numbers = (layer.kernels, layer.kept_kernels, layer.weights, layer.kept_weights)
        style = "dim" if layer.kind == "dense" else ""
        kind = "-" if layer.kind == "dense" else layer.kind
        row = (layer.name or "(the model)", join_sizes(layer.shape), kind, *map(str, numbers), f"{rate:.2f}x")
        table.add_row(*row, style=style)
    table.add_section()
    numbers = (report.kernels, report.kept_kernels, report.weights, report.kept_weights)
    table.add_row("all", "", "", *map(str, numbers), f"{report.compression:.2f}x", style="bold")
    return table


def _save(model: nn.Module | ExportedProgram, path: str) -> int:
    """Write the state dict as torchvision's checkpoints are, or a program whole; return the size in bytes."""
    from patc.files import atomic_write, is_stream
    from patc.pruning.train import state_bytes

    state = model.state_dict() if callable(model.state_dict) else model.state_dict
    if Path(path).suffix == PROGRAM:
        from patc.torch_files import program_bytes

        data = program_bytes(model)
    elif Path(path).suffix == ".safetensors" or is_stream(path):
        from patc.checkpoints import safetensors_bytes

        data = safetensors_bytes(state)
    else:
        data = state_bytes(state)
    atomic_write(path, data)
    return len(data)
