"""The options of `patc prune`: what to prune to, how, and which of them go together."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patc.diagnostics import PatcError
from patc.tools import arguments

if TYPE_CHECKING:
    from patc.pruning import PatternSpec, Plan
    from patc.pruning.methods.base import Method
    from patc.pruning.schemes import Scheme
    from patc.pruning.train_options import TrainOptions

# The options of training, by their names in `TrainOptions` and `AdmmSchedule`.
_TRAINING = (
    "dense_epochs", "extract", "extract_from", "extract_epochs", "prune_epochs", "retrain_epochs", "batch_size",
    "optimizer", "learning_rate", "weight_decay", "label_smoothing", "speedup", "domains", "amp", "device", "seed",
)  # fmt: skip
_PENALTY = ("rho", "growth", "most_rho", "ramp")
_PATTERN = ("library", "pointwise", "filter_group", "depthwise", "library_5x5", "first_layer", "kernels", "share")
# Of these `Pattern`, which a plan gives layers, knows nothing.
_SPEC = ("library_5x5", "first_layer", "extract")
_SCHEMES = ("pattern", "block", "kernel-blocks", "gather-scatter", "unstructured", "filters")
_METHODS = ("magnitude", "admm", "reweighted", "group-lasso")
# The methods that an option is of.
_OF_METHODS = {
    **dict.fromkeys(_PENALTY, ("admm",)),
    "ramp": ("magnitude", "admm"),
    "strength": ("reweighted", "group-lasso"),
}

SUFFIXES = (".safetensors", ".pth")
PROGRAM = ".pt2"


def add_target(parser: argparse.ArgumentParser) -> None:
    """Add what says which layers are pruned to what."""
    group = parser.add_argument_group("which layers, and how their rates are chosen")
    group.add_argument("--scheme", metavar="S", choices=_SCHEMES, help=f"{', '.join(_SCHEMES)} (pattern)")
    group.add_argument("--block", metavar="RxC", type=_block, help="rows of a block, or rows and columns (8)")
    group.add_argument("--remove", metavar="WHAT", help="of blocks: columns, rows, both or block (columns)")
    group.add_argument(
        "--bits",
        metavar="B",
        type=int,
        help="levels of all weights that can be pruned, 8 to 1 bits, beside the zeros or alone; rates count them all",
    )
    group.add_argument("--layers", metavar="NAMES", help="layers of another scheme, as in 'encoder.*' (all)")
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


def add_training(parser: argparse.ArgumentParser) -> None:
    """Add the options of training."""
    group = parser.add_argument_group("training")
    group.add_argument(
        "--data",
        metavar="DATA",
        help="train on cifar10:DIR, imagenet:DIR, folder:DIR, glyphs, glyphs:IMAGES, digits, or what FILE.py:function "
        "returns: (train, test), two data sets of (input, class)",
    )
    group.add_argument(
        "--method", metavar="M", choices=_METHODS, help=f"{', '.join(_METHODS)} (magnitude; admm with --bits)"
    )
    group.add_argument("--strength", metavar="S", type=float, help="of reweighted's or group-lasso's penalty (0.0001)")
    group.add_argument("--run-folder", metavar="DIR", help="log and checkpoints (prune-MODEL)")
    group.add_argument(
        "--resume", action="store_true", default=None, help="go on from the run folder's last checkpoint"
    )
    group.add_argument("--dense-epochs", metavar="N", type=int, help="epochs before pruning (0)")
    group.add_argument("--extract", metavar="N", type=int, help="extract a library of N patterns first: 12, 8 or 4")
    group.add_argument("--extract-from", metavar="WHICH", help="all patterns of four, or centred ones (all)")
    group.add_argument("--extract-epochs", metavar="N", type=int, help="epochs of each step of the extraction (3)")
    group.add_argument("--prune-epochs", metavar="N", type=int, help="epochs of the method (10)")
    group.add_argument("--retrain-epochs", metavar="N", type=int, help="epochs with the masks in force (10)")
    group.add_argument("--batch-size", metavar="N", type=int, help="images a step (128)")
    group.add_argument("--optimizer", metavar="NAME", help="sgd or adamw (sgd)")
    group.add_argument("--learning-rate", metavar="R", type=float, help="of dense training; others take a part (0.1)")
    group.add_argument("--weight-decay", metavar="D", type=float, help="of weights (0.0005)")
    group.add_argument("--label-smoothing", metavar="S", type=float, help="0 to below 1 (0.1)")
    group.add_argument(
        "--domains",
        metavar="NAMES",
        help="keep the worst of these changes of pictures, and of pictures as they are: blur,noise,jpeg,linf,l2 (none)",
    )
    group.add_argument("--rho", metavar="RHO", type=float, help="penalty of the first ADMM epoch (0.01)")
    group.add_argument("--growth", metavar="G", type=float, help="factor of the penalty an epoch (1.5)")
    group.add_argument("--most-rho", metavar="RHO", type=float, help="where the penalty stops to grow (0.3)")
    group.add_argument(
        "--ramp",
        metavar="P",
        type=float,
        help="part of the prune epochs in which what stays falls to the target (0.8; admm 0.5)",
    )
    group.add_argument("--amp", action="store_true", default=None, help="mixed precision")
    group.add_argument("--device", metavar="NAME", help="cuda or cpu (a GPU where there is one)")
    group.add_argument("--seed", metavar="N", type=int, help="of everything that is random (0)")


def check(args: argparse.Namespace) -> None:
    """Refuse what does not go together.

    Raises:
        PatcError: the first thing that does not.
    """
    if _has_no_rate(args) and args.bits is None:
        raise PatcError("expected --compression, --connectivity or --bits, got none")
    if args.speedup is not None and not (args.compression is None and args.connectivity is None):
        raise PatcError("expected --speedup without --compression and --connectivity, got both")
    if args.speedup is not None and (args.rate or args.allocation):
        raise PatcError("expected --speedup to choose all rates, got --rate or --allocation too")
    if args.save_ir is not None and args.speedup is None:
        raise PatcError("expected --speedup, for which the model is compiled, together with --save-ir, got none")
    if args.library is not None and args.extract is not None:
        raise PatcError("expected --library or --extract, got both")
    if args.extract_from is not None and args.extract is None:
        raise PatcError("expected --extract together with --extract-from, got none")
    _check_scheme(args)
    suffix = Path(args.model).suffix.lower()
    if args.output is not None:
        arguments.check_output(args.output, (*SUFFIXES, *([PROGRAM] if suffix == PROGRAM else ())))
    if suffix in arguments.MODEL_SUFFIXES and suffix != arguments.NCNN:
        _check_file(args, suffix)
    if args.data is None:
        needing = (name for name in _TRAINING if name != "speedup")
        found = _given(args, (*needing, *_PENALTY, "method", "strength", "run_folder", "resume"))
        if found:
            option = next(iter(found)).replace("_", "-")
            raise PatcError(f"expected --data together with --{option}, got none")


def _check_file(args: argparse.Namespace, suffix: str) -> None:
    """Refuse a file but a program of `torch.export`, which can be pruned in one shot."""
    if suffix != PROGRAM:
        wanted = "expected a .pt2 or .param file, or the name of a model or FILE.py:FUNCTION"
        instead = "prune the module and export it again"
        raise PatcError(f"{wanted}, got a {suffix} file; {instead}", args.model)
    found = _given(args, ("data", "weights", "speedup", "input_shape"))
    if found:
        option = next(iter(found)).replace("_", "-")
        raise PatcError(f"expected the name of a model together with --{option}, got a program", args.model)


def _check_scheme(args: argparse.Namespace) -> None:
    """Refuse options of another scheme or method."""
    scheme, method = args.scheme or "pattern", _method_name(args)
    if _has_no_rate(args):
        found = _given(args, ("scheme", *_PATTERN, "extract", "block", "remove", "layers", "rate"))
        if found or args.balanced:
            option = next(iter(found), "balanced").replace("_", "-")
            raise PatcError(f"expected --compression or --connectivity together with --{option}, got --bits alone")
    elif args.bits is not None and scheme == "pattern" and (found := _given(args, _SPEC)):
        raise PatcError(f"expected no --{next(iter(found)).replace('_', '-')} together with --bits, got both")
    options = {"pattern": (*_PATTERN, "extract"), "block": ("block", "remove")}
    for of, names in options.items():
        found = _given(args, names) if of != scheme else {}
        if found:
            raise PatcError(
                f"expected --scheme {of} together with --{next(iter(found)).replace('_', '-')}, got {scheme}"
            )
    if args.balanced and scheme != "pattern":
        raise PatcError(f"expected --scheme pattern together with --balanced, got {scheme}")
    if args.layers is not None and scheme == "pattern":
        raise PatcError("expected another --scheme together with --layers, got pattern")
    for name in _given(args, tuple(_OF_METHODS)):
        if method not in _OF_METHODS[name]:
            methods, option = " or ".join(_OF_METHODS[name]), name.replace("_", "-")
            raise PatcError(f"expected --method {methods} together with --{option}, got {method}")


def make_target(args: argparse.Namespace) -> PatternSpec | Plan:
    """Return what to prune to.

    Raises:
        PatcError: a value is out of its range.
    """
    from patc.pruning import Both, Levels, PatternSpec, Plan

    rates = tuple(args.rate or ())
    if args.bits is None and args.scheme in (None, "pattern"):
        fields = _given(args, (*_PATTERN, "compression", "connectivity", "allocation"))
        return PatternSpec(**fields, balanced=args.balanced, rates=rates)
    if _has_no_rate(args):
        return Plan([("*", Levels(args.bits))])
    names, scheme = args.layers or "*", _make_scheme(args)
    entries: list[tuple[str, Scheme]] = [(names, scheme)]
    if args.bits is not None:
        entries = [(names, Both(scheme, Levels(args.bits))), ("*", Levels(args.bits))]
    fields = _given(args, ("compression", "allocation"))
    return Plan(entries, **fields, rates=rates, rate=args.connectivity)


def _make_scheme(args: argparse.Namespace) -> Scheme:
    from patc.pruning import Block, Filters, GatherScatter, KernelBlocks, Pattern, Unstructured

    block = _given(args, ("remove",)) | dict(zip(("rows", "columns"), args.block or (), strict=False))
    pattern = _given(args, tuple(name for name in _PATTERN if name not in _SPEC))
    makers: dict[str, Callable[[], Scheme]] = {
        "pattern": lambda: Pattern(**pattern, balanced=args.balanced),
        "block": lambda: Block(**block),
        "kernel-blocks": KernelBlocks,
        "gather-scatter": GatherScatter,
        "unstructured": Unstructured,
        "filters": Filters,
    }
    return makers[args.scheme or "pattern"]()


def _has_no_rate(args: argparse.Namespace) -> bool:
    return args.compression is None and args.connectivity is None and args.speedup is None


def make_options(args: argparse.Namespace) -> TrainOptions:
    """Return how to train.

    Raises:
        PatcError: a value is out of its range.
    """
    from patc.pruning.train_options import TrainOptions
    from patc.robust import Domains

    given = _given(args, _TRAINING)
    if args.domains is not None:
        given["domains"] = Domains(tuple(args.domains.split(",")))
    return TrainOptions(**given, method=_make_method(args))


def _method_name(args: argparse.Namespace) -> str:
    return args.method or ("magnitude" if args.bits is None else "admm")


def _make_method(args: argparse.Namespace) -> Method:
    from patc.pruning import Admm, AdmmSchedule, GroupLasso, Magnitude, Reweighted

    makers: dict[str, Callable[[], Method]] = {
        "magnitude": lambda: Magnitude(**_given(args, ("ramp",))),
        "admm": lambda: Admm(AdmmSchedule(**_given(args, _PENALTY))),
        "reweighted": lambda: Reweighted(**_given(args, ("strength",))),
        "group-lasso": lambda: GroupLasso(**_given(args, ("strength",))),
    }
    return makers[_method_name(args)]()


def _given(args: argparse.Namespace, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def _layer_rate(text: str) -> tuple[str, float]:
    name, _, rate = text.rpartition("=")
    try:
        return name, float(rate)
    except ValueError:
        example = "layer1.0.conv1=4"
        raise argparse.ArgumentTypeError(
            f"expected a layer and its connectivity as in {example}, got '{text}'"
        ) from None


def _block(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)?", text):
        raise argparse.ArgumentTypeError(f"expected rows of a block, or rows and columns as in 8x16; got '{text}'")
    return tuple(map(int, text.split("x")))
