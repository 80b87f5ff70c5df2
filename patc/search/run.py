"""A search from its folder to the net that it found.

The folder has all that was done, so that a search goes on where it was stopped, and others may work on it beside.
"""

from __future__ import annotations

import json
import math
import random
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from patc.checkpoints import load_checkpoint, read_checkpoint, safetensors_bytes
from patc.diagnostics import PatcError
from patc.files import AnyPath, Data, atomic_write, atomic_write_all, make_folder
from patc.search.cost import Cost
from patc.search.front import save_front
from patc.search.halving import MEASURED, Ladder, is_dense, time_points
from patc.search.records import Candidate, Records
from patc.search.space import Point, describe
from patc.search.supernet import Tell, train_supernet
from patc.search.task import PRUNING, SCHEMES, Effort, Task, seeded
from patc.torch_files import program_bytes

SUPERNET, RESULTS, FRONT = "supernet.pt", "candidates.json", "front.png"
BEST, DENSE = "net", "dense"  # names of the files of the nets that are kept
_PATIENCE = 30  # candidates that are looked at for each that is trained, at most
_DRAWN, _TIMED = 8, 2  # random candidates of each scheme, and the slowest within the limit, which correct the model


@dataclass(frozen=True)
class Found:
    """A net that a search kept.

    Attributes:
        point: of the candidate.
        seconds: that the cost model expects, corrected.
        measured: seconds of a call; None where the target is not this machine.
        score: behind the last rung, on the part to judge by.
        net: with its weights, in eval mode.
    """

    point: Point
    seconds: float
    measured: float | None
    score: float
    net: nn.Module


def search(
    task: Task,
    cost: Cost,
    limit: float,
    folder: Path,
    effort: Effort,
    seed: int = 0,
    tell: Tell = lambda words: None,
) -> dict[str, Found]:
    """Return the best net within a time as "net", and where that has zeros the best one without as "dense".

    Candidates are trained by successive halving, on the rungs of `effort`; the best one without zeros is on all of
    them.

    Writes to the folder: `net.pt2` and `dense.pt2`, which `patc compile` takes, their weights as `.safetensors`, all
    candidates as `candidates.json` and a plot of them as `front.png`; beside these what it goes on from.

    Args:
        limit: seconds, at which predicted and measured times are held.
        effort: how much is trained and tried.

    Raises:
        PatcError: no candidate is so fast, the folder is of another search or one of its files is damaged, Optuna is
            not there, data cannot be read, or files not be written.
    """
    make_folder(folder)
    identity = {
        **task.identity(),
        "target": cost.target,
        "threads": cost.threads,
        "latency": f"{1e3 * limit:g} ms",
        "effort": {name: value for name, value in asdict(effort).items() if name != "trials"},
        "seed": seed,
    }
    records = Records(folder, task.candidates, identity, seed)
    # The first run decides about the clock, so that all candidates are judged alike.
    cost = replace(cost, clock_hz=records.noted("clock_hz", cost.clock_hz))
    records.note("clock_hz", cost.clock_hz)
    _require_reachable(task, cost, limit, records)
    cost = _with_ratios(task, cost, limit, records, folder, tell)
    supernet = train_supernet(task, effort, seed, folder / SUPERNET, tell)
    ladder = Ladder(task, cost, limit, records, supernet, effort, folder)
    _try_candidates(task, cost, limit, records, ladder, effort.trials, tell)
    last = ladder.climb(tell)
    chosen = {BEST: last[0]}
    dense = next((item for item in last if is_dense(item)), last[0])
    if dense is not last[0]:
        chosen[DENSE] = dense
    found = {name: _finish(task, item, records, ladder, folder / name) for name, item in chosen.items()}
    if DENSE not in found:
        for suffix in (".safetensors", ".pt2"):  # of fewer trials, the best of which had zeros
            (folder / DENSE).with_suffix(suffix).unlink(missing_ok=True)
    _write(task, limit, records, found, folder)
    return found


def _require_reachable(task: Task, cost: Cost, limit: float, records: Records) -> None:
    """Refuse a limit below what the smallest candidates take."""
    if any(item.scores for item in records.candidates()):
        return
    least, fastest = math.inf, ""
    for architecture in task.space.corners(0):
        for point in _pruned(task, architecture):
            seconds = cost.predict(task, point)
            if seconds <= limit:
                return
            if seconds < least:
                least, fastest = seconds, describe(point)
    expected = f"expected a latency that this space reaches, {1e3 * least:.3g} ms or more ({fastest})"
    raise PatcError(f"{expected}, got {1e3 * limit:g} ms")


def _with_ratios(task: Task, cost: Cost, limit: float, records: Records, folder: Path, tell: Tell) -> Cost:
    """Return the cost corrected by what some random candidates of each scheme take on this machine.

    The model ranks candidates better than it knows their times: those of large planes wait for memory, and the more so
    the less there is to compute.
    """
    ratios = records.noted("ratios")
    if ratios is None:
        ratios = _find_ratios(task, cost, limit, records.seed, folder, tell) if cost.runs_here else {}
        records.note("ratios", ratios)
    return replace(cost, ratios=ratios)


def _find_ratios(task: Task, cost: Cost, limit: float, seed: int, folder: Path, tell: Tell) -> dict[str, float]:
    """Return measured over modelled seconds by scheme, the median of all for a scheme of which none is so fast."""
    timed: list[tuple[float, Point]] = []
    for scheme in SCHEMES:
        drawn = [_draw(task, scheme, seeded("ratio", seed, scheme, number)) for number in range(_DRAWN)]
        modelled = sorted(((cost.predict(task, point), point) for point in drawn), key=lambda pair: -pair[0])
        timed += [pair for pair in modelled if pair[0] <= limit][:_TIMED]
    if not timed:
        return {}
    measured = time_points(task, cost, [point for _, point in timed], folder, tell)
    found: dict[str, list[float]] = {}
    for one, (seconds, point) in zip(measured, timed, strict=True):
        found.setdefault(str(point["scheme"]), []).append(one / seconds)
    every = [ratio for ratios in found.values() for ratio in ratios]
    ratios = {scheme: statistics.median(found.get(scheme, every)) for scheme in SCHEMES}
    words = ", ".join(f"{ratio:.2f} ({scheme})" for scheme, ratio in ratios.items())
    tell(f"measured times over the modelled ones: {words}")
    return ratios


def _draw(task: Task, scheme: str, generator: random.Random) -> Point:
    """Return a random candidate of a scheme."""
    return task.candidates.choose(lambda choice: scheme if choice.name == "scheme" else generator.choice(choice.values))


def _pruned(task: Task, architecture: Point) -> Iterator[Point]:
    """Yield the candidates of an architecture that are pruned the furthest, one of each scheme."""
    for pruning in PRUNING.corners(0):
        yield {**architecture, **pruning}


def _try_candidates(
    task: Task, cost: Cost, limit: float, records: Records, ladder: Ladder, trials: int, tell: Tell
) -> None:
    """Look at candidates until enough of them are trained, on the first rung."""
    while True:
        known = records.candidates()
        trained = len({item.key for item in known if item.scores})
        if trained >= trials or len(known) >= _PATIENCE * trials:
            return
        trial, point = records.ask()
        try:
            candidate = next((item for item in known if item.point == point), None)
            score = candidate.scores[0] if candidate is not None and candidate.scores else None
            seconds = cost.predict(task, point) if candidate is None else candidate.seconds
            result = "over the limit" if seconds > limit else "as before"
            if candidate is None and seconds <= limit:
                score = ladder.train(point, 0)
                result = "diverged" if score is None else f"{task.figure} {score:.2f}"
            records.tell(trial, seconds, limit, score)
        except BaseException:
            records.drop(trial)
            raise
        ladder.clean()
        number = trained + (score is not None and candidate is None)
        tell(f"{number:4d} {1e3 * seconds:8.3f} ms  {result:16s}  {describe(point)}")


def _finish(task: Task, candidate: Candidate, records: Records, ladder: Ladder, path: Path) -> Found:
    """Return a candidate with the weights of the last rung, and write it."""
    weights, program = path.with_suffix(".safetensors"), path.with_suffix(".pt2")
    if records.noted(path.name) == candidate.key and weights.is_file() and program.is_file():
        net = ladder.supernet.extract(candidate.point)
        load_checkpoint(net, read_checkpoint(weights))
        net.eval()
    else:
        net = ladder.weights(candidate.point, len(candidate.scores) - 1)
        files: dict[AnyPath, Data] = {
            weights: safetensors_bytes(net.state_dict()),
            program: program_bytes(torch.export.export(net, task.inputs)),
        }
        atomic_write_all(files)
        records.note(path.name, candidate.key)
    measured = records.facts(MEASURED).get(candidate.key)
    return Found(candidate.point, candidate.seconds, measured, task.score(net, "judge"), net)


def _write(task: Task, limit: float, records: Records, found: dict[str, Found], folder: Path) -> None:
    """Write all candidates, and what was found, as JSON and as a plot."""
    candidates, measured = records.candidates(), records.facts(MEASURED)
    result: dict[str, Any] = {
        "task": task.name,
        "figure": task.figure,
        "limit_seconds": limit,
        **records.noted("identity"),
        "clock_hz": records.noted("clock_hz"),
        "ratios": records.noted("ratios"),
        "beside": dict(task.beside()),
        "found": {
            name: {"point": net.point, "seconds": net.seconds, "measured_seconds": net.measured, "score": net.score}
            for name, net in found.items()
        },
        "candidates": [
            {
                "point": item.point,
                "seconds": item.seconds,
                "measured_seconds": measured.get(item.key),
                "scores": item.scores,
                "diverged": item.diverged,
            }
            for item in candidates
        ],
    }
    atomic_write(folder / RESULTS, json.dumps(result, indent=1))
    save_front(folder / FRONT, candidates, limit, task.figure, measured)
