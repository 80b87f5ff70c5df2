"""`patc prune`: prune a network by magnitude, in one shot, and save its weights."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patc.diagnostics import PatcError
from patc.tools import arguments

if TYPE_CHECKING:
    from rich.table import Table
    from torch import nn

    from patc.pruning import PruneReport

SUFFIXES = (".safetensors", ".pth")

_DESCRIPTION = """\
Give every 3x3 kernel of MODEL the pattern that keeps the most of it, and remove the weakest kernels. Nothing is
trained: accuracy has to be won back by training the kept weights.
"""
_EPILOG = """\
examples:
  patc prune resnet18 --weights resnet18.pth --compression 8 -o pruned.safetensors
  patc compile resnet18 --weights pruned.safetensors -o resnet18.patc
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the sub-command to what `ArgumentParser.add_subparsers` returned."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "prune",
        help="prune a network and save its weights",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="MODEL", help=f"one of {', '.join(arguments.MODEL_NAMES)}")
    parser.add_argument("--weights", metavar="FILE", help="state dict: .pth, .pt or .safetensors (seeded weights)")
    parser.add_argument("-o", "--output", metavar="FILE", help="save the state dict: .safetensors or .pth")
    arguments.add_pruning(parser, "what to prune to")
    parser.set_defaults(input_shape=None)  # nothing is compiled here
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the sub-command and return its exit status.

    Raises:
        PatcError: an argument is wrong, the rate is out of reach, or the file cannot be written.
    """
    from patc.tools.console import describe_bytes

    if args.compression is None and args.connectivity is None:
        raise PatcError("expected --compression or --connectivity, got neither")
    if args.output is not None:
        arguments.check_output(args.output, SUFFIXES)
    if Path(args.model).suffix.lower() in arguments.MODEL_SUFFIXES:
        raise PatcError("expected the name of a model, got a file: prune it in Python and export it", args.model)
    loaded = arguments.load_model(args)
    assert loaded.pruned is not None  # a rate is given
    _print_report(loaded.pruned)
    if args.output is None:
        print("nothing saved: -o FILE saves the weights")
    else:
        _save(loaded.model, args.output)
        print(f"{args.output}: {describe_bytes(Path(args.output).stat().st_size)}")
    return 0


def _print_report(report: PruneReport) -> None:
    from patc.pruning import draw
    from patc.tools.console import make_console

    console = make_console()
    console.print(_make_table(report))
    console.print(f"\nconnectivity {report.connectivity:.3f}: all kernels / kept ones of the layers named pattern")
    console.print("kept kernels by pattern:")
    for mask, count in report.histogram.items():
        console.print(f"  {mask:4d}  {draw(mask)}  {count:8d}", markup=False)


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
    kernels = sum(layer.kernels for layer in report.layers if layer.kind != "dense")
    kept_kernels = sum(report.histogram.values())
    numbers = (kernels, kept_kernels, report.weights, report.kept_weights)
    table.add_row("all", "", "", *map(str, numbers), f"{report.compression:.2f}x", style="bold")
    return table


def _save(model: nn.Module, path: str) -> None:
    """Write the state dict as torchvision's checkpoints are; the file appears whole or not at all."""
    from patc.files import atomic_write

    state = model.state_dict()
    if Path(path).suffix == ".safetensors":
        from safetensors.torch import save

        atomic_write(path, save(state))
        return
    import io

    import torch

    stream = io.BytesIO()
    torch.save(state, stream)
    atomic_write(path, stream.getvalue())
