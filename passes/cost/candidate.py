"""One way to compute a layer, with what the model of its machine says of it."""

from __future__ import annotations

from dataclasses import dataclass

from patc.dialects.attributes import Schedule


@dataclass(frozen=True)
class Candidate:
    """One way to compute a layer.

    Attributes:
        schedule: for one thread.
        cycles: modelled, on one core.
        cost: what candidates are ranked by: cycles, and a little for the size of the code.
        bound: what most cycles are spent on.
    """

    schedule: Schedule
    cycles: float
    cost: float
    bound: str
