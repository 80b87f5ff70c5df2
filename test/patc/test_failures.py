"""Faults of patc: a line, and a folder with what it takes to see them again."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

import patc
from patc.diagnostics import PatcError
from patc.failures import MOST_FOLDERS, InternalError, is_fault, make_folder
from patc.files import cache_folder
from patc.passes.pattern_layout import PatternLayout
from patc.tools import guard

TEXT = """\
func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
  return %x : tensor<4xf32>
}
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def break_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(self: object, module: object, state: object) -> None:
        raise KeyError("planted")

    monkeypatch.setattr(PatternLayout, "run", run)


def only_folder() -> Path:
    (found,) = cache_folder("failures").iterdir()
    return found


def test_a_fault_of_a_compilation_is_kept_with_the_ir_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    break_layout(monkeypatch)
    with pytest.raises(InternalError) as caught:
        patc.compile(nn.Conv2d(2, 3, 3).eval(), (torch.zeros(1, 2, 8, 8),), threads=1)
    folder = only_folder()
    assert caught.value.folder == folder and isinstance(caught.value.__cause__, KeyError)
    line = str(caught.value)
    assert line.startswith("internal error: KeyError: 'planted' (test_failures.py:") and "\n" not in line
    assert f"please report it with the folder {folder}" in line
    report = json.loads((folder / "report.json").read_text())
    assert "Conv2d(2, 3" in report["model"] and report["versions"]["patc"] == patc.__version__
    assert "planted" in (folder / "traceback.txt").read_text()
    assert sorted(path.name for path in (folder / "ir").iterdir())[-1].endswith("-pattern-demote.mlir")


def test_a_fault_of_a_command_is_kept_with_its_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from patc.tools import patc_opt

    break_layout(monkeypatch)
    (tmp_path / "net.mlir").write_text(TEXT)
    assert patc_opt.main(["--cse", "--pattern-layout", str(tmp_path / "net.mlir")]) == 1
    said = capsys.readouterr()
    folder = only_folder()
    assert said.out == "" and said.err.startswith("patc-opt: internal error: KeyError: 'planted'")
    assert said.err.count("\n") == 1 and str(folder) in said.err
    report = json.loads((folder / "report.json").read_text())
    assert report["command"] == ["patc-opt", "--cse", "--pattern-layout", str(tmp_path / "net.mlir")]
    assert (folder / "inputs" / "net.mlir").read_text() == TEXT and list(report["inputs"])
    assert [path.name for path in (folder / "ir").iterdir()] == ["00-cse.mlir"]


def test_a_crash_of_a_command_is_kept(tmp_path: Path) -> None:
    (tmp_path / "net.mlir").write_text(TEXT)
    script = """
        import os, signal, sys
        from patc.passes.pattern_layout import PatternLayout
        from patc.tools import patc_opt
        PatternLayout.run = lambda *_: os.kill(os.getpid(), signal.SIGSEGV)
        sys.exit(patc_opt.main())
    """
    command = [sys.executable, "-c", textwrap.dedent(script), "--cse", "--pattern-layout", "net.mlir"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    folder = only_folder()
    what = (
        "patc-opt: error: pass 'pattern-layout' on net.mlir crashed (SIGSEGV); this is a fault of patc or of a library"
    )
    assert result.returncode == 1 and result.stderr.startswith(what) and result.stderr.count("\n") == 1
    assert f"please report it with the folder {folder}" in result.stderr
    assert (folder / "inputs" / "net.mlir").read_text() == TEXT
    assert [path.name for path in (folder / "ir").iterdir()] == ["00-cse.mlir"]


def test_what_is_large_is_named_by_its_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patc.failures.MOST_BYTES", 10)
    (tmp_path / "net.onnx").write_bytes(b"x" * 11)

    def work(argv: Sequence[str]) -> int:
        raise KeyError("x")

    assert guard.main("patc", work, ["bench", str(tmp_path / "net.onnx")]) == 1
    (found,) = json.loads((only_folder() / "report.json").read_text())["inputs"].values()
    assert found.startswith("11 bytes, SHA-256 ") and found.endswith(", not copied")
    assert not (only_folder() / "inputs").exists()


def test_old_folders_make_room() -> None:
    made = [make_folder() for _ in range(MOST_FOLDERS + 3)]
    assert made[-1] in list(cache_folder("failures").iterdir())
    assert len(list(cache_folder("failures").iterdir())) == MOST_FOLDERS


def test_a_folder_that_cannot_be_made_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file")
    break_layout(monkeypatch)
    with pytest.raises(InternalError, match="please report it together with the command and its input") as caught:
        patc.compile(nn.Conv2d(2, 3, 3).eval(), (torch.zeros(1, 2, 8, 8),), threads=1)
    assert caught.value.folder is None


def test_errors_of_users_memory_and_system_are_no_faults() -> None:
    assert not any(map(is_fault, (PatcError("x"), MemoryError(), OSError(2, "x"), RecursionError())))
    assert is_fault(KeyError("x"))


def test_those_who_ask_get_the_exception_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATC_TRACEBACK", "1")
    break_layout(monkeypatch)
    with pytest.raises(KeyError, match="planted"):
        patc.compile(nn.Conv2d(2, 3, 3).eval(), (torch.zeros(1, 2, 8, 8),), threads=1)
    assert not cache_folder("failures").exists()
