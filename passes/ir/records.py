"""What `pattern-schedule` wrote about an op, read again."""

from __future__ import annotations

from typing import Any

from torch_mlir import ir

from patc.dialects.schedules import AnyRecord, Choice, Schedule
from patc.passes.base import fail

_NAMES: dict[type, str] = {Schedule: "schedule", Choice: "explanation"}


def read_record(op: Any, kind: type[AnyRecord]) -> AnyRecord:
    """Return the `Schedule` of an op that has one, or the `Choice` of one with an explanation.

    Raises:
        PatcError: the attribute is none that `pattern-schedule` writes. Verifiers do not look into it: ops are verified
            often.
    """
    name = _NAMES[kind]
    attr = op.operation.attributes[name]
    try:
        return kind.from_attr(attr)
    except ValueError:
        raise fail(op, f"'{name}' as pattern-schedule writes it", attr) from None


def read_cycles(op: Any) -> int:
    """Return the modelled cycles of an op; 0 where `pattern-schedule` wrote none.

    Raises:
        PatcError: the attribute is no number.
    """
    attr = op.operation.attributes.get("cycles", None)
    if attr is None:
        return 0
    if not isinstance(attr, ir.IntegerAttr):
        raise fail(op, "'cycles' as pattern-schedule writes it", attr)
    return int(attr.value)
