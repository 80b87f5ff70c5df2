"""Ways to compute a layer, with what the model of its machine says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace

from patc.dialects.schedules import Schedule


@dataclass(frozen=True)
class Candidate:
    """One way to compute a layer.

    Attributes:
        schedule: for one thread.
        cycles: modelled, on one core.
        cost: what candidates are ranked by: cycles, and a little for the size of the code.
        bound: what most cycles are spent on.
        kept_cycles: those of `cycles` that go with the number of kept kernels, or of inputs that are not zero; None for
            dense algorithms.
    """

    schedule: Schedule
    cycles: float
    cost: float
    bound: str
    kept_cycles: float | None = None

    def times(self, count: int) -> Candidate:
        """Return what it is to do that so many times."""
        kept = None if self.kept_cycles is None else count * self.kept_cycles
        return replace(self, cycles=count * self.cycles, cost=count * self.cost, kept_cycles=kept)


def shortlist(found: Sequence[Candidate], limit: int = 10) -> list[Candidate]:
    """Return the `limit` candidates that are worth measuring.

    The model errs most between algorithms and between tiles of different widths. So half of the places go to the best
    tiles of every algorithm, evenly, and the others to the best tiles of widths that are not among those. The order is
    that of the schedules: layers of nearly equal costs have equal lists.
    """
    ranked = sorted(found, key=lambda candidate: candidate.cost)
    algorithms: dict[str, list[Candidate]] = {}
    widths: dict[tuple[str, int], Candidate] = {}
    for candidate in ranked:
        algorithms.setdefault(candidate.schedule.algorithm, []).append(candidate)
        widths.setdefault((candidate.schedule.algorithm, candidate.schedule.columns), candidate)
    share = max(1, limit // 2 // max(1, len(algorithms)))
    firsts = [candidate for group in algorithms.values() for candidate in group[:share]]
    kept = list(dict.fromkeys([*firsts, *widths.values(), *ranked]))[:limit]
    return sorted(kept, key=lambda candidate: astuple(candidate.schedule))
