"""The lit suite as pytest items, one for each `.mlir` file; lit runs once, for all the selected files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent
FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.mlir") if "Inputs" not in path.parts)


@pytest.fixture(scope="session")
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What lit found out about each selected file, by the file's name."""
    selected = {
        str(ROOT / item.callspec.params["file"])
        for item in request.session.items
        if "results" in getattr(item, "fixturenames", ()) and hasattr(item, "callspec")
    }
    report = tmp_path_factory.mktemp("lit") / "report.json"
    jobs = f"-j{os.cpu_count()}"
    command = [sys.executable, "-c", "from lit.main import main; main()", jobs, "-v", "--output", str(report)]
    run = subprocess.run([*command, *sorted(selected)], capture_output=True, text=True)
    if not report.exists():
        pytest.fail(f"lit did not run:\n{run.stdout}\n{run.stderr}", pytrace=False)
    tests = json.loads(report.read_text())["tests"]
    return {test["name"].partition(" :: ")[2]: test for test in tests}


@pytest.mark.parametrize("file", FILES)
def test_lit(file: str, results: dict[str, Any]) -> None:
    result = results[file]
    if result["code"] == "UNSUPPORTED":
        pytest.skip(result["output"].strip() or "unsupported on this machine")
    if result["code"] not in ("PASS", "XFAIL", "FLAKYPASS"):
        pytest.fail(f"{result['code']}\n{result['output']}", pytrace=False)
