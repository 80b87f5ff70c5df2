"""`patc sign`: put a signature into the file of a compiled model."""

from __future__ import annotations

import argparse
from typing import Any

from patc.diagnostics import PatcError
from patc.tools import arguments

_DESCRIPTION = """\
Sign a compiled model with an Ed25519 key, in place: patc verify, patc run --key and patc.load(path, key=...) then know
who made it. Keys are those of --make-key, of openssl genpkey -algorithm ed25519 or of ssh-keygen -t ed25519.
"""
_EPILOG = """\
examples:
  patc sign --make-key release.key             the private key; the public one is release.key.pub
  patc sign net.patc --key release.key
  patc verify net.patc --key release.key.pub
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the sub-command to what `ArgumentParser.add_subparsers` returned."""
    parser = arguments.add_command(subparsers, "sign", "sign a compiled model", _DESCRIPTION, _EPILOG)
    parser.add_argument("file", metavar="FILE", nargs="?", help="a file of patc compile")
    parser.add_argument("--key", metavar="KEY", help="file with the private key, without a passphrase")
    parser.add_argument("--make-key", metavar="KEY", help="write a new pair of keys, KEY and KEY.pub, and nothing else")
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the sub-command and return its exit status.

    Raises:
        PatcError: an argument is missing or too much, or a file cannot be read or written.
    """
    from patc.files import atomic_write
    from patc.loading import read_parts
    from patc.runtime import artefact
    from patc.runtime.signature import make_key, sign

    if args.make_key is not None:
        if args.file is not None or args.key is not None:
            raise PatcError("expected --make-key alone, got it together with FILE or --key")
        make_key(args.make_key)
        print(f"{args.make_key}: private key; {args.make_key}.pub: public key")
        return 0
    if args.file is None or args.key is None:
        raise PatcError("expected FILE and --key, or --make-key; patc sign --help says more")
    atomic_write(args.file, artefact.join(sign(read_parts(args.file), args.key)))
    print(f"{args.file}: signed with {args.key}")
    return 0
