"""Where the repository lies, and how functions of a test's file run in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SUPPORT = ROOT / "test" / "support"


def importing(file: str, **variables: str) -> dict[str, str]:
    """Return the environment of a Python that can import a test's file, and what tests share."""
    folders = [str(Path(file).parent), str(SUPPORT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders)), **variables}


def run_function(file: str, call: str, **variables: str) -> str:
    """Call a function of a test's file, such as `run(3)`, in a process of its own, and return what it prints."""
    code = f"import {(name := Path(file).stem)}; {name}.{call}"
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, env=importing(file, **variables), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout
