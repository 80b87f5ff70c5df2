"""PatternPruner: its mathematics, its masks, and that checkpoints, export, compilation and other tools keep working."""

from __future__ import annotations

import copy
import io
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from repository import SUPPORT
from torch import Tensor, nn

from patc.diagnostics import PatcError
from patc.pruning import LIBRARIES_5X5, PHASE2, AdmmSchedule, PatternPruner, PatternSpec, prune_
from patc.pruning.kernels import find_layers

pytestmark = pytest.mark.usefixtures("one_thread")


class Net(nn.Module):
    """Every kind of layer that can be pruned, and some that cannot."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.three = nn.Sequential(nn.Conv2d(16, 24, 3, stride=2, padding=1), nn.BatchNorm2d(24), nn.ReLU())
        self.depthwise = nn.Sequential(nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.BatchNorm2d(24), nn.ReLU())
        self.point = nn.Sequential(nn.Conv2d(24, 32, 1), nn.BatchNorm2d(32), nn.ReLU())
        self.five = nn.Sequential(nn.Conv2d(32, 16, 5, padding=2), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout(0.1))
        self.fc = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.five(self.point(self.depthwise(self.three(self.stem(x)))))
        return self.fc(x.mean((2, 3)))


EVERYTHING = PatternSpec(connectivity=3, pointwise="groups", depthwise="pattern", library_5x5="phase2")


def train(model: nn.Module, pruner: PatternPruner, optimizer: Any, steps: int, seed: int, amp: bool = False) -> float:
    torch.manual_seed(seed)
    model.train()
    loss = torch.zeros(())
    for _ in range(steps):
        x, y = torch.randn(8, 3, 12, 12), torch.randint(10, (8,))
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            loss = nn.functional.cross_entropy(model(x), y)
        (loss + pruner.penalty()).backward()
        optimizer.step()
    return float(loss.detach())


def sgd(model: nn.Module, lr: float = 0.05) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-3)


def prune(model: nn.Module, spec: PatternSpec, schedule: AdmmSchedule | None = None, **options: Any) -> Any:
    schedule = schedule or AdmmSchedule(iterations=4, rho=0.1)
    pruner = PatternPruner(model, spec, schedule)
    pruner.prepare()
    optimizer = options.pop("optimizer", sgd)(model)
    for iteration in range(schedule.iterations):
        train(model, pruner, optimizer, 2, iteration, **options)
        pruner.step()
    pruner.harden()
    train(model, pruner, optimizer, 3, 100, **options)
    return pruner.finalize()


def check_masks(model: nn.Module, spec: PatternSpec, report: Any, keep: dict[str, int] | None = None) -> None:
    """Every kernel fits a pattern of its library, and every layer keeps what it should, within a unit."""
    for layer, line in zip(find_layers(model, spec), report.layers, strict=True):
        if layer.kind == "dense":
            assert line.kept_weights == line.weights
            continue
        units = layer.units_of(layer.weight.detach() != 0).permute(0, 2, 1, 3).reshape(layer.units, layer.size, -1)
        masks = (units.long() * (1 << torch.arange(layer.taps))).sum(2)
        allowed = torch.tensor(layer.masks)
        whole = masks.amax(1)
        for column in masks.T:
            whole = whole | column
        fits = ((whole[:, None] & ~allowed) == 0).any(1)
        assert fits.all()
        kept = int((whole != 0).sum())
        rate = spec.layer_rates.get(layer.name, spec.connectivity)
        wanted = layer.units / rate if layer.has_rate else layer.units
        if keep is not None:
            wanted = keep[layer.name]
        assert abs(kept - wanted) <= 1
        assert line.kept_kernels == kept * layer.size


# Mathematics


def test_schedule_grows_and_ramps() -> None:
    schedule = AdmmSchedule(iterations=10, rho=0.01, growth=2, most_rho=0.05, ramp=0.5)
    assert [schedule.rho_at(i) for i in (0, 1, 2, 3, 10**6)] == pytest.approx([0.01, 0.02, 0.04, 0.05, 0.05])
    kept = [schedule.kept_at(i, units=1000, target=100) for i in range(7)]
    assert kept[0] < 1000 and sorted(kept, reverse=True) == kept and kept[5:] == [100, 100] and kept[4] > 100
    assert AdmmSchedule(ramp=0).kept_at(0, 1000, 100) == 100


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"iterations": 0}, "iterations to be at least 1, found 0"),
        ({"rho": 0.0}, "rho to be finite and above 0, found 0.0"),
        ({"rho": float("nan")}, "rho to be finite and above 0, found nan"),
        ({"most_rho": -1.0}, "most_rho to be finite and above 0, found -1.0"),
        ({"growth": 0.5}, "growth to be finite and 1 or more, found 0.5"),
        ({"ramp": 1.5}, "ramp to be from 0 to 1, found 1.5"),
    ],
)
def test_bad_schedule_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(PatcError, match=message):
        AdmmSchedule(**fields)


def test_steps_follow_the_equations() -> None:
    """W, Z and U of one layer written out, over iterations in which rho grows."""
    spec = PatternSpec(connectivity=2, first_layer="prune")
    conv = nn.Conv2d(4, 6, 3, bias=False)
    schedule = AdmmSchedule(iterations=4, rho=0.1, growth=2, most_rho=0.3, ramp=0)
    pruner = PatternPruner(conv, spec, schedule)
    layer = find_layers(conv, spec)[0]

    def nearest(v: Tensor) -> Tensor:
        return torch.where(layer.mask(v, 12), v, 0.0)

    pruner.prepare()
    original = conv.parametrizations.weight.original
    z, mu = nearest(original.detach()), torch.zeros_like(original)
    u = original.detach() - z
    u = u * 0  # the multiplier starts at zero
    for iteration in range(4):
        rho = schedule.rho_at(iteration)
        assert pruner.rho == rho
        original.grad = None
        penalty = pruner.penalty()
        penalty.backward()
        difference = original.detach() - z + mu / rho
        assert penalty.item() == pytest.approx(rho / 2 * float(difference.square().sum()), rel=1e-5)
        assert torch.allclose(original.grad, rho * difference, atol=1e-6)
        with torch.no_grad():
            original -= 0.3 * original.grad
        w = original.detach().clone()
        z = nearest(w + mu / rho)
        mu = mu + rho * (w - z)
        pruner.step()
    assert pruner.distance() == pytest.approx(float((w - z).norm() / w.norm()), rel=1e-4)


def test_penalty_has_second_derivatives() -> None:
    conv = nn.Conv2d(8, 8, 3)
    pruner = PatternPruner(conv, PatternSpec(first_layer="prune"), AdmmSchedule(rho=0.25))
    pruner.prepare()
    weight = conv.parametrizations.weight.original
    (grad,) = torch.autograd.grad(pruner.penalty(), weight, create_graph=True)
    direction = torch.randn_like(weight)
    (product,) = torch.autograd.grad((grad * direction).sum(), weight)
    assert torch.allclose(product, 0.25 * direction)


def test_penalty_drives_weights_to_the_target() -> None:
    conv = nn.Conv2d(8, 8, 3)
    pruner = PatternPruner(conv, PatternSpec(connectivity=3, first_layer="prune"), AdmmSchedule(rho=0.5, ramp=0))
    pruner.prepare()
    optimizer = torch.optim.SGD(conv.parameters(), lr=0.5)
    far = pruner.distance()
    for _ in range(20):
        for _ in range(5):
            optimizer.zero_grad()
            pruner.penalty().backward()
            optimizer.step()
        pruner.step()
    assert far > 0.5 and pruner.distance() < 1e-2


# Masks


@pytest.mark.parametrize(
    "spec",
    [
        EVERYTHING,
        PatternSpec("phase1", connectivity=1),
        PatternSpec((511,), connectivity=4),
        PatternSpec("phase3", connectivity=2.5, filter_group=4),
        PatternSpec(connectivity=5, balanced=True, first_layer="prune"),
        PatternSpec(connectivity=3, rates={"three.0": 8}, pointwise="groups"),
        PatternSpec(connectivity=3, library_5x5=LIBRARIES_5X5["elog"][:3], first_layer="dense"),
    ],
)
def test_masks_are_in_the_library_and_rates_are_met(spec: PatternSpec) -> None:
    model = Net()
    check_masks(model, spec, prune(model, spec))
    one_shot = Net()
    check_masks(one_shot, spec, prune_(one_shot, spec))


def test_compression_is_met() -> None:
    spec = PatternSpec.for_compression(4.0, pointwise="groups", library_5x5="phase2")
    report = prune(Net(), spec)
    assert report.compression == pytest.approx(4.0, rel=1e-2)
    own = PatternSpec.for_compression(4.0, pointwise="groups", library_5x5="phase2", rates={"three.0": 2})
    report = prune_(Net(), own)
    assert report.compression == pytest.approx(4.0, rel=1e-2)
    assert report.layers[1].kept_kernels == 16 * 24 / 2


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("amp", [False, True])
def test_other_weights_stay_zero_in_retraining(optimizer: str, amp: bool) -> None:
    model = Net()
    make = sgd if optimizer == "sgd" else lambda m: torch.optim.AdamW(m.parameters(), lr=1e-3)
    pruner = PatternPruner(model, EVERYTHING, AdmmSchedule(iterations=2))
    pruner.prepare()
    steps = make(model)
    train(model, pruner, steps, 2, 0, amp)
    pruner.step()
    pruner.harden()
    assert float(pruner.penalty()) == 0.0 and pruner.hardened
    masks = [layer.module.parametrizations.weight[0].mask.clone() for layer in pruner._pruned]
    kept = [layer.module.weight.detach().clone() for layer in pruner._pruned]
    train(model, pruner, steps, 3, 1, amp)
    pruner.step()  # nothing to project any more
    pruner.harden()
    for layer, mask, before in zip(pruner._pruned, masks, kept, strict=True):
        after = layer.module.weight.detach()
        assert (after[~mask] == 0).all() and not torch.signbit(after[~mask]).any()
        assert not torch.equal(after[mask], before[mask])
    weights = [layer.module.weight.detach().clone() for layer in pruner._pruned]
    parameters = [layer.weight for layer in pruner._pruned]
    check_masks(model, EVERYTHING, pruner.finalize())
    for layer, weight, parameter in zip(pruner._pruned, weights, parameters, strict=True):
        assert torch.equal(layer.module.weight, weight) and layer.module.weight is parameter


def test_global_allocation_spends_the_same_where_the_scores_are() -> None:
    def net() -> nn.Sequential:
        torch.manual_seed(0)
        model = nn.Sequential(*(nn.Conv2d(16, 16, 3) for _ in range(4)))
        with torch.no_grad():
            # Most of the second layer's norm is in few of its kernels.
            model[1].weight[:, 2:] *= 0.01
        return model

    uniform = prune_(net(), PatternSpec(connectivity=4))
    report = prune_(net(), PatternSpec(connectivity=4, allocation="global"))
    assert abs(report.kept_weights - uniform.kept_weights) <= 4
    kept = [layer.kept_kernels for layer in report.layers]
    assert kept[0] == 256 and kept[1] == min(kept) < 64 < max(kept[2:]) and kept[1] >= 16
    assert [layer.kept_kernels for layer in uniform.layers] == [256, 64, 64, 64]
    fixed = prune_(net(), PatternSpec(connectivity=4, allocation="global", rates={"1": 2}))
    assert fixed.layers[1].kept_kernels == 128


def test_global_allocation_of_nothing_that_can_be_allocated() -> None:
    """The first layer has patterns alone, and the second its own rate."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))
    report = prune_(model, PatternSpec(connectivity=8, allocation="global", rates={"1": 2.0}))
    assert [layer.kept_kernels for layer in report.layers] == [24, 32]


def test_balanced_filters_keep_equally_many_kernels() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(20, 12, 3)
    with torch.no_grad():
        conv.weight[:3] *= 10
    report = prune_(conv, PatternSpec(connectivity=3.3, balanced=True, first_layer="prune"))
    kept = (conv.weight.detach() != 0).reshape(12, 20, 9).any(2).sum(1)
    assert report.kept_kernels == 73 == int(kept.sum()) and {*kept.tolist()} == {6, 7}
    best = conv.weight.detach().square().sum((2, 3))
    assert (best[:3] > 0).sum() >= 18


def test_balanced_projection_is_the_best_of_its_kind() -> None:
    torch.manual_seed(1)
    conv = nn.Conv2d(9, 8, 3)
    spec = PatternSpec(connectivity=9 / 4, balanced=True, first_layer="prune")
    layer = find_layers(conv, spec)[0]
    choice = layer.project(layer.weight, 32)
    scores = torch.where(layer.mask(layer.weight, 72), layer.weight, 0.0).square().sum((2, 3))
    kept = scores[choice.kept.reshape(8, 9)].reshape(8, 4)
    assert torch.allclose(kept.sum(1), scores.topk(4, 1).values.sum(1))


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"four": 2.0}, "^four: expected a layer with connectivity sparsity in rates, found no convolution"),
        ({"stem.0": 2.0}, "^stem.0: expected a layer with .*found a layer that is pattern-only"),
        ({"point.0": 0.5}, "expected the connectivity of 'point.0' to be a finite rate of at least 1, found 0.5"),
    ],
)
def test_bad_rates_are_named(rates: dict[str, float], message: str) -> None:
    with pytest.raises(PatcError, match=message):
        PatternPruner(Net(), PatternSpec(rates=rates))


# Checkpoints, processes, other tools


def test_resume_gives_equal_bits() -> None:
    """From the state dict of the model and the optimizer alone, in any phase."""
    schedule = AdmmSchedule(iterations=4, rho=0.05)
    spec = PatternSpec(connectivity=3, allocation="global", pointwise="groups")

    def run(stops: bool) -> tuple[dict[str, Tensor], list[bytes]]:
        model = Net()
        pruner = PatternPruner(model, spec, schedule)
        pruner.prepare()
        optimizer, files = sgd(model), []
        for iteration in range(6):
            if stops:
                stream = io.BytesIO()
                torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, stream)
                state = torch.load(io.BytesIO(stream.getvalue()), weights_only=True)
                model = Net(seed=iteration + 1)
                pruner = PatternPruner(model, spec, schedule)
                pruner.prepare()
                model.load_state_dict(state["model"])
                optimizer = sgd(model, lr=1.0)
                optimizer.load_state_dict(state["optimizer"])
            assert pruner.iteration == min(iteration, 4)
            train(model, pruner, optimizer, 2, iteration)
            if iteration == 4:
                pruner.harden()
            pruner.step()
        assert pruner.hardened
        report = pruner.finalize()
        files.append(str(report).encode())
        return model.state_dict(), files

    whole, parts = run(False), run(True)
    assert whole[1] == parts[1]
    assert all(torch.equal(tensor, parts[0][name]) for name, tensor in whole[0].items())


def test_two_processes_get_equal_libraries_and_masks() -> None:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone",
        str(SUPPORT / "distributed_pruning.py"),
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    # Who failed says why first; and whether that was before or after its work was done.
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr[:3000]}\n...\n{result.stderr[-2000:]}"
    assert "kept 112 of 304 in 4 patterns on both ranks" in result.stdout


def test_export_copy_and_compile_work_while_pruning() -> None:
    model = Net()
    pruner = PatternPruner(model, EVERYTHING)
    pruner.prepare()
    pruner.prepare()  # a second time changes nothing
    train(model, pruner, sgd(model), 1, 0)
    pruner.step()
    pruner.harden()
    model.eval()
    x = torch.randn(2, 3, 12, 12)
    wanted = model(x)
    assert torch.equal(copy.deepcopy(model)(x), wanted)
    exported = torch.export.export(model, (x,))
    assert torch.allclose(exported.module()(x), wanted, atol=1e-6)
    compiled = torch.compile(model, backend="aot_eager")
    assert torch.allclose(compiled(x), wanted, atol=1e-6)
    compiled.train()
    (compiled(x).sum() + pruner.penalty()).backward()
    assert model.three[0].parametrizations.weight.original.grad is not None


def test_errors_of_use() -> None:
    model = Net()
    pruner = PatternPruner(model, PatternSpec())
    for call in (pruner.penalty, pruner.step, pruner.harden, pruner.finalize, lambda: pruner.rho):
        with pytest.raises(PatcError, match=r"^stem.0: expected a prepared model, found a plain weight"):
            call()
    with pytest.raises(PatcError, match="found none among 1 convolutions"):
        PatternPruner(nn.Conv2d(3, 8, 7), PatternSpec())
    with pytest.raises(PatcError, match=r"expected a compression from .* found 2000"):
        PatternPruner(model, PatternSpec.for_compression(2000))
    shared = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3))
    shared[1].weight = shared[0].weight
    with pytest.raises(PatcError, match=r"^1: expected a weight of its own, found that of '0'"):
        PatternPruner(shared, PatternSpec()).prepare()
    nn.utils.parametrize.register_parametrization(other := nn.Conv2d(8, 8, 3), "weight", nn.Identity())
    with pytest.raises(PatcError, match="expected 'weight' to be a parameter, found a computed tensor"):
        PatternPruner(other, PatternSpec()).prepare()
    pruner.prepare()
    before = model.stem[0].parametrizations.weight[0].anchor.clone()
    with torch.no_grad():
        model.three[0].parametrizations.weight.original[0] = float("nan")
    for call in (pruner.step, pruner.harden, pruner.finalize):
        with pytest.raises(PatcError, match=r"^three.0: expected finite weights, found 144 that are NaN"):
            call()
    assert torch.equal(before, model.stem[0].parametrizations.weight[0].anchor) and pruner.iteration == 0


def test_states_of_other_specs_are_refused() -> None:
    model, other = Net(), Net()
    PatternPruner(model, PatternSpec(connectivity=2)).prepare()
    PatternPruner(model, PatternSpec(PHASE2, connectivity=2.0)).prepare()  # the same, in other words
    with pytest.raises(PatcError, match=r"^stem.0: expected a model to prepare for this spec, found one prepared for"):
        PatternPruner(model, PatternSpec(connectivity=8)).prepare()
    PatternPruner(other, PatternSpec("phase3", connectivity=2)).prepare()
    with pytest.raises(PatcError, match="expected the state of a model that is pruned to the same spec"):
        other.load_state_dict(model.state_dict())


def test_buffers_of_others_are_not_hidden_from_ddp() -> None:
    model = nn.Sequential(Net(), nn.utils.parametrizations.spectral_norm(nn.Linear(10, 4)))
    pruner = PatternPruner(model, PatternSpec())
    model._ddp_params_and_buffers_to_ignore = ["1.bias"]
    pruner.prepare()
    ignored = model._ddp_params_and_buffers_to_ignore
    assert ignored[0] == "1.bias" and "0.three.0.parametrizations.weight.0.dual" in ignored
    assert not any(name.startswith("1.parametrizations") for name in ignored)
    pruner.finalize()
    assert model._ddp_params_and_buffers_to_ignore == ["1.bias"]


def test_weights_of_half_precision_keep_their_type() -> None:
    conv = nn.Conv2d(8, 8, 3).to(torch.bfloat16)
    pruner = PatternPruner(conv, PatternSpec(connectivity=2, first_layer="prune"))
    pruner.prepare()
    pruner.penalty().backward()
    pruner.step()
    report = pruner.finalize()
    assert conv.weight.dtype == torch.bfloat16 and report.kept_kernels == 32
    assert np.isfinite(float(conv.weight.detach().float().sum()))
