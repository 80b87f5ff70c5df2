"""A short run of every kind, what once failed, and the fuzzer itself."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from campaign import Budget, Campaign, blur, read_case, shrink
from outcome import Case
from workers import Result, Worker

CASES = sorted((Path(__file__).parent / "cases").glob("*.json"))
# Cases of each kind, from seed 0 on: half a minute in all.
SHORT = {
    "artefact": 150, "checkpoint": 60, "commands": 25, "exported": 8, "mlir": 40, "nets": 8, "pipelines": 60, "safetensors": 100
}  # fmt: skip


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    process = Worker(60.0)
    yield process
    process.close()


@pytest.mark.parametrize(("kind", "count"), SHORT.items())
def test_a_short_run_is_clean(worker: Worker, kind: str, count: int) -> None:
    for seed in range(count):
        result = worker.draw(kind, seed)
        assert not result.fault, f"{kind} --seed {seed} --budget 1: {result.fault}\n{result.detail}"


@pytest.mark.parametrize("path", CASES, ids=[path.stem for path in CASES])
def test_what_once_failed_is_right(worker: Worker, path: Path) -> None:
    result = worker.run(*read_case(path))
    assert not result.fault, result.detail


# -- The fuzzer ----------------------------------------------------------------------------------------


class _Numbers:
    """A worker whose cases are lists of numbers, and fail where 3 and 5 are among them."""

    def run(self, kind: str, case: Case) -> Result:
        return Result(case, fault="both" if {3, 5} <= set(case["numbers"]) else "")

    def smaller(self, kind: str, case: Case) -> list[Case]:
        return [{"numbers": case["numbers"][:i] + case["numbers"][i + 1 :]} for i in range(len(case["numbers"]))]


def test_shrinks_to_what_fails() -> None:
    found = shrink(_Numbers(), "numbers", Result({"numbers": list(range(9))}, fault="both"))  # type: ignore[arg-type]
    assert found.case == {"numbers": [3, 5]}


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("os.kill(os.getpid(), 11)", "the process died of SIGSEGV"),
        ("sys.exit(3)", "the process died of exit status 3"),
        ("time.sleep(100)", "a hang"),
        ("print(json.dumps({'fault': 'wrong numbers'}), flush=True)", "wrong numbers"),
    ],
)
def test_tells_faults_apart_and_starts_again(tmp_path: Path, line: str, fault: str) -> None:
    script = tmp_path / "script.py"
    answer = "print(json.dumps({'ended': 'right'}), flush=True)"
    script.write_text(
        f"import json, os, sys, time\nfor request in sys.stdin:\n    if 'bad' in request:\n        {line}\n    else:\n        {answer}\n"
    )
    process = Worker(1.0, script)
    try:
        assert process.run("any", {}).ended == "right"
        assert process.run("any", {"bad": 1}).fault == fault
        assert process.run("any", {}).ended == "right"
    finally:
        process.close()


class _Endless:
    """A worker whose cases are all right."""

    def __init__(self, seconds: float) -> None: ...

    def draw(self, kind: str, seed: int) -> Result:
        time.sleep(0.01)
        return Result({}, ended="right")

    def close(self) -> None: ...


def test_an_interrupt_ends_a_run_with_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("campaign.Worker", _Endless)
    campaign = Campaign("any", 0, Budget(seconds=60), 1.0, None, print)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it may be ignored
    try:
        # As a terminal does it: what the main thread waits for is interrupted as well.
        main = threading.main_thread().ident
        threading.Timer(0.3, signal.pthread_kill, (main, signal.SIGINT)).start()
        summary = campaign.run(jobs=2)
    finally:
        signal.signal(signal.SIGINT, before)
    assert campaign.is_stopped and 0 < summary.cases == summary.ended["right"]


def test_reads_budgets() -> None:
    assert [Budget.parse(text) for text in ("500", "90s", "2m", "1h")] == [
        Budget(cases=500), Budget(seconds=90), Budget(seconds=120), Budget(seconds=3600),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="expected a budget"):
        Budget.parse("soon")


def test_counts_refusals_without_their_numbers() -> None:
    lines = [f"/tmp/{i}.patc: expected '{i}', got {i}" for i in range(3)]
    assert all(blur(one) == blur(other) for one, other in itertools.pairwise(lines))
