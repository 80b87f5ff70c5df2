"""What is a fault, and what is a refusal: one line that names the file or the place."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from patc.diagnostics import PatcError

LONGEST_LINE = 20_000  # names of files and the texts of pipelines may be long
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")

# A case: JSON values that its kind draws, runs and shrinks.
Case = dict[str, Any]


class Fault(Exception):
    """What must not happen.

    Args:
        what: a short text, equal for faults of one kind: shrinking keeps it.
        detail: what a person wants to know beside it.
    """

    def __init__(self, what: str, detail: str = "") -> None:
        super().__init__(what)
        self.what, self.detail = what, detail


class Refusal(Exception):
    """An error that a user may get; its text is the line."""


def attempt(call: Callable[[], Any], file: str = "") -> Any:
    """Return what `call` returns.

    Args:
        file: part of the name that a refusal has to have; "" where a layer, an op or an option may be the place.

    Raises:
        Refusal: a proper error.
        Fault: any other exception, or an error that is not one line or does not name the file.
    """
    try:
        return call()
    except (Fault, Refusal):
        raise
    except PatcError as error:
        line = str(error)
    except BaseException as error:
        raise Fault(describe_exception(error), traceback.format_exc(limit=-8)) from error
    check_line(line, file)
    if "made invalid IR" in line:
        raise Fault("a pass made invalid IR", line)
    raise Refusal(line)


def check_line(line: str, file: str = "") -> None:
    """Require of an error that it is one line, that it can be printed, and that it has a file's name."""
    if not line.strip() or len(line.splitlines()) != 1 or _CONTROLS.search(line):
        raise Fault("an error that is not one line", line[:1000])
    if len(line) > LONGEST_LINE:
        raise Fault("an error of many pages", line[:1000])
    if file and file not in line:
        raise Fault("an error without the file's name", line)


def describe_exception(error: BaseException) -> str:
    """Return an exception's type and the innermost function of patc in its traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = [
        frame for frame in frames if "/test/fuzz/" not in frame.filename and "site-packages" not in frame.filename
    ]
    frame = next(iter(inside[::-1]), frames[-1])
    return f"{type(error).__name__} in {Path(frame.filename).stem}.{frame.name}"
