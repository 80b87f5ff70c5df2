"""`patc search`: a small search, a check, and what is refused in a line."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
from command import fail, run
from searches import few_draws

from patc.search import check as checking
from patc.tools.patc import main

pytestmark = pytest.mark.usefixtures("one_thread")
pytest.importorskip("optuna", reason="pip install 'patc[search]'")
CLASSIFY = ("classify", "--data", "glyphs:64", "--threads", "1")
SR = ("sr", "--data", "drawings", "--size", "24x16", "--threads", "1")


def test_a_search_of_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few_draws(monkeypatch)
    printed = run(capsys, "search", *SR, "--latency", "50", "--preset", "tiny", "--trials", "2", "-o", tmp_path)
    assert re.search(r"net\.pt2: depth \d, width \d+, block 0", printed)
    assert "beside: bicubic PSNR, dB " in printed
    assert (tmp_path / "front.png").is_file()
    frame, large = tmp_path / "frame.raw", tmp_path / "large.raw"
    frame.write_bytes(bytes(3 * 24 * 16))
    run(capsys, "upscale", tmp_path / "net.pt2", frame, large, "--size", "24x16")
    assert large.stat().st_size == 3 * 48 * 32


def test_a_search_that_is_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("patc.search.run.train_supernet", stop)
    monkeypatch.setattr("patc.search.cost.Cost.predict", lambda *_: 0.01)
    monkeypatch.setattr("patc.search.run.time_points", lambda task, cost, points, *_: [0.01] * len(points))
    words = ("search", *SR, "--latency", "50", "--preset", "tiny", "-o", str(tmp_path))
    assert main(list(words)) == 128 + signal.SIGINT
    assert capsys.readouterr().err == f"patc: stopped; the same command goes on from what is in {tmp_path}\n"


def test_a_check(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "CANDIDATES", 2)
    printed = run(capsys, "search", *CLASSIFY, "--latency", "50", "--check", "-o", tmp_path)
    assert re.search(r"rank correlation -?1\.000 over 2 candidates; the model says [\d.]+ of the time", printed)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("srr", "--latency", "1"), "expected a task of sr, classify, got 'srr'; did you mean 'sr'?"),
        ((*SR, "--latency", "0"), "expected a finite --latency of more than 0, got 0"),
        ((*SR, "--latency", "nan"), "expected a finite --latency of more than 0, got nan"),
        ((*SR, "--latency", "1", "--scale", "5"), "expected --scale of at most 4, got 5"),
        ((*SR, "--latency", "1", "--trials", "0"), "expected --trials of 1 or more, got 0"),
        (
            (*SR, "--latency", "1", "--preset", "larg"),
            "expected --preset of tiny, small, large, got 'larg'; did you mean 'large'?",
        ),
        ((*CLASSIFY, "--latency", "1", "--scale", "2"), "expected the task sr together with --scale, got classify"),
        (("classify", "--latency", "1", "--data", "nothing"), "expected --data as "),
        (("sr", "--latency", "1", "--data", "nothing"), "nothing: expected a folder of pictures, found none"),
        ((*SR, "--latency", "1", "--size", "24"), "expected a size such as 640x360, got '24'"),
        ((*SR, "--latency", "1", "--target", "host2"), "expected a target of host, "),
        (
            (*SR, "--latency", "1", "--target", "aarch64-linux:cortex-a55"),
            "expected --clock, GHz of the cores, together with --target aarch64-linux:cortex-a55, got none",
        ),
        (
            (*SR, "--latency", "1", "--target", "spirv-vulkan"),
            "expected a target whose cost model counts cycles of a CPU, got spirv-vulkan",
        ),
        ((*SR, "--latency", "0.00001"), "expected a latency that this space reaches, "),
    ],
)
def test_errors_are_one_line(
    words: tuple[str, ...],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in fail(capsys, "search", *words, "-o", "found")
