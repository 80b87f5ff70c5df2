"""The training loop of `patc prune`: dense training, library extraction, ADMM and masked retraining, with checkpoints.

    report = train(model, open_data("glyphs", 32), PatternSpec.for_compression(8.0), TrainOptions(), "run")

The folder gets `log.csv`, `last.pt` after each epoch and `best.pt`, the retrained weights of the best test accuracy.
All that is random depends on the seed and the epoch alone: a run that is resumed from `last.pt` gives the same bits as
one that was not interrupted, on the same machine and number of threads.
"""

from __future__ import annotations

import csv
import io
import math
import os
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from patc.diagnostics import PatcError
from patc.files import atomic_write, make_folder
from patc.pruning.admm import PatternPruner
from patc.pruning.data import Data, epoch_seed
from patc.pruning.extraction import LibraryExtractor
from patc.pruning.library import Library
from patc.pruning.report import PruneReport
from patc.pruning.spec import PatternSpec
from patc.pruning.train_options import Phase, TrainOptions, extraction_sizes, plan_phases

COLUMNS = (
    "epoch", "phase", "learning_rate", "rho", "train_loss", "test_loss", "test_accuracy", "distance", "seconds",
)  # fmt: skip
LAST, BEST, LOG = "last.pt", "best.pt", "log.csv"

_CHECKED_EVERY = 20  # steps between two looks at the loss: each waits for the device
# Part of the learning rate that each phase starts and ends with; in between it follows a cosine.
_RATES = {"dense": (1.0, 0.0), "extract": (0.2, 0.2), "admm": (0.5, 0.1), "retrain": (0.3, 0.0)}


@dataclass(frozen=True)
class Epoch:
    """One line of the log; see `COLUMNS`. `seconds` is all that may differ between equal runs.

    Attributes:
        distance: of the weights from their projection, see `PatternPruner.distance`; None outside of ADMM.
    """

    epoch: int
    phase: str
    learning_rate: float
    rho: float | None
    train_loss: float
    test_loss: float
    test_accuracy: float
    distance: float | None
    seconds: float


@dataclass(frozen=True)
class TrainReport:
    """What training and pruning gave.

    Attributes:
        pruned: what was kept.
        test_accuracy: of the model as it is now, that of the best epoch of retraining.
        epochs: the log.
        histograms: kernels that selected each pattern, before each step of the extraction.
    """

    pruned: PruneReport
    test_accuracy: float
    epochs: tuple[Epoch, ...]
    histograms: tuple[dict[int, int], ...]


Tell = Callable[[Phase, Epoch], None]
TellStep = Callable[[Phase, int, int, int], None]


def train(
    model: nn.Module,
    data: Data,
    spec: PatternSpec,
    options: TrainOptions,
    folder: str | os.PathLike[str],
    resume: bool = False,
    tell: Tell = lambda phase, epoch: None,
    tell_step: TellStep = lambda phase, epoch, step, steps: None,
) -> TrainReport:
    """Train and prune `model` in place; it ends on the CPU, in eval mode, with plain weights.

    Args:
        folder: for log and checkpoints; made if it is missing.
        resume: go on from the folder's last checkpoint, with the same data, spec and options.
        tell: called after each epoch.
        tell_step: called after each step with phase, epoch, steps so far and steps of the epoch.

    Raises:
        PatcError: the model cannot be pruned to the spec, the loss is not finite (the last checkpoint stays as it is),
            data cannot be read, the folder holds another run or, without `resume`, any run.
    """
    return _Run(model, data, spec, options, Path(folder), tell, tell_step).run(resume)


@torch.no_grad()
def evaluate(model: nn.Module, data: Data, batch_size: int = 256) -> tuple[float, float]:
    """Return cross entropy and accuracy (0 to 1) of a model on the test images, where its weights are."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    loss, right, count = 0.0, 0, 0
    for images, labels in data.test.batches(batch_size):
        scores = model(images.to(device)).float().cpu()
        loss += float(nn.functional.cross_entropy(scores, labels, reduction="sum"))
        right += int((scores.argmax(1) == labels).sum())
        count += len(labels)
    model.train(was_training)
    return loss / count, right / count


def save_state(path: str | os.PathLike[str], state: dict[str, Any]) -> None:
    """Write what `torch.save` does; the file appears whole or not at all.

    Raises:
        PatcError: the file cannot be written.
    """
    stream = io.BytesIO()
    torch.save(state, stream)
    atomic_write(path, stream.getvalue())


class _Run:
    def __init__(
        self,
        model: nn.Module,
        data: Data,
        spec: PatternSpec,
        options: TrainOptions,
        folder: Path,
        tell: Tell,
        tell_step: TellStep,
    ) -> None:
        self.model, self.data, self.spec, self.options, self.folder = model, data, spec, options, folder
        self.tell, self.tell_step = tell, tell_step
        self.device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.phases = plan_phases(options)
        self.schedule = replace(options.schedule, iterations=options.admm_epochs)
        self.log: list[Epoch] = []
        self.best = -1.0
        self.histograms: list[dict[int, int]] = []
        self.extractor: LibraryExtractor | None = None
        self.found: Library | None = None  # what was extracted
        self.pruner: PatternPruner | None = None
        self.optimizer: torch.optim.Optimizer
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=options.amp and self.device.type == "cuda")
        # What makes a run this one; a checkpoint of another is refused.
        settings = asdict(spec) | asdict(replace(options, device=None))
        self.identity = {"data": data.name} | settings | asdict(self.schedule)
        del self.identity["schedule"]  # its fields are among the others
        self.shapes = [(name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()]
        PatternPruner(model, spec)  # refuses what cannot be pruned before anything takes time

    def run(self, resume: bool) -> TrainReport:
        self.model.to(self.device).train()
        start = self._resume() if resume else self._start()
        for phase in self.phases:
            if start >= phase.first + phase.epochs:
                continue
            if start <= phase.first:
                self._enter(phase)
            for epoch in range(max(start, phase.first), phase.first + phase.epochs):
                self._train_epoch(phase, epoch)
        return self._finish()

    def _start(self) -> int:
        if (self.folder / LAST).exists():
            raise PatcError(
                "expected a folder without a run; --resume goes on with it, --run-folder names another",
                str(self.folder),
            )
        make_folder(self.folder)
        return 0

    def _enter(self, phase: Phase) -> None:
        """Bring the model into the state that a phase works on, and make its optimizer."""
        if phase.kind == "extract" and self.extractor is None:
            self.extractor = self._make_extractor()
            self.extractor.prepare()
        if phase.kind in ("admm", "retrain"):
            if self.extractor is not None:
                self.found, self.extractor = self.extractor.finalize(), None
                self.spec = replace(self.spec, library=self.found)
            if self.pruner is None:
                self.pruner = PatternPruner(self.model, self.spec, self.schedule)
                self.pruner.prepare()
        if phase.kind == "retrain":
            assert self.pruner is not None
            self.pruner.harden()
        self.optimizer = self._make_optimizer()

    def _make_extractor(self) -> LibraryExtractor:
        return LibraryExtractor(self.model, sizes=extraction_sizes(self.options.extract), spec=self.spec)

    def _make_optimizer(self) -> torch.optim.Optimizer:
        options = self.options
        decayed: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, parameter in self.model.named_parameters():
            (others if name.endswith(".selection") or parameter.ndim < 2 else decayed).append(parameter)
        groups = [
            {"params": decayed, "weight_decay": options.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        if options.optimizer == "adamw":
            return torch.optim.AdamW(groups, lr=options.learning_rate)
        return torch.optim.SGD(groups, lr=options.learning_rate, momentum=0.9, nesterov=True)

    def _train_epoch(self, phase: Phase, epoch: int) -> None:
        started = time.perf_counter()
        torch.manual_seed(epoch_seed(self.options.seed, epoch))  # dropout
        batch_size = min(self.options.batch_size, len(self.data.train))
        steps = max(1, len(self.data.train) // batch_size)
        self.model.train()
        criterion = nn.CrossEntropyLoss(label_smoothing=self.options.label_smoothing)
        total, rate = torch.zeros((), device=self.device), 0.0
        batches = self.data.train.batches(batch_size, self.options.seed, epoch)
        for step, (images, labels) in enumerate(batches):
            rate = self._learning_rate(phase, (epoch - phase.first) + step / steps)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            total += self._train_step(images.to(self.device), labels.to(self.device), criterion)
            if step % _CHECKED_EVERY == 0 or step + 1 == steps:
                self._check_loss(total, epoch, step)
            self.tell_step(phase, epoch, step + 1, steps)
        rho = self.pruner.rho if self.pruner is not None and phase.kind == "admm" else None
        self._end_epoch(phase, epoch)
        test_loss, accuracy = evaluate(self.model, self.data)
        line = Epoch(
            epoch=epoch,
            phase=phase.kind,
            learning_rate=rate,
            rho=rho,
            train_loss=float(total) / steps,
            test_loss=test_loss,
            test_accuracy=accuracy,
            distance=self.pruner.distance() if self.pruner is not None and phase.kind == "admm" else None,
            seconds=time.perf_counter() - started,
        )
        self.log.append(line)
        if phase.kind == "retrain" and accuracy > self.best:
            self.best = accuracy
            save_state(self.folder / BEST, {"model": self.model.state_dict(), "accuracy": accuracy, "epoch": epoch})
        self._checkpoint(epoch + 1)
        self.tell(phase, line)

    def _train_step(self, images: Tensor, labels: Tensor, criterion: nn.Module) -> Tensor:
        """Return the loss, without penalties."""
        kind = self.device.type
        dtype = torch.float16 if kind == "cuda" else torch.bfloat16
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(kind, dtype=dtype, enabled=self.options.amp):
            loss = criterion(self.model(images), labels)
        whole = loss
        if self.pruner is not None:
            whole = loss + self.pruner.penalty()
        elif self.extractor is not None:
            whole = loss + self.extractor.penalty()
        self.scaler.scale(whole).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach().float()

    def _learning_rate(self, phase: Phase, epochs: float) -> float:
        first, last = _RATES[phase.kind]
        share = last + (first - last) * (1 + math.cos(math.pi * epochs / phase.epochs)) / 2
        # The first steps of dense training start from noise.
        warm_up = min(1.0, (epochs + 0.02) / min(1.0, phase.epochs / 2)) if phase.kind == "dense" else 1.0
        return self.options.learning_rate * share * warm_up

    def _check_loss(self, total: Tensor, epoch: int, step: int) -> None:
        if bool(torch.isfinite(total)):
            return
        last = self.folder / LAST
        left = f"the checkpoint of epoch {epoch - 1} is in {last}" if last.exists() else "there is no checkpoint yet"
        raise PatcError(
            f"expected a finite loss, found {float(total)} in epoch {epoch}, step {step}: "
            f"a lower learning rate may help; {left}"
        )

    def _end_epoch(self, phase: Phase, epoch: int) -> None:
        if phase.kind == "admm":
            assert self.pruner is not None
            self.pruner.step()
        elif phase.kind == "extract":
            assert self.extractor is not None
            self.extractor.step()
            if epoch + 1 == phase.first + phase.epochs:
                self.histograms.append(self.extractor.reduce())

    def _checkpoint(self, epoch: int) -> None:
        """Write what the epoch with this number starts from, and the log."""
        state = {
            "identity": self.identity,
            "shapes": self.shapes,
            "epoch": epoch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "log": [asdict(line) for line in self.log],
            "best": self.best,
            "histograms": self.histograms,
            "extractor": None if self.extractor is None else self.extractor.state_dict(),
            "found": self.found,
        }
        save_state(self.folder / LAST, state)
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for line in self.log:
            writer.writerow("" if value is None else value for value in asdict(line).values())
        atomic_write(self.folder / LOG, stream.getvalue())

    def _resume(self) -> int:
        """Load the last checkpoint; return the epoch that it goes on with."""
        path = self.folder / LAST
        state = _load(path, ("identity", "shapes", "model"))
        for name, value in self.identity.items():
            other = state["identity"].get(name)
            if other != value:
                raise PatcError(
                    f"expected the checkpoint of a run with {name.replace('_', ' ')} {value}, found one with {other}",
                    str(path),
                )
        if state["shapes"] != self.shapes:
            raise PatcError("expected the checkpoint of a model of the same weights, found another", str(path))
        epoch: int = state["epoch"]
        # The phase that wrote the checkpoint, whose state the model has.
        phase = next(phase for phase in self.phases if phase.first < epoch <= phase.first + phase.epochs)
        if state["extractor"] is not None:
            self.extractor = self._make_extractor()
            self.extractor.load_state_dict(state["extractor"])
        if state["found"] is not None:
            self.found = state["found"]
            self.spec = replace(self.spec, library=state["found"])
        if phase.kind in ("admm", "retrain"):
            self.pruner = PatternPruner(self.model, self.spec, self.schedule)
            self.pruner.prepare()
        self.model.load_state_dict(state["model"])
        self.optimizer = self._make_optimizer()
        if epoch < phase.first + phase.epochs:
            self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.log = [Epoch(**line) for line in state["log"]]
        self.best, self.histograms = state["best"], state["histograms"]
        return epoch

    def _finish(self) -> TrainReport:
        assert self.pruner is not None  # there is at least one epoch of ADMM
        if self.best >= 0:
            self.model.load_state_dict(_load(self.folder / BEST, ("model", "accuracy"))["model"])
        pruned = self.pruner.finalize()
        accuracy = evaluate(self.model, self.data)[1]
        self.model.to("cpu").eval()
        return TrainReport(pruned, accuracy, tuple(self.log), tuple(self.histograms))


def _load(path: Path, needed: Collection[str]) -> dict[str, Any]:
    if not path.is_file():
        raise PatcError("expected the checkpoint of a run, found no such file", str(path))
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes the unpickler raise nearly anything
        reason = (str(error).splitlines() or [""])[0].split(". ")[0] or type(error).__name__
        raise PatcError(f"expected a readable checkpoint, found: {reason}", str(path)) from None
    if not isinstance(state, dict) or not state.keys() >= set(needed):
        raise PatcError("expected the checkpoint of a run, found another file", str(path))
    return state
