"""Pictures of kernels, patterns and attributions, and `patc report --visualize`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from command import fail, run
from torch import Tensor, nn

from patc import models
from patc.diagnostics import PatcError
from patc.models import ModelInfo
from patc.pruning import PHASE2, PatternSpec, prune_

pytest.importorskip("matplotlib", reason="pip install 'patc[train]'")
pytest.importorskip("captum", reason="pip install 'patc[train]'")

from patc.pruning import plots, visualize


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.relu = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.relu(self.conv2(self.relu(self.conv1(x)))).mean((2, 3)))


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    def build(weights: object = None, *, seed: int = 0, num_classes: int = 5) -> nn.Module:
        torch.manual_seed(seed)
        return Small().eval()

    monkeypatch.setitem(models.MODELS, "resnet18_cifar", ModelInfo(build, (1, 3, 16, 16)))
    return build()


def test_heat_maps_are_mean_magnitudes(model: nn.Module) -> None:
    maps = visualize.kernel_heat_maps(model)
    assert list(maps) == ["conv1", "conv2"] and maps["conv1"].shape == (3, 3)
    assert np.allclose(maps["conv2"], model.conv2.weight.detach().abs().numpy().mean((0, 1)))


def test_patterns_are_those_of_the_largest_weights(model: nn.Module) -> None:
    assert sum(visualize.main_patterns(model).values()) == 3 * 8 + 8 * 8
    report = prune_(model, PatternSpec(connectivity=2))
    assert visualize.main_patterns(model) == {m: n for m, n in sorted(report.histogram.items()) if n}
    assert {*visualize.main_patterns(model)} <= {*PHASE2}


def test_attributions_are_what_they_are_called(model: nn.Module) -> None:
    torch.manual_seed(1)
    image = torch.randn(1, 3, 16, 16)
    guided = visualize.guided_backpropagation(model, image, 2)
    assert guided.shape == image.shape and guided.abs().sum() > 0
    # Completeness: they add up to what the score gains over that of black.
    integrated = visualize.integrated_gradients(model, image, 2)
    with torch.no_grad():
        gain = float(model(image)[0, 2] - model(torch.zeros_like(image))[0, 2])
    assert float(integrated.sum()) == pytest.approx(gain, abs=0.02 * abs(gain) + 1e-3)


def test_guided_backpropagation_knows_relu6(model: nn.Module) -> None:
    """As with a ReLU, where nothing is above 6; and without the gradient, where all is."""
    torch.manual_seed(1)
    image = torch.randn(1, 3, 16, 16)
    wanted = visualize.guided_backpropagation(model, image, 2)
    model.relu = nn.ReLU6()
    assert torch.equal(visualize.guided_backpropagation(model, image, 2), wanted)
    assert not torch.equal(torch.autograd.grad(model(image.requires_grad_())[0, 2], image)[0], wanted)
    with torch.no_grad():
        model.conv2.bias += 100
    assert visualize.guided_backpropagation(model, image, 2).count_nonzero() == 0
    with pytest.raises(PatcError, match=r"expected a model with modules nn\.ReLU or nn\.ReLU6 .* found none"):
        visualize.guided_backpropagation(nn.Conv2d(3, 8, 16), image, 2)


def test_inverted_representation_gives_the_same_output(model: nn.Module) -> None:
    torch.manual_seed(2)
    image = nn.functional.interpolate(torch.randn(1, 3, 4, 4), size=(16, 16), mode="bilinear")
    inverted = visualize.inverted_representation(model, model.conv1, image)
    with torch.no_grad():
        wanted, found = model.conv1(image), model.conv1(inverted)
    assert float((found - wanted).norm() / wanted.norm()) < 0.15
    assert float((inverted - image).norm() / image.norm()) < 0.5
    assert all(parameter.grad is None for parameter in model.parameters())
    with pytest.raises(PatcError, match="found one that it does not use"):
        visualize.inverted_representation(model, nn.Conv2d(3, 3, 3), image)


def test_draws_all_pictures(capsys: pytest.CaptureFixture[str], model: nn.Module, tmp_path: Path) -> None:
    from PIL import Image

    text = run(capsys, "report", "resnet18_cifar", "--connectivity", "2", "--visualize", tmp_path / "out")
    names = ["kernels-dense", "patterns-dense", "kernels-pruned", "patterns-pruned", "attributions"]
    *pictures, said = text.splitlines()
    assert pictures == [str(tmp_path / "out" / f"{name}.png") for name in names]
    assert said.startswith("the weights of resnet18_cifar are random ones")
    for line in pictures:
        with Image.open(line) as picture:
            assert picture.width > 100 and len(picture.convert("L").getcolors()) > 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("net.patc --visualize out", "net.patc: expected the name of a model together with --visualize"),
        ("resnet18_cifar --image a.png", "expected --visualize together with --image, got none"),
        ("resnet18_cifar --visualize file/out", "file/out: expected a folder, got a file"),
        ("resnet18_cifar --visualize out --against a --connectivity 2", "expected --against or options of pruning"),
        (
            "vgg16_cifar --visualize out --input-shape 1,3,8,8",
            "expected a model that takes an image of 1x3x8x8, found: ",
        ),
    ],
)
def test_errors_are_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, model: nn.Module, tmp_path: Path,
    words: str, message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert message in fail(capsys, "report", *words.split())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, model: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(PatcError, match="expected a model with convolutions to draw, found a Linear"):
        visualize.write_pictures(
            {"dense": nn.Sequential(nn.Flatten(), nn.Linear(768, 2))[1]}, torch.zeros(1, 768), tmp_path
        )
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(PatcError, match=r"expected matplotlib for pictures, found none: pip install 'patc\[train\]'"):
        plots.save_spreads(tmp_path / "x.png", ["a"], [[1.0]], "unit")
    monkeypatch.setitem(sys.modules, "captum", None)
    with pytest.raises(PatcError, match=r"expected captum for attributions, found none: pip install 'patc\[train\]'"):
        visualize.guided_backpropagation(model, torch.zeros(1, 3, 16, 16), 0)
    assert not list(tmp_path.iterdir())
