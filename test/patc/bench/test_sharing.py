"""What others did meanwhile, by the counters of the system."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from patc.bench import sharing
from patc.bench.sharing import Watch

TICKS = os.sysconf("SC_CLK_TCK")


def write(folder: Path, total: int, own: int, child: int) -> None:
    """Write counters of a machine with this process, a child of it, and others; seconds."""
    (folder / "stat").write_text(f"cpu  {total * TICKS} 0 0 999 0 0 0 0 0 0\ncpu0 1 2\n")
    for number, parent, seconds in ((os.getpid(), 1, own), (999_999_999, os.getpid(), child)):
        (folder / str(number)).mkdir(exist_ok=True)
        fields = ["S", str(parent), *["0"] * 9, str(seconds * TICKS), "0", "0", "0"]
        (folder / str(number) / "stat").write_text(f"{number} (a (name) of) {' '.join(fields)}")


def test_own_processes_are_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "_PROC", tmp_path)
    monkeypatch.setattr(sharing.time, "monotonic", iter((0.0, 10.0, 10.0)).__next__)
    write(tmp_path, 100, 10, 20)
    watch = Watch()
    write(tmp_path, 125, 16, 24)  # 25 s of cores, 10 of them own
    assert watch.others() == pytest.approx(1.5)
    assert watch.warning().startswith("other programs used 1.5 cores meanwhile")


def test_a_system_that_tells_nothing_is_not_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "_PROC", tmp_path)
    assert Watch().others() == 0.0 and Watch().warning() == ""
