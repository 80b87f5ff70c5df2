"""What `pattern-schedule` wrote about an op, read again."""

from __future__ import annotations

from typing import Any

from patc.dialects.schedules import AnyRecord
from patc.passes.base import fail


def read_record(op: Any, kind: type[AnyRecord]) -> AnyRecord:
    """Return the `Schedule` or the `Explanation` of an op that has one.

    Raises:
        PatcError: the attribute is none that `pattern-schedule` writes. Verifiers do not look into it: ops are verified
            often.
    """
    name = kind.__name__.lower()
    attr = op.operation.attributes[name]
    try:
        return kind.from_attr(attr)
    except ValueError:
        raise fail(op, f"'{name}' as pattern-schedule writes it", attr) from None
