"""What is searched for."""

from __future__ import annotations

import itertools
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from patc.diagnostics import PatcError
from patc.pruning import Block, Pattern, Plan
from patc.search.space import Choice, Point, Space

Part = Literal["choose", "judge"]
BLOCK_ROWS = 8
SCHEMES = ("dense", "pattern", "block")
# All weights over kept ones: from patterns of 4 in 9 with all kernels to one input of a block in eight.
PRUNING = Space(
    (
        Choice("scheme", SCHEMES, ordered=False),
        Choice("rate", (8.0, 6.0, 4.5, 3.0, 2.25), when=lambda point: point["scheme"] != "dense"),
    )
)


@dataclass(frozen=True)
class Rung:
    """How far candidates are trained before they are scored, and how many.

    Attributes:
        steps: of a candidate in all: with those of the rungs before, without those in which its masks grow.
        kept: part of the rung before whose candidates go on to this one, above 0 and up to 1: the best ones.
    """

    steps: int
    kept: float = 1.0


# Of a few steps, to try things; of minutes; of an hour or two.
RUNGS = {
    "tiny": (Rung(2), Rung(3, 0.5), Rung(4, 0.5)),
    "small": (Rung(60), Rung(150, 0.2), Rung(400, 0.35), Rung(1000, 0.5)),
    "large": (Rung(250), Rung(1000, 0.16), Rung(2500, 0.25), Rung(10_000, 0.25)),
}


@dataclass(frozen=True)
class Effort:
    """How much is trained and tried.

    Attributes:
        supernet_steps: of the weights that all candidates share; each trains four nets.
        rungs: two or more, each of more steps than the one before. All candidates are on the first one.
        trials: candidates that are trained.
        batch_size: of a step.
        learning_rate: of Adam for the shared weights; a third for candidates.

    Raises:
        PatcError: rungs are not as said.
    """

    supernet_steps: int
    rungs: tuple[Rung, ...]
    trials: int
    batch_size: int
    learning_rate: float

    def __post_init__(self) -> None:
        steps = [rung.steps for rung in self.rungs]
        if len(steps) < 2 or steps[0] < 1 or any(one >= other for one, other in itertools.pairwise(steps)):
            raise PatcError(f"expected two rungs or more, each of more steps than the one before, got steps {steps}")
        if self.rungs[0].kept != 1 or any(not 0 < rung.kept <= 1 for rung in self.rungs):
            kept = [rung.kept for rung in self.rungs]
            raise PatcError(f"expected rungs that keep parts above 0 and up to 1, the first one all, got {kept}")

    @property
    def places(self) -> list[int]:
        """Candidates of each rung, one or more."""
        found = [self.trials]
        for rung in self.rungs[1:]:
            found.append(max(1, round(rung.kept * found[-1])))
        return found


class Task(ABC):
    """A space of nets, the data that they learn from, and what they are judged by.

    Attributes:
        name: in a word.
        figure: what `score` says, with its unit; more is better.
        space: of architectures.
        pruned: names of weights that candidates may be pruned in, as of the shell's files.
        inputs: tensors to compile for.
    """

    name: ClassVar[str]
    figure: ClassVar[str]
    space: Space
    pruned: tuple[str, ...]
    inputs: tuple[Tensor, ...]

    @abstractmethod
    def build(self, point: Point) -> nn.Module:
        """Return the net of an architecture. Parameters of one name are shared by all nets: of a smaller one they are
        the first places, along each axis, of those of a larger one."""

    @abstractmethod
    def batch(self, seed: int, number: int, size: int) -> tuple[Tensor, Tensor]:
        """Return inputs to learn from and what has to come out: always the same of a seed and a number."""

    @abstractmethod
    def loss(self, found: Tensor, wanted: Tensor) -> Tensor:
        """Return what training makes small."""

    @abstractmethod
    def score(self, net: nn.Module, part: Part) -> float:
        """Return how good a net in eval mode is, on data that no batch has: to choose by, or others to judge the
        chosen one by."""

    @abstractmethod
    def identity(self) -> Mapping[str, object]:
        """Return what scores depend on beside the net, as data that are JSON."""

    def beside(self) -> Mapping[str, float]:
        """Return the scores of what users have without a net, by name, on the part to judge by."""
        return {}

    @property
    def candidates(self) -> Space:
        """The space of architectures together with what is pruned."""
        return self.space + PRUNING

    def plan(self, point: Point) -> Plan | None:
        """Return what a candidate is pruned to; None for a dense one. Layers that patterns do not fit, as those of 1x1,
        get blocks."""
        schemes: dict[Any, tuple[Any, ...]] = {
            "dense": (),
            "pattern": (Pattern("phase2"), Block(BLOCK_ROWS)),
            "block": (Block(BLOCK_ROWS),),
        }
        entries = [(name, scheme, point["rate"]) for scheme in schemes[point["scheme"]] for name in self.pruned]
        return Plan(entries) if entries else None


def seeded(*parts: object) -> random.Random:
    """Return a generator that some numbers and words decide."""
    return random.Random(" ".join(map(str, parts)))


def build_seeded(task: Task, point: Point, seed: int = 0) -> nn.Module:
    """Return the net of an architecture; what it draws at random, it draws from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return task.build(point)
