"""`patc run --check-finite` and its function name the first layer that is not finite."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from patc.tools.patc import main

NET = """\
import torch
from torch import nn
from torch.nn import functional
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)
    def forward(self, x):
        return self.last(torch.relu(self.first(x)))
def build():
    return Net(), torch.zeros(1, 3, 4, 5)
def broken():
    net = Net()
    with torch.no_grad():
        net.last.weight.fill_(3e38)
        net.first.bias.fill_(9.0)
    return net, torch.zeros(1, 3, 4, 5)
class Unnamed(nn.Module):
    def forward(self, x):
        return torch.log(functional.max_pool2d(x, 2))
def unnamed():
    return Unnamed(), torch.zeros(1, 3, 4, 6)
"""


def test_the_command_names_the_layer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.py").write_text(NET)
    place = str(tmp_path / "net.py")
    assert main(["run", f"{place}:build", "--check-finite", "--threads", "1"]) == 0
    assert capsys.readouterr().out.endswith("all layers are finite\n")
    assert main(["run", f"{place}:broken", "--check-finite", "--threads", "1"]) == 1
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith("the first layer that is not finite is last (pattern.conv2d): ") and "infinite" in said
    x = np.zeros((1, 3, 4, 5), np.float32)
    x[0, 1, 2, 3] = np.nan
    np.save(tmp_path / "x.npy", x)
    arguments = ["run", f"{place}:build", "--check-finite", "--threads", "1", "--input", str(tmp_path / "x.npy")]
    assert main(arguments) == 1
    lines = capsys.readouterr().out.splitlines()[-2:]
    assert lines[0] == "input 'x' is not finite already: 1 NaN of 60"
    assert lines[1] == "the first layer that is not finite is first (pattern.conv2d): 4 NaN of 80"
    assert main(["run", str(tmp_path / "net.patc"), "--check-finite"]) == 1
    assert "expected a model to compile together with --check-finite" in capsys.readouterr().err


def test_layers_without_a_name_are_called_by_file_and_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.py").write_text(NET)
    place, line = (
        f"{tmp_path / 'net.py'}:unnamed",
        NET.splitlines().index("        return torch.log(functional.max_pool2d(x, 2))") + 1,
    )
    assert main(["run", place, "--check-finite", "--threads", "1"]) == 1
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith(f"the first layer that is not finite is aten.log.default (net.py:{line}): ")
    assert main(["debug", place, "--threads", "1"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert any(row.startswith(f"net.py:{line} ") for row in rows)
    assert main(["report", place, "--threads", "1"]) == 0
    assert f"computes aten.log.default (net.py:{line})" in capsys.readouterr().out
