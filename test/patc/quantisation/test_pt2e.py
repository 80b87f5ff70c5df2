"""Quantised exported programs: what convert_pt2e of torchao writes, and the quantizer that asks for what patc computes."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from gpu import needs_device
from repository import ROOT
from torch import nn

import patc

pytest.importorskip("torch.ao.quantization.fx._decomposed")
operations = torch.ops.quantized_decomposed
FULL = (-128, 127, torch.int8)


class Fake(nn.Module):
    """A convolution and a linear layer between numbers that are integers, as convert_pt2e writes them."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("kernel", torch.randint(-127, 128, (8, 4, 3, 3), generator=generator).to(torch.int8))
        self.register_buffer("scales", torch.rand(8, generator=generator) * 0.01 + 0.001)
        self.register_buffer("zeros", torch.zeros(8, dtype=torch.int64))
        self.bias = nn.Parameter(torch.randn(8, generator=generator))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.rounded(x, 0.031, -5)
        channel = (0, -127, 127, torch.int8)
        weight = operations.dequantize_per_channel(self.kernel, self.scales, self.zeros, *channel)
        y = nn.functional.conv2d(x, weight, self.bias, padding=1).relu()
        y = self.rounded(y, 0.05, -128)
        return self.rounded(y + x.mean(), 0.07, -100)

    def rounded(self, x: torch.Tensor, scale: float, zero: int) -> torch.Tensor:
        integers = operations.quantize_per_tensor(x, scale, zero, *FULL)
        made: torch.Tensor = operations.dequantize_per_tensor(integers, scale, zero, *FULL)
        return made


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.randn(1, 4, 10, 10, generator=torch.Generator().manual_seed(1))


def assert_within_a_step(found: Any, wanted: torch.Tensor, step: float, share: float = 0.01) -> None:
    difference = (torch.as_tensor(found) - wanted.detach()).abs()
    assert difference.max() <= step * 1.001 and (difference > step / 2).float().mean() < share


@pytest.mark.parametrize("form", ["module", "program", "file"])
def test_layers_between_integers(form: str, x: torch.Tensor, tmp_path: Path) -> None:
    model: Any = Fake().eval()
    if form != "module":
        model = torch.export.export(model, (x,))
    if form == "file":
        torch.export.save(model, tmp_path / "net.pt2")
        model = tmp_path / "net.pt2"
    compiled = patc.compile(model, None if form == "file" else (x,), target="host", threads=1)
    assert {layer.dtype for layer in compiled.layers if layer.weights} == {"i8"}
    assert_within_a_step(compiled(x), Fake().eval()(x), 0.07)


def test_numbers_of_other_ranges_are_arithmetic(x: torch.Tensor) -> None:
    class Narrow(Fake):
        def rounded(self, x: torch.Tensor, scale: float, zero: int) -> torch.Tensor:
            limits = (-100, 100, torch.int8)
            integers = operations.quantize_per_tensor(x, scale, zero, *limits)
            made: torch.Tensor = operations.dequantize_per_tensor(integers, scale, zero, *limits)
            return made

    compiled = patc.compile(Narrow().eval(), (x,), target="host", threads=1)
    assert "i8" not in {layer.dtype for layer in compiled.layers}
    assert_within_a_step(compiled(x), Narrow().eval()(x), 0.07)


class Net(nn.Module):
    """Batch norm, a residual, groups, pools, a concatenation, resizing and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(4, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1), nn.BatchNorm2d(16))
        self.depthwise = nn.Conv2d(16, 16, 3, 1, 1, groups=16)
        self.skip, self.joined = nn.Conv2d(16, 8, 1, 2), nn.Conv2d(24, 20, 3, 1, 1)
        self.classifier = nn.Linear(20, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        functional = nn.functional
        x = self.stem(x)
        x = (x + self.body(x)).relu()
        pooled = functional.max_pool2d(functional.relu6(self.depthwise(x)), 2)
        x = functional.interpolate(torch.cat([pooled, self.skip(x)], 1), scale_factor=2.0, mode="nearest")
        x = functional.hardswish(self.joined(functional.avg_pool2d(x, 2)))
        made: torch.Tensor = self.classifier(functional.adaptive_avg_pool2d(x, 1).flatten(1))
        return made


def convert(training: bool, x: torch.Tensor, **options: Any) -> Any:
    from torchao.quantization.pt2e import move_exported_model_to_eval
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e, prepare_qat_pt2e

    from patc.quantisation.pt2e import PatcQuantizer

    torch.manual_seed(0)
    exported = torch.export.export(Net().train(training), (x,)).module()
    quantizer = PatcQuantizer(training, **options)
    prepared = (prepare_qat_pt2e if training else prepare_pt2e)(exported, quantizer)
    optimizer = torch.optim.SGD(prepared.parameters(), 1e-3) if training else None
    for _ in range(4):
        loss = prepared(torch.randn(x.shape)).square().sum()
        if optimizer is not None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    if training:
        move_exported_model_to_eval(prepared)
    return convert_pt2e(prepared)


@pytest.mark.parametrize(
    ("training", "target"),
    [(False, "host"), (True, "host"), pytest.param(False, "spirv-vulkan", marks=needs_device)],
)
def test_nets_of_the_quantizer(training: bool, target: str, x: torch.Tensor) -> None:
    pytest.importorskip("torchao")
    x = torch.cat([x, -x])
    converted = convert(training, x)
    compiled = patc.compile(converted, (x,), target=target, threads=1)
    # All of it: sums and activations are within layers.
    assert {layer.dtype for layer in compiled.layers} == {"i8"}
    wanted = copy.deepcopy(converted)(x)
    # One step of a mean moves each sum of the classifier by at most that times a weight.
    assert_within_a_step(compiled(x), wanted, 0.01 * float(wanted.detach().abs().max()))


def test_layers_that_are_kept(x: torch.Tensor) -> None:
    pytest.importorskip("torchao")
    compiled = patc.compile(convert(False, x, keep=("body",)), (x,), target="host", threads=1)
    kept = {layer.name: layer.dtype for layer in compiled.layers if layer.weights}
    assert kept == {**dict.fromkeys(("stem.0", "depthwise", "skip", "joined", "classifier"), "i8"), "body.0": "f32"}


def test_parameters_and_integers_that_are_moved(x: torch.Tensor) -> None:
    """Only activations are observed: a factor of each channel has another form, and so have integers."""
    pytest.importorskip("torchao")
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    from patc.quantisation.pt2e import PatcQuantizer

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.factor = nn.Conv2d(4, 8, 3), nn.Parameter(torch.linspace(0.5, 1.5, 8))

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            y = self.conv(x)
            return y * self.factor.view(1, -1, 1, 1), y.argmax(1).flatten(1)

    torch.manual_seed(0)
    prepared = prepare_pt2e(torch.export.export(Scaled().eval(), (x,)).module(), PatcQuantizer())
    prepared(x)
    converted = convert_pt2e(prepared)
    compiled = patc.compile(converted, (x,), target="host", threads=1)
    assert {layer.dtype for layer in compiled.layers if layer.weights} == {"i8"}
    wanted = converted(x)[0].detach()
    assert_within_a_step(compiled(x)[0], wanted, 0.01 * float(wanted.abs().max()))


def test_without_torchao(tmp_path: Path) -> None:
    (tmp_path / "torchao.py").write_text("raise ImportError\n")
    code = "import patc.quantisation.pt2e"
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    run = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
    )
    message = "expected the package torchao for PatcQuantizer, found none: pip install 'patc[pt2e]'"
    assert run.returncode and run.stderr.strip().endswith(message)
