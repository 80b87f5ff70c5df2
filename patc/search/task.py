"""What is searched for."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

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
class Effort:
    """How much is trained and tried.

    Attributes:
        supernet_steps: of the weights that all candidates share; each trains four nets.
        trial_steps: of a candidate, before it is scored.
        final_steps: of the nets that are kept.
        trials: candidates that are trained.
        measured: of them, the best ones, whose time is measured.
        batch_size: of a step.
        learning_rate: of Adam for the shared weights; a third for candidates.
    """

    supernet_steps: int
    trial_steps: int
    final_steps: int
    trials: int
    measured: int
    batch_size: int
    learning_rate: float


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
