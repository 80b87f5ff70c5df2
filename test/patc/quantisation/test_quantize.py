"""`patc.quantize`: ranges from samples, what stays in f32, and how near results are to PyTorch's."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from gpu import needs_device
from torch import nn

import patc
from patc.quantisation.ranges import Extent, Histogram


class Net(nn.Module):
    """A residual block between a stem and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 1, 1)
        self.norm = nn.BatchNorm2d(16)
        self.first = nn.Conv2d(16, 16, 3, 1, 1)
        self.second = nn.Conv2d(16, 16, 3, 2, 1)
        self.skip = nn.Conv2d(16, 16, 1, 2)
        self.classifier = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.stem(x)).relu()
        x = (self.second(self.first(x).relu()) + self.skip(x)).relu()
        y: torch.Tensor = self.classifier(x.mean((2, 3)))
        return y


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def samples() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(1, 3, 16, 16, generator=generator) for _ in range(4)]


@pytest.fixture(scope="module")
def quantised(model: nn.Module, samples: list[torch.Tensor]) -> patc.CompiledModel:
    return patc.quantize(model, samples, threads=1)


def noise(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Return the signal in the noise, in dB."""
    found, wanted = (each.detach().double() for each in (found, wanted))
    return float(10 * torch.log10((wanted**2).sum() / ((found - wanted) ** 2).sum()))


def test_results_are_near(model: nn.Module, samples: list[torch.Tensor], quantised: patc.CompiledModel) -> None:
    fresh = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    for x in (samples[0], fresh):
        assert noise(quantised(x), model(x)) > 30
    assert {layer.name: layer.dtype for layer in quantised.layers if layer.weights} == dict.fromkeys(
        ("stem", "first", "second", "skip", "classifier"), "i8"
    )


@needs_device
@pytest.mark.parametrize("target", ["spirv-vulkan", "spirv-vulkan:dotprod"])
def test_gpus_compute_the_same_bits(
    model: nn.Module, samples: list[torch.Tensor], quantised: patc.CompiledModel, target: str, tmp_path: Path
) -> None:
    patc.quantize(model, samples, target=target).save(tmp_path / "net.patc")
    compiled = patc.load(tmp_path / "net.patc")
    assert {layer.dtype for layer in compiled.layers} == {"i8"}
    assert torch.equal(compiled(samples[0]), quantised(samples[0]))


def test_gpus_say_of_pruned_layers_that_they_are_dense(model: nn.Module, samples: list[torch.Tensor]) -> None:
    pruned = copy.deepcopy(model)
    pruned.first.weight.data[:, ::2] = 0
    pruned.first.weight.data[::2, :, 0] = 0
    said = [str(item) for item in patc.quantize(pruned, samples, target="spirv-vulkan").diagnostics]
    words = "its zeros are not used: spirv-vulkan has no loops on integers that leave them out"
    assert [words in each for each in said if each.startswith("first ")].count(True) == 1
    assert sum(words in each for each in said) == 1


def test_saved_files_hold_a_byte_a_weight(
    model: nn.Module, samples: list[torch.Tensor], quantised: patc.CompiledModel, tmp_path: Path
) -> None:
    quantised.save(tmp_path / "net.patc")
    loaded = patc.load(tmp_path / "net.patc")
    assert torch.equal(loaded(samples[0]), quantised(samples[0]))
    compiled = patc.compile(model, (samples[0],), threads=1)
    assert quantised.program.weights.nbytes < 0.5 * compiled.program.weights.nbytes
    assert [layer.dtype for layer in loaded.layers] == [layer.dtype for layer in quantised.layers]


def test_layers_that_are_kept(model: nn.Module, samples: list[torch.Tensor], quantised: patc.CompiledModel) -> None:
    kept = patc.quantize(model, samples, threads=1, keep=["stem", "class*"])
    known = {layer.name: layer.dtype for layer in kept.layers if layer.weights}
    assert known["stem"] == known["classifier"] == "f32" and known["first"] == "i8"
    assert "stays in f32: it is to be kept" in "\n".join(map(str, kept.diagnostics))
    assert noise(kept(samples[0]), model(samples[0])) > noise(quantised(samples[0]), model(samples[0]))


def test_ranges_cut_off_what_is_rare() -> None:
    array = np.concatenate([np.random.default_rng(0).normal(size=1_000_000), [20.0]])
    extent = Extent()
    extent.observe(array)
    histogram = Histogram(extent)
    histogram.observe(array)
    low, high = histogram.best_range()
    assert extent.high == 20.0 and low < -3.0 and 4.0 < high < 10.0


def test_ranges_of_nothing_but_zeros() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    for parameter in model[0].parameters():
        nn.init.zeros_(parameter)
    x = torch.ones(1, 1, 4, 4)
    found = patc.quantize(model, x, threads=1, ranges="minmax")(x)
    torch.testing.assert_close(found, model(x).detach())


@pytest.mark.parametrize(
    ("samples", "options", "message"),
    [
        ([], {}, "expected a sample or more to calibrate with, got none"),
        ([torch.full((1, 3, 16, 16), np.nan)], {}, "sample 0: expected finite numbers to calibrate with"),
        ([torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 8, 8)], {}, "sample 1: expected input .*, got shape"),
        (torch.zeros(1, 3, 16, 16), {"ranges": "histograms"}, "expected ranges to be one of histogram, minmax, got"),
        (
            torch.zeros(1, 3, 16, 16),
            {"keep": ["stm"]},
            "expected names of layers to keep, got 'stm'; did you mean 'stem'",
        ),
    ],
)
def test_what_is_refused(model: nn.Module, samples: object, options: dict[str, object], message: str) -> None:
    with pytest.raises(patc.PatcError, match=message):
        patc.quantize(model, samples, **{"threads": 1, **options})


class Root(nn.Module):
    """A layer on square roots."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 2, 1)
        nn.init.constant_(self.layer.weight, 3e38)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layer(x.sqrt())
        return y


@pytest.mark.parametrize("ranges", ["histogram", "minmax"])
@pytest.mark.parametrize("number", [-1.0, 4.0])
def test_activations_that_are_not_finite(ranges: str, number: float) -> None:
    with pytest.raises(patc.PatcError, match="expected finite activations to calibrate with, got NaN or infinite ones"):
        patc.quantize(Root().eval(), torch.full((1, 1, 2, 2), number), threads=1, ranges=ranges)


class Recurrent(nn.Module):
    """A linear layer on all steps of a sequence, whose last state is small."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.RNN(4, 8, bias=False)
        self.linear = nn.Linear(8, 4)
        nn.init.zeros_(self.recurrent.weight_hh_l0)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        steps, last = self.recurrent(x)
        return self.linear(steps.reshape(-1, 8)), last


def test_ranges_of_layers_with_several_results() -> None:
    torch.manual_seed(0)
    model, x = Recurrent().eval(), torch.randn(6, 1, 4)
    x[-1] *= 0.1
    found = patc.quantize(model, [(x,)], threads=1, ranges="minmax")
    assert {layer.name: layer.dtype for layer in found.layers}["linear"] == "i8"
    assert noise(found(x)[0], model(x)[0]) > 30


def test_signal_to_noise_of_layers(
    model: nn.Module, samples: list[torch.Tensor], quantised: patc.CompiledModel
) -> None:
    found = {layer.name: layer.remarks for layer in quantised.layers if layer.weights}
    heading = "on integers its signal-to-noise is "
    known = {
        name: float(text.removeprefix(heading).split()[0])
        for name, texts in found.items()
        for text in texts
        if heading in text
    }
    assert known.keys() == {"stem", "first", "second", "skip", "classifier"} and all(
        30 < each < 60 for each in known.values()
    )
    least = sorted(known.values())[1] + 0.05  # between two and three
    kept = patc.quantize(model, samples, threads=1, least_snr=least)
    assert {layer.name for layer in kept.layers if layer.weights and layer.dtype == "f32"} == {
        name for name, number in known.items() if number < least
    }


def test_trained_levels_are_kept() -> None:
    """Weights on levels, as `Levels` trains them, are not rounded again: on inputs that are integers of a scale results
    are those of f32."""
    generator = torch.Generator().manual_seed(0)
    net = nn.Conv2d(3, 8, 3, bias=False).eval()
    with torch.no_grad():
        steps = torch.randint(-7, 8, net.weight.shape, generator=generator).float()
        net.weight.copy_(steps * (torch.rand(len(steps), 1, 1, 1, generator=generator) * 0.1 + 0.01))
    x = torch.randint(0, 256, (1, 3, 12, 12), generator=generator).float() / 255
    x[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    compiled = patc.quantize(net, x, threads=1, ranges="minmax")
    assert [layer.dtype for layer in compiled.layers if layer.weights] == ["i8"]
    torch.testing.assert_close(compiled(x), net(x), rtol=1e-5, atol=1e-6)


def test_a_signal_to_noise_that_is_none(model: nn.Module, samples: list[torch.Tensor]) -> None:
    with pytest.raises(patc.PatcError, match="expected a finite signal-to-noise in dB, got nan"):
        patc.quantize(model, samples, least_snr=float("nan"))
