"""`patc debug --crash` finds passes that fail or end the process, and what it writes shows it alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch_mlir import ir

from patc.passes.pattern_schedule import PatternSchedule
from patc.passes.pattern_specialize import PatternSpecialize
from patc.tools.patc import main

NET = """\
import torch
from torch import nn
def build():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 3), nn.Conv2d(5, 4, 1))
    return net, torch.zeros(1, 3, 9, 8)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    return f"{tmp_path / 'net.py'}:build"


def plant(monkeypatch: pytest.MonkeyPatch, kind: type[Any], fail: Callable[[], None]) -> None:
    """Let a pass fail where a convolution of 3x3 has five or more filters."""
    run = kind.run

    def planted(self: Any, module: ir.Module, state: Any) -> None:
        for op in module.body.operations[0].regions[0].blocks[0].operations:
            is_wide = "pattern.conv2d" in op.operation.name and list(op.operands[1].type.shape)[2:] == [3, 3]
            if is_wide and op.operands[1].type.shape[0] in (3, 4, 5):
                fail()
        run(self, module, state)

    monkeypatch.setattr(kind, "run", planted)


def raise_type_error() -> None:
    raise TypeError("no such thing")


@pytest.mark.parametrize(
    ("kind", "fail", "said"),
    [
        pytest.param(PatternSchedule, os.abort, "SIGABRT", id="abort"),
        pytest.param(PatternSpecialize, raise_type_error, "TypeError: no such thing (test_crash.py:", id="exception"),
    ],
)
def test_the_pass_is_found_and_shown_alone(
    kind: type[Any],
    fail: Callable[[], None],
    said: str,
    place: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as planted:
        plant(planted, kind, fail)
        assert main(["debug", "--crash", place, "--threads", "1", "-o", "case", "--save-ir", "ir"]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith(f"{kind.name} of 2 ends with {said}")
        assert lines[1].startswith("reduced to 1 layer with inputs of 1x1x3x3, in ")
        names = sorted(path.stem.partition("-")[2] for path in Path("ir").iterdir())
        assert names[0] == "import" and "pattern-layout" in names and kind.name not in names
        assert main(["debug", "case"]) == 1
        assert said in capsys.readouterr().out.splitlines()[-1]
    assert main(["debug", "case"]) == 0
    assert capsys.readouterr().out.endswith("it ends well\n")


def test_what_compiles_and_what_is_refused(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["debug", "--crash", place, "--threads", "1"]) == 0
    assert capsys.readouterr().out == "nothing fails: it compiles and runs\n"
    Path("net.mlir").write_text("func.func @main() { return }")
    assert main(["debug", "--crash", "net.mlir"]) == 1
    assert "expected @main to return tensors" in capsys.readouterr().err
