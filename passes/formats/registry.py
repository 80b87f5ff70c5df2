"""Which weight formats there are. Others may register theirs; see `register`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from patc.dialects.attributes import WeightFormatAttr
from patc.discovery import implementations
from patc.passes.base import fail
from patc.passes.formats.base import WeightFormat
from patc.plugins import FORMATS, plugins

_formats: dict[type, type[WeightFormat]] = {}


def register(kind: type[WeightFormat]) -> None:
    """Let passes know a weight format; `pattern-encode` tries those that came first, first.

    Raises:
        TypeError: a method of it or of its attribute is missing, or there is a format for its attribute already.
    """
    # The attribute's metaclass, which is the binding's, lets one be made that lacks a method.
    methods = [name for name, value in vars(WeightFormatAttr).items() if hasattr(value, "__isabstractmethod__")]
    inherited = [name for name in methods if getattr(kind.attribute, name) is getattr(WeightFormatAttr, name)]
    for part, missing in ((kind, sorted(kind.__abstractmethods__)), (kind.attribute, inherited)):
        if missing:
            raise TypeError(f"expected a whole weight format, got {part.__name__} without {', '.join(missing)}")
    if kind.attribute in _formats:
        raise TypeError(f"expected one weight format an attribute, got two of {kind.attribute.__name__}")
    _formats[kind.attribute] = kind


def formats() -> Iterator[type[WeightFormat]]:
    """Yield all formats, in the order of registration."""
    yield from _formats.values()


def format_of(op: Any) -> WeightFormat:
    """Return the format of a sparse op.

    Raises:
        PatcError: no format is registered for its attribute.
    """
    kind = _formats.get(type(op.format))
    if kind is None:
        raise fail(op, "a registered weight format", op.format)
    return kind.from_attr(op.format)


for _format in implementations(__name__, WeightFormat):
    register(_format)

for _plugin in plugins(FORMATS):
    with _plugin.errors():
        if (_format := _plugin.load(WeightFormat)) not in formats():
            register(_format)
