"""What `patc-opt` does: run passes on MLIR text, with the flags of `mlir-opt`."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from patc.diagnostics import Diagnostic, PatcError, nearest
from patc.instruments import Instrument
from patc.passes.registry import PASS_NAMES, find_pass, is_pass, known_passes
from patc.tools import guard
from patc.tools.arguments import SHAPE_HELP, ir_folder, named_shape

if TYPE_CHECKING:  # `--help` must not load MLIR
    from torch_mlir import ir

    from patc.parameters import ParameterStore
    from patc.passes.base import Option, Pass
    from patc.pipeline import Pipeline
    from patc.upstream import UpstreamPass


def _size(text: str) -> int:
    if not text.isdecimal() or len(text) > 18:
        raise argparse.ArgumentTypeError(f"expected a number of elements, got '{text[:40]}'")
    return int(text)


_SWITCH = {"action": "store_true"}
_OPTIONS: dict[str, dict[str, Any]] = {
    "-o": {
        "metavar": "FILE",
        "dest": "output",
        "help": "write here, and parameters to a .safetensors beside it",
    },
    "--pass-pipeline": {"metavar": "TEXT", "help": "what to run, as in 'builtin.module(pattern-raise,cse)'"},
    "--split-input-file": _SWITCH | {"help": "process the parts between // ----- lines one by one"},
    "--verify-diagnostics": _SWITCH | {"help": "require what expected-error comments say"},
    "--load": {
        "metavar": "FILE.py",
        "action": "append",
        "default": [],
        "help": "run this code first, and know the passes, layers and weight formats that it defines",
    },
    "--list-passes": _SWITCH | {"help": "print the passes of patc and of plugins, and their options, and exit"},
    "--mlir-print-ir-after-all": _SWITCH | {"help": "print the module after each pass"},
    "--mlir-print-ir-after": {
        "metavar": "PASS",
        "action": "append",
        "default": [],
        "help": "print the module after this pass",
    },
    "--save-ir": {
        "metavar": "DIR",
        "type": ir_folder,
        "help": "write the module after each pass into a folder, without weights",
    },
    "--mlir-timing": _SWITCH | {"help": "print how long each pass took"},
    "--mlir-elide-elementsattrs-if-larger": {
        "metavar": "N",
        "type": _size,
        "dest": "elide",
        "help": "print constants of more than N elements without their values",
    },
    "--shape": {
        "metavar": "NAME=SIZES",
        "action": "append",
        "type": named_shape,
        "help": SHAPE_HELP,
    },
    "--mlir-print-debuginfo": _SWITCH | {"help": "print locations"},
}

_EPILOG = f"""\
Each --<pass>[="option=value ..."] adds a pass, in the order of the flags. patc's own, in pipeline order:

{textwrap.indent(textwrap.fill(", ".join(PASS_NAMES), 100, break_on_hyphens=False), "  ")}

--list-passes says what they do. Every pass and pipeline of MLIR and torch-mlir is known too.
"""


def run(argv: Sequence[str]) -> int:
    """Run the tool and return its exit status; errors of the input are one line on standard error."""
    try:
        return _run(argv)
    except PatcError as error:
        _report([Diagnostic("error", error.message, error.location)])
        return 1


class _ArgumentParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise PatcError(message)


def _run(argv: Sequence[str]) -> int:
    words, flags = _separate_flags(argv)
    arguments = _make_parser().parse_args(words)
    if arguments.output is not None:
        from patc.files import STANDARD_OUTPUT, check_file

        arguments.output = STANDARD_OUTPUT if arguments.output == "-" else arguments.output
        check_file(arguments.output)
    for file in arguments.load:
        from patc.plugins import load_file

        guard.note(f"loading {file}")
        load_file(file)
    if arguments.list_passes:
        sys.stdout.write("\n".join(map(_describe_pass, known_passes())))
        return 0
    return _transform(arguments, _make_pipeline(arguments.pass_pipeline, flags))


def _make_parser() -> argparse.ArgumentParser:
    parser = _ArgumentParser(
        prog="patc-opt",
        usage="patc-opt [options] [--<pass>[=options]]... [FILE]",
        description="Run passes on MLIR text and print the result.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "file", metavar="FILE", nargs="?", default="-", help="MLIR text, - for standard input; or an .onnx file"
    )
    for name, settings in _OPTIONS.items():
        parser.add_argument(name, **settings)
    return parser


def _separate_flags(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the arguments for argparse, and the pass flags without their dashes.

    A long flag may have one dash, as in LLVM's tools.
    """
    words: list[str] = []
    flags: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if len(word) > 2 and word.startswith("-"):
            word = "--" + word.lstrip("-")
        name, has_value, _ = word.partition("=")
        if word == "-" or not word.startswith("-") or name in ("-h", "--help"):
            words.append(word)
        elif name not in _OPTIONS:
            flags.append(word.lstrip("-"))
        elif has_value or _OPTIONS[name].get("action") == "store_true" or not rest:
            words.append(word)
        else:
            # Joined, so that argparse takes a value such as "-" for nothing else.
            words.append(f"{word}={rest.pop(0)}")
    return words, flags


def _describe_pass(name: str) -> str:
    """Return what there is to say of a pass; of one that cannot be loaded, why: it leaves the others readable."""
    try:
        kind = find_pass(name)
    except PatcError as error:
        return f"{name}\n    {error}\n"
    lines = [kind.name, f"    {kind.summary()}"]
    lines += [f"    {option.name}: {_describe_option(option)}" for option in kind.options()]
    return "\n".join(lines) + "\n"


def _describe_option(option: Option) -> str:
    default = "" if option.default in (None, "") else f", {option.print(option.default)} by default"
    return f"{option.help or 'undocumented'} ({option.rule}{default})"


def _make_pipeline(text: str | None, flags: Sequence[str]) -> Pipeline:
    from patc.native_stderr import native_stderr
    from patc.pipeline import Pipeline

    if text is not None and flags:
        raise PatcError(f"expected either --pass-pipeline or passes as flags, got both (--{flags[0]})")
    with native_stderr() as printed:
        try:
            return Pipeline(map(_flag_pass, flags)) if text is None else Pipeline.parse(text)
        except PatcError as error:
            failure = error
    reason = " ".join("".join(printed).split()).removeprefix(": ")
    raise PatcError(f"{failure.message} ({reason})" if reason else failure.message, failure.location)


def _flag_pass(flag: str) -> Pass | UpstreamPass:
    from patc.upstream import COMMON_PASSES, UpstreamPass

    name, _, options = flag.partition("=")
    if is_pass(name):
        return find_pass(name).from_text(options)
    upstream = UpstreamPass(name, " ".join(options.split())).nested()
    upstream.check([*known_passes(), *COMMON_PASSES, *(option.lstrip("-") for option in _OPTIONS)])
    return upstream


@dataclass(frozen=True)
class _Watch(Instrument):
    """Lets the guard know what runs, and prints what a pass printed before the next one prints."""

    file: str

    def before(self, name: str, index: int, total: int) -> None:
        guard.note(f"pass '{name}' on {self.file}")

    def after(self, name: str, module: Any, seconds: float) -> None:
        guard.relay_noise()


@dataclass
class _Part:
    """One module of the input on its way through the passes.

    Attributes:
        text: its text; None for a file that the bindings read themselves.
        first_line: the line of the file where the text starts.
        module: None after an error.
        store: its parameters.
        made: the names of those that the passes made.
    """

    text: str | None
    first_line: int = 1
    diagnostics: list[Diagnostic] = field(default_factory=list)
    module: ir.Module | None = None
    store: ParameterStore | None = None
    made: set[str] = field(default_factory=set)


def _transform(arguments: argparse.Namespace, pipeline: Pipeline) -> int:
    from patc.context import make_context
    from patc.instruments import Timing

    context = make_context()
    timing = Timing()
    instruments = [timing, _Watch(arguments.file), *_ir_printers(arguments, pipeline)]
    parts = _read_parts(arguments)
    for part in parts:
        _run_part(part, arguments, pipeline, context, instruments)
    if arguments.mlir_timing:
        sys.stderr.write(timing.report())
    check = _unexpected if arguments.verify_diagnostics else _reported
    diagnostics = [diagnostic for part in parts for diagnostic in check(part)]
    _report(diagnostics, "<stdin>" if arguments.file == "-" else arguments.file)
    if any(diagnostic.severity == "error" for diagnostic in diagnostics):
        return 1
    _write(parts, arguments.output, _print_options(arguments))
    return 0


def _print_options(arguments: argparse.Namespace) -> dict[str, Any]:
    return {"large_elements_limit": arguments.elide, "enable_debug_info": arguments.mlir_print_debuginfo}


def _ir_printers(arguments: argparse.Namespace, pipeline: Pipeline) -> list[Instrument]:
    from patc.instruments import PrintAfter, SaveIr

    names, run = arguments.mlir_print_ir_after, [item.name for item in pipeline.passes]
    for name in names:
        if name not in run:
            raise PatcError(f"expected a pass that runs to print after, got '{name}'{nearest(name, run)}")
    if arguments.mlir_print_ir_after_all:
        names = run
    return [PrintAfter(sys.stderr, names, _print_options(arguments)), *SaveIr.into(arguments.save_ir)]


def _read_parts(arguments: argparse.Namespace) -> list[_Part]:
    from patc.mlir_files import read_text, split_text

    if arguments.file == "-":
        text = _read_stdin()
    elif (arguments.split_input_file or arguments.verify_diagnostics) and not _is_onnx(arguments):
        text = read_text(arguments.file)
    else:
        return [_Part(None)]
    texts = split_text(text) if arguments.split_input_file else [(1, text)]
    return [_Part(text, first_line) for first_line, text in texts]


def _is_onnx(arguments: argparse.Namespace) -> bool:
    return Path(arguments.file).suffix.lower() == ".onnx"


def _read_stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode(errors="replace")
    except OSError as error:
        raise PatcError(f"cannot read standard input: {error.strerror or error}") from None


def _run_part(
    part: _Part,
    arguments: argparse.Namespace,
    pipeline: Pipeline,
    context: ir.Context,
    instruments: Sequence[Instrument],
) -> None:
    """Read a part and run the passes on it; what goes wrong ends up in its diagnostics."""
    file = arguments.file
    from patc.ir_diagnostics import IRError, collecting
    from patc.mlir_files import parse_module, read_module
    from patc.passes.base import PassState

    guard.note(f"reading {file}")
    try:
        with collecting(context, part.diagnostics):
            if _is_onnx(arguments):
                from patc.sources import import_source

                source = import_source(file, dict(arguments.shape or ()) or None, context)
                module, store = source.module, source.parameters
            elif part.text is None:
                module, store = read_module(file, context)
            else:
                module, store = parse_module(part.text, context, part.first_line, Path(file).parent)
        given = set(store)
        state = pipeline.run(module, PassState(store, part.diagnostics), instruments)
        part.module, part.store, part.made = module, state.parameters, set(state.parameters) - given
    except IRError as error:
        part.diagnostics += error.diagnostics
    except PatcError as error:
        part.diagnostics.append(Diagnostic("error", error.message, error.location))


def _reported(part: _Part) -> list[Diagnostic]:
    return part.diagnostics


def _unexpected(part: _Part) -> list[Diagnostic]:
    from patc.expected_diagnostics import check_diagnostics, read_expectations
    from patc.mlir_files import TEXT_NAME

    expectations = read_expectations(part.text or "", part.first_line)
    return check_diagnostics(expectations, part.diagnostics, TEXT_NAME)


def _report(diagnostics: Sequence[Diagnostic], file: str = "-") -> None:
    for diagnostic in diagnostics:
        line = str(diagnostic)
        if line.startswith(f"{diagnostic.severity}:"):
            line = f"patc-opt: {line}"
        # The bindings know a text that is not a whole file as "-".
        print(file + line[1:] if line.startswith("-:") else line.replace("(-:", f"({file}:"), file=sys.stderr)


def _write(parts: Sequence[_Part], output: str | None, print_options: dict[str, Any]) -> None:
    from patc.mlir_files import print_modules, used_parameters, write_modules

    guard.note("writing the result")
    done = [(part.module, part.store) for part in parts if part.module is not None and part.store is not None]
    if output is not None:
        lost = write_modules(done, output, **print_options)
    else:
        _print(print_modules([module for module, _ in done], **print_options))
        lost = [name for module, store in done for name in used_parameters(module, store)]
    made = {name for part in parts for name in part.made}
    count = sum(name in made for name in lost)
    if count:
        _report([Diagnostic("remark", f"{count} new parameters were not written; -o FILE writes them")])


def _print(text: str) -> None:
    try:
        # Not as text, whose encoding the environment chooses.
        sys.stdout.buffer.write(text.encode())
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise PatcError(f"cannot write to standard output: {error.strerror or error}") from None
