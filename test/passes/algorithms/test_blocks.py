"""Blocks of filters in edited schedules: what an algorithm has no loops for is refused, and the rest is right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from patc.tools.patc import main

NET = """
import torch
from torch import nn

class Mean(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))

def build():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, groups=1), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=2), nn.ReLU()]
    layers += [nn.Conv2d(16, 16, 3, groups=16), Mean(), nn.Linear(16, 6)]
    return nn.Sequential(*layers), torch.zeros(1, 3, 12, 12)
"""


@pytest.fixture(scope="module")
def scheduled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The IR of a net after `pattern-schedule`."""
    folder = tmp_path_factory.mktemp("blocks")
    (folder / "net.py").write_text(NET)
    path = folder / "net.mlir"
    assert (
        main(["compile", f"{folder / 'net.py'}:build", "--threads", "1", "--emit", "mlir@schedule", "-o", str(path)])
        == 0
    )
    return path


@pytest.mark.parametrize(
    ("algorithm", "op", "filters", "rule"),
    [
        ("dense-direct", 0, 17, "of 16 or less"),
        ("dense-direct", 0, 5, None),
        ("dense-direct", 1, 5, "of a divisor of 8"),
        ("depthwise-direct", 0, 2, "of a divisor of 1"),
        ("gemv", 0, 7, "of 6 or less"),
        ("gemv", 0, 5, None),
    ],
)
def test_blocks_of_filters(
    scheduled: Path, capfd: pytest.CaptureFixture[str], algorithm: str, op: int, filters: int, rule: str | None
) -> None:
    """`op` is the place among the ops that have the algorithm."""
    text = scheduled.read_text()
    found = list(re.finditer(rf'schedule = #pattern.schedule<{{algorithm = "{algorithm}",[^>]*?filters = (\d+)', text))[
        op
    ]
    edited = scheduled.with_name("edited.mlir")
    edited.write_text(text[: found.start(1)] + str(filters) + text[found.end(1) :])
    parameters = scheduled.with_suffix(".safetensors")
    edited.with_suffix(".safetensors").write_bytes(parameters.read_bytes())
    status = main(["debug", str(edited)])
    captured = capfd.readouterr()
    if rule is None:
        assert status == 0 and "nothing is off" in captured.out
    else:
        assert status == 1 and f"op expected a schedule with filters {rule}, got {filters}\n" in captured.err
