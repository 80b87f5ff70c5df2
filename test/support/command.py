"""Runs of the command `patc` within the test's process."""

from __future__ import annotations

from pathlib import Path

import pytest

from patc.tools.patc import main


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """Run the command, which must succeed and leave standard error alone; return what it prints."""
    status = main([str(word) for word in words])
    captured = capsys.readouterr()
    assert (status, captured.err) == (0, "")
    return captured.out


def fail(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """Run the command, which must fail with one line on standard error; return the line without its start."""
    status = main([str(word) for word in words])
    lines = capsys.readouterr().err.splitlines()
    assert status == 1 and len(lines) == 1 and lines[0].startswith("patc: error: ")
    return lines[0].removeprefix("patc: error: ")
