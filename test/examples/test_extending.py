"""The examples of docs/extending.md do what they say, each in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT

EXAMPLES = sorted((ROOT / "examples" / "extending").glob("*.py"))
SAYS = {
    "maximum_op": "computed by larger",
    "rows_format": "kept weights 96 of 192, 192 of 384",
    "small_target": "small: ",
}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(example: Path) -> None:
    run = subprocess.run([sys.executable, example], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert SAYS[example.stem] in run.stdout
    errors = re.findall(r"^error (\S+) of the largest output$", run.stdout, re.MULTILINE)
    assert errors and all(float(error) < 1e-5 for error in errors)


def test_what_has_no_algorithm_for_gpus_takes_the_generic_road() -> None:
    code = """
import maximum_op, torch
from patc.compiler import host_pipeline, lower_model
module, _ = lower_model(maximum_op.Largest().eval(), (torch.zeros(1, 3, 5, 6),), host_pipeline("spirv-vulkan", None).until("outline"))
print("pattern.maximum" in str(module), "call @" in str(module))
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=EXAMPLES[0].parent, capture_output=True, text=True)
    assert run.stdout.split() == ["False", "True"], run.stderr


def test_the_page_names_each_example() -> None:
    page = (ROOT / "docs" / "extending.md").read_text()
    assert all(f"examples/extending/{example.name}" in page for example in EXAMPLES)
