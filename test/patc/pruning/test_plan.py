"""Plans: which weights get what, rates and budgets, and one-shot pruning to them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from patc.diagnostics import PatcError
from patc.pruning import Block, Filters, Pattern, Plan, Unstructured, choose_rates, prune_
from patc.pruning.sites import find_sites

pytestmark = pytest.mark.usefixtures("one_thread")


class Net(nn.Module):
    """A convolution, recurrent layers, attention and linear layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(4, 16, 3)
        self.lstm = nn.LSTM(16, 16, num_layers=2, bidirectional=True)
        self.cell = nn.GRUCell(32, 16)
        self.attention = nn.MultiheadAttention(16, 2)
        self.head = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 10))
        self.names = nn.Embedding(10, 16)


def test_all_weights_are_found_by_name() -> None:
    names = [site.name for site in find_sites(Net())]
    lstm = [
        f"lstm.weight_{kind}_l{layer}{way}" for layer in (0, 1) for way in ("", "_reverse") for kind in ("ih", "hh")
    ]
    assert names == ["conv", *lstm, "cell.weight_hh", "cell.weight_ih", "attention.in_proj_weight",
                     "attention.out_proj", "head.0", "head.2"]  # fmt: skip


def test_entries_decide_in_order() -> None:
    model = Net()
    plan = Plan([("lstm.*hh*", Block(8), 4.0), ("lstm.*", Block(16), 2.0), ("head.0", Filters(), 2.0),
                 ("*", Pattern(), 4.5), ("*", Unstructured(), 3.0)])  # fmt: skip
    report = prune_(model, plan)
    lines = {line.name: line for line in report.layers}
    assert len(lines) == 15 and {line.kind for line in report.layers} == {"block", "filters", "pattern", "unstructured"}
    hidden, given = lines["lstm.weight_hh_l0"], lines["lstm.weight_ih_l0"]
    assert (hidden.kernels, hidden.kept_kernels) == (128, 32) and (given.kernels, given.kept_kernels) == (64, 32)
    assert int((model.lstm.weight_hh_l0 != 0).sum()) == hidden.kept_weights == 256
    assert int((model.head[0].weight != 0).any(1).sum()) == 16
    assert lines["conv"].kind == "pattern" and lines["conv"].kept_weights == 128
    assert lines["head.2"].kind == "unstructured" and lines["head.2"].kept_weights == 107
    assert "connectivity" not in str(report) and str(report).count("\n") == 16


@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_a_compression_is_of_all_weights_that_are_named(allocation: Any) -> None:
    model = Net()
    report = prune_(model, Plan([("*", Block(8))], compression=4.0, allocation=allocation))
    assert [line.name for line in report.layers if line.kind == "dense"] == ["head.2"]  # ten outputs
    assert report.compression == pytest.approx(4.0, rel=0.01)
    stored = sum(int((site.weight != 0).sum()) for site in find_sites(model))
    assert stored == report.kept_weights


def test_rates_by_what_a_layer_takes() -> None:
    """A layer that gets no faster keeps its units."""

    def time(name: str, rate: float) -> float:
        return 1.0 if name.startswith("lstm") else 5.0 / rate

    plan = choose_rates(Net(), Plan([("lstm.*", Block(8)), ("head.*", Unstructured())]), time, 1.5)
    rates = dict(plan.rates)
    assert all(rates[name] == 1.0 for name in rates if name.startswith("lstm"))
    assert min(rates["head.0"], rates["head.2"]) > 1
    assert prune_(Net(), plan).compression > 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Plan([]), "expected a plan of at least one entry, found none"),
        (lambda: Plan([("*",)]), r"expected \(names, scheme\) or \(names, scheme, rate\), found \('\*',\)"),
        (lambda: Plan([("*", "block")]), r"expected a scheme such as Block\(8\) for '\*', found 'block'"),
        (lambda: Plan([("*", Block(8), 0.5)]), r"the rate of '\*' to be a finite rate of at least 1, found 0.5"),
        (lambda: Plan([("*", Block(8))], compression=float("nan")), "expected compression to be a finite rate"),
        (lambda: Plan([("*", Block(8))], allocation="equal"), "expected allocation to be 'uniform' or 'global'"),
    ],
)
def test_bad_plans_are_named(make: Any, message: str) -> None:
    with pytest.raises(PatcError, match=message):
        make()


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (Plan([("gru.*", Block(8), 2.0)]), "expected a weight that 'gru.*' names, found conv, lstm.weight_ih_l0, .*, "),
        (Plan([("head.2", Block(8), 2.0)]), "head.2: expected outputs that 8 rows of a block divide, found 10"),
        (Plan([("head.*", Pattern(), 2.25)]), r"found none: head.0: expected a convolution \(3x3, groups=1\); head.2"),
        (Plan([("*", Block(8))]), "attention.in_proj_weight: expected a rate of its entry or a compression of the plan"),
        (Plan([("conv", Pattern(), 1.5)]), "conv: expected a rate from 2.250 to 144.000, .* here, found 1.5"),
        (Plan([("conv", Pattern())], compression=300.0), "expected a compression from 2.250 to 144.000, .*found 300"),
        (Plan([("*", Block(8), 2.0)], rates={"head.3": 2.0}), "head.3: expected a weight that the plan prunes in rates"),
    ],
)  # fmt: skip
def test_plans_that_do_not_fit_leave_the_model_alone(plan: Plan, message: str) -> None:
    model = Net()
    with pytest.raises(PatcError, match=message):
        prune_(model, plan)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), Net().parameters(), strict=True))
