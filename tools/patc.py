"""`patc`: compile, run, prune and inspect models. Each sub-command is in the file of its name."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # as typing's, which takes longer to load than all that comes before the guard
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

COMMANDS = (
    "demo",
    "compile",
    "run",
    "accuracy",
    "upscale",
    "report",
    "prune",
    "quantize",
    "search",
    "bench",
    "debug",
    "calibrate",
    "devices",
    "doctor",
    "sign",
    "verify",
)

SHELLS = ("bash", "zsh", "tcsh")

_EPILOG = """\
examples:
  patc demo                                            see what patc does, on this machine
  patc compile resnet18 --compression 8 -o net.patc    prune and compile a network
  patc run net.patc --image cat.jpg                    run it
  eval "$(patc --print-completion bash)"               complete commands and options with the tab key
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit status; every error is one line on standard error."""
    try:
        from patc.tools import guard

        return guard.main("patc", _dispatch, argv)
    except KeyboardInterrupt:  # before the guard stands
        return 130


def describe_version() -> str:
    """Return the versions of patc and of what decides about the code that it makes."""
    from patc.versions import versions

    names = ("torch", "torch-mlir", "llvmlite", "numpy")
    found = versions(names)
    packages = [f"{name} {found[name]}" if name in found else f"no {name}" for name in names]
    return f"patc {found['patc']} (Python {found['python']}, {', '.join(packages)})"


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line, with every sub-command."""
    import argparse
    import importlib

    from patc.tools.arguments import Parser

    parser = Parser(
        prog="patc",
        description="Compile pattern-pruned convolutional networks to fast native code.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the versions of patc and of what it is built on")
    parser.add_argument(
        "--print-completion", metavar="SHELL", choices=SHELLS, help=f"print completions for {' or '.join(SHELLS)}"
    )
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for name in COMMANDS:
        command = importlib.import_module(f"patc.tools.{name}")
        command.add_parser(subparsers).set_defaults(run=command.run)
    return parser


def _dispatch(argv: Sequence[str]) -> int:
    import contextlib

    from patc.files import is_standard_output
    from patc.tools import guard

    parser = make_parser()
    arguments = parser.parse_args(argv)
    if arguments.version:
        print(describe_version())
        return 0
    if arguments.print_completion is not None:
        print(_completion(parser, arguments.print_completion))
        return 0
    if arguments.command is None:
        parser.print_help()
        return 0
    guard.note(f"patc {arguments.command}")
    outputs = [getattr(arguments, name, None) for name in ("output", "json")]
    paths = [path for given in outputs for path in (given if isinstance(given, list) else [given])]
    to_stdout = any(path is not None and is_standard_output(path) for path in paths)
    # Nothing may mix with the data.
    with contextlib.redirect_stdout(sys.stderr) if to_stdout else contextlib.nullcontext():
        status: int = arguments.run(arguments)
        if status == 0:
            _name_random_weights(arguments)
    return status


def _completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return a script that completes commands, options, and names of files and networks in a shell."""
    import shtab

    from patc.tools.arguments import MODEL_NAMES

    models = f"{{ compgen -W '{' '.join(MODEL_NAMES)}' -- $1; compgen -f -- $1; }}"
    model = {**shtab.FILE, "bash": "_patc_model"}
    found = [parser]
    while found:
        for action in found.pop()._actions:
            if isinstance(action.choices, dict):
                found += action.choices.values()
                continue
            words = str(action.metavar or "")
            if words.startswith("MODEL"):
                action.complete = model  # type: ignore[attr-defined] # read by shtab
            elif words.startswith(("FILE", "DIR")):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    preamble = {"bash": f"_patc_model() {models}\n"}
    script: str = shtab.complete(parser, shell, preamble=preamble)  # type: ignore[arg-type] # it takes one for each shell
    return script


def _name_random_weights(arguments: argparse.Namespace) -> None:
    """Say that a network of `patc.models` was not trained, unless it is to be quiet or was trained just now."""
    from patc.tools.arguments import MODEL_NAMES

    given = vars(arguments)
    is_trained = given.get("weights") is not None or given.get("data") is not None
    if given.get("model") in MODEL_NAMES and not is_trained and not given.get("quiet"):
        print(f"the weights of {given['model']} are random ones: --weights FILE takes trained ones")


if __name__ == "__main__":
    sys.exit(main())
