"""How well the cost model ranks the candidates of a search: their times, modelled and measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from patc.diagnostics import PatcError
from patc.files import atomic_write, make_folder
from patc.search.cost import Cost, time_files
from patc.search.space import Point, describe
from patc.search.supernet import Tell
from patc.search.task import Task, seeded

CANDIDATES = 30
_REACH = 2.0  # times the limit that candidates may take by the model: what a search decides between
_CHOSEN = "check.json"


@dataclass(frozen=True)
class Checked:
    """A candidate and its seconds, by the cost model and measured."""

    point: Point
    predicted: float
    measured: float


def check(task: Task, cost: Cost, limit: float, folder: Path, seed: int, tell: Tell) -> list[Checked]:
    """Return random candidates that take up to twice the limit by the model, timed in turns.

    The folder keeps what was compiled, so that a second call does nothing but measure.

    Raises:
        PatcError: code for the target does not run here, the space has too few such candidates, or the folder is of
            another check.
    """
    if not cost.runs_here:
        raise PatcError(f"expected the target host, whose code can be timed, got {cost.target}")
    make_folder(folder)
    identity = {**task.identity(), "threads": cost.threads, "limit": limit, "seed": seed}
    chosen = _read(folder / _CHOSEN, identity)
    if chosen is None:
        chosen = _choose(task, cost, limit, seed, tell)
        atomic_write(folder / _CHOSEN, json.dumps({"identity": identity, "candidates": chosen}, indent=1))
    paths = [folder / f"check-{number}.patc" for number in range(len(chosen))]
    for number, (item, path) in enumerate(zip(chosen, paths, strict=True), 1):
        if not path.exists():
            tell(f"{number} of {len(chosen)}: compiling {describe(item['point'])}")
            cost.compile(task, item["point"], path)
    measured = time_files(paths, task.inputs)
    return [Checked(item["point"], item["seconds"], each) for item, each in zip(chosen, measured, strict=True)]


def _read(path: Path, identity: Mapping[str, object]) -> list[dict[str, Any]] | None:
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text())
        if found["identity"] == identity:
            return list(found["candidates"])
    except (ValueError, KeyError, TypeError):
        pass
    raise PatcError("expected the candidates of this check, found others: another folder for another check", str(path))


def _choose(task: Task, cost: Cost, limit: float, seed: int, tell: Tell) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for number in range(20 * CANDIDATES):
        point = task.candidates.sample(seeded("check", seed, number))
        if any(item["point"] == point for item in found):
            continue
        seconds = cost.predict(task, point)
        if seconds <= _REACH * limit:
            found.append({"point": point, "seconds": seconds})
            tell(f"{len(found)} of {CANDIDATES}: {1e3 * seconds:.3f} ms {describe(point)}")
        if len(found) == CANDIDATES:
            return found
    expected = f"expected {CANDIDATES} candidates up to {_REACH:g} times the limit"
    raise PatcError(f"{expected}, found {len(found)} in {20 * CANDIDATES} random ones")


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Return Spearman's coefficient of numbers of which no two are equal."""
    ranks = np.array([np.argsort(np.argsort(values)) for values in (one, other)], np.float64)
    ranks -= ranks.mean(axis=1, keepdims=True)
    return float((ranks[0] * ranks[1]).sum() / (ranks[0] ** 2).sum())
