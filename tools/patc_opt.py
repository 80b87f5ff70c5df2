"""`patc-opt`: run passes on MLIR text, with the flags of `mlir-opt`. What it does is in `opt.py`."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # as typing's, which takes longer to load than all that comes before the guard
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit status; every error is one line on standard error."""
    try:
        from patc.tools import guard

        return guard.main("patc-opt", _run, argv)
    except KeyboardInterrupt:  # before the guard stands
        return 130


def _run(argv: Sequence[str]) -> int:
    from patc.tools import opt

    return opt.run(argv)


if __name__ == "__main__":
    sys.exit(main())
