"""What is counted of zeros in weights and inputs, and what reports make of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import patc
from patc.diagnostics import PatcError
from patc.dialects.schedules import Zeros
from patc.explain.build import make_report
from patc.library import compile_library


class Net(nn.Module):
    """A convolution and a linear layer behind ReLUs, and a branch that reads the net's input."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.other = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 1)
        self.first, self.second = nn.Linear(8 * 36, 200), nn.Linear(200, 30)
        with torch.no_grad():
            self.first.weight[:50] = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        planes = torch.relu(self.conv(x)) * self.other(x)
        return self.second(torch.relu(self.first(planes.flatten(1)) - 0.2))


def samples() -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randn(1, 3, 6, 6) * (torch.rand(1, 3, 6, 6) < 0.5) for _ in range(4)]


@pytest.fixture(scope="module")
def compiled() -> patc.CompiledModel:
    given = samples()
    return patc.compile(Net().eval(), (given[0],), threads=1, zeros=given)


def test_zeros_are_those_that_pytorch_sees(compiled: patc.CompiledModel) -> None:
    net, seen = Net().eval(), dict[str, list[float]]()

    def look(name: str) -> Any:
        return lambda module, given, result: seen.setdefault(name, []).append(float((given[0] == 0).double().mean()))

    for name, module in net.named_children():
        module.register_forward_hook(look(name))
    for x in samples():
        net(x)
    found = {layer.name: layer.zeros for layer in compiled.layers if layer.weights}
    assert found.keys() == seen.keys()
    for name, zeros in found.items():
        assert zeros is not None
        assert zeros.inputs == pytest.approx(sum(seen[name]) / 4, abs=1e-3)
        assert zeros.weights == (0.25 if name == "first" else 0.0)
    algorithms = {layer.name: layer.algorithm for layer in compiled.layers}
    assert algorithms["second"] == "zero-skip"


def test_without_samples_nothing_is_known() -> None:
    model = patc.compile(Net().eval(), (samples()[0],), threads=1)
    assert all(layer.zeros is None and layer.algorithm != "zero-skip" for layer in model.layers)


def test_libraries_skip_zeros_too() -> None:
    given = samples()
    library = compile_library(Net().eval(), (given[0],), name="net", target="x86-64-v4", zeros=given)
    assert {layer.name: layer.algorithm for layer in library.program.layers}["second"] == "zero-skip"


def test_it_is_saved(compiled: patc.CompiledModel, tmp_path: Path) -> None:
    compiled.save(tmp_path / "net.patc")
    assert patc.load(tmp_path / "net.patc").layers == compiled.layers


def test_what_zeros_could_gain_and_gain() -> None:
    assert Zeros(0.5, 0.75).ideal == 8.0 and Zeros(1.0, 0.5).ideal is None
    given = samples()
    model = patc.compile(Net().eval(), (given[0],), threads=1, zeros=given)
    report = make_report([("net", model)], measure=True, samples=lambda infos: [[x.numpy()] for x in given])
    layers = {item.layer.name: item for item in report.models[0].nets[0].layers}
    second, conv = layers["second"], layers["conv"]
    assert second.ideal_speedup == pytest.approx(1 / (1 - second.layer.zeros.inputs)) if second.layer.zeros else False
    assert second.obtained_speedup is not None and second.obtained_speedup > 1
    assert conv.obtained_speedup == 1.0 and second.seconds is not None
    nothing = [item for item in layers.values() if not item.layer.weights]
    assert all(item.ideal_speedup is item.obtained_speedup is None for item in nothing)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"zeros": []}, "expected a sample or more to calibrate with, got none"),
        ({"zeros": torch.zeros(1, 3, 5, 6)}, "sample 0: .*expected"),
        ({"zeros": torch.full((1, 3, 6, 6), float("nan"))}, "sample 0: expected finite numbers"),
        ({"zeros": samples(), "dynamic_batch": True}, "expected zeros or dynamic_batch, got both"),
        ({"zeros": samples(), "shapes": [(1, 3, 8, 8)]}, "expected zeros or shapes, got both"),
    ],
)
def test_wrong_samples_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PatcError, match=message) as caught:
        patc.compile(Net().eval(), (samples()[0],), **options)
    assert "\n" not in str(caught.value)
