"""How much of a model may stay: a rate for all layers, rates of single ones, or a compression of the whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Budget:
    """What the constraints of a model's weights may keep.

    Attributes:
        rate: units over kept units of each weight.
        compression: all weights over kept ones; when given, `rate` is solved for.
        allocation: "global" spends what `rate` keeps where the scores are.
        own: rates of single weights by name, which the others do not touch.
        hint: for the error of a compression that is too high.
    """

    rate: float
    compression: float | None = None
    allocation: Literal["uniform", "global"] = "uniform"
    own: Mapping[str, float] = field(default_factory=dict)
    hint: str = ""
