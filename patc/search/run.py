"""A search from its folder to the net that it found.

The folder has all that was done, so that a search goes on where it was stopped, and others may work on it beside.
"""

from __future__ import annotations

import json
import math
import random
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from patc.checkpoints import load_checkpoint, read_checkpoint, safetensors_bytes
from patc.diagnostics import PatcError
from patc.files import atomic_write, make_folder
from patc.search.cost import Cost, time_files
from patc.search.front import save_front
from patc.search.records import Candidate, Records
from patc.search.space import Point, describe
from patc.search.supernet import SuperNet, Tell, train_supernet
from patc.search.task import PRUNING, SCHEMES, Effort, Task, seeded
from patc.search.training import Diverged, fit
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
        score: behind its final training, on the part to judge by.
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

    Writes to the folder: `net.pt2` and `dense.pt2`, which `patc compile` takes, their weights as `.safetensors`, all
    candidates as `candidates.json` and a plot of them as `front.png`; beside these what it goes on from.

    Args:
        limit: seconds, at which predicted and measured times are held.
        effort: how much is trained and tried.

    Raises:
        PatcError: no candidate is so fast, the folder is of another search, Optuna is not there, or data cannot be
            read.
    """
    make_folder(folder)
    identity = {
        **task.identity(),
        "target": cost.target,
        "threads": cost.threads,
        "latency": f"{1e3 * limit:g} ms",
        "effort": {name: value for name, value in vars(effort).items() if name != "trials"},
        "seed": seed,
    }
    records = Records(folder, task.candidates, identity, seed)
    # The first run decides about the clock, so that all candidates are judged alike.
    cost = replace(cost, clock_hz=records.noted("clock_hz", cost.clock_hz))
    records.note("clock_hz", cost.clock_hz)
    _require_reachable(task, cost, limit, records)
    cost = _with_ratios(task, cost, limit, records, folder, tell)
    supernet = train_supernet(task, effort, seed, folder / SUPERNET, tell)
    _try_candidates(task, cost, limit, records, supernet, effort, tell)
    chosen = _choose(task, cost, limit, records, effort, folder, tell)
    found = {
        name: _finish(task, candidate, records, supernet, effort, folder / name, tell)
        for name, candidate in chosen.items()
    }
    _write(task, limit, records, found, folder)
    return found


def _require_reachable(task: Task, cost: Cost, limit: float, records: Records) -> None:
    """Refuse a limit below what the smallest candidates take."""
    if any(item.score is not None for item in records.candidates()):
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
    measured = _time(task, cost, [point for _, point in timed], folder, tell)
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


def _time(task: Task, cost: Cost, points: Sequence[Point], folder: Path, tell: Tell) -> list[float]:
    """Return the measured seconds of candidates, timed in turns."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        paths = []
        for number, point in enumerate(points):
            tell(f"compiling {describe(point)}")
            paths.append(Path(place) / f"{number}.patc")
            cost.compile(task, point, paths[-1])
        return time_files(paths, task.inputs)


def _pruned(task: Task, architecture: Point) -> Iterator[Point]:
    """Yield the candidates of an architecture that are pruned the furthest, one of each scheme."""
    for pruning in PRUNING.corners(0):
        yield {**architecture, **pruning}


def _try_candidates(
    task: Task, cost: Cost, limit: float, records: Records, supernet: SuperNet, effort: Effort, tell: Tell
) -> None:
    """Look at candidates until enough of them are trained."""
    while True:
        known = records.candidates()
        trained = len({item.key for item in known if item.score is not None})
        if trained >= effort.trials or len(known) >= _PATIENCE * effort.trials:
            return
        trial, point = records.ask()
        try:
            candidate = next((item for item in known if item.point == point), None)
            score = None if candidate is None else candidate.score
            seconds = cost.predict(task, point) if candidate is None else candidate.seconds
            result = "over the limit" if seconds > limit else "as before"
            if candidate is None and seconds <= limit:
                score = _train(task, point, supernet, effort, _seed_of(records, known))
                result = "diverged" if score is None else f"{task.figure} {score:.2f}"
            records.tell(trial, seconds, limit, score)
        except BaseException:
            records.drop(trial)
            raise
        number = trained + (score is not None and candidate is None)
        tell(f"{number:4d} {1e3 * seconds:8.3f} ms  {result:16s}  {describe(point)}")


def _train(task: Task, point: Point, supernet: SuperNet, effort: Effort, seed: int) -> float | None:
    """Return the score of a candidate; None of one whose training diverges."""
    try:
        net = fit(task, supernet.extract(point), point, effort, effort.trial_steps, seed)
    except Diverged:
        return None
    return task.score(net, "choose")


def _seed_of(records: Records, known: list[Candidate]) -> int:
    """Return a seed of batches that no other candidate has, nor the shared weights."""
    return 10_000 * (records.seed + 1) + len(known)


# -- The best ones ---------------------------------------------------------------------------------


def _choose(
    task: Task,
    cost: Cost,
    limit: float,
    records: Records,
    effort: Effort,
    folder: Path,
    tell: Tell,
) -> dict[str, Candidate]:
    """Return the best candidate, and the best one without zeros, whose measured times are within the limit, too."""
    unique = {item.key: item for item in records.candidates() if item.score is not None}
    ranked = sorted(unique.values(), key=lambda item: -(item.score or 0.0))
    groups = {BEST: ranked, DENSE: [item for item in ranked if item.point["scheme"] == "dense"]}
    if not ranked:
        raise PatcError("expected a candidate within the limit, found none: more trials look further")
    if not cost.runs_here:
        return _unequal({name: group[0] for name, group in groups.items() if group})
    chosen = {}
    for name, group in groups.items():
        measured = _measure(task, cost, group[: effort.measured], records, folder, tell)
        within = [item for item in group[: effort.measured] if measured[item.key] <= limit]
        if within:
            chosen[name] = within[0]
        elif name == BEST:
            least = min(measured.values())
            expected = f"expected one of the best {len(measured)} candidates within {1e3 * limit:g} ms as measured"
            raise PatcError(
                f"{expected}, found {1e3 * least:.4g} ms or more: others use this machine, or the model errs"
            )
    return _unequal(chosen)


def _unequal(chosen: dict[str, Candidate]) -> dict[str, Candidate]:
    """Return what was chosen, without the dense candidate where that is the best one."""
    return {name: item for name, item in chosen.items() if name == BEST or item != chosen[BEST]}


def _measure(
    task: Task, cost: Cost, candidates: Sequence[Candidate], records: Records, folder: Path, tell: Tell
) -> dict[str, float]:
    """Return the measured seconds of candidates by their keys; those that are not known are timed together."""
    known: dict[str, float] = dict(records.noted("measured", {}))
    new = [item for item in candidates if item.key not in known]
    if new:
        times = _time(task, cost, [item.point for item in new], folder, tell)
        for item, seconds in zip(new, times, strict=True):
            known[item.key] = seconds
            tell(f"     {1e3 * item.seconds:8.3f} ms  measured {1e3 * seconds:.3f} ms  {describe(item.point)}")
        records.note("measured", known)
    return {item.key: known[item.key] for item in candidates}


def _finish(
    task: Task, candidate: Candidate, records: Records, supernet: SuperNet, effort: Effort, path: Path, tell: Tell
) -> Found:
    """Return a candidate with weights of a longer training, and write it."""
    net = supernet.extract(candidate.point)
    weights, program = path.with_suffix(".safetensors"), path.with_suffix(".pt2")
    if records.noted(path.name) == candidate.key and weights.is_file() and program.is_file():
        load_checkpoint(net, read_checkpoint(weights))
        net.eval()
    else:
        tell(f"{path.name}: {effort.final_steps} steps of {describe(candidate.point)}")
        net = fit(task, net, candidate.point, effort, effort.final_steps, 1_000_000 + records.seed)
        atomic_write(weights, safetensors_bytes(net.state_dict()))
        atomic_write(program, program_bytes(torch.export.export(net, task.inputs)))
        records.note(path.name, candidate.key)
    measured = records.noted("measured", {}).get(candidate.key)
    return Found(candidate.point, candidate.seconds, measured, task.score(net, "judge"), net)


def _write(task: Task, limit: float, records: Records, found: dict[str, Found], folder: Path) -> None:
    """Write all candidates, and what was found, as JSON and as a plot."""
    candidates, measured = records.candidates(), records.noted("measured", {})
    beside = dict(task.beside())
    result: dict[str, Any] = {
        "task": task.name,
        "figure": task.figure,
        "limit_seconds": limit,
        **records.noted("identity"),
        "clock_hz": records.noted("clock_hz"),
        "ratios": records.noted("ratios"),
        "beside": beside,
        "found": {
            name: {"point": net.point, "seconds": net.seconds, "measured_seconds": net.measured, "score": net.score}
            for name, net in found.items()
        },
        "candidates": [
            {
                "point": item.point,
                "seconds": item.seconds,
                "measured_seconds": measured.get(item.key),
                "score": item.score,
            }
            for item in candidates
        ],
    }
    atomic_write(folder / RESULTS, json.dumps(result, indent=1))
    save_front(folder / FRONT, candidates, limit, task.figure, measured)
