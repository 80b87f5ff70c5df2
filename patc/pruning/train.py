"""The training loop of `patc prune`: dense training, extraction, pruning and masked retraining, with checkpoints.

    report = train(model, open_data("glyphs", 32), PatternSpec.for_compression(8.0), TrainOptions(), "run")

The folder gets `log.csv`, `last.pt` after each epoch and `best.pt`, the retrained weights of the best test accuracy.
All that is random depends on the seed and the epoch alone: on a CPU, a run that is resumed from `last.pt` gives the
same bits as one that was not interrupted, on the same machine and number of threads.
"""

from __future__ import annotations

import csv
import io
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from patc.diagnostics import PatcError, first_line
from patc.files import atomic_write, make_folder
from patc.pruning.checkpoint import (
    Fault,
    blamed,
    check_list,
    check_model,
    check_number,
    check_optimizer,
    check_scaler,
    read_checkpoint,
)
from patc.pruning.chosen import describe_target, read_target
from patc.pruning.data import Data, epoch_seed
from patc.pruning.evaluation import call, evaluate, move
from patc.pruning.extraction import LibraryExtractor
from patc.pruning.latency import LayerTime, choose_rates
from patc.pruning.methods.admm import Admm
from patc.pruning.methods.magnitude import Magnitude
from patc.pruning.plan import Plan
from patc.pruning.pruner import Pruner
from patc.pruning.ranks import average, find_part, share_numbers, wait, wrap
from patc.pruning.report import PruneReport
from patc.pruning.run_log import COLUMNS, Epoch, check_extractor, check_identity, check_progress
from patc.pruning.spec import PatternSpec
from patc.pruning.train_options import Phase, TrainOptions, extraction_sizes, plan_phases, rate_share
from patc.robust.weights import DomainWeights, worst_case_loss

LAST, BEST, LOG = "last.pt", "best.pt", "log.csv"
# Of `last.pt`.
_FIELDS = (
    "identity", "shapes", "epoch", "model", "optimizer", "scaler", "log", "best", "histograms", "extractor", "spec",
    "domains",
)  # fmt: skip
_CHECKED_EVERY = 20  # steps between two looks at the loss: each waits for the device
_PRUNED = ("prune", "retrain")  # phases in which there is a pruner


@dataclass(frozen=True)
class TrainReport:
    """What training and pruning gave.

    Attributes:
        pruned: what was kept.
        test_accuracy: of the model as it is now, that of the best epoch of retraining.
        epochs: the log.
        histograms: kernels that selected each pattern, before each step of the extraction.
        domains: weight at the end, and test accuracy, of each domain; empty where there are none.
    """

    pruned: PruneReport
    test_accuracy: float
    epochs: tuple[Epoch, ...]
    histograms: tuple[dict[int, int], ...]
    domains: dict[str, tuple[float, float]]


Target = PatternSpec | Plan
LayerTimes = Callable[[nn.Module, Target], LayerTime]
Tell = Callable[[Phase, Epoch], None]
TellStep = Callable[[Phase, int, int, int], None]


def train(
    model: nn.Module,
    data: Data,
    spec: Target,
    options: TrainOptions,
    folder: str | os.PathLike[str],
    resume: bool = False,
    tell: Tell = lambda phase, epoch: None,
    tell_step: TellStep = lambda phase, epoch, step, steps: None,
    layer_times: LayerTimes | None = None,
) -> TrainReport:
    """Train and prune `model` in place; it ends on the CPU, in eval mode, with plain weights.

    Args:
        folder: for log and checkpoints; made if it is missing.
        spec: what to prune to.
        resume: go on from the folder's last checkpoint, with the same data, spec and options.
        tell: called after each epoch.
        tell_step: called after each step with phase, epoch, steps so far and steps of the epoch.
        layer_times: returns the times of a model's layers, for `options.speedup`: see `choose_rates`.

    Raises:
        PatcError: the model cannot be pruned to the spec or trained on these images, the loss or a weight is not finite
            (the last checkpoint stays as it is), data cannot be read, the folder holds another run or, without
            `resume`, any run.
    """
    return _Run(model, data, spec, options, Path(folder), tell, tell_step, layer_times).run(resume)


def make_run_folder(folder: str | os.PathLike[str]) -> None:
    """Make the folder of a run that starts.

    Raises:
        PatcError: it holds a run, or cannot be made.
    """
    if (Path(folder) / LAST).exists():
        raise PatcError(
            "expected a folder without a run; --resume goes on with it, --run-folder names another", str(folder)
        )
    make_folder(folder)


def save_state(path: str | os.PathLike[str], state: dict[str, Any]) -> None:
    """Write what `torch.save` does; the file appears whole or not at all.

    Raises:
        PatcError: the file cannot be written.
    """
    atomic_write(path, state_bytes(state))


def state_bytes(state: dict[str, Any]) -> bytes:
    """Return what `torch.save` writes."""
    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getvalue()


class _Run:
    def __init__(
        self,
        model: nn.Module,
        data: Data,
        spec: Target,
        options: TrainOptions,
        folder: Path,
        tell: Tell,
        tell_step: TellStep,
        layer_times: LayerTimes | None,
    ) -> None:
        self.model, self.data, self.spec, self.options, self.folder = model, data, spec, options, folder
        self.tell, self.tell_step, self.layer_times = tell, tell_step, layer_times
        self.device = options.find_device()
        self.phases = plan_phases(options)
        checked = Pruner(model, spec)  # refuses what cannot be pruned before anything takes time
        self.method = (options.method or (Admm() if checked.has_levels else Magnitude())).over(options.prune_epochs)
        self.part = find_part()
        self.log: list[Epoch] = []
        self.best = -1.0
        self.weights: DomainWeights | None = None
        if options.domains is not None:
            options.domains.check(data)
            self.weights = DomainWeights(len(options.domains.names), options.domains.step, options.domains.pull)
        self.histograms: list[dict[int, int]] = []
        self.extractor: LibraryExtractor | None = None
        self.pruner: Pruner | None = None
        self.optimizer: torch.optim.Optimizer
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=options.amp and self.device.type == "cuda")
        # What makes a run this one; a checkpoint of another is refused.
        settings = describe_target(spec) | asdict(replace(options, device=None, method=None))
        self.identity = {"data": data.name} | settings | {"method": repr(self.method)}
        self.shapes = [(name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()]
        if options.extract is not None and not isinstance(spec, PatternSpec):
            raise PatcError("expected a PatternSpec to extract a library for, got a Plan")

    def run(self, resume: bool) -> TrainReport:
        self.model.to(self.device).train()
        if resume:
            start = self._resume()
        else:
            if self.part[0] == 0:
                make_run_folder(self.folder)
            start = 0
            if self.phases[0].kind != "prune":
                self._choose_rates()  # refuses a speedup that is out of reach before anything takes time
        for phase in self.phases:
            if start >= phase.first + phase.epochs:
                continue
            if start <= phase.first:
                self._enter(phase)
            for epoch in range(max(start, phase.first), phase.first + phase.epochs):
                self._train_epoch(phase, epoch)
        return self._finish()

    def _enter(self, phase: Phase) -> None:
        """Bring the model into the state that a phase works on, and make its optimizer."""
        if phase.kind == "extract" and self.extractor is None:
            self.extractor = self._make_extractor()
            self.extractor.prepare()
        if phase.kind in _PRUNED:
            if self.extractor is not None:
                assert isinstance(self.spec, PatternSpec)
                self.spec = replace(self.spec, library=self.extractor.finalize())
                self.extractor = None
            if self.pruner is None:
                self.spec = self._choose_rates()
                self.pruner = Pruner(self.model, self.spec, self.method)
                self.pruner.prepare()
        if phase.kind == "retrain":
            assert self.pruner is not None
            self.pruner.harden()
        self.optimizer = self._make_optimizer()

    def _choose_rates(self) -> Target:
        """Return the spec; with `speedup`, with the rates that this takes of the weights as they are."""
        if self.options.speedup is None:
            return self.spec
        if self.layer_times is None:
            raise PatcError("expected layer_times together with a speedup, got none")
        times = self.layer_times(self.model, self.spec)
        return choose_rates(self.model, self.spec, times, self.options.speedup)

    def _make_extractor(self) -> LibraryExtractor:
        options = self.options
        assert isinstance(self.spec, PatternSpec)
        return LibraryExtractor(self.model, options.extract_from, extraction_sizes(options.extract), spec=self.spec)

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
        batch_size = min(self.options.batch_size * self.part[1], len(self.data.train))
        steps = max(1, len(self.data.train) // batch_size)
        computing = wrap(self.model)  # anew in each epoch: phases replace parameters
        computing.train()
        criterion = nn.CrossEntropyLoss(label_smoothing=self.options.label_smoothing)
        total, rate = torch.zeros((), device=self.device), 0.0
        batches = self.data.train.batches(batch_size, self.options.seed, epoch, self.part)
        for step, (images, labels) in enumerate(batches):
            rate = self.options.learning_rate * rate_share(phase, (epoch - phase.first) * steps + step, steps)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            try:
                total += self._train_step(computing, images, labels, criterion)
            except (RuntimeError, ValueError, IndexError) as error:  # of torch: shapes, classes, memory
                shape = f" of {'x'.join(map(str, images.shape))}" if isinstance(images, Tensor) else ""
                expected = f"expected a model that can be trained on batches{shape}"
                raise PatcError(f"{expected}, found: {first_line(error)}") from error
            if step % _CHECKED_EVERY == 0 or step + 1 == steps:
                self._check_loss(total, epoch, step)
            self.tell_step(phase, epoch, step + 1, steps)
        rho = self.pruner.rho if self.pruner is not None and phase.kind == "prune" else None
        self._check_weights(epoch)
        self._end_epoch(phase, epoch)
        tested = evaluate(self.model, self.data) if self.part[0] == 0 else (0.0, 0.0)
        test_loss, accuracy = share_numbers(*tested)
        worst = self._worst_accuracy()
        if not math.isfinite(test_loss):
            raise self._not_finite(f"a test loss of {test_loss}", epoch)
        line = Epoch(
            epoch=epoch,
            phase=phase.kind,
            learning_rate=rate,
            rho=rho,
            train_loss=float(average(total)) / steps,
            test_loss=test_loss,
            test_accuracy=accuracy,
            worst_accuracy=worst,
            distance=self.pruner.distance() if self.pruner is not None and phase.kind != "retrain" else None,
            seconds=time.perf_counter() - started,
        )
        self.log.append(line)
        judged = accuracy if worst is None else worst
        if phase.kind == "retrain" and judged > self.best:
            self.best = judged
            self._save(self.folder / BEST, {"model": self.model.state_dict(), "accuracy": judged, "epoch": epoch})
        self._checkpoint(epoch + 1)
        self.tell(phase, line)

    def _worst_accuracy(self) -> float | None:
        """Return the test accuracy in the worst domain; None without domains."""
        if self.options.domains is None:
            return None
        is_first = self.part[0] == 0
        worst = min(self.options.domains.evaluate(self.model, self.data).values()) if is_first else 0.0
        return share_numbers(worst)[0]

    def _save(self, path: Path, state: dict[str, Any]) -> None:
        if self.part[0] == 0:
            save_state(path, state)

    def _train_step(self, computing: nn.Module, images: Any, labels: Tensor, criterion: nn.Module) -> Tensor:
        """Return the loss, without penalties."""
        images, labels = (move(part, self.device) for part in (images, labels))
        kind = self.device.type
        dtype = torch.float16 if kind == "cuda" else torch.bfloat16
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(kind, dtype=dtype, enabled=self.options.amp):
            loss = self._loss(computing, images, labels, criterion)
        whole = loss
        if self.pruner is not None:
            whole = loss + self.pruner.penalty()
        elif self.extractor is not None:
            whole = loss + self.extractor.penalty()
        self.scaler.scale(whole).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach().float()

    def _loss(self, computing: nn.Module, images: Any, labels: Tensor, criterion: nn.Module) -> Tensor:
        if self.options.domains is None or self.weights is None:
            loss: Tensor = criterion(call(computing, self.data.prepare(images)), labels)
            return loss
        losses = self.options.domains.losses(self.model, computing, self.data, images, labels, criterion)
        return worst_case_loss(losses, self.weights, average(losses.detach().clone()))

    def _check_loss(self, total: Tensor, epoch: int, step: int) -> None:
        if not bool(torch.isfinite(total)):
            raise self._not_finite(f"a loss of {float(total)} in step {step}", epoch)

    def _check_weights(self, epoch: int) -> None:
        """Refuse to go on with what the last step has made: its loss was computed before."""
        for name, tensor in self.model.named_parameters():
            if not bool(torch.isfinite(tensor).all()):
                raise self._not_finite(f"NaN or infinity in '{name}'", epoch)

    def _not_finite(self, found: str, epoch: int) -> PatcError:
        last = self.folder / LAST
        left = f"the checkpoint of epoch {epoch - 1} is in {last}" if last.exists() else "there is no checkpoint yet"
        expected = f"expected a finite loss and finite weights in epoch {epoch}"
        return PatcError(f"{expected}, found {found}: a lower learning rate may help; {left}")

    def _end_epoch(self, phase: Phase, epoch: int) -> None:
        if phase.kind in _PRUNED:
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
            "spec": describe_target(self.spec),
            "domains": None if self.weights is None else self.weights.values[0].tolist(),
        }
        if self.part[0] != 0:
            return
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
        state = read_checkpoint(path, _FIELDS)
        with blamed(path):
            check_identity(state, self.identity, self.shapes)
            phase, epoch = check_progress(state, self.phases)
            self._load_model(state, phase, epoch)
            self.optimizer = self._make_optimizer()
            if epoch < phase.first + phase.epochs:
                check_optimizer("optimizer", state["optimizer"], self.optimizer)
                self.optimizer.load_state_dict(state["optimizer"])
            check_scaler("scaler", state["scaler"], self.scaler)
            self.scaler.load_state_dict(state["scaler"])
            self._load_weights(state["domains"])
        self.log = [Epoch(**line) for line in state["log"]]
        self.best, self.histograms = state["best"], list(state["histograms"])
        return epoch

    def _load_weights(self, found: Any) -> None:
        """Give the domains the weights that they had."""
        if self.weights is None:
            if found is not None:
                raise Fault("domains", "none", found)
            return
        check_list("domains", found, self.weights.values.shape[1])
        for number, value in enumerate(found):
            check_number(f"domains.{number}", value, 0.0, 1.0)
        self.weights.values = torch.tensor([list(found)], dtype=torch.float64)

    def _load_model(self, state: dict[str, Any], phase: Phase, epoch: int) -> None:
        """Bring the model into the state that the phase left it in."""
        if (state["extractor"] is not None) != (phase.kind == "extract"):
            raise Fault("extractor", f"that of the phase '{phase.kind}'", state["extractor"])
        if phase.kind == "extract":
            self.extractor = self._make_extractor()
            check_extractor(state["extractor"], self.extractor)
            self.extractor.load_state_dict(state["extractor"])
        # With the library that was extracted and the rates that were chosen.
        self.spec = read_target(state["spec"], self.spec)
        if phase.kind in _PRUNED:
            self.pruner = Pruner(self.model, self.spec, self.method)
            self.pruner.prepare()
        check_model("model", state["model"], self.model)
        if self.pruner is not None:
            steps = epoch - phase.first if phase.kind != "retrain" else self.options.prune_epochs
            self.pruner.check_state(state["model"], steps, phase.kind == "retrain")
        self.model.load_state_dict(state["model"])

    def _finish(self) -> TrainReport:
        assert self.pruner is not None  # there is at least one epoch of pruning
        wait()
        if self.best >= 0:
            path = self.folder / BEST
            state = read_checkpoint(path, ("accuracy", "epoch"))["model"]
            with blamed(path):
                check_model("model", state, self.model)
                self.pruner.check_state(state, self.options.prune_epochs, True)
            self.model.load_state_dict(state)
        pruned = self.pruner.finalize()
        accuracy = evaluate(self.model, self.data)[1]
        domains: dict[str, tuple[float, float]] = {}
        if self.options.domains is not None and self.weights is not None:
            reached = self.options.domains.evaluate(self.model, self.data)
            pairs = zip(self.weights.values[0].tolist(), reached.values(), strict=True)
            domains = dict(zip(reached, pairs, strict=True))
        self.model.to("cpu").eval()
        return TrainReport(pruned, accuracy, tuple(self.log), tuple(self.histograms), domains)
