"""Pruning in steps: each starts from the zeros and the levels of the one before, and prunes further."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from torch import nn

from patc.diagnostics import PatcError
from patc.pruning.methods.admm import Admm
from patc.pruning.methods.base import Method
from patc.pruning.plan import Plan
from patc.pruning.pruner import Pruner
from patc.pruning.report import PruneReport
from patc.pruning.spec import PatternSpec

# Trains a model for the iteration of this number with a pruner of it: `pruner.penalty()` is part of the loss.
Fit = Callable[[Pruner, int], None]


@dataclass(frozen=True)
class Stage:
    """A step of `Progressive`.

    Attributes:
        target: what to prune to.
        method: how weights are driven there, and in how many iterations.
        retrain: iterations with the masks in force after that, 0 or more.

    Raises:
        PatcError: a value is out of its range.
    """

    target: Plan | PatternSpec
    method: Method = field(default_factory=Admm)
    retrain: int = 10

    def __post_init__(self) -> None:
        if not isinstance(self.target, (Plan, PatternSpec)):
            raise PatcError(f"expected a stage's target to be a Plan or a PatternSpec, found {self.target!r}")
        if isinstance(self.retrain, bool) or not isinstance(self.retrain, int) or self.retrain < 0:
            raise PatcError(f"expected 0 or more iterations to retrain in, found {self.retrain!r}")

    @property
    def iterations(self) -> int:
        """Of both parts."""
        return self.method.iterations + self.retrain


@dataclass(frozen=True)
class Progressive:
    """Stages that prune further and further, or to fewer and fewer bits, as in

        Progressive([Stage(Plan([("*", Both(Unstructured(), Levels(8)))], compression=rate)) for rate in (4, 8, 16)])

    What a stage has removed stays zero in those after it, so that each looks for its weights among fewer.

    Attributes:
        stages: in their order.

    Raises:
        PatcError: there are none.
    """

    stages: tuple[Stage, ...]

    def __init__(self, stages: Iterable[Stage]) -> None:
        object.__setattr__(self, "stages", tuple(stages))
        if not self.stages:
            raise PatcError("expected at least one stage, found none")

    def pruner(self, model: nn.Module, place: int, before: Pruner | None = None) -> Pruner:
        """Return the pruner of a stage, 0 for the first.

        Args:
            model: as the stage before has left it.
            place: of the stage.
            before: that stage's pruner, finalized. To go on from a checkpoint in this stage none is needed: prepare the
                pruner, then load the state dict.
        """
        stage = self.stages[place]
        masks = before.masks if before is not None else {}
        return Pruner(model, stage.target, stage.method, within=masks if place else None)

    def run(self, model: nn.Module, fit: Fit, first: int = 0) -> PruneReport:
        """Go through all stages; return what the last one kept.

        Args:
            fit: trains for an iteration: called with the stage's pruner and the iteration's number.
            first: number of the first iteration.

        Raises:
            PatcError: as `Pruner`.
        """
        pruner: Pruner | None = None
        for place, stage in enumerate(self.stages):
            pruner = self.pruner(model, place, pruner)
            pruner.prepare()
            for number in self.numbers(place, first):
                if number == first + self._start(place) + stage.method.iterations:
                    pruner.harden()
                fit(pruner, number)
                pruner.step()
            report = pruner.finalize()
        return report

    def numbers(self, place: int, first: int = 0) -> range:
        """Return the numbers of a stage's iterations, when those of the first one start from `first`."""
        start = first + self._start(place)
        return range(start, start + self.stages[place].iterations)

    def _start(self, place: int) -> int:
        return sum(stage.iterations for stage in self.stages[:place])
