"""Methods: what each adds to the loss and remembers, that masks and gradients bite in every kind of layer, and that
training goes on from a state dict with equal bits."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from patc.diagnostics import PatcError
from patc.pruning import (
    Admm,
    AdmmSchedule,
    Block,
    Filters,
    GroupLasso,
    Magnitude,
    Pattern,
    Plan,
    Pruner,
    Reweighted,
    Unstructured,
    prune_,
)
from patc.pruning.methods.base import Method
from patc.pruning.state import find_state

pytestmark = pytest.mark.usefixtures("one_thread")

METHODS: list[Method] = [
    Admm(AdmmSchedule(iterations=3, rho=0.1)), Reweighted(3, strength=1e-3, every=1),
    Reweighted(3, strength=1e-3, power=1), GroupLasso(3, strength=1e-3), Magnitude(3),
]  # fmt: skip


class Recurrent(nn.Module):
    """Every kind of layer that has weights, on sequences."""

    def __init__(self, kind: type[nn.RNNBase] = nn.LSTM, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv1d(4, 16, 3, padding=1)
        self.rnn = kind(16, 16, num_layers=2, bidirectional=True, batch_first=True)
        self.attention = nn.MultiheadAttention(32, 2, batch_first=True)
        self.cell = nn.GRUCell(32, 16)
        self.head = nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.rnn(self.conv(x).transpose(1, 2))[0]
        x = self.attention(x, x, x, need_weights=False)[0]
        return self.head(self.cell(x.mean(1)))


PLAN = Plan([("conv", Pattern(kernels="all"), 4.0), ("*", Block(8), 4.0)])


def train(model: nn.Module, pruner: Pruner, optimizer: Any, seed: int, steps: int = 2) -> None:
    torch.manual_seed(seed)
    for _ in range(steps):
        x, y = torch.randn(4, 4, 6), torch.randint(8, (4,))
        optimizer.zero_grad()
        (nn.functional.cross_entropy(model(x), y) + pruner.penalty()).backward()
        optimizer.step()


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_each_method_ends_in_the_set(method: Method) -> None:
    model = Recurrent()
    parameters = dict(model.named_parameters())
    pruner = Pruner(model, PLAN, method)
    pruner.prepare()
    optimizer = sgd(model)
    for iteration in range(method.iterations):
        train(model, pruner, optimizer, iteration)
        pruner.step()
    pruner.harden()
    assert pruner.penalty().item() == 0
    train(model, pruner, optimizer, 100)
    x = torch.randn(2, 4, 5)
    model.eval()
    before = model(x)
    report = pruner.finalize()
    assert torch.equal(model(x), before)
    assert report.compression == pytest.approx(4.0, rel=0.02)
    constraints, _ = PLAN.constrain(model)
    for constraint, line in zip(constraints, report.layers, strict=True):
        assert constraint.violation(constraint.weight, line.kept_kernels) is None
        assert int((constraint.weight != 0).sum()) == line.kept_weights
    assert all(model.get_parameter(name) is parameter for name, parameter in parameters.items())


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_masks_and_gradients_bite_in_recurrent_layers(kind: type[nn.RNNBase]) -> None:
    """torch's parametrizations alone leave recurrent layers computing with what they were made with."""
    torch.manual_seed(0)
    layer = kind(4, 8, batch_first=True)
    pruner = Pruner(layer, Plan([("weight_*", Block(8), 2.0)]), Magnitude(1, ramp=0.0))
    x = torch.randn(2, 5, 4)
    dense = layer(x)[0]
    pruner.prepare()
    masked = layer(x)[0]
    assert not torch.allclose(dense, masked, atol=1e-3)
    state = find_state(pruner._pruned[1].site)
    assert state is not None and state.keep < pruner._pruned[1].units
    masked.square().sum().backward()
    gradient = pruner._pruned[1].weight.grad
    assert gradient is not None and torch.equal(gradient != 0, state.mask)
    train_layer = torch.optim.SGD(layer.parameters(), lr=0.1)
    train_layer.step()
    after = layer(x)[0]
    assert not torch.equal(after, masked)  # the step moved what it computes with
    assert torch.equal(copy.deepcopy(layer)(x)[0], after)
    pruner.finalize()
    plain = kind(4, 8, batch_first=True)
    plain.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x)[0], plain(x)[0]) and int((layer.weight_hh_l0 == 0).sum()) > 0
    assert layer.double()(x.double())[0].dtype == torch.float64


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_resume_gives_equal_bits(method: Method) -> None:
    def run(stop: int | None) -> tuple[dict[str, Tensor], int]:
        model = Recurrent()
        pruner = Pruner(model, PLAN, method)
        pruner.prepare()
        optimizer = sgd(model)
        for iteration in range(5):
            if iteration == stop:
                stream = io.BytesIO()
                torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, stream)
                stream.seek(0)
                state = torch.load(stream, weights_only=True)
                model = Recurrent(seed=7)
                pruner = Pruner(model, PLAN, method)
                pruner.prepare()
                model.load_state_dict(state["model"])
                optimizer = sgd(model)
                optimizer.load_state_dict(state["optimizer"])
            train(model, pruner, optimizer, iteration)
            if iteration < 3:
                pruner.step()
            elif iteration == 3:
                pruner.harden()
        pruner.finalize()
        return model.state_dict(), pruner._constraints[0].units

    wanted, found = run(None), run(2)
    assert all(torch.equal(wanted[0][name], found[0][name]) for name in wanted[0])


def test_reweighted_penalties_follow_the_equations() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(6, 8)
    columns = layer.weight.detach().double().reshape(2, 4, 6).square().sum(1)
    for power, norms in ((2, columns), (1, columns.sqrt())):
        model = copy.deepcopy(layer)
        pruner = Pruner(
            model, Plan([("*", Block(4), 2.0)]), Reweighted(strength=0.5, epsilon=0.2, power=power, every=2)
        )
        pruner.prepare()
        factors = 1 / (norms + 0.2 * norms.mean())
        assert pruner.penalty().item() == pytest.approx(0.5 * float((factors * norms).sum()), rel=1e-5)
        with torch.no_grad():
            pruner._pruned[0].weight.mul_(2)
        pruner.step()  # factors are renewed every second time
        assert pruner.penalty().item() == pytest.approx(0.5 * 2**power * float((factors * norms).sum()), rel=1e-5)
        pruner.step()
        assert pruner.penalty().item() == pytest.approx(0.5 * float((factors * norms).sum()), rel=1e-5)


def test_a_bounded_penalty_ends_when_the_budget_is_met() -> None:
    torch.manual_seed(0)
    model = nn.Linear(6, 8)
    with torch.no_grad():
        model.weight[:, 3:] *= 1e-3
    pruner = Pruner(model, Plan([("*", Block(4), 2.0)]), Reweighted(strength=1.0, epsilon=1e-3))
    pruner.prepare()
    assert pruner.penalty().item() > 0
    pruner.step()
    assert pruner.penalty().item() == 0
    free = Pruner(nn.Linear(6, 8), Plan([("*", Block(4), 2.0)]), Reweighted(strength=1.0, bounded=False))
    free.prepare()
    free.step()
    assert free.penalty().item() > 0


def test_group_lasso_is_the_sum_of_norms() -> None:
    torch.manual_seed(0)
    model = nn.Linear(6, 8)
    pruner = Pruner(model, Plan([("*", Filters(), 2.0)]), GroupLasso(strength=0.1))
    pruner.prepare()
    wanted = 0.1 * 6**0.5 * float(model.weight.detach().norm(dim=1).sum())
    assert pruner.penalty().item() == pytest.approx(wanted, rel=1e-5)


def test_penalties_have_gradients_where_weights_are_zero() -> None:
    for method in METHODS:
        model = nn.Linear(6, 8)
        nn.init.zeros_(model.weight)
        pruner = Pruner(model, Plan([("*", Block(4), 2.0)]), method)
        pruner.prepare()
        pruner.penalty().backward() if not isinstance(method, Magnitude) else None
        gradient = pruner._pruned[0].weight.grad
        assert gradient is None or bool(torch.isfinite(gradient).all())


def test_magnitude_masks_more_in_each_iteration_and_units_come_back() -> None:
    torch.manual_seed(0)
    model = nn.Linear(16, 16)
    pruner = Pruner(model, Plan([("*", Unstructured(), 8.0)]), Magnitude(4, ramp=1.0))
    pruner.prepare()
    kept, distances = [int((model.weight != 0).sum())], [pruner.distance()]
    for _ in range(4):
        pruner.step()
        kept.append(int((model.weight != 0).sum()))
        distances.append(pruner.distance())
    assert kept == sorted(kept, reverse=True) and kept[-1] == 32
    assert distances == sorted(distances, reverse=True) and distances[-1] == 0 < distances[0]
    gone = model.weight == 0
    with torch.no_grad():
        pruner._pruned[0].weight[gone] = 9.0
    pruner.step()
    assert bool((model.weight[gone] != 0).any())


def test_export_copy_and_compile_work_while_pruning() -> None:
    model = Recurrent().eval()
    pruner = Pruner(model, PLAN)
    pruner.prepare()
    pruner.harden()
    x = torch.randn(2, 4, 5)
    wanted = model(x)
    assert torch.equal(copy.deepcopy(model)(x), wanted)
    assert torch.allclose(torch.export.export(model, (x,)).module()(x), wanted, atol=1e-6)
    compiled = torch.compile(model.head, backend="aot_eager")
    assert torch.allclose(compiled(x.new_ones(1, 16)), model.head(x.new_ones(1, 16)), atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert bool(torch.isfinite(model(x)).all())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Reweighted(strength=0.0), "expected strength to be finite and above 0, found 0.0"),
        (lambda: Reweighted(epsilon=-1.0), "expected epsilon to be finite and above 0, found -1.0"),
        (lambda: Reweighted(every=0), "expected every to be at least 1, found 0"),
        (lambda: Reweighted(power=3), "expected power to be 1 or 2, found 3"),
        (lambda: GroupLasso(strength=float("inf")), "expected strength to be finite"),
        (lambda: Magnitude(0), "expected iterations to be at least 1, found 0"),
        (lambda: Magnitude(ramp=2.0), "expected ramp to be from 0 to 1, found 2.0"),
    ],
)
def test_bad_methods_are_named(make: Any, message: str) -> None:
    with pytest.raises(PatcError, match=message):
        make()


def test_tied_weights_and_other_plans_are_refused() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[1].weight = model[0].weight
    with pytest.raises(PatcError, match=r"^1: expected a weight of its own, found that of '0'"):
        Pruner(model, Plan([("*", Block(8), 2.0)])).prepare()
    other = Recurrent()
    Pruner(other, PLAN).prepare()
    with pytest.raises(PatcError, match="expected a model to prepare for this spec, found one prepared for another"):
        Pruner(other, Plan([("*", Block(4), 4.0)])).prepare()


def test_one_shot_is_what_training_without_steps_gives() -> None:
    one, other = Recurrent(), Recurrent()
    prune_(one, PLAN)
    pruner = Pruner(other, PLAN)
    pruner.prepare()
    pruner.finalize()
    wanted = dict(one.named_parameters())
    assert all(torch.equal(parameter, wanted[name]) for name, parameter in other.named_parameters())
