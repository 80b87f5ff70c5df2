"""How `train` trains, and the phases that follow from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from patc.diagnostics import PatcError
from patc.pruning.methods.base import Method
from patc.robust.domains import Domains

OPTIMIZERS = ("sgd", "adamw")

# Part of the learning rate that each phase starts and ends with; in between it follows a cosine.
_RATES = {
    "dense": (1.0, 0.0), "extract": (0.2, 0.2), "prune": (0.5, 0.1), "retrain": (0.3, 0.0),
}  # fmt: skip
_WARM_UP_STEPS = 100
_EXTRACTION_SIZES = (32, 12, 8, 4)


@dataclass(frozen=True)
class TrainOptions:
    """How to train.

    Attributes:
        dense_epochs: before pruning; 0 for a model that is trained.
        extract: patterns of the library to extract first, 4 to 32; None takes the spec's library.
        extract_from: "all" patterns, or those that are "centred".
        extract_epochs: of each step of the extraction, which is one proximal step each.
        prune_epochs: that drive weights to their structure, an iteration of the method each.
        retrain_epochs: with the masks in force.
        batch_size: images a step.
        optimizer: "sgd", with Nesterov momentum 0.9, or "adamw".
        learning_rate: of dense training; the other phases take a part of it.
        weight_decay: on weights of two or more dimensions; biases and batch norms have none.
        label_smoothing: 0 to below 1.
        speedup: the spec's rates are replaced, when pruning starts, by those that take 1 / speedup of the layers' time.
        domains: of pictures, the worst of which the net is to keep; None for pictures as they are.
        method: what drives weights to their structure; its iterations are the prune epochs. None takes `Magnitude()`,
            or `Admm()` where weights get levels, to which magnitudes alone do not drive them.
        amp: automatic mixed precision: float16 on a GPU, bfloat16 elsewhere.
        device: "cuda", "cpu", or None for a GPU where there is one.
        seed: of order, augmentation and dropout, from 0 to below 2^63.

    Raises:
        PatcError: a value is out of its range.
    """

    dense_epochs: int = 0
    extract: int | None = None
    extract_from: Literal["all", "centred"] = "all"
    extract_epochs: int = 3
    prune_epochs: int = 10
    retrain_epochs: int = 10
    batch_size: int = 128
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    speedup: float | None = None
    domains: Domains | None = None
    method: Method | None = None
    amp: bool = False
    device: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"dense_epochs": 0, "extract_epochs": 1, "prune_epochs": 1, "retrain_epochs": 0, "batch_size": 1}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise PatcError(f"expected {name.replace('_', ' ')} of {value} or more, found {getattr(self, name)}")
        if self.optimizer not in OPTIMIZERS:
            raise PatcError(f"expected the optimizer to be {' or '.join(OPTIMIZERS)}, found '{self.optimizer}'")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise PatcError(f"expected a learning rate above 0, found {self.learning_rate}")
        if not 0 <= self.weight_decay < 1:
            raise PatcError(f"expected a weight decay from 0 to below 1, found {self.weight_decay}")
        if not 0 <= self.label_smoothing < 1:
            raise PatcError(f"expected label smoothing from 0 to below 1, found {self.label_smoothing}")
        if self.extract is not None and not 1 <= self.extract <= _EXTRACTION_SIZES[0]:
            raise PatcError(f"expected to extract 1 to {_EXTRACTION_SIZES[0]} patterns, found {self.extract}")
        if self.extract_from not in ("all", "centred"):
            raise PatcError(f"expected to extract from all or centred patterns, found '{self.extract_from}'")
        if not 0 <= self.seed < 1 << 63:
            raise PatcError(f"expected a seed from 0 to below 2^63, found {self.seed}")
        if self.device not in (None, "cpu", "cuda"):
            raise PatcError(f"expected the device to be cpu or cuda, found '{self.device}'")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise PatcError("expected a GPU for device cuda, found none")

    def find_device(self) -> torch.device:
        """Return where to train."""
        kind = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(kind, torch.cuda.current_device()) if kind == "cuda" else torch.device(kind)


@dataclass(frozen=True)
class Phase:
    """Some epochs of one kind.

    Attributes:
        kind: "dense", "extract", "prune" or "retrain".
        first: number of its first epoch in the run.
        epochs: how many.
    """

    kind: str
    first: int
    epochs: int


def plan_phases(options: TrainOptions) -> tuple[Phase, ...]:
    """Return the phases of a run, in order."""
    sizes = extraction_sizes(options.extract)
    lengths = [
        ("dense", options.dense_epochs),
        *(("extract", options.extract_epochs) for _ in sizes),
        ("prune", options.prune_epochs),
        ("retrain", options.retrain_epochs),
    ]
    phases, first = [], 0
    for kind, epochs in lengths:
        if epochs:
            phases.append(Phase(kind, first, epochs))
        first += epochs
    return tuple(phases)


def rate_share(phase: Phase, step: int, steps: int) -> float:
    """Return the part of the learning rate that a step has.

    A run may start from noise. It warms up for an epoch, longer where that has only a few steps, but for no more than
    half of its first phase.

    Args:
        step: of the phase, from 0.
        steps: of an epoch.
    """
    first, last = _RATES[phase.kind]
    share = last + (first - last) * (1 + math.cos(math.pi * step / (steps * phase.epochs))) / 2
    warm_up = min(max(steps, _WARM_UP_STEPS), steps * phase.epochs / 2) if phase.first == 0 else 1
    return share * min(1.0, (step + 1) / warm_up)


def extraction_sizes(target: int | None) -> tuple[int, ...]:
    """Return how many patterns each step of an extraction leaves: 32, 12, 8, 4, down to the target."""
    if target is None:
        return ()
    return (*(size for size in _EXTRACTION_SIZES if size > target), target)
