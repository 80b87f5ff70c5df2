"""Successive halving: who goes on to which rung and with which weights, after a stop, too, and what is refused."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from searches import COST, EFFORT, SECONDS, Smooth, no_timing
from torch import Tensor, nn

from patc.diagnostics import PatcError
from patc.search import Cost, Effort, Point, Rung, SuperNet, Task, halving, search
from patc.search import records as recording
from patc.search.halving import going_on
from patc.search.records import Candidate, Records, key_of
from patc.search.task import RUNGS
from patc.search.training import Diverged, batch_seed, fit, mask_steps

pytestmark = pytest.mark.usefixtures("one_thread")
pytest.importorskip("optuna", reason="pip install 'patc[search]'")
pytest.importorskip("matplotlib", reason="pip install 'patc[train]'")

LIMIT = 0.1
LARGER = replace(EFFORT, trials=6)  # three on the second rung, two on the third


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Keys and rungs in the order in which candidates were trained, without the compiler's part of a search."""
    found: list[tuple[str, int]] = []

    def train(task: Task, net: nn.Module, point: Point, effort: Effort, rung: int, seed: int) -> nn.Module:
        found.append((key_of(point), rung))
        return fit(task, net, point, effort, rung, seed)

    no_timing(monkeypatch)
    monkeypatch.setattr(Cost, "predict", lambda self, task, point: SECONDS)
    monkeypatch.setattr(halving, "fit", train)
    return found


def read(folder: Path) -> dict[str, Any]:
    """Return the candidates of a search by their keys."""
    candidates = json.loads((folder / "candidates.json").read_text())["candidates"]
    return {key_of(item["point"]): item for item in candidates}


def made(scheme: str, *scores: float, diverged: bool = False) -> Candidate:
    return Candidate({"scheme": scheme, "number": scores[0] if scores else 0}, SECONDS, scores, diverged)


def test_who_goes_on() -> None:
    dense, *others = made("dense", 1.0), made("block", 3.0), made("pattern", 2.0), made("block", 4.0)
    assert going_on([dense, *others, made("block")], 1, 2) == [others[2], others[0], dense]
    assert going_on([made("dense", 5.0), dense, *others], 1, 2) == [made("dense", 5.0), others[2]]
    once = made("block", 0.5, 9.0)  # was there when there were fewer
    assert going_on([dense, *others, once], 1, 1) == [others[2], dense, once]
    assert going_on([dense, *others, once], 2, 1) == [once]
    lost = made("block", 6.0, diverged=True)
    assert going_on([lost, dense, *others], 1, 1) == [others[2], dense]


def test_places_of_the_presets() -> None:
    def places(name: str, trials: int) -> list[int]:
        return Effort(1, RUNGS[name], trials, batch_size=1, learning_rate=1.0).places

    assert places("large", 100) == [100, 16, 4, 1]
    assert places("small", 30) == [30, 6, 2, 1]
    assert places("tiny", 3) == [3, 2, 1]
    assert places("large", 1) == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("rungs", "message"),
    [
        ((Rung(4),), r"expected two rungs or more, each of more steps than the one before, got steps \[4\]"),
        ((Rung(4), Rung(4, 0.5)), r"got steps \[4, 4\]"),
        ((Rung(0), Rung(4, 0.5)), r"got steps \[0, 4\]"),
        ((Rung(2, 0.5), Rung(4, 0.5)), r"above 0 and up to 1, the first one all, got \[0.5, 0.5\]"),
        ((Rung(2), Rung(4, 0.0)), r"got \[1.0, 0.0\]"),
    ],
)
def test_rungs_that_are_none(rungs: tuple[Rung, ...], message: str) -> None:
    with pytest.raises(PatcError, match=message):
        replace(EFFORT, rungs=rungs)


@pytest.mark.parametrize("scheme", ["pattern", "block"])
@pytest.mark.parametrize("rate", [8.0, 4.5, 2.25])
def test_zeros_stay_on_later_rungs(scheme: str, rate: float) -> None:
    task = Smooth()
    point: Point = {"depth": 2, "width": 16, "kind0": "conv", "kind1": "pair", "scheme": scheme, "rate": rate}
    net = fit(task, SuperNet(task, 0).extract(point), point, EFFORT, 0, 0)
    before = {name: weight.detach().clone() for name, weight in net.named_parameters()}
    fit(task, net, point, EFFORT, 1, 0)
    assert before.keys() == dict(net.named_parameters()).keys() and not net.training
    for name, weight in net.named_parameters():
        if name.startswith("blocks") and weight.ndim == 4:
            assert torch.equal(weight == 0, before[name] == 0) and not torch.equal(weight, before[name])
            assert weight.numel() / int(weight.count_nonzero()) == pytest.approx(rate, rel=0.15)


def test_zeros_cost_no_steps() -> None:
    """Those with zeros have the steps in which masks grow beside as many as dense ones have."""

    class Counting(Smooth):
        def __init__(self) -> None:
            super().__init__()
            self.asked: list[tuple[int, int]] = []

        def batch(self, seed: int, number: int, size: int) -> tuple[Tensor, Tensor]:
            self.asked.append((seed, number))
            return super().batch(seed, number, size)

    assert mask_steps(EFFORT) == 2
    for scheme, first in (("dense", 4), ("block", 6)):
        task = Counting()
        point: Point = {"depth": 1, "width": 8, "kind0": "conv", "scheme": scheme, "rate": 3.0}
        net = task.build(point)
        for rung in range(3):
            fit(task, net, point, EFFORT, rung, 7)
        counts = [sum(seed == batch_seed(7, rung) for seed, _ in task.asked) for rung in range(3)]
        assert counts == [first, 2, 2] and len(set(task.asked)) == sum(counts)


def test_rungs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[tuple[str, int]]) -> None:
    """Each goes on with the weights that it had; what is not needed any more goes."""
    left: dict[tuple[str, int], dict[str, Tensor]] = {}

    def check(task: Task, net: nn.Module, point: Point, effort: Effort, rung: int, seed: int) -> nn.Module:
        if rung:
            state = net.state_dict()
            assert all(torch.equal(state[name], tensor) for name, tensor in left[key_of(point), rung - 1].items())
        result = train(task, net, point, effort, rung, seed)
        left[key_of(point), rung] = {name: tensor.clone() for name, tensor in result.state_dict().items()}
        return result

    train = halving.fit
    monkeypatch.setattr(halving, "fit", check)
    told: list[str] = []
    found = search(Smooth(), COST, LIMIT, tmp_path, LARGER, 3, told.append)
    items = read(tmp_path)
    assert len(set(trained)) == len(trained) and [rung for _, rung in trained] == sorted(rung for _, rung in trained)
    by_rung = [sorted(key for key, place in trained if place == rung) for rung in range(3)]
    assert [len(keys) for keys in by_rung] in ([6, 3, 2], [6, 3, 3], [6, 4, 2], [6, 4, 3])  # with a dense one beside
    for rung, keys in enumerate(by_rung):
        assert keys == sorted(key for key, item in items.items() if len(item["scores"]) > rung)
        best = sorted(items.values(), key=lambda item: -(item["scores"] or [-9.0])[0])
        if rung == 1:
            assert {key_of(item["point"]) for item in best[:3]} <= set(keys)
        dense = [key for key in keys if '"dense"' in key]
        assert dense or not any(item["point"]["scheme"] == "dense" for item in items.values())
    assert sum(line.startswith("rung 2 of 3: ") for line in told) == 1
    last = max((item for item in items.values() if len(item["scores"]) == 3), key=lambda item: item["scores"][2])
    assert found["net"].point == last["point"]
    state = found["net"].net.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in left[key_of(last["point"]), 2].items())
    names = sorted(path.name for path in (tmp_path / halving.FOLDER).iterdir())
    assert len(names) == len(by_rung[2]) and all(name.startswith("3-") for name in names)


@pytest.mark.parametrize("line", ["rung 2 of 3", "second of rung 2", "rung 3 of 3"])
def test_a_stop_in_the_middle_of_a_rung(tmp_path: Path, trained: list[tuple[str, int]], line: str) -> None:
    """What was trained is not trained again, and what is found is what would have been."""
    search(Smooth(), COST, LIMIT, tmp_path / "whole", LARGER, 3)
    every = sorted(trained)
    trained.clear()
    told: list[str] = []

    def stop(words: str) -> None:
        told.append(words)
        behind = next((len(told) - place for place, text in enumerate(told) if text.startswith("rung 2")), 0)
        if words.startswith(line) or (line == "second of rung 2" and behind == 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(Smooth(), COST, LIMIT, tmp_path / "part", LARGER, 3, stop)
    assert 6 <= len(trained) < len(every)
    search(Smooth(), COST, LIMIT, tmp_path / "part", LARGER, 3)
    assert sorted(trained) == every
    assert read(tmp_path / "whole") == read(tmp_path / "part")
    states = [(tmp_path / name / "net.safetensors").read_bytes() for name in ("whole", "part")]
    assert states[0] == states[1]


def test_more_trials_keep_what_was_trained(tmp_path: Path, trained: list[tuple[str, int]]) -> None:
    search(Smooth(), COST, LIMIT, tmp_path, EFFORT, 3)
    before, count = read(tmp_path), len(trained)
    search(Smooth(), COST, LIMIT, tmp_path, LARGER, 3)
    after = read(tmp_path)
    assert all(after[key]["scores"][: len(item["scores"])] == item["scores"] for key, item in before.items())
    again = set(trained[:count]) & set(trained[count:])
    assert all(len(after[key]["scores"]) > len(before[key]["scores"]) for key, _ in again)  # whose weights were removed


def test_one_that_is_too_slow_as_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[tuple[str, int]]
) -> None:
    """It takes nobody's place: the next best has it."""
    search(Smooth(), COST, LIMIT, tmp_path / "fast", LARGER, 3)
    items = read(tmp_path / "fast")
    ranked = sorted((item for item in items.values() if item["scores"]), key=lambda item: -item["scores"][0])
    slow = [item["point"] for item in ranked[:2]]
    trained.clear()

    def measure(task: Task, cost: Cost, points: Sequence[Point], folder: Path, tell: Any) -> list[float]:
        return [2 * LIMIT if point in slow else SECONDS for point in points]

    monkeypatch.setattr(halving, "time_points", measure)
    found = search(Smooth(), COST, LIMIT, tmp_path / "slow", LARGER, 3)
    second = [key for key, rung in trained if rung == 1]
    assert not {key_of(point) for point in slow} & set(second)
    assert {key_of(item["point"]) for item in ranked[2:5]} <= set(second)
    assert found["net"].measured == SECONDS and found["net"].point not in slow
    assert read(tmp_path / "slow")[key_of(slow[0])]["measured_seconds"] == 2 * LIMIT
    monkeypatch.setattr(halving, "time_points", lambda task, cost, points, *_: [2 * LIMIT] * len(points))
    with pytest.raises(
        PatcError, match=r"expected one of 6 candidates within 100 ms as measured, found 200 ms or more"
    ):
        search(Smooth(), COST, LIMIT, tmp_path / "none", LARGER, 3)


def test_those_that_diverge_leave_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[tuple[str, int]]
) -> None:
    train, lost = halving.fit, set[str]()

    def diverge(task: Task, net: nn.Module, point: Point, effort: Effort, rung: int, seed: int) -> nn.Module:
        if rung and (every or not lost):
            lost.add(key_of(point))
            raise Diverged("expected a finite loss, found nan in step 0 of a candidate")
        return train(task, net, point, effort, rung, seed)

    monkeypatch.setattr(halving, "fit", diverge)
    every = False
    found = search(Smooth(), COST, LIMIT, tmp_path / "one", LARGER, 3)
    items = read(tmp_path / "one")
    (key,) = lost
    assert items[key]["diverged"] and len(items[key]["scores"]) == 1 and key_of(found["net"].point) != key
    assert sum(len(item["scores"]) > 1 for item in items.values()) >= LARGER.places[1]
    every = True
    with pytest.raises(PatcError, match=r"expected a candidate whose training stays finite, found none"):
        search(Smooth(), COST, LIMIT, tmp_path / "all", LARGER, 3)
    monkeypatch.setattr(halving.Ladder, "train", lambda *_: None)
    with pytest.raises(PatcError, match=r"expected a candidate whose training stays finite, found none"):
        search(Smooth(), COST, LIMIT, tmp_path / "at once", replace(EFFORT, trials=1), 3)


def test_files_of_weights_that_are_damaged_or_gone(tmp_path: Path, trained: list[tuple[str, int]]) -> None:
    search(Smooth(), COST, LIMIT, tmp_path / "whole", LARGER, 3)

    def stop(words: str) -> None:
        if words.startswith("rung 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(Smooth(), COST, LIMIT, tmp_path / "part", LARGER, 3, stop)
    files = [*(tmp_path / "part" / halving.FOLDER).iterdir()]
    assert len(files) >= 3
    for path in files:
        path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(
        PatcError, match=r"rungs/1-\w+.safetensors: expected a readable .*; without this file, the cand"
    ):
        search(Smooth(), COST, LIMIT, tmp_path / "part", LARGER, 3)
    for path in files:
        path.unlink()
    search(Smooth(), COST, LIMIT, tmp_path / "part", LARGER, 3)
    assert read(tmp_path / "whole") == read(tmp_path / "part")


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[tuple[str, int]]) -> None:
    """The line names the file, and once there is room again, the search goes on."""
    write, writes = os.write, 0

    def fill(handle: int, data: bytes) -> int:
        nonlocal writes
        writes += 1
        if writes == 3:  # the shared weights, those of a candidate, and of the next
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fill)
        with pytest.raises(PatcError, match=r"rungs/1-\w+.safetensors: cannot write the file: No space left on device"):
            search(Smooth(), COST, LIMIT, tmp_path, EFFORT, 3)
    records = Records(tmp_path, Smooth().candidates, {}, 3)
    journal = tmp_path / recording.JOURNAL
    content = journal.read_bytes()

    def cut(handle: int) -> None:
        os.truncate(handle, os.stat(handle).st_size - 9)  # what there was room for
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", cut)
        with pytest.raises(PatcError, match=r"search.journal: cannot write the records of a search: No space left on"):
            records.note("clock_hz", 1e9)
    assert not journal.read_bytes().endswith(b"\n")
    Records(tmp_path, Smooth().candidates, {}, 3)
    assert journal.read_bytes().startswith(content) and journal.read_bytes().endswith(b"\n")
    assert search(Smooth(), COST, LIMIT, tmp_path, EFFORT, 3)["net"].score < 0


def test_a_machine_that_dies_while_others_go_on(tmp_path: Path) -> None:
    """Half a line of its own does not stay in the middle of theirs."""
    records = Records(tmp_path, Smooth().candidates, {}, 3)
    with (tmp_path / recording.JOURNAL).open("ab") as file:
        file.write(b'{"op_code":1,"wor')
    records.note("clock_hz", 1e9)
    records.note("ratios", {})
    again = Records(tmp_path, Smooth().candidates, {}, 3)
    assert [each.noted("clock_hz") for each in (records, again)] == [1e9, 1e9]


def test_a_machine_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[tuple[str, int]]) -> None:
    """Each trains what the other has not, and both find the same."""
    worker = "first:1"
    monkeypatch.setattr(recording, "_worker", lambda: worker)
    told: list[str] = []
    second: dict[str, Any] = {}

    def other(words: str) -> None:
        nonlocal worker
        told.append(words)
        if told[-2:-1] and told[-2].startswith("rung 2"):  # the first one of this rung is trained
            worker = "second:2"
            second.update(search(Smooth(), COST, LIMIT, tmp_path, LARGER, 3))
            worker = "first:1"

    first = search(Smooth(), COST, LIMIT, tmp_path, LARGER, 3, other)
    assert first["net"].point == second["net"].point and first["net"].score == second["net"].score
    assert len(set(trained)) == len(trained) and len({rung for _, rung in trained}) == 3
    records = Records(tmp_path, Smooth().candidates, {}, 3)
    key = next(iter(records.facts("measured")))
    records.claim(key, 1)
    worker = "second:2"
    assert key in records.claimed(1)
    records.keep("measured", key, 9.0)
    assert records.facts("measured")[key] == SECONDS  # of the machine that was faster
