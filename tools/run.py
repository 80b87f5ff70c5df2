"""`patc run`: run a compiled file, or compile a model and run it."""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patc.diagnostics import PatcError, describe_seconds
from patc.numerics import BFLOAT16
from patc.tools import arguments
from patc.tools.labels import Labels, probabilities, read_labels

if TYPE_CHECKING:
    import numpy as np

    from patc.runtime.model import CompiledModel

SHOWN_SCORES = 5
SHOWN_ROWS = 8

_DESCRIPTION = """\
Run MODEL and print the five largest scores of each image, with their probabilities, or save its outputs. Without an
input it runs on random numbers, the same ones each time.
"""
_EPILOG = """\
examples:
  patc run resnet18.patc --image cat.jpg --labels imagenet.txt
  patc run resnet18.patc --image photos/
  patc run resnet18.patc --input x.npy --output y.npy
  patc run resnet18.patc --profile
  patc run model.onnx --input x.npy --check-finite
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the sub-command to what `ArgumentParser.add_subparsers` returned."""
    parser = arguments.add_command(subparsers, "run", "run a compiled file or a model", _DESCRIPTION, _EPILOG)
    arguments.add_model(parser, f"a file of patc compile, {arguments.MODEL_HELP}")
    given = parser.add_mutually_exclusive_group()
    given.add_argument(
        "--input",
        metavar="X.npy",
        nargs="+",
        help="one array for each input, of its element type; or a .npz file of arrays by the names of inputs",
    )
    given.add_argument(
        "--image",
        metavar="FILE|DIR",
        nargs="+",
        help="pictures, or folders of them, scaled and cropped; for float32 normalized as for ImageNet",
    )
    arguments.add_labels(parser)
    parser.add_argument(
        "--output",
        metavar="Y.npy",
        type=arguments.output_path,
        help="save the output, - for standard output; .npz for several",
    )
    parser.add_argument(
        "--device",
        metavar="INDEX|NAME",
        help="Vulkan device of a model for spirv-vulkan, see patc devices (PATC_VULKAN_DEVICE, or the best one)",
    )
    parser.add_argument("--key", metavar="PUBKEY", help="refuse a file that is not signed with this key, see patc sign")
    parser.add_argument("--profile", action="store_true", help="print the median time of each layer over 20 calls")
    parser.add_argument(
        "--check-finite", action="store_true", help="name the layer where the first NaN or infinite number appears"
    )
    arguments.add_pruning(parser)
    arguments.add_compilation(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the sub-command and return its exit status.

    Raises:
        PatcError: an argument is wrong, or the model cannot be loaded, compiled or run.
    """
    from patc.tools.arrays import read_arrays
    from patc.tools.images import find_pictures

    arguments.check_threads(args.threads)
    if args.output is not None:
        arguments.check_output(args.output, (".npy", ".npz"))
    labels = None if args.labels is None else read_labels(args.labels)
    arrays, named = read_arrays(args.input or ())
    pictures = find_pictures(args.image or ())
    loaded = _load_to_check(args) if args.check_finite else None
    compiled = open_model(args, loaded)
    if pictures:
        arrays, outputs = _run_pictures(compiled, pictures)
    else:
        arrays = _arrange(compiled, arrays, named)
        outputs = _outputs(compiled, arrays)
    if args.profile:
        _print_profile(compiled, arrays)
    if args.output is not None:
        _save(args.output, outputs)
    else:
        for name, output in outputs.items():
            _print_output(name, output, pictures, labels)
    return 0 if loaded is None else _check_finite(args, loaded, compiled, arrays)


def _load_to_check(args: argparse.Namespace) -> arguments.LoadedModel:
    """Return the model to compile, whose layers can be looked into."""
    if arguments.is_compiled_file(args.model):
        raise PatcError("expected a model to compile together with --check-finite, got a compiled one", args.model)
    loaded = arguments.load_model(args)
    if loaded.shapes or args.dynamic_batch:
        found = "--dynamic-batch" if args.dynamic_batch else "several shapes"
        raise PatcError(f"expected one shape of each input together with --check-finite, got {found}", args.model)
    return loaded


def _check_finite(
    args: argparse.Namespace, loaded: arguments.LoadedModel, compiled: CompiledModel, arrays: list[np.ndarray]
) -> int:
    """Say what is not finite, and return the exit status."""
    import numpy as np

    from patc.context import make_context
    from patc.debugging.finite import check_finite
    from patc.options import make_options
    from patc.sources import import_source

    source = import_source(loaded.model, loaded.example_inputs, make_context())
    options = make_options(args.target, compiled.program.threads, args.dtype or "f32")
    found = check_finite(source, options, [np.asarray(array) for array in arrays])
    print("\n".join(found) or "all layers are finite")
    return int(bool(found))


def _arrange(compiled: CompiledModel, arrays: list[np.ndarray], named: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Return the inputs in the model's order; random ones where none are given."""
    if named:
        return compiled.in_order(arrays, named)
    if not arrays:
        print("no --input: running on random numbers (seed 0)")
        return list(compiled.random_inputs())
    return arrays


def _outputs(compiled: CompiledModel, arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    import numpy as np

    return {name: np.asarray(value) for name, value in _leaves(compiled(*arrays), "output")}


def _run_pictures(compiled: CompiledModel, paths: list[str]) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """Return the last input, and the outputs of all pictures, one after the other."""
    import numpy as np

    from patc.tools.images import picture_batches

    found: dict[str, list[np.ndarray]] = {}
    arrays: list[np.ndarray] = []
    for group, array in picture_batches(paths, compiled):
        arrays = [array]
        for name, value in _outputs(compiled, arrays).items():
            is_batch = value.ndim > 0 and len(value) == len(array)
            found.setdefault(name, []).append(value[: len(group)].copy() if is_batch else value.copy())
    return arrays, {name: np.concatenate(parts) if parts[0].ndim else parts[-1] for name, parts in found.items()}


def open_model(args: argparse.Namespace, loaded: arguments.LoadedModel | None = None) -> CompiledModel:
    """Return the compiled model that MODEL names: loaded from its file, or compiled.

    Args:
        loaded: the model to compile, where it was read before.

    Raises:
        PatcError: there is no such file or model, or an option of compilation comes with a compiled file.
    """
    from patc.backends.registry import find_backend
    from patc.loading import load

    device, key = getattr(args, "device", None), getattr(args, "key", None)  # only `patc run` has them
    if not arguments.is_compiled_file(args.model):
        if key is not None:
            raise PatcError("expected a file of patc compile together with --key, got a model to compile", args.model)
        from patc.tools.compile import compile_arguments

        compiled = compile_arguments(args, loaded=loaded)
        program = compiled.program
        return compiled if device is None else find_backend(program.backend).load(program, compiled.diagnostics, device)
    arguments.refuse_compilation(args)
    return load(args.model, device, key)


def _print_profile(compiled: CompiledModel, arrays: list[np.ndarray]) -> None:
    """Print the time of each layer, and what the machine takes beside computing them."""
    from patc.tools.console import describe_kept, describe_op, make_console, make_table

    times = compiled.profile(*arrays)
    table = make_table(("layer", "computes", "algorithm", "kept weights", "time", "share"), 3)
    total = sum(item.seconds for item in times)
    for item in times:
        layer = item.layer
        words = (layer.name, describe_op(layer), layer.algorithm, describe_kept(layer))
        table.add_row(*words, describe_seconds(item.seconds), f"{item.seconds / total:.0%}" if total else "")
    console = make_console()
    console.print(table)
    generic = sum(item.seconds for item in times if item.layer.op == "generic")
    part = f", of which {describe_seconds(generic)} ({generic / total:.0%}) as any linalg is" if generic else ""
    console.print(f"layers: {describe_seconds(total)}{part}", markup=False)
    if overhead := compiled.describe_overhead():
        console.print(overhead, markup=False, soft_wrap=True)


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the arrays of nested outputs with their names, as in `output.logits`; those of bfloat16, of which numpy has
    neither files nor statistics, as float32."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _leaves(part, f"{name}.{key}")
    elif isinstance(value, (tuple, list)):
        for place, part in enumerate(value):
            yield from _leaves(part, f"{name}.{place}")
    elif hasattr(value, "shape"):
        yield name, value.astype("float32") if value.dtype.name == BFLOAT16 else value


def _save(path: str, outputs: dict[str, np.ndarray]) -> None:
    import numpy as np

    from patc.files import atomic_write, is_stream

    stream = io.BytesIO()
    if Path(path).suffix == ".npz" or (len(outputs) > 1 and is_stream(path)):
        np.savez(stream, **outputs)  # type: ignore[arg-type] # the keys are no other arguments
    elif len(outputs) == 1:
        np.save(stream, next(iter(outputs.values())))
    else:
        raise PatcError(f"expected a .npz file for the {len(outputs)} outputs of this model", path)
    atomic_write(path, stream.getvalue())
    print(f"{path}: " + ", ".join(f"{name} {list(array.shape)} {array.dtype}" for name, array in outputs.items()))


def _print_output(name: str, output: np.ndarray, pictures: Sequence[str], labels: Labels | None) -> None:
    """Print the largest scores of a batch of scores, and in words what else there is."""
    if output.ndim != 2 or output.dtype.kind != "f":
        low, high, mean = (f"{value:.4g}" for value in (output.min(), output.max(), output.mean()))
        print(f"{name} {list(output.shape)}: from {low} to {high}, mean {mean}")
        return
    if labels is not None:
        labels.check(output.shape[1])
    rows = output if pictures else output[:SHOWN_ROWS]
    for place, (scores, chances) in enumerate(zip(rows, probabilities(rows), strict=True)):
        one_of_many = f", image {place}" if len(output) > 1 else ""
        image = f", {pictures[place]}" if len(pictures) == len(output) else one_of_many
        print(f"{name}{image}: largest of {len(scores)}")
        for index in scores.argsort(kind="stable")[::-1][:SHOWN_SCORES]:
            label = f"  {labels.names[index]}" if labels is not None else ""
            print(f"{index:8d} {scores[index]:12.6f} {chances[index]:8.2%}{label}")
    if len(output) > len(rows):
        print(f"{len(output) - len(rows)} more images")
