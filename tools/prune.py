"""`patc prune`: prune a network by magnitude in one shot, or train and prune it, and save its weights."""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patc.diagnostics import PatcError
from patc.tools import arguments

if TYPE_CHECKING:
    from rich.table import Table
    from torch import nn

    from patc.pruning import PatternSpec, PruneReport
    from patc.pruning.data import Data
    from patc.pruning.train import Epoch
    from patc.pruning.train_options import Phase, TrainOptions

SUFFIXES = (".safetensors", ".pth")

# The options of training, with what they are in `TrainOptions` and `AdmmSchedule`.
_TRAINING = (
    "dense_epochs", "extract", "extract_from", "extract_epochs", "admm_epochs", "retrain_epochs", "batch_size",
    "optimizer", "learning_rate", "weight_decay", "label_smoothing", "speedup", "amp", "device", "seed",
)  # fmt: skip
_PENALTY = ("rho", "growth", "most_rho", "ramp")

_DESCRIPTION = """\
Give every 3x3 kernel of MODEL the pattern that keeps the most of it, and remove the weakest kernels. With --data the
model is trained for that: ADMM drives the weights to patterns, then those that stay are trained alone. Without,
accuracy has to be won back by training the kept weights.
"""
_EPILOG = """\
examples:
  patc prune resnet18 --weights resnet18.pth --compression 8 -o pruned.safetensors
  patc prune resnet18_cifar --data cifar10:cifar-10-batches-bin --dense-epochs 60 --compression 8 -o pruned.safetensors
  patc prune vgg16_cifar --data glyphs --dense-epochs 8 --extract 8 --compression 8 -o pruned.safetensors
  patc compile resnet18 --weights pruned.safetensors -o resnet18.patc
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the sub-command to what `ArgumentParser.add_subparsers` returned."""
    parser = arguments.add_command(
        subparsers, "prune", "prune a network, with or without training, and save its weights", _DESCRIPTION, _EPILOG
    )
    parser.add_argument("model", metavar="MODEL", help=arguments.BUILT_HELP)
    parser.add_argument("--weights", metavar="FILE", help=arguments.WEIGHTS_HELP)
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=arguments.output_path,
        help="save the state dict: .safetensors or .pth; - for standard output",
    )
    arguments.add_trust(parser)
    arguments.add_pruning(parser, "what to prune to")
    _add_target(parser)
    _add_training(parser)
    arguments.add_input_shape(parser)
    return parser


def _add_target(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("which layers, and how their rates are chosen")
    group.add_argument("--depthwise", metavar="HOW", help="depthwise convolutions: dense or pattern (dense)")
    group.add_argument("--library-5x5", metavar="NAME", help="pattern library of 5x5 convolutions (they stay dense)")
    group.add_argument("--kernels", metavar="WHICH", help="patterns for 3x3 kernels, or for all of up to 63 taps (3x3)")
    group.add_argument("--share", metavar="P", type=float, help="part of its taps that a pattern of others keeps (4/9)")
    group.add_argument(
        "--first-layer", metavar="HOW", help="a first layer with patterns: pattern, prune or dense (pattern)"
    )
    group.add_argument("--balanced", action="store_true", help="equally many kernels for all filters of a layer")
    group.add_argument("--allocation", metavar="HOW", help="uniform rates, or one global budget by score (uniform)")
    group.add_argument(
        "--rate",
        metavar="LAYER=C",
        action="append",
        type=_layer_rate,
        help="connectivity of one layer; may be repeated",
    )
    group.add_argument(
        "--speedup", metavar="S", type=float, help="rates for 1/S of the 3x3 layers' time, by the compiler's cost model"
    )


def _add_training(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training")
    group.add_argument(
        "--data", metavar="DATA", help="train on cifar10:DIR, imagenet:DIR, folder:DIR, glyphs, glyphs:IMAGES or digits"
    )
    group.add_argument("--run-folder", metavar="DIR", help="log and checkpoints (prune-MODEL)")
    group.add_argument(
        "--resume", action="store_true", default=None, help="go on from the run folder's last checkpoint"
    )
    group.add_argument("--dense-epochs", metavar="N", type=int, help="epochs before pruning (0)")
    group.add_argument("--extract", metavar="N", type=int, help="extract a library of N patterns first: 12, 8 or 4")
    group.add_argument("--extract-from", metavar="WHICH", help="all patterns of four, or centred ones (all)")
    group.add_argument("--extract-epochs", metavar="N", type=int, help="epochs of each step of the extraction (3)")
    group.add_argument("--admm-epochs", metavar="N", type=int, help="epochs of ADMM (10)")
    group.add_argument("--retrain-epochs", metavar="N", type=int, help="epochs with the masks in force (10)")
    group.add_argument("--batch-size", metavar="N", type=int, help="images a step (128)")
    group.add_argument("--optimizer", metavar="NAME", help="sgd or adamw (sgd)")
    group.add_argument("--learning-rate", metavar="R", type=float, help="of dense training; others take a part (0.1)")
    group.add_argument("--weight-decay", metavar="D", type=float, help="of weights (0.0005)")
    group.add_argument("--label-smoothing", metavar="S", type=float, help="0 to below 1 (0.1)")
    group.add_argument("--rho", metavar="RHO", type=float, help="penalty of the first ADMM epoch (0.01)")
    group.add_argument("--growth", metavar="G", type=float, help="factor of the penalty an epoch (1.5)")
    group.add_argument("--most-rho", metavar="RHO", type=float, help="where the penalty stops to grow (0.3)")
    group.add_argument("--ramp", metavar="P", type=float, help="part of ADMM in which kernels fall to the target (0.5)")
    group.add_argument("--amp", action="store_true", default=None, help="mixed precision")
    group.add_argument("--device", metavar="NAME", help="cuda or cpu (a GPU where there is one)")
    group.add_argument("--seed", metavar="N", type=int, help="of everything that is random (0)")


def run(args: argparse.Namespace) -> int:
    """Run the sub-command and return its exit status.

    Raises:
        PatcError: an argument is wrong, the rate is out of reach, data cannot be read, or a file cannot be written.
    """
    from patc.tools.console import describe_bytes

    _check(args)
    report, model = _train(args) if args.data is not None else _prune(args)
    _print_report(report, args.speedup)
    if args.output is None:
        print("nothing saved: -o FILE saves the weights")
    else:
        size = _save(model, args.output)
        print(f"{args.output}: {describe_bytes(size)}")
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.compression is None and args.connectivity is None and args.speedup is None:
        raise PatcError("expected --compression or --connectivity, got neither")
    if args.speedup is not None and not (args.compression is None and args.connectivity is None):
        raise PatcError("expected --speedup without --compression and --connectivity, got both")
    if args.speedup is not None and (args.rate or args.allocation):
        raise PatcError("expected --speedup to choose all rates, got --rate or --allocation too")
    if args.library is not None and args.extract is not None:
        raise PatcError("expected --library or --extract, got both")
    if args.extract_from is not None and args.extract is None:
        raise PatcError("expected --extract together with --extract-from, got none")
    if args.output is not None:
        arguments.check_output(args.output, SUFFIXES)
    if Path(args.model).suffix.lower() in arguments.MODEL_SUFFIXES:
        raise PatcError("expected the name of a model, got a file: prune it in Python and export it", args.model)
    if args.data is None:
        needing = (name for name in _TRAINING if name != "speedup")
        given = _given(args, (*needing, *_PENALTY, "run_folder", "resume"))
        if given:
            option = next(iter(given)).replace("_", "-")
            raise PatcError(f"expected --data together with --{option}, got none")


def _prune(args: argparse.Namespace) -> tuple[PruneReport, nn.Module]:
    from patc import pruning
    from patc.factories import build
    from patc.tools.layer_times import modelled_times

    built, spec = build(args.model, arguments.read_weights(args.weights, args.trust_pickle)), _spec(args)
    model = built.model
    if args.speedup is not None:
        times = modelled_times(tuple(built.with_shape(args.input_shape, args.model).tensors[0].shape), model, spec)
        spec = pruning.choose_rates(model, spec, times, args.speedup)
    return pruning.prune_(model, spec), model


def _train(args: argparse.Namespace) -> tuple[PruneReport, nn.Module]:
    from patc.files import check_folder
    from patc.pruning import AdmmSchedule, resolve
    from patc.pruning.train import LAST, LOG, evaluate, make_run_folder, train
    from patc.pruning.train_options import TrainOptions, plan_phases
    from patc.tools.layer_times import modelled_times

    options = TrainOptions(**_given(args, _TRAINING), schedule=AdmmSchedule(**_given(args, _PENALTY)))
    folder = args.run_folder or re.sub(r"\W+", "-", f"prune-{args.model}")
    check_folder(folder, (LAST, LOG))
    model, data = _open_training(args, options.seed)
    spec = _spec(args)
    # `train` refuses the same, but only after the given weights were evaluated.
    resolve(model, spec)
    if not args.resume:
        make_run_folder(folder)
    size = f"{len(data.train)} images to train on, {len(data.test)} to test with, {data.classes} classes"
    print(f"{data.name}: {size}", flush=True)
    if args.weights is not None and not args.resume:
        print(f"{args.weights}: test accuracy {evaluate(model.to(options.find_device()), data)[1]:.2%}", flush=True)
    epochs = sum(phase.epochs for phase in plan_phases(options))
    with _progress(epochs, options) as (tell, tell_step):
        times = functools.partial(modelled_times, (1, *data.shape))
        report = train(model, data, spec, options, folder, bool(args.resume), tell, tell_step, times)
    for histogram in report.histograms:
        print(f"\nkernels that select each of {len(histogram)} patterns:")
        _print_histogram(histogram)
        _save_histogram(histogram, Path(folder))
    print(f"\n{folder}: log.csv, last.pt and best.pt; test accuracy {report.test_accuracy:.2%}\n")
    return report.pruned, model


def _open_training(args: argparse.Namespace, seed: int) -> tuple[nn.Module, Data]:
    """Return the model and the data to train it on, which fit each other."""
    import torch

    from patc import models
    from patc.factories import build, is_factory
    from patc.pruning.data import open_data

    weights = arguments.read_weights(args.weights, args.trust_pickle)
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
        raise PatcError(f"expected {data.classes} scores an image, as {data.name} has classes, got {found}", args.model)
    return built.model, data


def _spec(args: argparse.Namespace) -> PatternSpec:
    from patc.pruning import PatternSpec

    names = ("compression", "connectivity", "library", "pointwise", "filter_group", "depthwise", "library_5x5")
    fields = _given(args, (*names, "first_layer", "allocation", "kernels", "share"))
    return PatternSpec(**fields, balanced=args.balanced, rates=tuple(args.rate or ()))


def _given(args: argparse.Namespace, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


@contextlib.contextmanager
def _progress(epochs: int, options: TrainOptions) -> Iterator[tuple[Any, Any]]:
    """Print a line an epoch, and on a terminal show how far training is."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from patc.tools.console import make_console

    def line(phase: Phase, epoch: Epoch) -> str:
        apart = "" if epoch.distance is None else f", {epoch.distance:.1%} from patterns"
        return (
            f"epoch {epoch.epoch + 1}/{epochs} {epoch.phase:8s} loss {epoch.train_loss:.4f}, "
            f"test accuracy {epoch.test_accuracy:.2%}{apart}, {epoch.seconds:.1f} s"
        )

    console = make_console()
    if not console.is_terminal:
        yield (lambda phase, epoch: print(line(phase, epoch), flush=True)), lambda *_: None
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

    table = make_table(("layer", "weight", "pruned by", "kernels", "kept", "weights", "kept", "rate"), words=3)
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


def _save(model: nn.Module, path: str) -> int:
    """Write the state dict as torchvision's checkpoints are; return its size in bytes."""
    from patc.files import atomic_write, is_stream
    from patc.pruning.train import state_bytes

    state = model.state_dict()
    if Path(path).suffix == ".safetensors" or is_stream(path):
        from safetensors.torch import save

        data = save({name: tensor.contiguous() for name, tensor in state.items()})
    else:
        data = state_bytes(state)
    atomic_write(path, data)
    return len(data)


def _layer_rate(text: str) -> tuple[str, float]:
    name, _, rate = text.rpartition("=")
    try:
        return name, float(rate)
    except ValueError:
        example = "layer1.0.conv1=4"
        raise argparse.ArgumentTypeError(
            f"expected a layer and its connectivity as in {example}, got '{text}'"
        ) from None
