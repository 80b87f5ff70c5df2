"""Arguments that several sub-commands share: the model, how it is pruned, and what it is compiled for."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from patc.diagnostics import PatcError, nearest
from patc.factories import is_factory
from patc.files import STANDARD_OUTPUT, check_file, check_folder, is_stream
from patc.numerics import NUMERICS
from patc.targets import MOST_THREADS, known_targets

if TYPE_CHECKING:  # `--help` must not load torch
    from patc.checkpoints import Checkpoint
    from patc.frontend import ExampleInputs
    from patc.pruning import PatternSpec, PruneReport

# The keys of `patc.models.MODELS`, without loading torch.
MODEL_NAMES = ("resnet18", "resnet50", "vgg16", "vgg16_bn", "mobilenet_v2", "resnet18_cifar", "vgg16_cifar")
MODEL_SUFFIXES = (".pt2", ".mlir", ".onnx", ".param")
NCNN = ".param"
LIBRARY_SUFFIXES = (".so", ".o", ".a", ".h")
MOST_ELEMENTS = 2**40  # whose bytes can still be counted
BUILT_HELP = f"FILE.py:FUNCTION or MODULE:FUNCTION, or one of {', '.join(MODEL_NAMES)}"
MODEL_HELP = f"a .pt2, .onnx, .mlir or .param (ncnn) file, {BUILT_HELP}"
WEIGHTS_HELP = "state dict or checkpoint of training: .pth, .pt, .ckpt, .bin, .tar or .safetensors (seeded weights)"
TRUST_HELP = "read files of torch by unpickling, which runs any code that they hold: only for files you made"
SHAPE_HELP = (
    "shape of an input, as in x=1x3x640x640, where a file leaves it open or a built model takes others; again for the "
    "same input: one file with code for each of its shapes"
)
TARGET_HELP = f"one of {', '.join(('host', *(target.name for target in known_targets())))} (host)"
DTYPE_HELP = (
    f"element type to compute in, one of {', '.join(NUMERICS)}, on a CPU or GPU that can; "
    "inputs and outputs stay as they are (f32)"
)
TUNE_HELP = "how schedules are chosen: cost, by a model, or measure, by timing on this machine (cost)"
BATCH_HELP = "take any number of images in a call; one, and as many as the example has or 8, are computed at once"
STREAMING_HELP = "take the states of recurrent layers as inputs and return them, so that calls go on with a sequence"
ZEROS_HELP = "samples of inputs, as for patc quantize: layers of one row skip weights where many elements are zero"

PRUNING = ("compression", "connectivity", "library", "pointwise", "filter_group")
COMPILATION = ("threads", "tune", "dtype", "dynamic_batch", "streaming", "zeros")
# What decides, with the target, which code a model becomes.
DECIDING = ("weights", "input_shape", "shape", *PRUNING, *COMPILATION)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are those of patc; sub-commands get parsers of the same class."""

    def error(self, message: str) -> NoReturn:
        raise PatcError(f"{message}; {self.prog} --help says more")


@dataclass(frozen=True)
class LoadedModel:
    """A model as `patc.compile` takes it.

    Attributes:
        name: how messages call it.
        model: a torch.nn.Module, or the path of a file.
        example_inputs: of a module; for a file None, or the shapes of inputs by their names.
        shapes: further ones to compile for.
        pruned: what was pruned; None when nothing was.
    """

    name: str
    model: Any
    example_inputs: ExampleInputs
    pruned: PruneReport | None
    shapes: Sequence[dict[str, tuple[int, ...]]] = ()


def add_command(
    subparsers: Any, name: str, summary: str, description: str, epilog: str = ""
) -> argparse.ArgumentParser:
    """Add a sub-command to what `ArgumentParser.add_subparsers` returned; its texts keep their lines."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help=summary,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    return parser


def add_model(parser: argparse.ArgumentParser, what: str = MODEL_HELP, weights: bool = True) -> None:
    """Add MODEL and what a named model is built with; a command may add --weights itself."""
    parser.add_argument("model", metavar="MODEL", help=what)
    group = parser.add_argument_group("models that are built")
    if weights:
        group.add_argument("--weights", metavar="FILE", help=WEIGHTS_HELP)
    add_input_shape(group)
    add_trust(parser)
    add_shapes(parser)


def add_input_shape(parser: argparse._ActionsContainer) -> None:
    """Add --input-shape."""
    parser.add_argument(
        "--input-shape",
        metavar="N,C,H,W",
        type=_shape,
        help="shape of the input (batch 1 of the usual images; what the function returns beside the model)",
    )


def add_shapes(parser: argparse.ArgumentParser) -> None:
    """Add --shape."""
    parser.add_argument("--shape", metavar="NAME=SIZES", action="append", type=named_shape, help=SHAPE_HELP)


def add_labels(parser: argparse.ArgumentParser) -> None:
    """Add --labels."""
    parser.add_argument("--labels", metavar="FILE", help="names of the classes: a line each, or a JSON list or object")


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add --trust-pickle."""
    parser.add_argument("--trust-pickle", action="store_true", help=TRUST_HELP)


def add_pruning(parser: argparse.ArgumentParser, title: str = "pruning of named models, .pt2 and .param files") -> None:
    """Add the options that make a `PatternSpec`."""
    group = parser.add_argument_group(title)
    rate = group.add_mutually_exclusive_group()
    rate.add_argument(
        "--compression",
        metavar="R",
        type=float,
        help="all weights of convolutions, or of the layers of another scheme, / kept ones",
    )
    rate.add_argument("--connectivity", metavar="C", type=float, help="all kernels / kept ones of each 3x3 layer")
    group.add_argument(
        "--library", metavar="NAME|MASKS", type=_library, help="pattern library (phase2), or its masks, as in 27,54,216"
    )
    group.add_argument("--pointwise", metavar="HOW", help="1x1 convolutions: dense, or groups of nine (dense)")
    group.add_argument("--filter-group", metavar="N", type=int, help="filters that share patterns: 1, 2, 4 or 8 (1)")


def add_compilation(parser: argparse.ArgumentParser, cpu: bool = False) -> None:
    """Add what `patc.compile` takes, and --cpu for `choose_cpu`."""
    group = parser.add_argument_group("compilation")
    group.add_argument("--target", metavar="T", default="host", help=TARGET_HELP)
    if cpu:
        group.add_argument(
            "--cpu", metavar="CPU", help="CPU of the target, such as cortex-a55 or haswell (aarch64: cortex-a76)"
        )
    group.add_argument(
        "--threads", metavar="N", type=int, help="threads that divide each layer (all cores; aarch64: 1)"
    )
    group.add_argument("--tune", metavar="HOW", help=TUNE_HELP)
    group.add_argument("--dtype", metavar="TYPE", help=DTYPE_HELP)
    group.add_argument("--dynamic-batch", action="store_true", help=BATCH_HELP)
    group.add_argument("--streaming", action="store_true", help=STREAMING_HELP)
    group.add_argument("--zeros", metavar="DATA", help=ZEROS_HELP)
    add_save_ir(group)
    group.add_argument("--no-cache", action="store_true", help="compile, whether the same was compiled before or not")


def add_save_ir(group: Any) -> None:
    """Add --save-ir to a parser or a group of it."""
    group.add_argument(
        "--save-ir", metavar="DIR", type=ir_folder, help="write the IR after each pass into a folder, without weights"
    )


def is_compiled_file(model: str) -> bool:
    """Return whether MODEL names a file of `patc compile`, and not a model to compile."""
    path = Path(model)
    if model in MODEL_NAMES or path.suffix.lower() in MODEL_SUFFIXES or is_factory(model):
        return False
    return path.is_file() or path.suffix != "" or os.sep in model


def pattern_spec(arguments: argparse.Namespace) -> PatternSpec | None:
    """Return what to prune to; None when no rate is given.

    Raises:
        PatcError: a value is out of range, or there are options of pruning without a rate.
    """
    given = {name: getattr(arguments, name) for name in PRUNING if getattr(arguments, name) is not None}
    if not given:
        return None
    if "compression" not in given and "connectivity" not in given:
        option = f"--{next(iter(given)).replace('_', '-')}"
        raise PatcError(f"expected --compression or --connectivity together with {option}, got neither")
    from patc.pruning import PatternSpec

    return PatternSpec(**given)


def load_model(arguments: argparse.Namespace) -> LoadedModel:
    """Return the model that MODEL stands for, pruned as the options say.

    Raises:
        PatcError: there is no such model or file, an option does not go with it, or a value is out of range.
    """
    spec = pattern_spec(arguments)
    name = arguments.model
    if Path(name).suffix.lower() in MODEL_SUFFIXES:
        suffix = Path(name).suffix.lower()
        taken = {".pt2": PRUNING, NCNN: (*PRUNING, "weights")}.get(suffix, ())
        for option in ("weights", "input_shape", *PRUNING):
            if option not in taken and getattr(arguments, option) is not None:
                flag = f"--{option.replace('_', '-')}"
                raise PatcError(f"expected the name of a model together with {flag}, got a file", name)
        shapes = read_shapes(arguments)
        if suffix == NCNN and (spec is not None or arguments.weights is not None):
            return _build_ncnn(arguments, spec, shapes)
        model, report = _open_file(Path(name), arguments.trust_pickle, spec)
        return LoadedModel(Path(name).name, model, shapes[0] if shapes else None, report, shapes[1:])
    if Path(name).exists():
        raise PatcError(f"expected a .pt2, .onnx, .mlir or .param file, got {_describe_file(name)}", name)
    if name not in MODEL_NAMES and not is_factory(name):
        raise PatcError(f"expected {MODEL_HELP}; got '{name}'{nearest(name, MODEL_NAMES)}")
    shapes = read_shapes(arguments)
    if shapes and arguments.input_shape is not None:
        raise PatcError("expected --shape or --input-shape, got both", name)
    weights = read_weights(arguments.weights, arguments.trust_pickle)
    loaded = _build(name, weights, arguments.input_shape, spec)
    return _with_shapes(loaded, shapes) if shapes else loaded


def _with_shapes(loaded: LoadedModel, shapes: Sequence[dict[str, tuple[int, ...]]]) -> LoadedModel:
    """Return a built model to compile for some shapes in place of those that it came with."""
    from patc.frontend.shapes import inputs_of_shapes

    inputs = inputs_of_shapes(loaded.model, loaded.example_inputs, shapes[:1])[0]
    return replace(loaded, example_inputs=inputs, shapes=shapes[1:])


def read_shapes(arguments: argparse.Namespace) -> list[dict[str, tuple[int, ...]]]:
    """Return the shapes that --shape gives, by the names of inputs: of the first entry, of the second, ...

    Raises:
        PatcError: inputs have several shapes each, and not as many.
    """
    found: dict[str, list[tuple[int, ...]]] = {}
    for name, shape in arguments.shape or ():
        found.setdefault(name, []).append(shape)
    entries = max(map(len, found.values()), default=0)
    for name, shapes in found.items():
        if len(shapes) not in (1, entries):
            expected = f"expected --shape once or {entries} times for each input"
            raise PatcError(f"{expected}, got {len(shapes)} for '{name}'", arguments.model)
    return [{name: shapes[min(place, len(shapes) - 1)] for name, shapes in found.items()} for place in range(entries)]


def read_weights(path: str | None, trust_pickle: bool) -> Checkpoint | None:
    """Return the weights in a file, and say which of its entries they are.

    Raises:
        PatcError: the file is missing, unreadable, or holds something else.
    """
    if path is None:
        return None
    from patc.checkpoints import read_checkpoint

    checkpoint = read_checkpoint(path, trust_pickle)
    if checkpoint.entry is not None:
        print(checkpoint)
    return checkpoint


def refuse_compilation(arguments: argparse.Namespace) -> None:
    """Refuse options of compilation together with a compiled file."""
    for option in (*DECIDING, "save_ir"):
        value = getattr(arguments, option)
        if value is not None and value is not False:
            flag = f"--{option.replace('_', '-')}"
            raise PatcError(f"expected a model to compile together with {flag}, got a compiled one", arguments.model)
    if arguments.target != "host":
        raise PatcError("expected a model to compile together with --target, got a compiled one", arguments.model)


def choose_cpu(target: str, cpu: str | None) -> str:
    """Return the name of `target` for a CPU; see `patc.targets.with_cpu`."""
    from patc.targets import with_cpu

    return target if cpu is None else with_cpu(target, cpu).name


def check_threads(threads: int | None) -> None:
    """Refuse a number of threads before anything takes time."""
    if threads is not None and threads < 1:
        raise PatcError(f"expected --threads of 1 or more, got {threads}")
    if threads is not None and threads > MOST_THREADS:
        raise PatcError(f"expected --threads of at most {MOST_THREADS}, got {threads}")


def check_options(target: str, dtype: str | None = None, tune: str | None = None) -> None:
    """Refuse options of compilation that are unknown or do not go together, before anything takes time."""
    from patc.options import make_options

    make_options(target, None, dtype or "f32", tune or "cost")


def output_path(text: str) -> str:
    """Return the path of an output file; "-" is standard output."""
    return STANDARD_OUTPUT if text == "-" else text


def ir_folder(text: str) -> str:
    """Return the path of a folder that can be made and written to.

    Raises:
        PatcError: as for `check_folder`.
    """
    check_folder(text)
    return text


def check_output(path: str, suffixes: Sequence[str] = ()) -> None:
    """Refuse a file that could not be written, before anything takes time.

    Raises:
        PatcError: as for `check_file`, or a file's name ends in none of `suffixes`.
    """
    check_file(path)
    if suffixes and Path(path).suffix not in suffixes and not is_stream(path):
        raise PatcError(f"expected a file named {' or '.join(suffixes)}, got '{Path(path).suffix}'", path)


def check_not_input(path: str, model: str) -> None:
    """Refuse an output that would replace the model's own file.

    Raises:
        PatcError: both are one file.
    """
    if os.path.exists(path) and os.path.exists(model) and os.path.samefile(path, model):
        raise PatcError("expected another file than the model's own, got the same", path)


def check_library_folder(path: str, files: Sequence[str] = ()) -> None:
    """Refuse a folder that could not be made, or where `files` could not be written, before anything takes time.

    Raises:
        PatcError: as for `check_folder`, or the path looks like that of a file.
    """
    what = "a folder for a library and its header"
    if Path(path).suffix in LIBRARY_SUFFIXES:
        raise PatcError(f"expected {what}, got the name of a {Path(path).suffix} file", path)
    check_folder(path, files, what)


def _open_file(path: Path, trust_pickle: bool, spec: PatternSpec | None) -> tuple[Any, PruneReport | None]:
    """Return a model file as `patc.compile` takes it, its path or a program, and what pruning did to it."""
    if path.suffix.lower() != ".pt2" or (spec is None and not trust_pickle):
        return path, None
    from patc.frontend.pt2 import load_program
    from patc.pruning.exported import prune_program_

    program = load_program(path, trust_pickle=trust_pickle)
    return program, None if spec is None else prune_program_(program, spec)


def _build_ncnn(
    arguments: argparse.Namespace, spec: PatternSpec | None, shapes: Sequence[dict[str, tuple[int, ...]]]
) -> LoadedModel:
    """Return a net of ncnn as a module, with other weights or pruned."""
    from patc import pruning
    from patc.factories import build
    from patc.frontend.ncnn import net_inputs

    model: Any = build(arguments.model, read_weights(arguments.weights, arguments.trust_pickle)).model
    inputs = net_inputs(model, shapes[0] if shapes else None)
    report = pruning.prune_(model, spec) if spec is not None else None
    return LoadedModel(Path(arguments.model).name, model, inputs, report, shapes[1:])


def _describe_file(name: str) -> str:
    """Return what a file is that is no model, and what to do with it where it is one of torch."""
    from patc.torch_archives import describe_content

    if not Path(name).is_file():
        return "a folder" if Path(name).is_dir() else "a pipe, device or socket"
    if name.endswith(".py"):
        return "Python code: name its function, as in FILE.py:FUNCTION"
    if name.endswith(".patc"):
        return "a compiled one: name the model that it was compiled from"
    return describe_content(name) or "one of another kind"


def _build(name: str, weights: Any, shape: tuple[int, ...] | None, spec: PatternSpec | None) -> LoadedModel:
    from patc import pruning
    from patc.factories import build

    if shape is not None and len(shape) != 4 and name in MODEL_NAMES:
        raise PatcError(f"expected --input-shape of four sizes such as 1,3,224,224, got {','.join(map(str, shape))}")
    built = build(name, weights).with_shape(shape, name)
    report = pruning.prune_(built.model, spec) if spec is not None else None
    return LoadedModel(name, built.model, built.inputs, report)


def _library(text: str) -> str | tuple[int, ...]:
    """Return a library's name, or masks that are parted by commas."""
    parts = text.split(",")
    return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else text


def named_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Return the name and the sizes of an input in a text such as x=1x3x640x640.

    Raises:
        argparse.ArgumentTypeError: the text is none.
    """
    name, separator, sizes = text.rpartition("=")
    words = sizes.split("x") if sizes else []
    if not separator or not name or not all(word.isdecimal() and 0 < len(word) <= 9 and int(word) for word in words):
        raise argparse.ArgumentTypeError(f"expected a shape such as x=1x3x640x640, got '{text[:60]}'")
    return name, tuple(map(int, words))


def frame_size(text: str) -> tuple[int, int]:
    """Return width and height of a text such as 640x360.

    Raises:
        argparse.ArgumentTypeError: the text is none.
    """
    words = text.split("x")
    if len(words) != 2 or not all(word.isdecimal() and 0 < len(word) < 6 and int(word) for word in words):
        raise argparse.ArgumentTypeError(f"expected a size such as 640x360, got '{text[:40]}'")
    return int(words[0]), int(words[1])


def _shape(text: str) -> tuple[int, ...]:
    words = text.split(",")
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise argparse.ArgumentTypeError(f"expected sizes such as 1,3,224,224, got '{text}'")
    if any(len(word) > 9 for word in words) or math.prod(map(int, words)) > MOST_ELEMENTS:
        raise argparse.ArgumentTypeError(f"expected sizes of at most {MOST_ELEMENTS} elements, got '{text[:60]}'")
    return tuple(int(word) for word in words)
