"""Levels: scales beside brute force, what lies on levels, masks and levels together, and pruning in steps."""

from __future__ import annotations

import io
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from patc.diagnostics import PatcError
from patc.pruning import (
    Admm,
    AdmmSchedule,
    Block,
    Both,
    Levels,
    Magnitude,
    Pattern,
    PatternSpec,
    Plan,
    Progressive,
    Pruner,
    Reweighted,
    Stage,
    Unstructured,
    prune_,
)
from patc.pruning.levels import Grid, _fit_all
from patc.pruning.methods.base import Method
from patc.pruning.state import find_state

pytestmark = pytest.mark.usefixtures("one_thread")


def error_of(grid: Grid, weight: Tensor, mask: Tensor) -> Tensor:
    """Return the squared error of each filter's levels."""
    kept = torch.where(mask, weight, 0.0)
    return (kept - grid.round(weight, mask, grid.fit(weight, mask))).square().sum(1)


def least_error(row: np.ndarray, bits: int) -> float:
    """Return the squared error of the best levels of a row, of all that there are."""
    most = Grid(bits).most
    steps = (-1, 1) if bits == 1 else range(-most, most + 1)
    choices = np.array(list(itertools.product(steps, repeat=len(row))), float)
    return float((row @ row) - ((choices @ row) ** 2 / (choices**2).sum(1).clip(1)).max())


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_no_levels_are_nearer_than_those_of_the_fit(bits: int) -> None:
    torch.manual_seed(bits)
    grid, columns = Grid(bits), 4 if bits > 3 else 6
    rows = torch.cat(
        [torch.randn(12, columns), torch.randn(6, columns) ** 3, torch.tensor([[1.0, 1, -1, 2, 0, 3]])[:, :columns]]
    )
    rows = rows.double()
    found = error_of(grid, rows, torch.ones_like(rows, dtype=torch.bool))
    for row, error in zip(rows.numpy(), found.tolist(), strict=True):
        assert error == pytest.approx(least_error(row, bits), abs=1e-9 * float(row @ row))


@pytest.mark.parametrize("bits", [5, 6, 7, 8])
@pytest.mark.parametrize("columns", [3, 9, 100, 2000])
def test_scales_of_many_levels_are_nearly_the_best(bits: int, columns: int) -> None:
    torch.manual_seed(columns)
    grid, rows = Grid(bits), torch.cat([torch.randn(4, columns), torch.randn(2, columns) ** 3, torch.rand(2, columns)])
    rows = rows.double()
    mask = torch.ones_like(rows, dtype=torch.bool)
    best = _fit_all(rows.abs(), grid.most)
    wanted = (rows - grid.round(rows, mask, best)).square().sum(1)
    apart = (error_of(grid, rows, mask) - wanted) / rows.square().sum(1)
    assert float(apart.max()) < 1e-5


def test_masked_weights_count_for_nothing() -> None:
    torch.manual_seed(0)
    weight, mask = torch.randn(5, 3, 2, 2), torch.rand(5, 3, 2, 2) < 0.5
    mask[3] = False
    for bits in (1, 2, 8):
        grid = Grid(bits)
        scales = grid.fit(weight, mask)
        assert torch.equal(scales, grid.fit(torch.where(mask, weight, 0.0), mask)) and scales[3] == 1
        found = grid.round(weight, mask, scales)
        assert not bool(found[~mask].any()) and (bits > 2 or bool((found[mask] != 0).any()))
    assert torch.allclose(Grid(1).fit(weight, mask)[0], weight[0][mask[0]].abs().mean())


def test_scales_follow_weights_by_least_squares() -> None:
    torch.manual_seed(0)
    weight = torch.randn(4, 30)
    mask = torch.ones_like(weight, dtype=torch.bool)
    grid = Grid(3)
    scales = grid.fit(weight, mask)
    assert torch.allclose(grid.refit(weight, mask, scales), scales, rtol=1e-5)
    steps = grid.round(weight * 1.1, mask, scales) / scales[:, None]
    wanted = (weight * 1.1 * steps).sum(1) / steps.square().sum(1)
    assert torch.allclose(grid.refit(weight * 1.1, mask, scales), wanted, rtol=1e-5)
    assert torch.equal(grid.refit(torch.zeros_like(weight), mask, scales), scales)


@pytest.mark.parametrize("bits", [1, 4])
def test_gradients_pass_the_levels(bits: int) -> None:
    weight = torch.randn(3, 8, requires_grad=True)
    mask = torch.rand(3, 8) < 0.7
    grid = Grid(bits)
    factors = torch.randn(3, 8)
    (grid.round(weight, mask, torch.full((3,), 1.0)) * factors).sum().backward()
    assert torch.equal(weight.grad, torch.where(mask, factors, 0.0))


class Net(nn.Module):
    """Convolutions of both kinds, a recurrent layer and a linear one."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv, self.turned = nn.Conv2d(3, 8, 3, padding=1), nn.ConvTranspose2d(8, 8, 3, padding=1)
        self.rnn, self.head = nn.GRU(8, 8, batch_first=True), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(self.turned(self.conv(x).relu()).relu().mean(3).transpose(1, 2))[0][:, -1])


def fit(model: nn.Module, pruner: Pruner, optimizer: torch.optim.Optimizer, seed: int) -> None:
    torch.manual_seed(seed)
    for _ in range(2):
        x, y = torch.randn(4, 3, 6, 6), torch.randint(5, (4,))
        optimizer.zero_grad()
        (nn.functional.cross_entropy(model(x), y) + pruner.penalty()).backward()
        optimizer.step()


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def plan(bits: int) -> Plan:
    levels = Levels(bits)
    entries = [("conv", Both(Pattern(), levels), 4.5), ("turned", Both(Unstructured(), levels), 4.0),
               ("rnn.*", Both(Block(4), levels), 2.0), ("head", levels)]  # fmt: skip
    return Plan(entries)


METHODS: list[Method] = [Admm(AdmmSchedule(2, rho=0.1)), Reweighted(2), Magnitude(2)]


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_masks_and_levels_hold_to_the_end(method: Method, bits: int) -> None:
    model = Net()
    pruner = Pruner(model, plan(bits), method)
    pruner.prepare()
    optimizer = sgd(model)
    for iteration in range(2):
        fit(model, pruner, optimizer, iteration)
        pruner.step()
    pruner.harden()
    for iteration in range(2):
        fit(model, pruner, optimizer, iteration)
        pruner.step()
    model.eval()
    x = torch.randn(2, 3, 6, 6)
    before = model(x)
    assert 0 <= pruner.distance() < 1
    report = pruner.finalize()
    assert torch.equal(model(x), before)
    constraints, _ = plan(bits).constrain(model)
    kinds = ["pattern", "unstructured", "block", "block"]
    words = f"{bits} bits" if bits > 1 else "1 bit"
    assert [line.kind for line in report.layers] == [f"{kind}, {words}" for kind in kinds] + [words]
    for constraint, line in zip(constraints, report.layers, strict=True):
        assert constraint.violation(constraint.weight, line.kept_kernels or 1) is None
        each = constraint.weight.movedim(int(constraint.site.is_turned), 0).flatten(1)
        sizes = [row[row != 0].abs().unique() for row in each]
        assert all(len(row) <= max(1, 2 ** (bits - 1) - 1) for row in sizes)
    loose = constraints[-1].weight + 0.01 * torch.rand(5, 8)
    assert constraints[-1].violation(loose, 1) == f"5 filters whose weights are on no levels of {bits} bits"


def test_admm_pulls_to_masked_levels() -> None:
    layer = nn.Linear(8, 4)
    pruner = Pruner(layer, Plan([("*", Both(Unstructured(), Levels(2)), 4.0)]), Admm(AdmmSchedule(3, ramp=0.0)))
    pruner.prepare()
    state, constraint = find_state(pruner._pruned[0].site), pruner._pruned[0]
    assert state is not None
    target = state.anchor + state.dual
    assert torch.allclose(target, constraint.nearest(constraint.weight, state.keep), atol=1e-7)
    assert int((target != 0).sum()) <= 8 and constraint.violation(target, 8) is None


def test_one_shot_puts_weights_on_levels() -> None:
    model = Net()
    report = prune_(model, plan(4))
    constraints, _ = plan(4).constrain(model)
    for constraint, line in zip(constraints, report.layers, strict=True):
        assert constraint.violation(constraint.weight, line.kept_kernels) is None
    assert not bool((torch.signbit(model.conv.weight) & (model.conv.weight == 0)).any())


STAGES = Progressive(
    [
        Stage(Plan([("*", Both(Unstructured(), Levels(8)), 2.0)]), Admm(AdmmSchedule(2)), 1),
        Stage(Plan([("*", Both(Unstructured(), Levels(2)), 4.0)]), Admm(AdmmSchedule(2)), 2),
    ]
)


def test_stages_start_from_what_those_before_left() -> None:
    model = Net()
    seen: list[tuple[int, bool]] = []
    zeros: list[Tensor] = []

    def train(pruner: Pruner, number: int) -> None:
        seen.append((number, pruner.hardened))
        fit(model, pruner, sgd(model), number)
        if number == 13:  # the first of the second stage
            zeros.append(pruner.within["head"])  # type: ignore[index]

    report = STAGES.run(model, train, first=10)
    assert seen == [(10, False), (11, False), (12, True), (13, False), (14, False), (15, True), (16, True)]
    assert report.layers[-1].kept_weights <= 10 and not bool(model.head.weight[~zeros[0]].any())
    assert zeros[0].sum() == 20


def test_zeros_of_rounding_come_back_and_zeros_of_masks_do_not() -> None:
    layer = nn.Linear(6, 4)
    stages = Progressive(
        [
            Stage(Plan([("*", Levels(2))]), Admm(AdmmSchedule(1)), 0),
            Stage(Plan([("*", Levels(1))]), Admm(AdmmSchedule(1)), 0),
        ]
    )
    counts: list[int] = []
    stages.run(layer, lambda pruner, number: counts.append(int((layer.weight == 0).sum())))
    assert counts[1] > 0 and not bool((layer.weight == 0).any())


@pytest.mark.parametrize("stop", [1, 2, 4, 6])
def test_stages_go_on_from_a_state_dict_with_equal_bits(stop: int) -> None:
    """Stopped while it is driven and while it is retrained, in the first stage and the second."""

    def run(stop: int | None) -> dict[str, Tensor]:
        model, pruner = Net(), None
        for place, stage in enumerate(STAGES.stages):
            pruner = STAGES.pruner(model, place, pruner)
            pruner.prepare()
            optimizer = sgd(model)
            for step, number in enumerate(STAGES.numbers(place)):
                if step == stage.method.iterations:
                    pruner.harden()
                if number == stop:
                    stream = io.BytesIO()
                    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, stream)
                    stream.seek(0)
                    state: dict[str, Any] = torch.load(stream, weights_only=True)
                    model = Net(seed=7)
                    pruner = STAGES.pruner(model, place)
                    pruner.prepare()
                    model.load_state_dict(state["model"])
                    optimizer = sgd(model)
                    optimizer.load_state_dict(state["optimizer"])
                fit(model, pruner, optimizer, number)
                pruner.step()
            pruner.finalize()
        return model.state_dict()

    wanted, found = run(None), run(stop)
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)


def test_what_is_on_levels_exports_and_copies() -> None:
    model = Net().eval()
    pruner = Pruner(model, plan(2), Magnitude(1))
    pruner.prepare()
    pruner.harden()
    x = torch.randn(2, 3, 6, 6)
    wanted = model(x)
    assert torch.allclose(torch.export.export(model, (x,)).module()(x), wanted, atol=1e-5)
    pruner.finalize()
    assert torch.equal(model(x), wanted)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Levels(0), "expected levels of 1 to 8 bits, found 0"),
        (lambda: Levels(9), "expected levels of 1 to 8 bits, found 9"),
        (lambda: Levels(2.0), r"expected levels of 1 to 8 bits, found 2\.0"),
        (lambda: Both(Block(8), 4), r"expected levels as in Both\(Block\(8\), Levels\(4\)\), found 4"),
        (lambda: Both(Levels(4), Levels(4)), r"expected a structure as in Both\(.*\), found Levels\(bits=4\)"),
        (lambda: Both(8, Levels(4)), r"expected a structure as in Both\(.*\), found 8"),
        (lambda: Progressive([]), "expected at least one stage, found none"),
        (lambda: Stage("all"), "expected a stage's target to be a Plan or a PatternSpec, found 'all'"),
        (lambda: Stage(PatternSpec(), retrain=-1), "expected 0 or more iterations to retrain in, found -1"),
        (
            lambda: prune_(nn.Linear(10, 4), Plan([("*", Both(Block(3), Levels(4)), 2.0)])),
            "outputs that 3 rows of a block",
        ),
        (lambda: prune_(nn.Linear(10, 4), Plan([("*", Levels(4), 2.0)])), "a rate from 1.000 to 1.000"),
    ],
)
def test_bad_levels_and_stages_are_named(make: Any, message: str) -> None:
    with pytest.raises(PatcError, match=message):
        make()
