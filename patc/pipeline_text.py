"""The grammar of textual pass pipelines.

    pipeline := "builtin.module" "(" list ")" | list
    list     := [ element { "," element } ]
    element  := name [ "{" options "}" ] | op-name "(" list ")"

Braces in options nest, and what is inside quotes counts as nothing else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from patc.diagnostics import PatcError

_NAME = re.compile(r"[\w.-]+")
_BLANKS = re.compile(r"\s*")


@dataclass(frozen=True)
class Element:
    """One pass of a pipeline.

    Attributes:
        name: the name of a pass.
        options: the text between its braces.
        anchors: the ops around it, outermost first, without the module.
    """

    name: str
    options: str
    anchors: tuple[str, ...]


MOST_NESTED = 64
_SHOWN = 200  # characters of a pipeline in errors


def parse_elements(text: str) -> list[Element]:
    """Return the passes that a pipeline runs, in order.

    Raises:
        PatcError: the text is no pipeline; the message has the column.
    """
    parser = _Parser(text)
    opening = re.match(r"\s*builtin\.module\s*\(", text)
    if opening:
        parser.position = opening.end()
        elements = parser.parse_list(())
        parser.expect(")")
    else:
        elements = parser.parse_list(())
    parser.skip_blanks()
    if parser.position < len(text):
        raise parser.error("the end of the pipeline")
    return elements


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0

    def error(self, expected: str) -> PatcError:
        found = repr(self.text[self.position]) if self.position < len(self.text) else "its end"
        text = self.text if len(self.text) <= _SHOWN else f"{self.text[:_SHOWN]}..."
        return PatcError(f"expected {expected} at column {self.position + 1} of the pipeline '{text}', found {found}")

    def skip_blanks(self) -> None:
        self.position = _BLANKS.match(self.text, self.position).end()  # type: ignore[union-attr]

    def at(self, char: str) -> bool:
        self.skip_blanks()
        return self.text.startswith(char, self.position)

    def expect(self, char: str) -> None:
        if not self.at(char):
            raise self.error(f"'{char}'")
        self.position += 1

    def parse_list(self, anchors: tuple[str, ...]) -> list[Element]:
        if self.at(")") or self.position == len(self.text):
            return []
        elements = self.parse_element(anchors)
        while self.at(","):
            self.position += 1
            elements += self.parse_element(anchors)
        return elements

    def parse_element(self, anchors: tuple[str, ...]) -> list[Element]:
        self.skip_blanks()
        name = _NAME.match(self.text, self.position)
        if name is None:
            raise self.error("the name of a pass")
        self.position = name.end()
        if self.at("("):
            if len(anchors) == MOST_NESTED:
                raise self.error(f"at most {MOST_NESTED} parentheses in each other")
            self.position += 1
            elements = self.parse_list((*anchors, name[0]))
            self.expect(")")
            return elements
        return [Element(name[0], self.parse_options(), anchors)]

    def parse_options(self) -> str:
        if not self.at("{"):
            return ""
        start = self.position + 1
        depth, quote = 0, ""
        while self.position < len(self.text):
            char = self.text[self.position]
            self.position += 1
            if quote:
                quote = "" if char == quote else quote
            elif char in "\"'":
                quote = char
            elif char in "{}":
                depth += 1 if char == "{" else -1
                if depth == 0:
                    return " ".join(self.text[start : self.position - 1].split())
        raise self.error(quote or "'}'")
