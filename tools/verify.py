"""`patc verify`: say whether a compiled model is signed with a key."""

from __future__ import annotations

import argparse
from typing import Any

from patc.tools import arguments

_DESCRIPTION = """\
Check that every byte of a compiled model is as it was signed with a key, without running any of it. Exit status 1 if it
is not signed, or with another key, or was changed.
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the sub-command to what `ArgumentParser.add_subparsers` returned."""
    parser = arguments.add_command(subparsers, "verify", "check the signature of a compiled model", _DESCRIPTION)
    parser.add_argument("file", metavar="FILE", help="a file of patc compile")
    parser.add_argument("--key", metavar="PUBKEY", required=True, help="file with the public key")
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the sub-command and return its exit status.

    Raises:
        PatcError: the model is not signed with the key, or a file cannot be read.
    """
    from patc.loading import read_parts
    from patc.runtime.signature import verify

    parts = read_parts(args.file)
    verify(parts, args.key, args.file)
    print(f"{args.file}: signed with the key of {args.key}, digest {parts.digest.hex()}")
    return 0
