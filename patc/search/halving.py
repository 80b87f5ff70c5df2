"""Successive halving: all candidates are trained a little, the best ones further, and the best of these further again.

Source: K. Jamieson and A. Talwalkar, Non-stochastic best arm identification and hyperparameter optimization, 2016.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from torch import nn

from patc.checkpoints import load_checkpoint, read_checkpoint, safetensors_bytes
from patc.diagnostics import PatcError
from patc.files import atomic_write, make_folder
from patc.search.cost import Cost, time_files
from patc.search.records import Candidate, Records, key_of
from patc.search.space import Point, describe
from patc.search.supernet import SuperNet, Tell
from patc.search.task import Effort, Task
from patc.search.training import Diverged, fit

FOLDER = "rungs"
MEASURED = "measured"  # what records keep seconds of a call as


def going_on(candidates: Iterable[Candidate], rung: int, places: int) -> list[Candidate]:
    """Return the candidates of a rung behind the first, in the order of their scores on the one before.

    They are the best ones; the best one without zeros, also where that is not one of them; and those that were trained
    on this rung already, when there were fewer others.
    """
    able = [item for item in candidates if len(item.scores) >= rung + item.diverged]
    ranked = sorted(able, key=lambda item: -item.scores[rung - 1])
    dense = next((item for item in ranked if is_dense(item)), None)
    return [item for place, item in enumerate(ranked) if place < places or item is dense or len(item.scores) > rung]


def is_dense(item: Candidate) -> bool:
    """Return whether nothing of a candidate is pruned."""
    return item.point["scheme"] == "dense"


class Ladder:
    """Trains candidates rung by rung, the first of which is number 0.

    What is chosen follows from the records alone, so that a search that was stopped goes on as it would have, and
    machines that share them agree. Weights that may be trained further are in a folder; those of which there is no file
    are trained again.
    """

    def __init__(
        self, task: Task, cost: Cost, limit: float, records: Records, supernet: SuperNet, effort: Effort, folder: Path
    ) -> None:
        self.task, self.cost, self.limit, self.records = task, cost, limit, records
        self.supernet, self.effort, self.folder = supernet, effort, folder
        self._last = len(effort.rungs) - 1

    def train(self, point: Point, rung: int) -> float | None:
        """Train a candidate on a rung, keep its weights as a file, and return its score; None where it diverges.

        Raises:
            PatcError: files cannot be read or written.
        """
        try:
            net = self._fit(point, rung)
        except Diverged:
            return None
        make_folder(self.folder / FOLDER)
        atomic_write(self._path(key_of(point), rung), safetensors_bytes(net.state_dict()))
        score = self.task.score(net, "choose")
        return None if math.isnan(score) else score

    def climb(self, tell: Tell) -> list[Candidate]:
        """Train candidates on all rungs behind the first; return those of the last one, best first.

        Times are measured before, so that none that is too slow takes a place.

        Raises:
            PatcError: there is no candidate within the limit, or none whose training converges; files cannot be read
                or written.
        """
        for rung in range(1, self._last + 1):
            here = self._members(rung, tell)
            if left := _untrained(here, rung):
                words = f"{len(left)} of {len(here)} candidates to {self.effort.rungs[rung].steps} steps"
                tell(f"rung {rung + 1} of {self._last + 1}: {words}")
            while left:
                self._train_one(left, rung, tell)
                left = _untrained(self._members(rung, tell), rung)
        found = [item for item in self._members(self._last, tell) if len(item.scores) > self._last]
        return sorted(found, key=lambda item: -item.scores[self._last])

    def weights(self, point: Point, rung: int) -> nn.Module:
        """Return the net of a candidate as a rung has left it, in eval mode.

        Raises:
            PatcError: the file of its weights is damaged.
        """
        path = self._path(key_of(point), rung)
        if not path.is_file():
            return self._fit(point, rung)
        net = self.supernet.extract(point)
        try:
            load_checkpoint(net, read_checkpoint(path))
        except PatcError as error:
            raise PatcError(f"{error.message}; without this file, the candidate is trained again", str(path)) from None
        return net.eval()

    def clean(self) -> None:
        """Remove the files of weights that will not be trained further, unless they are of the last rung."""
        items = _unique(self.records.candidates())
        needed = {self._path(item.key, self._last) for item in items}
        fast = self._fast(items, self.records.facts(MEASURED))
        for rung, places in enumerate(self.effort.places[1:], 1):
            needed |= {self._path(item.key, rung - 1) for item in _untrained(going_on(fast, rung, places), rung)}
        for item in items:
            for path in (self._path(item.key, rung) for rung in range(len(item.scores))):
                if path not in needed:
                    with contextlib.suppress(OSError):  # what is left hurts nobody
                        path.unlink(missing_ok=True)

    def _train_one(self, left: Sequence[Candidate], rung: int, tell: Tell) -> None:
        """Train one of some candidates on a rung: rather one that no other machine trains, or was stopped at."""
        claimed = self.records.claimed(rung)
        item = min(left, key=lambda item: item.key in claimed)
        self.records.claim(item.key, rung)
        score = self.train(item.point, rung)
        self.records.keep_score(item.key, rung, score)
        self.clean()
        seconds = self.records.facts(MEASURED).get(item.key, item.seconds)
        result = "diverged" if score is None else f"{self.task.figure} {score:.2f}"
        tell(f"     {1e3 * seconds:8.3f} ms  {result:16s}  {describe(item.point)}")

    def _fit(self, point: Point, rung: int) -> nn.Module:
        net = self.weights(point, rung - 1) if rung else self.supernet.extract(point)
        return fit(self.task, net, point, self.effort, rung, self.records.seed)

    def _path(self, key: str, rung: int) -> Path:
        return self.folder / FOLDER / f"{rung + 1}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.safetensors"

    # -- The candidates of a rung ------------------------------------------------------------------

    def _members(self, rung: int, tell: Tell) -> list[Candidate]:
        """Return the candidates of a rung behind the first, after the times of all of them were measured."""
        while True:
            items = _unique(self.records.candidates())
            measured = self.records.facts(MEASURED)
            chosen = going_on(self._fast(items, measured), rung, self.effort.places[rung])
            new = [item for item in chosen if item.key not in measured] if self.cost.runs_here else []
            if not new:
                break
            self._measure(new, tell)
        if not chosen:
            raise self._refusal(items, measured)
        return chosen

    def _fast(self, items: Iterable[Candidate], measured: Mapping[str, float]) -> list[Candidate]:
        """Return those that are not known to be slower than allowed."""
        return [item for item in items if measured.get(item.key, 0.0) <= self.limit]

    def _measure(self, items: Sequence[Candidate], tell: Tell) -> None:
        times = time_points(self.task, self.cost, [item.point for item in items], self.folder, tell)
        for item, seconds in zip(items, times, strict=True):
            self.records.keep(MEASURED, item.key, seconds)
            tell(f"     {1e3 * item.seconds:8.3f} ms  measured {1e3 * seconds:.3f} ms  {describe(item.point)}")

    def _refusal(self, items: Sequence[Candidate], measured: Mapping[str, float]) -> PatcError:
        scored = [item for item in items if item.scores]
        if not scored and not any(item.diverged for item in items):
            return PatcError("expected a candidate within the limit, found none: more trials look further")
        if not scored or self._fast(scored, measured):
            return PatcError("expected a candidate whose training stays finite, found none: more trials look further")
        expected = f"expected one of {len(measured)} candidates within {1e3 * self.limit:g} ms as measured"
        least = f"{1e3 * min(measured.values()):.4g} ms or more"
        return PatcError(f"{expected}, found {least}: others use this machine, or the model errs")


def _untrained(candidates: Iterable[Candidate], rung: int) -> list[Candidate]:
    """Return those that a rung is still to train."""
    return [item for item in candidates if len(item.scores) == rung]


def _unique(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return candidates without those that were chosen a second time."""
    return list({item.key: item for item in candidates}.values())


def time_points(task: Task, cost: Cost, points: Sequence[Point], folder: Path, tell: Tell) -> list[float]:
    """Return the measured seconds of candidates, timed in turns."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        paths = []
        for number, point in enumerate(points):
            tell(f"compiling {describe(point)}")
            paths.append(Path(place) / f"{number}.patc")
            cost.compile(task, point, paths[-1])
        return time_files(paths, task.inputs)
