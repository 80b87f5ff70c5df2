"""What MLIR reports, as patc's errors and diagnostics."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch_mlir import ir

from patc.diagnostics import Diagnostic, PatcError, Severity

_SEVERITIES: dict[Any, Severity] = {
    ir.DiagnosticSeverity.ERROR: "error",
    ir.DiagnosticSeverity.WARNING: "warning",
    ir.DiagnosticSeverity.REMARK: "remark",
    ir.DiagnosticSeverity.NOTE: "note",
}

MOST_CHARACTERS = 2000  # of a message of MLIR


class IRError(PatcError):
    """An error that MLIR reported; its message and location are those of the first one.

    Attributes:
        diagnostics: every error, each followed by its notes.
    """

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        first = self.diagnostics[0]
        super().__init__(first.message, first.location)


@contextlib.contextmanager
def mlir_errors(explain: Callable[[str], str] = str) -> Iterator[None]:
    """Turn what MLIR calls raise inside the block into an `IRError`.

    Args:
        explain: maps the first error's message to the one to report.
    """
    try:
        yield
    except ir.MLIRError as error:
        found = [item for info in error.error_diagnostics for item in flatten(info)]
        first, *rest = found or [Diagnostic("error", shorten(one_line(str(error))))]
        raise IRError([Diagnostic("error", explain(first.message), first.location), *rest]) from None


@contextlib.contextmanager
def verifier_errors(explain: Callable[[str], str] = str) -> Iterator[None]:
    """As `mlir_errors`, for calls that verify: a verifier written in Python may itself fail on some IR."""
    with mlir_errors(explain):
        try:
            yield
        except (ir.MLIRError, PatcError):
            raise
        except Exception as error:
            message = f"expected valid operands and attributes, got an op whose verifier failed ({error!r})"
            raise IRError([Diagnostic("error", explain(one_line(message)))]) from None


@contextlib.contextmanager
def collecting(context: ir.Context, sink: list[Diagnostic]) -> Iterator[None]:
    """Append the warnings and remarks that MLIR emits inside the block to `sink`."""

    def handle(diagnostic: Any) -> bool:
        sink.extend(flatten(diagnostic))
        return True

    handler = context.attach_diagnostic_handler(handle)
    try:
        yield
    finally:
        handler.detach()


def flatten(diagnostic: Any) -> list[Diagnostic]:
    """Return an MLIR diagnostic and its notes, without those that print the whole op again."""
    # The bindings give a plain `Location` here; this one is of the class that knows its parts.
    location = ir.Location.from_attr(diagnostic.location.attr, diagnostic.location.context)
    # MLIR's advice is to use options that patc's tools do not have.
    message = shorten(one_line(diagnostic.message).partition(". If this is intended, please ")[0])
    found = [Diagnostic(_SEVERITIES[diagnostic.severity], message, location)]
    for note in diagnostic.notes:
        if not note.message.startswith("see current operation"):
            found += flatten(note)
    return found


def one_line(text: str) -> str:
    """Return `text` with every run of blanks and line ends made one blank."""
    return " ".join(text.split())


def shorten(text: str) -> str:
    """Return `text` without its middle where it is longer than a screen, as messages are that print an op with its
    regions."""
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 200]} ... {text[-200:]}"
