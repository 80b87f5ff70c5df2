"""Weights of domains, attacks on the worst case, and pruning that keeps the worst domain."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import fail, run
from PIL import Image
from torch import Tensor, nn

from patc.diagnostics import PatcError
from patc.pruning import PatternSpec
from patc.pruning.data import Data, TensorSplit
from patc.pruning.train import train
from patc.pruning.train_options import TrainOptions
from patc.robust import (
    DOMAINS,
    Attack,
    Budget,
    Domains,
    DomainWeights,
    attack_ensemble,
    attack_transforms,
    attack_universal,
    worst_case_loss,
)

pytestmark = pytest.mark.usefixtures("one_thread")


# Weights ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("losses", [[1.0, 1.2, 0.9], [5.0, 0.0, 0.0], [0.0, 0.0, 0.0], [2.0, 0.5]])
def test_weights_end_where_the_regularised_sum_is_largest(losses: list[float]) -> None:
    """The largest w . F - pull / 2 |w - 1/K|^2 of the simplex, looked for on a grid."""
    pull, count = 3.0, len(losses)
    weights = DomainWeights(count, step=0.02, pull=pull)
    for _ in range(600):
        weights.update(torch.tensor(losses))
    steps = np.linspace(0, 1, 201)
    grid = np.stack(np.meshgrid(*[steps] * (count - 1), indexing="ij"), -1).reshape(-1, count - 1)
    grid = np.concatenate([grid, 1 - grid.sum(1, keepdims=True)], 1)
    grid = grid[grid[:, -1] >= -1e-9]
    values = grid @ losses - pull / 2 * ((grid - 1 / count) ** 2).sum(1)
    np.testing.assert_allclose(weights.values[0].numpy(), grid[values.argmax()], atol=5e-3)
    assert float(weights.values.sum()) == pytest.approx(1.0)


def test_what_is_lowered_is_the_sum_by_the_new_weights() -> None:
    losses = torch.tensor([1.0, 3.0], requires_grad=True)
    weights = DomainWeights(2, step=0.1, pull=1.0)
    total = worst_case_loss(losses, weights)
    (gradient,) = torch.autograd.grad(total, losses)
    assert gradient.tolist() == pytest.approx(weights.values[0].tolist())
    assert gradient.tolist() == pytest.approx([0.4, 0.6])
    assert float(total.detach()) == pytest.approx(0.4 * 1 + 0.6 * 3)
    still = DomainWeights(2, step=0.0)
    assert float(worst_case_loss(losses, still)) == pytest.approx(2.0) and still.values.tolist() == [[0.5, 0.5]]
    worst_case_loss(losses, weights, seen=torch.tensor([3.0, 1.0]))
    assert weights.values[0].tolist() == pytest.approx([0.51, 0.49])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DomainWeights(0), "expected one domain and one row or more, got 0 and 1"),
        (lambda: DomainWeights(2, step=-1.0), "expected a finite step and pull of 0 or more, got -1.0 and 3.0"),
        (lambda: DomainWeights(2).update(torch.zeros(3)), r"expected losses of shape \[1, 2\], got \[3\]"),
        (lambda: Budget(0.0), "expected a radius above 0 and a step or more, got 0.0 and 20"),
        (lambda: Budget(0.1, "l1"), "expected the norm to be linf or l2, got 'l1'"),  # type: ignore[arg-type]
        (lambda: Budget(0.1, step=0.0), "expected steps longer than 0, got 0.0"),
        (lambda: Budget(0.1, low=1.0), "expected inputs between two bounds, got 1.0 and 1.0"),
        (lambda: Domains(()), "expected different domains, got none"),
        (lambda: Domains(("blur", "blur")), "expected different domains, got blur, blur"),
        (lambda: Domains(("blurr",)), "expected domains out of clean, blur, .*, got 'blurr'.*did you mean 'blur'"),
        (lambda: attack_ensemble([], torch.zeros(1, 2), torch.zeros(1).long(), Budget(1.0)), "expected a case and an"),
        (lambda: attack_universal(nn.Linear(2, 2), torch.zeros(3, 2), torch.zeros(2).long(), Budget(1.0)), "a class for"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused(make: Any, message: str) -> None:
    with pytest.raises(PatcError, match=message):
        make()


# Attacks ------------------------------------------------------------------------------------------


def linear(seed: int, classes: int = 3) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(6, classes)


def inputs(count: int = 8) -> tuple[Tensor, Tensor]:
    torch.manual_seed(9)
    x = torch.rand(count, 6)
    return x, linear(0)(x).argmax(1)


def is_inside(found: Attack, x: Tensor, budget: Budget) -> bool:
    sizes = found.perturbation.abs().amax(1) if budget.norm == "linf" else found.perturbation.norm(dim=1)
    whole = x + found.perturbation
    stays = len(found.perturbation) == 1 or (whole.min() >= budget.low - 1e-6 and whole.max() <= budget.high + 1e-6)
    return bool((sizes <= budget.radius + 1e-6).all()) and bool(stays)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_one_linear_model_is_attacked_along_its_gradient(norm: Any) -> None:
    """Of two classes the best perturbation is known; inputs are far from the bounds."""
    model, x = linear(1, 2), torch.full((2, 6), 0.5)
    y = model(x).argmax(1)
    budget = Budget(0.05, norm)
    found = attack_ensemble([model], x, y, budget)
    slope = (model.weight[y[0]] - model.weight[1 - y[0]]).detach()
    wanted = -0.05 * (slope.sign() if norm == "linf" else slope / slope.norm())
    torch.testing.assert_close(found.perturbation, wanted.expand(2, 6), atol=1e-5, rtol=0)
    assert found.weights.tolist() == [[1.0], [1.0]]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_attacks_stay_in_their_ball_and_say_what_they_reached(norm: Any) -> None:
    models, (x, y) = [linear(seed) for seed in (0, 1, 2)], inputs()
    budget = Budget(0.4, norm)
    found = attack_ensemble(models, x, y, budget)
    assert is_inside(found, x, budget) and found.perturbation.shape == x.shape and found.weights.shape == (8, 3)
    wrong = torch.stack([model(x + found.perturbation).argmax(1) != y for model in models], 1)
    assert torch.equal(found.success, wrong) and found.worst_success == float(wrong.all(1).double().mean())
    common = attack_universal(models[0], x, y, budget)
    assert is_inside(common, x, budget) and common.perturbation.shape == (1, 6) and common.weights.shape == (1, 8)
    perturbed = (x + common.perturbation).clamp(0, 1)
    assert torch.equal(common.success[:, 0], models[0](perturbed).argmax(1) != y)
    moved = [lambda x: x, lambda x: x.flip(1), lambda x: 0.9 * x]
    survived = attack_transforms(models[0], moved, x, y, budget)
    wrong = torch.stack([models[0](change(x + survived.perturbation)).argmax(1) != y for change in moved], 1)
    assert torch.equal(survived.success, wrong) and is_inside(survived, x, budget)


def test_the_largest_margin_shrinks_more_than_by_averaging() -> None:
    """Two models want opposite directions of one element, and one of them more of it."""
    x, y = torch.full((1, 2), 0.5), torch.zeros(1).long()

    def model(slope: float, lead: float) -> Any:
        return lambda x: torch.stack([slope * (x[:, 0] - 0.5) + 0.1 * (x[:, 1] - 0.5) + lead, 0 * x[:, 0]], 1)

    models, budget = [model(1.0, 0.0), model(-1.0, 0.3)], Budget(0.5, steps=200, step=0.02)

    def worst(found: Attack) -> float:
        return max(float((each(x + found.perturbation)[:, 0]).detach()) for each in models)

    averaged = attack_ensemble(models, x, y, budget, step=0.0)
    found = attack_ensemble(models, x, y, budget, step=0.1, pull=0.1)
    assert worst(found) < worst(averaged) - 0.05


# Domains ------------------------------------------------------------------------------------------


def pictures(count: int = 4, size: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)


def no_scores(pixels: Tensor) -> Tensor:
    raise AssertionError("asked for scores")


def test_changes_of_pictures() -> None:
    pixels, labels = pictures().float() / 255, torch.zeros(4).long()
    torch.manual_seed(0)
    changed = {name: DOMAINS[name](pixels, labels, no_scores) for name in ("clean", "blur", "noise", "jpeg")}
    assert all(each.shape == pixels.shape and each.min() >= 0 and each.max() <= 1 for each in changed.values())
    assert torch.equal(changed["clean"], pixels)
    flat = torch.full((1, 3, 8, 8), 0.3)
    torch.testing.assert_close(DOMAINS["blur"](flat, labels, no_scores), flat)
    weights = np.exp(-(np.arange(-2, 3) ** 2) / 2)
    weights /= weights.sum()
    middle = pixels[0, 1, 5:10, 6:11].double().numpy()
    assert float(changed["blur"][0, 1, 7, 8]) == pytest.approx(float(weights @ middle @ weights), abs=1e-6)
    gray = torch.full((1, 3, 100, 100), 0.5)
    assert float(DOMAINS["noise"](gray, labels, no_scores).std()) == pytest.approx(0.1, rel=0.02)
    stream = io.BytesIO()
    Image.fromarray(pictures()[2].permute(1, 2, 0).numpy()).save(stream, "JPEG", quality=20)
    wanted = torch.from_numpy(np.array(Image.open(stream))).permute(2, 0, 1) / 255
    torch.testing.assert_close(changed["jpeg"][2], wanted)


class Small(nn.Module):
    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.bn = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.fc = nn.Conv2d(8, 8, 3, 2, 1), nn.Linear(8 * 16, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.conv2(torch.relu(self.bn(self.conv1(x))))).flatten(1))


@pytest.fixture(scope="module")
def shapes() -> Data:
    """Four classes of 16x16 pictures: where a bright square is, with noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(96) % 4
    images = torch.randint(0, 120, (96, 3, 16, 16), generator=generator, dtype=torch.uint8)
    for place, label in enumerate(labels.tolist()):
        y, x = divmod(label, 2)
        images[place, :, 8 * y + 2 : 8 * y + 6, 8 * x + 2 : 8 * x + 6] += 90
    train_, test = TensorSplit(images[:64], labels[:64]), TensorSplit(images[64:], labels[64:])
    return Data("shapes", 4, (3, 16, 16), train_, test)


def test_attacked_pictures_are_worse_for_the_net_and_near(shapes: Data) -> None:
    net, domains = Small().train(), Domains(("linf", "l2"))
    images, labels = next(shapes.test.batches(32))
    before = net.bn.running_mean.clone()
    clean, *attacked = domains.views(net, shapes, images, labels)
    assert net.training and torch.equal(net.bn.running_mean, before)
    net.eval()
    lead = nn.functional.cross_entropy(net(clean), labels)
    assert all(nn.functional.cross_entropy(net(each), labels) > lead + 1e-3 for each in attacked)
    change = [(each - clean) * torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1) for each in attacked]
    assert float(change[0].abs().max()) <= 4 / 255 + 1e-6
    assert float(change[1].flatten(1).norm(dim=1).max()) <= 0.5 + 1e-5


ALL = Domains(("blur", "noise", "jpeg", "linf", "l2"))
OPTIONS = TrainOptions(
    dense_epochs=2, prune_epochs=2, retrain_epochs=2, batch_size=16, learning_rate=0.1, device="cpu", domains=ALL
)


def test_a_net_is_pruned_for_its_worst_domain_and_resumed_to_the_same_bits(shapes: Data, tmp_path: Path) -> None:
    spec, whole = PatternSpec(connectivity=2), Small()
    report = train(whole, shapes, spec, OPTIONS, tmp_path / "whole")
    assert list(report.domains) == ["clean", "blur", "noise", "jpeg", "linf", "l2"]
    assert sum(weight for weight, _ in report.domains.values()) == pytest.approx(1.0)
    assert len({weight for weight, _ in report.domains.values()}) > 1
    reached = [epoch.worst_accuracy or 0.0 for epoch in report.epochs]
    assert min(accuracy for _, accuracy in report.domains.values()) == max(reached[-2:])
    assert report.domains == {
        name: (report.domains[name][0], accuracy) for name, accuracy in ALL.evaluate(whole, shapes).items()
    }
    with (tmp_path / "whole" / "log.csv").open() as file:
        assert [float(row["worst_accuracy"]) for row in csv.DictReader(file)] == reached

    def stop(phase: Any, epoch: Any) -> None:
        if epoch.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(Small(), shapes, spec, OPTIONS, tmp_path / "parts", tell=stop)
    parts = Small()
    again = train(parts, shapes, spec, OPTIONS, tmp_path / "parts", resume=True)
    assert again.domains == report.domains
    assert all(map(torch.equal, whole.state_dict().values(), parts.state_dict().values()))
    state = torch.load(tmp_path / "parts" / "last.pt", weights_only=True)
    for value, words in (
        (None, "'domains' to be a list of 6, found None"),
        ([2.0] * 6, "'domains.0' to be a finite number from 0.0 to 1.0"),
    ):
        torch.save({**state, "domains": value}, tmp_path / "parts" / "last.pt")
        with pytest.raises(PatcError, match=words):
            train(Small(), shapes, spec, OPTIONS, tmp_path / "parts", resume=True)
    with pytest.raises(PatcError, match="expected the checkpoint of a run with domains None, found one with"):
        train(Small(), shapes, spec, replace(OPTIONS, domains=None), tmp_path / "parts", resume=True)


def test_other_inputs_than_pictures_have_no_domains(shapes: Data, tmp_path: Path) -> None:
    with pytest.raises(PatcError, match="expected pictures to have domains of, got a data set of other inputs"):
        train(Small(), replace(shapes, shape=None), PatternSpec(connectivity=2), OPTIONS, tmp_path / "run")


NET = """
import torch
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 62)), torch.zeros(1, 3, 32, 32)
"""


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    words = ["prune", "net.py:build", "--data", "glyphs:64", "--scheme", "unstructured", "--compression", "2"]
    words += ["--prune-epochs", "1", "--retrain-epochs", "1", "--device", "cpu"]
    text = run(capsys, *words, "--domains", "blur,linf", "-o", "out.safetensors")
    assert "(worst domain " in text
    for name in ("clean", "blur", "linf"):
        assert f"domain {name:6s} weight 0." in text
    assert "expected domains out of clean, blur" in fail(capsys, *words, "--domains", "fog", "--run-folder", "other")
    no_data = ["prune", "resnet18_cifar", "--compression", "2", "--domains", "blur"]
    assert "expected --data together with --domains, got none" in fail(capsys, *no_data)
