"""Diagnostics that a test file expects, in the notation of `mlir-opt --verify-diagnostics`.

    // expected-error @below {{op expected weight of rank 4}}
    // expected-remark-re @+2 {{stays dense: {{[0-9]+}} of 64 kernels}}

The place is a line offset, `@above`, `@below`, `@unknown`, or the comment's own line. `expected-error`,
`-warning`, `-remark` and `-note` match each diagnostic of that kind and line whose message contains the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from patc.diagnostics import Diagnostic, source_line

_EXPECTED = re.compile(
    r"expected-(?P<severity>error|warning|remark|note)(?P<regex>-re)? *"
    r"(?:@(?P<place>[+-][0-9]+|above|below|unknown))? *\{\{(?P<text>.*)\}\}$"
)


@dataclass(frozen=True)
class Expectation:
    """One `expected-...` comment.

    Attributes:
        severity, pattern: of the diagnostic; the pattern is found anywhere in the message.
        text: the pattern as written.
        line: where the diagnostic must be; None for a diagnostic without a place in the file.
        written_at: the line of the comment.
    """

    severity: str
    pattern: re.Pattern[str]
    text: str
    line: int | None
    written_at: int

    def accepts(self, severity: str, message: str, line: int | None) -> bool:
        """Whether the expectation is about a diagnostic."""
        return severity == self.severity and line == self.line and self.pattern.search(message) is not None


def read_expectations(text: str, first_line: int = 1) -> list[Expectation]:
    """Return the expectations of a text whose first line has the number `first_line`."""
    lines = list(enumerate(text.splitlines(), start=first_line))
    found = [(number, match) for number, line in lines if (match := _EXPECTED.search(line.rstrip()))]
    taken = {number for number, _ in found}
    others = [number for number, _ in lines if number not in taken]
    return [_expectation(number, match, others) for number, match in found]


def _expectation(number: int, match: re.Match[str], others: list[int]) -> Expectation:
    place, line = match["place"], number
    if place == "unknown":
        target = None
    elif place == "above":
        target = max((other for other in others if other < number), default=line)
    elif place == "below":
        target = min((other for other in others if other > number), default=line)
    else:
        target = line + int(place or 0)
    return Expectation(match["severity"], _pattern(match["text"], bool(match["regex"])), match["text"], target, line)


def _pattern(text: str, has_regexes: bool) -> re.Pattern[str]:
    if not has_regexes:
        return re.compile(re.escape(text))
    # Odd parts lie between inner double braces.
    parts = re.split(r"\{\{(.*?)\}\}", text)
    return re.compile("".join(f"(?:{part})" if index % 2 else re.escape(part) for index, part in enumerate(parts)))


def check_diagnostics(
    expectations: Sequence[Expectation], diagnostics: Iterable[Diagnostic], file: str
) -> list[Diagnostic]:
    """Return an error for each unexpected diagnostic and each expectation that none met.

    Args:
        expectations: from the text.
        diagnostics: what was reported, notes included.
        file: the name of the text in locations.
    """
    errors, unmet = [], list(expectations)
    for diagnostic in diagnostics:
        line = _line_in(file, diagnostic)
        met = [item for item in expectations if item.accepts(diagnostic.severity, diagnostic.message, line)]
        unmet = [item for item in unmet if item not in met]
        if not met:
            message = f"unexpected {diagnostic.severity}: {diagnostic.message}"
            errors.append(Diagnostic("error", message, diagnostic.location))
    for item in unmet:
        message = f'expected {item.severity} "{item.text}" was not produced'
        errors.append(Diagnostic("error", message, f"{file}:{item.written_at}"))
    return errors


def _line_in(file: str, diagnostic: Diagnostic) -> int | None:
    """Return the line of the text that a diagnostic is about; None where it has no place in it."""
    known = not isinstance(diagnostic.location, str)
    name, _, line = (source_line(diagnostic.location) or "" if known else "").rpartition(":")
    return int(line) if name == file else None
