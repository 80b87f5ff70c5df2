"""`patc` and `patc-opt` called in this process, and what they print judged."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Sequence

from outcome import Fault, Refusal, check_line, describe_exception

# Diagnostics of patc-opt, each in one line.
_DIAGNOSTIC = re.compile(r".*\b(error|remark|warning|note): ")


def call(tool: str, words: Sequence[str], file: str = "") -> str:
    """Run a tool, which must end with status 0, or with 1 and an error, and return what it printed.

    Args:
        tool: "patc" or "patc-opt".
        words: its arguments.
        file: part of the name that an error has to have; "" where something else may be the place.

    Raises:
        Refusal: it ended with an error.
        Fault: it ended in another way.
    """
    from patc.tools import patc, patc_opt

    out, err = _Stream(), _Stream()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = (patc if tool == "patc" else patc_opt).main(list(words))
    except SystemExit as end:  # --help and --version
        status = end.code if isinstance(end.code, int) else 1
    except BaseException as error:
        raise Fault(describe_exception(error), f"{tool} {words}: {error!r}") from error
    lines = err.text.splitlines()
    if status == 0:
        if tool == "patc" and lines:
            raise Fault("a warning of a command that succeeds", err.text)
        return out.text
    if status != 1:
        raise Fault(f"exit status {status}", err.text)
    is_chatty = any(word.startswith("--mlir-") for word in words)  # asked to print more than errors
    if not is_chatty and ((tool == "patc" and len(lines) != 1) or not all(map(_DIAGNOSTIC.match, lines))):
        raise Fault("an error that is not one line", err.text)
    first = next((line for line in lines if "error: " in line), "")  # none is a fault, too
    check_line(first, file)
    raise Refusal(first)


class _Stream(io.TextIOWrapper):
    """A stream of UTF-8 as a terminal is: what it cannot encode is an error on standard output."""

    def __init__(self) -> None:
        self.bytes = io.BytesIO()
        super().__init__(self.bytes, "utf-8", errors="backslashreplace", write_through=True)

    def fileno(self) -> int:
        raise io.UnsupportedOperation("fileno")

    @property
    def text(self) -> str:
        return self.bytes.getvalue().decode(errors="backslashreplace")  # -o - writes data
