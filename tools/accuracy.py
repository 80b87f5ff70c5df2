"""`patc accuracy`: how many pictures of a folder a classifier gets right, beside PyTorch."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patc.diagnostics import PatcError
from patc.tools import arguments
from patc.tools.labels import read_labels
from patc.tools.run import open_model

if TYPE_CHECKING:
    import numpy as np

_DESCRIPTION = """\
Run MODEL on the pictures of a folder that has a folder for each class, and count those whose class has the largest
score, or one of the five largest. Pictures are scaled, cropped and normalized as for ImageNet. A model that is compiled
for this runs in PyTorch too, and what both say is compared.
"""
_EPILOG = """\
examples:
  patc accuracy resnet18.patc imagenet/val --labels imagenet.txt
  patc accuracy net.py:build val/ --weights pruned.safetensors --confusion confusion.png
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the sub-command to what `ArgumentParser.add_subparsers` returned."""
    parser = arguments.add_command(
        subparsers, "accuracy", "count what a classifier gets right on a folder of pictures", _DESCRIPTION, _EPILOG
    )
    arguments.add_model(parser, f"a file of patc compile, {arguments.MODEL_HELP}")
    parser.add_argument("folder", metavar="DIR", help="a folder with a folder of pictures for each class")
    arguments.add_labels(parser)
    parser.add_argument("--limit", metavar="N", type=int, help="pictures of each class, the first ones (all)")
    parser.add_argument("--confusion", metavar="FILE.png", help="draw which classes are taken for which")
    parser.add_argument("--json", metavar="FILE", type=arguments.output_path, help="save the figures")
    arguments.add_pruning(parser)
    arguments.add_compilation(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the sub-command and return its exit status.

    Raises:
        PatcError: an argument is wrong, the folder holds no classes or others than the model has, or the model cannot
            be loaded, compiled or run.
    """
    from patc.tools import scoring

    arguments.check_threads(args.threads)
    if args.limit is not None and args.limit < 1:
        raise PatcError(f"expected --limit of 1 or more, got {args.limit}")
    if args.confusion is not None:
        from patc.pruning.plots import require_matplotlib

        require_matplotlib()
        arguments.check_output(args.confusion, (".png", ".svg", ".pdf"))
    if args.json is not None:
        arguments.check_output(args.json)
    labels = None if args.labels is None else read_labels(args.labels)
    pictures = _find_classes(args.folder, args.limit)
    loaded = None if arguments.is_compiled_file(args.model) else arguments.load_model(args)
    compiled = open_model(args, loaded)
    reference = None if loaded is None else _reference(loaded.model)
    models: list[Callable[[np.ndarray], Any]] = [compiled] if reference is None else [compiled, reference]
    result, *others = scoring.score(compiled, pictures, labels, args.folder, models)
    scoring.print_result(args.model, result)
    figures = scoring.figures(result)
    for other in others:
        figures["pytorch"] = scoring.compare(result, other)
    if args.confusion is not None:
        scoring.draw(result, args.confusion)
        print(args.confusion)
    if args.json is not None:
        from patc.files import atomic_write

        atomic_write(args.json, json.dumps(figures, indent=2) + "\n")
    return 0


def _find_classes(folder: str, limit: int | None) -> dict[str, list[str]]:
    """Return the pictures of each class, by the names of the folders.

    Raises:
        PatcError: there is no such folder, or none in it.
    """
    from patc.tools.images import find_pictures

    if not Path(folder).is_dir():
        found = "a file" if Path(folder).exists() else "none"
        raise PatcError(f"expected a folder with a folder of pictures for each class, found {found}", folder)
    classes = sorted(path.name for path in Path(folder).iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise PatcError("expected a folder of pictures for each class in it, found no folder", folder)
    return {name: find_pictures([str(Path(folder) / name)])[:limit] for name in classes}


def _reference(model: Any) -> Callable[[np.ndarray], Any] | None:
    """Return a model as PyTorch runs it; None where it does not."""
    import torch

    if isinstance(model, Path) and model.suffix.lower() == arguments.NCNN:
        from patc.frontend.ncnn import load_net

        model = load_net(model)
    if isinstance(model, Path):
        if model.suffix.lower() != ".pt2":
            return None
        from patc.frontend.pt2 import load_program

        model = load_program(model)
    module = model.module() if isinstance(model, torch.export.ExportedProgram) else model

    def call(array: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            output: np.ndarray = module(torch.from_numpy(array)).numpy()
        return output

    return call
