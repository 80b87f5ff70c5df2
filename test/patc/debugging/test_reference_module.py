"""What `patc debug` compares with: PyTorch in float64, of modules, exported programs and their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from patc.context import make_context
from patc.debugging.numbers import float64_outputs
from patc.sources import import_source
from patc.tools.patc import main


class Two(nn.Module):
    """Takes two inputs, whose names are not in the order of the alphabet."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor, a: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"y": self.scores(x) * a, "sum": x.sum()}


@pytest.fixture(scope="module")
def net() -> Two:
    torch.manual_seed(0)
    return Two().eval()


@pytest.fixture(scope="module")
def arrays() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.standard_normal(shape, np.float32) for shape in ((2, 4), (2, 3))]


@pytest.fixture(scope="module")
def program(net: Two, arrays: list[np.ndarray]) -> Any:
    rows = torch.export.Dim("rows", min=1, max=8)
    x, a = map(torch.from_numpy, arrays)
    return torch.export.export(net, (x,), {"a": a}, dynamic_shapes={"x": {0: rows}, "a": {0: rows}})


@pytest.fixture(scope="module")
def path(program: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("reference") / "net.pt2"
    torch.export.save(program, found)
    return found


@pytest.mark.parametrize("kind", ["module", "file"])
def test_it_is_computed_in_float64(kind: str, net: Two, path: Path, arrays: list[np.ndarray]) -> None:
    x, a = map(torch.from_numpy, arrays)
    model, given = (net, {"a": a, "x": x}) if kind == "module" else (path, {"a": (2, 3), "x": (2, 4)})
    source = import_source(model, given, make_context())
    in_order = [arrays["xa".index(info.name)] for info in source.inputs]
    found = float64_outputs(model, given, in_order, source)
    wanted = net.double()(x.double(), a.double())
    net.float()
    for one, other in zip(found, wanted.values(), strict=True):
        assert one.dtype == np.float64 and np.array_equal(one, other.detach().numpy())


def test_other_files_have_none(path: Path) -> None:
    source = import_source(path, {"x": (2, 4), "a": (2, 3)}, make_context())
    assert float64_outputs(path.with_suffix(".onnx"), None, [], source) is None


def test_the_command_says_what_it_compares_with(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["debug", str(path), "--shape", "x=2x4", "--shape", "a=2x3", "--threads", "1"]) == 0
    said = capsys.readouterr().out
    assert "reference: PyTorch in float64, and plain loops\n" in said and "nothing is off" in said
