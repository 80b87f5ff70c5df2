"""`patc report --visualize`: pictures of a named network's kernels and of what it looks at, dense and pruned."""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

from patc.diagnostics import PatcError
from patc.factories import is_factory
from patc.files import check_folder
from patc.tools import arguments


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `draw` to the parser of `patc report`."""
    group = parser.add_argument_group("pictures of named models")
    group.add_argument("--visualize", metavar="DIR", help="draw kernels, patterns and attributions into a folder")
    group.add_argument("--against", metavar="FILE", help="weights of the pruned network to compare with")
    group.add_argument("--image", metavar="FILE", help="picture to look at (a drawn one)")


def draw(args: argparse.Namespace) -> int:
    """Draw the dense network, and the pruned one if there is one; return the exit status.

    Raises:
        PatcError: the model is a file, weights or picture cannot be read, or the folder cannot be made.
    """
    spec = arguments.pattern_spec(args)
    if args.model not in arguments.MODEL_NAMES and not is_factory(args.model):
        raise PatcError("expected the name of a model together with --visualize, got another", args.model)
    if spec is not None and args.against is not None:
        raise PatcError("expected --against or options of pruning together with --visualize, got both")
    check_folder(args.visualize)
    import torch

    from patc import pruning
    from patc.factories import build
    from patc.pruning.visualize import write_pictures
    from patc.tools.images import drawn_input, picture_input

    built = build(args.model, arguments.read_weights(args.weights, args.trust_pickle))
    dense = built.model
    nets = {"dense": dense}
    if spec is not None:
        nets["pruned"] = copy.deepcopy(dense)
        pruning.prune_(nets["pruned"], spec)
    elif args.against is not None:
        nets["pruned"] = build(args.model, arguments.read_weights(args.against, args.trust_pickle)).model
    shape = built.with_shape(args.input_shape, args.model).tensors[0].shape
    image = picture_input(args.image, shape) if args.image is not None else drawn_input(shape)
    for path in write_pictures(nets, torch.from_numpy(image[:1].copy()), Path(args.visualize)):
        print(path)
    return 0


def check(args: argparse.Namespace) -> None:
    """Refuse options of pictures without --visualize.

    Raises:
        PatcError: which option.
    """
    for option in ("against", "image"):
        if args.visualize is None and getattr(args, option) is not None:
            raise PatcError(f"expected --visualize together with --{option}, got none")
