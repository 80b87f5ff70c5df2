"""How much relative errors of a layer grow until they are those of a function's outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from patc.passes.cost.rounding import GROWTH
from patc.passes.layers.registry import kind_of


def amplifications(ops: Sequence[Any]) -> dict[Any, float]:
    """Return the growth of errors in an operation's result, for the operations of a function in their order.

    Each layer with weights on the way lets them grow; means over planes average them. Of several ways the worst counts.
    """
    found: dict[Any, float] = {}
    for op in reversed(ops):
        users = [use.owner.operation for value in op.results for use in value.uses]
        behind = [found[user] * _own(user) for user in users if user in found]
        found[op.operation] = max(behind, default=1.0)
    return found


def _own(op: Any) -> float:
    """Return how much an operation lets errors of what it reads grow."""
    kind = kind_of(op.opview)
    if kind is None or kind.window(op.opview) is None:
        return 1.0
    given, made = (math.prod(value.type.shape[2:]) for value in (op.operands[0], op.results[0]))
    if kind.work(op.opview).weights:
        return GROWTH
    return 1.0 / math.sqrt(given) if made == 1 else 1.0
