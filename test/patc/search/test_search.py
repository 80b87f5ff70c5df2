"""Searches of a small task: spaces, shared weights, candidates, what goes on after a stop, and what is refused."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from searches import COST, EFFORT, Smooth, few_draws, no_timing
from torch import Tensor, nn

import patc
from patc.diagnostics import PatcError
from patc.search import Cost, Point, SuperNet, Task, halving, search
from patc.search import check as checking
from patc.search import records as recording
from patc.search import run as running
from patc.search import supernet as sharing
from patc.search.front import front
from patc.search.records import Candidate, Records
from patc.search.space import describe
from patc.search.supernet import train_supernet
from patc.search.task import seeded
from patc.search.training import fit

pytestmark = pytest.mark.usefixtures("one_thread")
pytest.importorskip("optuna", reason="pip install 'patc[search]'")
pytest.importorskip("matplotlib", reason="pip install 'patc[train]'")


def test_choices_depend_on_those_before() -> None:
    space = Smooth().space
    generator = random.Random(0)
    assert space.extreme(0, generator).keys() == {"depth", "width", "kind0"}
    assert space.extreme(-1, generator) | {"kind0": "", "kind1": ""} == {
        "depth": 2,
        "width": 16,
        "kind0": "",
        "kind1": "",
    }
    assert [*space.corners(-1)] == [
        {"depth": 2, "width": 16, "kind0": kind, "kind1": kind} for kind in ("conv", "pair")
    ]
    assert all(("kind1" in point) == (point["depth"] == 2) for point in (space.sample(generator) for _ in range(20)))
    point: Point = {"depth": 3, "block0": "plain", "block1": "plain", "block2": "wide", "rate": 2.25}
    assert describe(point) == "depth 3, block 0-1 plain, block 2 wide, rate 2.25"


def test_nets_share_the_first_places_of_weights() -> None:
    task = Smooth()
    supernet = SuperNet(task, 0)
    small, large = (task.space.choose(lambda choice, end=end: choice.values[end]) for end in (0, -1))
    assert supernet.weights["head.weight"].shape == (16, 3, 3, 3)
    assert {"blocks.conv1.0.weight", "blocks.pair1.0.weight"} <= supernet.weights.keys()
    net = task.build(small)
    x = torch.rand(2, 3, 8, 16)
    supernet.run(net, x).sum().backward()
    gradient = supernet.weights["blocks.conv0.0.weight"].grad
    assert gradient is not None and gradient[:8, :8].any() and not gradient[8:].any() and not gradient[:, 8:].any()
    for point in (small, large):
        extracted = supernet.extract(point)
        assert torch.equal(extracted.head.weight, supernet.weights["head.weight"][: int(point["width"])])
        assert torch.equal(extracted(x), supernet.run(task.build(point), x))


def test_the_supernet_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train_supernet(Smooth(), EFFORT, 0, tmp_path / "whole.pt", lambda words: None)
    monkeypatch.setattr(sharing, "SAVE_SECONDS", 0.0)

    def stop(words: str) -> None:
        if "step 5" in words:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_supernet(Smooth(), EFFORT, 0, tmp_path / "part.pt", stop)
    told: list[str] = []
    part = train_supernet(Smooth(), EFFORT, 0, tmp_path / "part.pt", told.append)
    assert len(told) == 4  # the fifth step was not saved yet
    assert all(torch.equal(part.weights[name], weight) for name, weight in whole.weights.items())
    with pytest.raises(PatcError, match=r"at most 4 steps, found 8"):
        train_supernet(Smooth(), replace(EFFORT, supernet_steps=4), 0, tmp_path / "part.pt", told.append)
    (tmp_path / "other.pt").write_bytes((tmp_path / "part.pt").read_bytes()[:-9])
    with pytest.raises(PatcError, match=r"other.pt"):
        train_supernet(Smooth(), EFFORT, 0, tmp_path / "other.pt", told.append)


@pytest.mark.parametrize("scheme", ["dense", "pattern", "block"])
def test_candidates_are_pruned_as_they_say(scheme: str) -> None:
    task = Smooth()
    point: Point = {"depth": 1, "width": 16, "kind0": "conv", "scheme": scheme, "rate": 4.5}
    net = fit(task, SuperNet(task, 0).extract(point), point, EFFORT, 0, 0)
    weight = net.blocks.conv0[0].weight
    kept = weight.numel() / int(weight.count_nonzero())
    assert kept == pytest.approx(1 if scheme == "dense" else 4.5, rel=0.02)
    assert net.head.weight.all() and not net.training


def test_a_search_and_one_that_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few_draws(monkeypatch)
    whole = search(Smooth(), COST, 0.1, tmp_path / "whole", EFFORT, seed=3)

    no_timing(monkeypatch)  # which takes long, and no score depends on

    def stop(words: str) -> None:
        if words.startswith("   2 "):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(Smooth(), COST, 0.1, tmp_path / "part", EFFORT, 3, stop)
    part = search(Smooth(), COST, 0.1, tmp_path / "part", EFFORT, 3)
    found, other = (json.loads((tmp_path / name / "candidates.json").read_text()) for name in ("whole", "part"))
    assert [item["scores"] for item in found["candidates"]] == [item["scores"] for item in other["candidates"]]
    assert sum(bool(item["scores"]) for item in found["candidates"]) == 4
    assert found["found"].keys() == whole.keys() == part.keys()
    assert found["latency"] == "100 ms" and found["clock_hz"] == 3e9
    assert (tmp_path / "whole" / "front.png").stat().st_size > 1000
    best = whole["net"]
    assert best.measured is not None and best.measured < 0.1
    compiled = patc.compile(str(tmp_path / "whole" / "net.pt2"), threads=1)
    x = torch.rand(1, 3, 8, 16)
    wanted = best.net.double()(x.double()).detach().numpy()
    assert np.abs(np.asarray(compiled(x)) - wanted).max() < 1e-5 * np.abs(wanted).max()
    again = search(Smooth(), COST, 0.1, tmp_path / "whole", EFFORT, 3)  # nothing is trained once more
    assert again["net"].score == best.score
    more = search(Smooth(), COST, 0.1, tmp_path / "whole", replace(EFFORT, trials=5), 3)
    assert more["net"].point["depth"] in (1, 2)
    with pytest.raises(PatcError, match=r"expected the search of latency 50 ms, found one of 100 ms"):
        search(Smooth(), COST, 0.05, tmp_path / "whole", EFFORT, 3)


def test_another_machine(tmp_path: Path) -> None:
    cost = Cost("aarch64-linux:cortex-a55", 1, 2e9)
    found = search(Smooth(), cost, 0.1, tmp_path, replace(EFFORT, trials=1))
    assert found["net"].measured is None and found["net"].seconds < 0.1
    with pytest.raises(PatcError, match=r"expected the target host, whose code can be timed, got aarch64-linux"):
        checking.check(Smooth(), cost, 0.1, tmp_path, 0, lambda words: None)


def test_each_scheme_has_a_factor_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one of which no candidate is within the limit: the median of the others."""
    factors = {"dense": 1.5, "pattern": 3.0}

    def predict(self: Cost, task: Task, point: Point) -> float:
        return self.ratios.get(str(point["scheme"]), 1.0) * (0.2 if point["scheme"] == "block" else 0.01)

    def measure(task: Task, cost: Cost, points: Sequence[Point], folder: Path, tell: Any) -> list[float]:
        return [factors[str(point["scheme"])] * 0.01 for point in points]

    monkeypatch.setattr(Cost, "predict", predict)
    monkeypatch.setattr(running, "time_points", measure)
    monkeypatch.setattr(halving, "time_points", measure)
    search(Smooth(), COST, 0.1, tmp_path, replace(EFFORT, trials=2))
    found = json.loads((tmp_path / "candidates.json").read_text())
    assert found["ratios"] == pytest.approx(factors | {"block": 2.25})
    assert all(item["seconds"] == pytest.approx(0.01 * factors[item["point"]["scheme"]])
               for item in found["candidates"] if item["scores"])  # fmt: skip


def test_candidates_have_their_ir_in_folders(tmp_path: Path) -> None:
    cost = replace(COST, save_ir=tmp_path / "ir")
    point: Point = {"depth": 1, "width": 8, "kind0": "conv", "scheme": "dense"}
    cost.predict(Smooth(), point)
    (folder,) = (tmp_path / "ir").iterdir()
    assert folder.name == "depth-1-width-8-kind-0-conv-scheme-dense"
    assert sorted(path.name for path in folder.iterdir())[-1].endswith("-pattern-schedule.mlir")
    cost.compile(Smooth(), point, tmp_path / "net.patc")
    assert [*(tmp_path / "ir").iterdir()] == [folder] and [*folder.glob("*-pattern-parallelize.mlir")]


def test_a_latency_out_of_reach(tmp_path: Path) -> None:
    with pytest.raises(
        PatcError, match=r"that this space reaches, [\d.e-]+ ms or more \(depth 1, width 8,.*\), got 1e-05 ms"
    ):
        search(Smooth(), COST, 1e-8, tmp_path, EFFORT)


def test_only_candidates_over_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cheapest one is within it, and none of those that are drawn."""
    monkeypatch.setattr(running, "_DRAWN", 0)
    calls: list[Point] = []

    def predict(self: Cost, task: Task, point: Point) -> float:
        calls.append(point)
        return 0.01 if len(calls) == 1 else 1.0

    monkeypatch.setattr(Cost, "predict", predict)
    with pytest.raises(PatcError, match=r"expected a candidate within the limit, found none"):
        search(Smooth(), COST, 0.1, tmp_path, replace(EFFORT, trials=1))
    unique = {json.dumps(point) for point in calls[1:]}
    assert len(unique) == len(calls) - 1  # one that comes again is known


def test_candidates_that_diverge_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_timing(monkeypatch)

    class Diverging(Smooth):
        def loss(self, found: Tensor, wanted: Tensor) -> Tensor:
            """Not finite where a candidate of two blocks is trained."""
            scale = torch.inf if self.trains and self.deep else 1.0
            return super().loss(found, wanted) * scale

        def build(self, point: Point) -> nn.Module:
            self.trains, self.deep = "scheme" in point, point["depth"] == 2
            return super().build(point)

    found = search(Diverging(), COST, 0.1, tmp_path, EFFORT)
    candidates = json.loads((tmp_path / "candidates.json").read_text())["candidates"]
    assert all(item["diverged"] == (not item["scores"]) == (item["point"]["depth"] == 2) for item in candidates)
    assert found["net"].point["depth"] == 1


def test_files_that_are_no_records(tmp_path: Path) -> None:
    (tmp_path / "search.journal").write_text("no record\n")
    with pytest.raises(PatcError, match=r"expected the records of a search, found a damaged file"):
        Records(tmp_path, Smooth().candidates, {}, 0)


def test_large_seeds(tmp_path: Path) -> None:
    """NumPy, which Optuna draws with, takes 32 bits."""
    records = Records(tmp_path, Smooth().candidates, {}, 1 << 40)
    assert records.ask()[1]["depth"] in (1, 2)


def test_without_optuna(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(PatcError, match=r"expected Optuna for a search: pip install 'patc\[search\]'"):
        Records(tmp_path, Smooth().candidates, {}, 0)


def test_workers_beside_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (Records(tmp_path, Smooth().candidates, {}, 0) for _ in range(2))
    first, second = one.ask(), other.ask()
    assert first[1] != second[1]
    one.tell(first[0], 0.2, 0.1, None)
    other.tell(second[0], 0.05, 0.1, 1.5)
    assert one.candidates() == [Candidate(first[1], 0.2), Candidate(second[1], 0.05, (1.5,))]
    monkeypatch.setattr(recording, "_worker", lambda: f"{recording.socket.gethostname()}:999999999")
    one.ask()
    lost = Records(tmp_path, Smooth().candidates, {}, 0)
    assert [trial.state.name for trial in lost._study.trials] == ["PRUNED", "COMPLETE", "FAIL"]


def test_the_front() -> None:
    items = [
        Candidate({"scheme": "dense"}, seconds, scores)
        for seconds, scores in ((3.0, (1.0,)), (1.0, (0.5, 3.0)), (2.0, (0.4, 0.9)), (0.5, ()), (4.0, (2.0,)))
    ]
    assert [item.seconds for item in front(items)] == [1.0, 3.0, 4.0]


def test_the_check_measures_what_it_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "CANDIDATES", 3)
    found = checking.check(Smooth(), COST, 0.1, tmp_path, 0, lambda words: None)
    assert len({json.dumps(item.point) for item in found}) == 3 and all(item.measured > 0 for item in found)
    monkeypatch.setattr(Cost, "compile", None)  # a second call does nothing but measure
    again = checking.check(Smooth(), COST, 0.1, tmp_path, 0, lambda words: None)
    assert [item.predicted for item in again] == [item.predicted for item in found]
    with pytest.raises(PatcError, match=r"another folder for another check"):
        checking.check(Smooth(), COST, 0.1, tmp_path, 1, lambda words: None)
    with pytest.raises(PatcError, match=r"expected 3 candidates up to 2 times the limit, found 0 in 60 random ones"):
        monkeypatch.setattr(Cost, "predict", lambda *_: 1.0)
        checking.check(Smooth(), COST, 0.1, tmp_path / "none", 0, lambda words: None)


def test_rank_correlation() -> None:
    assert checking.rank_correlation([1, 2, 3, 4], [10, 20, 40, 30]) == pytest.approx(0.8)  # 1 - 6 * 2 / (4 * 15)


def test_seeds() -> None:
    assert seeded("a", 1).random() == seeded("a", 1).random() != seeded("a", 2).random()
