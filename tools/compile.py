"""`patc compile`: from a model to a file that runs without torch, a library for C, or the IR of a stage."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patc.diagnostics import Diagnostic, PatcError, nearest
from patc.tools import arguments

if TYPE_CHECKING:
    from patc.compiler import Report
    from patc.library import Library
    from patc.runtime.model import CompiledModel
    from patc.runtime.program import Program

MLIR_PREFIX = "mlir@"
MOST_REPEATED = 3  # layers of which the same is said one by one
WEIGHTS_PLACES = ("embed", "file")

_DESCRIPTION = """\
Compile MODEL to OUT, a file that `patc run` and `patc.load` read without torch, or to a library with a C header.
Convolutions whose zeros follow patterns are computed from their kept weights alone; the others stay dense, and a remark
says why.
"""
_EPILOG = """\
examples:
  patc compile resnet18 --compression 8 -o resnet18.patc
  patc compile resnet18 --compression 8 --tune measure -o resnet18.patc        time schedules on this machine
  patc compile model.pt2 --threads 1 -o model.patc
  patc compile resnet18 --compression 8 --target aarch64-android -o out/       out/libresnet18.so, out/resnet18.h
  patc compile resnet18 --target x86-64-v3 --emit so -o out/                   the same for a server
  patc compile resnet18 --target aarch64-linux --cpu cortex-a55 --emit obj -o resnet18.o
  patc compile resnet18 --compression 8 --target spirv-vulkan -o resnet18.patc for any Vulkan device
  patc compile resnet18 --target spirv-vulkan --emit spirv -o out/             out/manifest.json says how to run it
  patc compile resnet18 --compression 8 --emit mlir@encode -o resnet18.mlir    stop after pattern-encode
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the sub-command to what `ArgumentParser.add_subparsers` returned."""
    parser = arguments.add_command(
        subparsers, "compile", "compile a model to a file or a library", _DESCRIPTION, _EPILOG
    )
    arguments.add_model(parser, weights=False)
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        required=True,
        type=arguments.output_path,
        help="file to write, - for standard output; --emit so, spirv: folder",
    )
    parser.add_argument(
        "--emit",
        metavar="FORMAT",
        help="patc (default), mlir@STAGE for the IR: linalg, fold-batch-norm, raise, encode, ...; for CPUs so (default "
        "of aarch64 targets unless OUT ends in .patc), obj, asm or llvm; for spirv-vulkan also spirv: modules and a "
        "manifest",
    )
    parser.add_argument(
        "--weights",
        metavar="FILE|WHERE",
        action="append",
        help=f"{arguments.WEIGHTS_HELP}; or where a library has its weights: embed, or file beside it (embed). "
        "May be given once for each",
    )
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    arguments.add_pruning(parser)
    arguments.add_compilation(parser, cpu=True)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the sub-command and return its exit status.

    Raises:
        PatcError: an argument is wrong, or the model cannot be compiled or written.
    """
    args.target = arguments.choose_cpu(args.target, args.cpu)
    args.emit = args.emit or _default_format(args.target, args.output)
    arguments.check_threads(args.threads)
    args.weights, place = _split_weights(args.weights)
    write = _find_writer(args.emit)
    if place is not None and write is not _emit_library:
        raise PatcError(f"expected --emit so or obj together with --weights {place}, got {args.emit}")
    if args.dynamic_batch and (write is _emit_spirv or args.emit.startswith(MLIR_PREFIX)):
        raise PatcError(f"expected --emit patc, so, obj, asm or llvm together with --dynamic-batch, got {args.emit}")
    if args.streaming and (write is _emit_spirv or args.emit.startswith(MLIR_PREFIX)):
        raise PatcError(f"expected --emit patc, so, obj, asm or llvm together with --streaming, got {args.emit}")
    if args.zeros is not None and args.emit.startswith(MLIR_PREFIX):
        raise PatcError(f"expected --emit patc, so, obj, asm, llvm or spirv together with --zeros, got {args.emit}")
    if write is not None:
        _check_target(args)
        write(args, place)
        return 0
    arguments.check_output(args.output)
    arguments.check_not_input(args.output, args.model)
    _check_name(args.output, ".patc" if args.emit == "patc" else ".mlir")
    if args.emit.startswith(MLIR_PREFIX):
        _emit_mlir(args)
        return 0
    start = time.perf_counter()
    compiled = compile_arguments(args, quiet=args.quiet)
    compiled.save(args.output)
    if not args.quiet:
        _print_summary(args.output, compiled, time.perf_counter() - start)
    return 0


def compile_arguments(
    args: argparse.Namespace, quiet: bool = False, loaded: arguments.LoadedModel | None = None
) -> CompiledModel:
    """Compile the model that the arguments describe, with progress on a terminal.

    Args:
        loaded: the model, where it was read before.
    """
    arguments.check_options(args.target, args.dtype or "f32", args.tune or "cost")
    is_read = loaded is not None and not isinstance(loaded.model, Path)
    key = None if is_read else cache_key(args)
    if key is None and _keeps(args):
        loaded = loaded or arguments.load_model(args)
        key = _content_key(args, loaded, quiet)
    return kept(key, lambda: compile_loaded(args, quiet, loaded))


def kept(key: str | None, make: Callable[[], CompiledModel]) -> CompiledModel:
    """Return the model that the cache has for a key, or what `make` returns, which it then has; None is never kept."""
    if key is None:
        return make()
    from patc.code_cache import CodeCache

    cache = CodeCache()
    found = cache.load(key)
    if found is None:
        with cache.storing(key) as made:
            found = make()
            made.append(found)
    return found


def compile_loaded(
    args: argparse.Namespace, quiet: bool = False, loaded: arguments.LoadedModel | None = None
) -> CompiledModel:
    """Compile a model, or the one that the arguments describe, whatever the cache has."""
    from patc.compiler import compile_model
    from patc.tools.console import compilation_progress
    from patc.tools.samples import find_samples

    with compilation_progress(quiet) as report:
        loaded = loaded or arguments.load_model(args)
        return compile_model(
            loaded.model,
            loaded.example_inputs,
            target=args.target,
            threads=args.threads,
            tune=args.tune or "cost",
            dtype=args.dtype or "f32",
            dynamic_batch=args.dynamic_batch,
            streaming=args.streaming,
            shapes=loaded.shapes,
            zeros=None if args.zeros is None else find_samples(args.zeros),
            report=report,
            save_ir=args.save_ir,
        )


def cache_key(args: argparse.Namespace, **others: Any) -> str | None:
    """Return the key of the cache for what is to be compiled; None where nothing is to be kept, and for what code
    builds, which may read anything.

    Args:
        others: what else decides about it.
    """
    is_named = args.model in arguments.MODEL_NAMES
    if not _keeps(args) or not (is_named or os.path.isfile(args.model)):
        return None
    model = args.model if is_named else os.path.abspath(args.model)
    return _make_key(args, (*arguments.DECIDING, "trust_pickle"), model=model, **others)


def _keeps(args: argparse.Namespace) -> bool:
    """Return whether what is compiled may come from the cache, and go there."""
    from patc.code_cache import is_disabled

    return not args.no_cache and args.zeros is None and args.save_ir is None and not is_disabled()


def _content_key(args: argparse.Namespace, loaded: arguments.LoadedModel, quiet: bool) -> str:
    """Return the key of the cache for a model in memory, by what torch traces of it."""
    from patc.compiler import digest_model
    from patc.tools.console import compilation_progress

    with compilation_progress(quiet) as report:
        report("import", 0, 1)
        digest = digest_model(
            loaded.model,
            loaded.example_inputs,
            dynamic_batch=args.dynamic_batch,
            streaming=args.streaming,
            shapes=loaded.shapes,
        )
    return _make_key(args, arguments.COMPILATION, content=digest)


def _make_key(args: argparse.Namespace, names: Sequence[str], **others: Any) -> str:
    from patc.backends.host import available_threads
    from patc.code_cache import make_key
    from patc.targets import get_target

    given = {name: getattr(args, name) for name in names}
    return make_key({**given, **others, "target": get_target(args.target), "cores": available_threads()})


def _default_format(target: str, output: str) -> str:
    """Return what the target's backend writes, unless the file's name says otherwise."""
    from patc.backends.registry import find_backend
    from patc.targets import get_target

    return "patc" if Path(output).suffix == ".patc" else find_backend(get_target(target).backend).default_format


def _check_name(output: str, expected: str) -> None:
    """Refuse the name of a file of another kind, which would hold what nobody looks for in it.

    Raises:
        PatcError: the name ends as those of files do that are something else.
    """
    suffix = Path(output).suffix.lower()
    if suffix in _FOREIGN and suffix != expected:
        raise PatcError(f"expected a file named {expected}, got '{suffix}'; --emit says what to write", output)


def _find_writer(name: str) -> Callable[[argparse.Namespace, str | None], None] | None:
    """Return what writes a format; None for compiled files and MLIR."""
    if name == "patc" or name.startswith(MLIR_PREFIX):
        return None
    if name not in _WRITERS:
        known = ("patc", *_WRITERS)
        expected = f"expected --emit to be {', '.join(known)} or mlir@STAGE"
        raise PatcError(f"{expected}, got '{name}'{nearest(name, (*known, f'{MLIR_PREFIX}encode'))}")
    return _WRITERS[name]


def _check_target(args: argparse.Namespace) -> None:
    """Refuse a target whose backend does not write the format."""
    from patc.options import require_emits
    from patc.targets import get_target

    require_emits(get_target(args.target), args.emit, f"together with --emit {args.emit}")


def _split_weights(given: Sequence[str] | None) -> tuple[str | None, str | None]:
    """Return what --weights says: the file of a state dict, and the place of a library's weights."""
    places = [word for word in given or () if word in WEIGHTS_PLACES]
    files = [word for word in given or () if word not in WEIGHTS_PLACES]
    for words, what in ((files, "state dict"), (places, "place (embed or file)")):
        if len(words) > 1:
            raise PatcError(f"expected --weights with one {what}, got {' and '.join(words)}")
    return next(iter(files), None), next(iter(places), None)


def _emit_library(args: argparse.Namespace, place: str | None) -> None:
    """Write a shared library, an object file or text, as --emit says."""
    from patc.codegen.link import find_linker
    from patc.files import atomic_write
    from patc.targets import get_target
    from patc.tools.console import compilation_progress
    from patc.tools.samples import find_samples

    start = time.perf_counter()
    tune, dtype = args.tune or "cost", args.dtype or "f32"
    arguments.check_options(args.target, dtype, tune)
    check_library_output(args, place)
    if args.emit == "so":
        find_linker(get_target(args.target).architecture)
    # Text holds no weights: its code takes them from a file.
    is_text = args.emit in ("asm", "llvm")
    if is_text and place == "embed":
        raise PatcError(f"expected --weights file together with --emit {args.emit}, which is text, got embed")
    with compilation_progress(args.quiet) as report:
        loaded = arguments.load_model(args)
        library = build_library(
            args,
            loaded,
            report,
            tune=tune,
            dtype=dtype,
            weights="file" if is_text else place or "embed",
            dynamic_batch=args.dynamic_batch,
            streaming=args.streaming,
            shapes=loaded.shapes,
            zeros=None if args.zeros is None else find_samples(args.zeros),
        )
    if is_text:
        atomic_write(args.output, library.assembly() if args.emit == "asm" else library.llvm_ir())
        files = [Path(args.output)]
    else:
        files = library.write(args.output) if args.emit == "so" else library.write_object(args.output)
    if not args.quiet:
        _print_library(files, library, time.perf_counter() - start)


def build_library(
    args: argparse.Namespace, loaded: arguments.LoadedModel, report: Report | None, **options: Any
) -> Library:
    """Return the library of a model that was loaded, for the target and the threads of the command; for `options` see
    `compile_library`."""
    from patc.library import compile_library

    return compile_library(
        loaded.model,
        loaded.example_inputs,
        name=Path(loaded.name).stem,
        target=args.target,
        threads=args.threads or 1,
        report=report,
        save_ir=args.save_ir,
        **options,
    )


def check_library_output(args: argparse.Namespace, place: str | None) -> None:
    """Refuse what the files of a library could not be written to, before anything takes time."""
    from patc.codegen.c_interface import c_identifier
    from patc.files import is_stream
    from patc.library import require_object_name

    name = c_identifier(Path(args.model).stem)
    beside = [f"{name}.h", *([f"{name}.weights"] if place == "file" else [])]
    if args.emit == "so":
        arguments.check_library_folder(args.output, [f"lib{name}.so", *beside])
        return
    arguments.check_output(args.output)
    if args.emit == "obj":
        require_object_name(args.output)
        if is_stream(args.output):
            raise PatcError("expected a file that a header can lie beside, got a device or pipe", args.output)
        for file in beside:
            arguments.check_output(str(Path(args.output).with_name(file)))


def _emit_spirv(args: argparse.Namespace, place: str | None) -> None:
    """Write SPIR-V modules, weights and the manifest to a folder."""
    from patc.files import check_folder
    from patc.spirv_files import MANIFEST, WEIGHTS, write_spirv

    check_folder(args.output, [MANIFEST, WEIGHTS])
    start = time.perf_counter()
    compiled = compile_arguments(args, quiet=args.quiet)
    files = write_spirv(compiled.program, args.output)
    if not args.quiet:
        print_diagnostics(compiled.diagnostics)
        _print_line(files[-2:], compiled.program, f"{len(files) - 2} kernels", time.perf_counter() - start)


def _emit_mlir(args: argparse.Namespace) -> None:
    from patc.backends.registry import find_backend
    from patc.compiler import find_measure, lower_model
    from patc.files import is_stream
    from patc.instruments import SaveIr
    from patc.mlir_files import sidecar_path, write_module
    from patc.options import make_options
    from patc.tools.console import plural

    if not is_stream(args.output):
        arguments.check_output(str(sidecar_path(args.output)))
    stage = args.emit.removeprefix(MLIR_PREFIX)
    options = make_options(args.target, args.threads, args.dtype or "f32", args.tune or "cost")
    pipeline = find_backend(options.target.backend).pipeline(options).until(stage)
    loaded = arguments.load_model(args)
    if loaded.shapes:
        raise PatcError(f"expected --shape once for each input together with --emit {args.emit}, got several")
    instruments = SaveIr.into(args.save_ir)
    module, state = lower_model(loaded.model, loaded.example_inputs, pipeline, find_measure(options), instruments)
    lost = write_module(module, state.parameters, args.output)
    if not args.quiet:
        print_diagnostics(state.diagnostics)
        if lost:
            were, them = ("was", "it") if len(lost) == 1 else ("were", "them")
            print(f"remark: {plural(len(lost), 'parameter')} {were} not written; -o FILE writes {them}")


def print_diagnostics(diagnostics: Sequence[Diagnostic]) -> None:
    """Print each line once, as the parts of a transposed convolution say the same, and what is said of many layers with
    the first of them alone."""
    said: dict[str, list[str]] = {}
    for line, item in {str(item): item for item in diagnostics}.items():
        said.setdefault(f"{item.severity}: {item.message}", []).append(line)
    for lines in said.values():
        more = f" (and of {len(lines) - 1} more layers)" if len(lines) > MOST_REPEATED else ""
        print("\n".join([lines[0] + more] if more else lines))


def _print_summary(output: str, compiled: CompiledModel, seconds: float) -> None:
    from patc.tools.console import plural

    print_diagnostics(compiled.diagnostics)
    program = compiled.program
    where = f"target {program.target}, {plural(program.threads, 'thread')}"
    _print_line([Path(output)], program, where, seconds)


def _print_library(files: Sequence[Path], library: Library, seconds: float) -> None:
    from patc.tools.console import describe_bytes, plural

    print_diagnostics(library.diagnostics)
    interface = library.interface
    workspace = f"workspace {describe_bytes(interface.workspace_bytes)}"
    threads = plural(interface.threads, "thread")
    _print_line(files, library.program, f"target {interface.target}, {interface.cpu}, {threads}, {workspace}", seconds)


def _print_line(files: Sequence[Path], program: Program, where: str, seconds: float) -> None:
    """Print what was written and what it holds, in one line."""
    from patc.tools.console import describe_bytes, make_console, plural, shorten

    layers = program.layers
    dense = [layer for layer in layers if layer.weights and layer.kept_weights == layer.weights]
    weights = sum(layer.weights for layer in layers)
    kept = sum(layer.kept_weights for layer in layers)
    sizes = [path.stat().st_size for path in files if path.is_file()]
    size = f", {describe_bytes(sum(sizes))}" if sizes else ""  # a pipe has none
    shapes = f", for {len(program.entries)} shapes" if program.variants else ""
    make_console().print(
        f"{', '.join(map(str, files))}: {plural(len(layers), 'layer')} ({len(dense)} with dense weights), "
        f"{shorten(kept)} of {shorten(weights)} weights{size}{shapes}; {where}, {seconds:.1f} s",
        markup=False,
        soft_wrap=True,
    )


_FOREIGN = {
    *(*arguments.MODEL_SUFFIXES, *arguments.LIBRARY_SUFFIXES, ".patc", ".pt", ".pth", ".safetensors", ".npy", ".npz"),
    *(".tflite", ".s", ".ll", ".bc", ".c", ".cpp", ".spv", ".py", ".json", ".html", ".csv", ".txt", ".png", ".zip"),
}
# By what a backend says that it emits.
_WRITERS = {**dict.fromkeys(("so", "obj", "asm", "llvm"), _emit_library), "spirv": _emit_spirv}
