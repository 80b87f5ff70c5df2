"""`patc`: compile, run, prune and inspect models. Each sub-command is in the file of its name."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from patc import __version__
from patc.diagnostics import PatcError
from patc.tools import bench, compile, demo, devices, prune, report, run, sign, verify

COMMANDS = (demo, compile, run, report, prune, bench, devices, sign, verify)

_EPILOG = """\
examples:
  patc demo                                            see what patc does, on this machine
  patc compile resnet18 --compression 8 -o net.patc    prune and compile a network
  patc run net.patc --image cat.jpg                    run it
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit status; every error is one line on standard error."""
    try:
        status = _dispatch(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return status
    except PatcError as error:
        print(f"patc: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever reads the output has seen enough; without this Python complains once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130  # 128 and the number of the signal, as shells have it


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are those of patc; sub-commands get parsers of the same class."""

    def error(self, message: str) -> NoReturn:
        raise PatcError(f"{message}; {self.prog} --help says more")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line, with every sub-command."""
    parser = _Parser(
        prog="patc",
        description="Compile pattern-pruned convolutional networks to fast native code.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"patc {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for command in COMMANDS:
        command.add_parser(subparsers).set_defaults(run=command.run)
    return parser


def _dispatch(argv: Sequence[str]) -> int:
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return 0
    status: int = arguments.run(arguments)
    return status


if __name__ == "__main__":
    sys.exit(main())
