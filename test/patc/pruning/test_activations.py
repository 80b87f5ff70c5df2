"""Activations on levels: what is rounded, ranges that follow, gradients, and what a finalized model is."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from patc.diagnostics import PatcError
from patc.pruning import Activations, KernelBlocks, Levels, Magnitude, Plan, Pruner
from patc.pruning.activations import InputLevels
from patc.pruning.schemes import Both

pytestmark = pytest.mark.usefixtures("one_thread")


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4))


def round_affine(x: Tensor, low: float, high: float) -> Tensor:
    """Round by the definition, in float64."""
    scale = (high - low) / 255
    zero = round(-low / scale)
    return ((x.double() / scale).round() + zero).clamp(0, 255).sub(zero) * scale


def test_inputs_are_rounded_to_256_levels_of_their_range() -> None:
    levels = InputLevels()
    x = torch.randn(100, 10) + 1
    found = levels(x)
    low, high = levels.range.tolist()
    assert (low, high) == (x.min().item(), x.max().item()) and len(found.unique()) <= 256
    assert torch.allclose(found.double(), round_affine(x, low, high), atol=1e-6)
    assert bool((levels(torch.zeros(3)) == 0).all())  # 0 is a level: pads of zeros stay
    levels.eval()
    before = levels.range.clone()
    assert float(levels(torch.full((2,), 1e3)).amax()) <= high * 1.01
    assert torch.equal(levels.range, before)


def test_ranges_hold_zero_and_follow_slowly() -> None:
    levels = InputLevels()
    levels(torch.tensor([1.0, 5.0]))
    assert levels.range.tolist() == [0.0, 5.0]
    levels(torch.tensor([-1.0, 15.0]))
    assert levels.range.tolist() == pytest.approx([-0.01, 5.1], rel=1e-5)
    assert bool(torch.isfinite(InputLevels()(torch.zeros(4))).all())
    assert InputLevels()(torch.zeros(0, 4)).shape == (0, 4)


def test_gradients_pass_within_the_range() -> None:
    levels = InputLevels()
    levels(torch.tensor([-1.0, 1.0]))
    levels.eval()
    x = torch.tensor([-2.0, -0.5, 0.3, 3.0], requires_grad=True)
    levels(x).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [0, 1, 1, 0]


def test_weights_and_activations_train_together_and_end_plain() -> None:
    model = net()
    names = list(model.state_dict())
    activations = Activations(model)
    pruner = Pruner(model, Plan([("0", Both(KernelBlocks(), Levels(8)), 2.0), ("*", Levels(8))]), Magnitude(1))
    pruner.prepare()
    activations.prepare()
    activations.prepare()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    pruner.harden()
    for step in range(4):
        torch.manual_seed(step)
        x, y = torch.randn(8, 3, 6, 6), torch.randint(4, (8,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    assert all(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    model.eval()
    twin = copy.deepcopy(model)
    assert torch.equal(twin(x), model(x))
    resumed = net(seed=5)
    Pruner(resumed, pruner.target, Magnitude(1)).prepare()
    Activations(resumed).prepare()
    resumed.load_state_dict(model.state_dict())
    assert torch.equal(resumed.eval()(x), model(x))
    rounded = model(x)
    pruner.finalize()
    assert torch.equal(model(x), rounded)
    ranges = activations.finalize()
    assert set(ranges) == {"0", "4"} and ranges["4"][0] == 0.0 and ranges["0"][0] < 0
    assert sorted(model.state_dict()) == sorted(names) and not torch.equal(model(x), rounded)
    assert torch.allclose(model(x), rounded, atol=0.1)


def test_ranges_follow_in_eval_mode_where_that_is_asked() -> None:
    model = net().eval()
    activations = Activations(model)
    activations.prepare()
    activations.follow(True)
    statistics = model[1].running_mean.clone()
    model(torch.randn(8, 3, 6, 6))
    assert torch.equal(model[1].running_mean, statistics)
    assert all(low < high for low, high in activations.finalize().values())


def test_what_cannot_be_is_named() -> None:
    with pytest.raises(PatcError, match="expected a model with a convolution or a linear layer, found none"):
        Activations(nn.Sequential(nn.ReLU()))
    activations = Activations(net())
    activations.prepare()
    with pytest.raises(PatcError, match=r"^0: expected a layer whose input was seen in training, found no batch of it"):
        activations.finalize()
