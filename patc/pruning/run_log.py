"""The log of a training run, and the state from which a run goes on, checked before anything is made of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from patc.diagnostics import PatcError
from patc.pruning.checkpoint import Fault, check_dict, check_histogram, check_list, check_number, describe
from patc.pruning.extraction import LibraryExtractor
from patc.pruning.train_options import Phase

COLUMNS = (
    "epoch", "phase", "learning_rate", "rho", "train_loss", "test_loss", "test_accuracy", "worst_accuracy", "distance",
    "seconds",
)  # fmt: skip


@dataclass(frozen=True)
class Epoch:
    """One line of the log; see `COLUMNS`. `seconds` is all that may differ between equal runs.

    Attributes:
        worst_accuracy: of the test in the worst domain; None where there is one alone.
        distance: of the weights from their projection, see `Pruner.distance`; None outside of the prune epochs.
    """

    epoch: int
    phase: str
    learning_rate: float
    rho: float | None
    train_loss: float
    test_loss: float
    test_accuracy: float
    worst_accuracy: float | None
    distance: float | None
    seconds: float


def check_identity(state: Mapping[str, Any], identity: Mapping[str, Any], shapes: Any) -> None:
    """Refuse the checkpoint of another run.

    Args:
        identity: what makes a run this one.
        shapes: names and shapes of the model's tensors.

    Raises:
        PatcError: what differs.
    """
    check_dict("identity", state["identity"])
    for name, value in identity.items():
        other = state["identity"].get(name)
        if repr(other) != repr(value):
            run, found = f"a run with {name.replace('_', ' ')} {value}", describe(other).strip("'")
            raise PatcError(f"expected the checkpoint of {run}, found one with {found}")
    if repr(state["shapes"]) != repr(shapes):
        raise PatcError("expected the checkpoint of a model of the same weights, found another")


def check_progress(state: Mapping[str, Any], phases: Sequence[Phase]) -> tuple[Phase, int]:
    """Return the phase that wrote a checkpoint, whose state the model has, and the epochs until then.

    Raises:
        Fault: a part of the state that cannot be of such a run.
    """
    epoch: int = state["epoch"]
    check_number("epoch", epoch, 1, phases[-1].first + phases[-1].epochs)
    check_list("log", state["log"], epoch)
    kinds = {number: phase.kind for phase in phases for number in range(phase.first, phase.first + phase.epochs)}
    for number, line in enumerate(state["log"]):
        _check_line(f"log.{number}", line, number, kinds[number])
    check_number("best", state["best"], -1.0, 1.0)
    check_list("histograms", state["histograms"])
    for index, histogram in enumerate(state["histograms"]):
        check_histogram(f"histograms.{index}", histogram)
    return next(phase for phase in phases if phase.first < epoch <= phase.first + phase.epochs), epoch


def _check_line(place: str, line: Any, number: int, phase: str) -> None:
    """Require a line of the log."""
    check_dict(place, line, COLUMNS)
    if repr((line["epoch"], line["phase"])) != repr((number, phase)):
        raise Fault(place, f"epoch {number} of phase '{phase}'", (line["epoch"], line["phase"]))
    for name in COLUMNS[2:]:
        if line[name] is not None or name not in ("rho", "worst_accuracy", "distance"):
            check_number(f"{place}.{name}", line[name], 0.0, 1.0 if name.endswith("accuracy") else math.inf)


def check_extractor(state: Any, extractor: LibraryExtractor) -> None:
    """Require the state of an extractor that started like this one."""
    check_dict("extractor", state, ("library", "histograms"))
    check_list("extractor.library", state["library"])
    check_list("extractor.histograms", state["histograms"])
    for index, histogram in enumerate(state["histograms"]):
        check_histogram(f"extractor.histograms.{index}", histogram)
    steps = len(state["histograms"])
    if steps > len(extractor.sizes):
        raise Fault("extractor.histograms", f"a list of at most {len(extractor.sizes)}", state["histograms"])
    check_list("extractor.library", state["library"], extractor.sizes[steps - 1] if steps else len(extractor.library))
    for mask in state["library"]:
        if mask not in extractor.library or list(state["library"]).count(mask) > 1:
            raise Fault("extractor.library", "different patterns of those that it started with", mask)
