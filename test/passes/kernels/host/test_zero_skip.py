"""Linear layers of one row that skip the weights of zeros: numbers for any inputs, whatever samples said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from emulated import compile_emulated, needs_arm
from helpers import assert_close, layer_ops, raised_model, torch_results
from torch import nn
from torch_mlir import ir

import patc
from patc.diagnostics import PatcError
from patc.dialects.schedules import Schedule, Zeros
from patc.passes.algorithms.host.zero_skip import ZeroSkip
from patc.passes.ir.constants import read_constant, replace_constant
from patc.passes.ir.zeros import ZEROS, read_zeros, write_zeros
from patc.passes.pattern_demote import PatternDemote
from patc.pruning import Plan, Unstructured, prune_


class Net(nn.Module):
    """Two layers with all that may follow one; sizes that fill no block or vector."""

    def __init__(self, inputs: int = 67, units: int = 530) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(inputs, units), nn.Linear(units, units, bias=False)
        self.slope = nn.PReLU(units, 0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = torch.relu(self.first(x))
        return self.slope(self.second(first) + first)


def thin(size: int, zeros: float = 0.75) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(1, size) * (torch.rand(1, size) >= zeros)


def used(compiled: patc.CompiledModel) -> list[str]:
    return [layer.algorithm for layer in compiled.layers if layer.weights]


@pytest.mark.parametrize("target", ["host", "x86-64-v3"])
@pytest.mark.parametrize("threads", [1, 2])
def test_results_are_those_of_pytorch(target: str, threads: int) -> None:
    net, x = Net().eval(), thin(67)
    compiled = patc.compile(net, (x,), target=target, threads=threads, zeros=x)
    assert used(compiled) == ["zero-skip"] * 2
    alone = patc.compile(net, (x,), target=target, threads=1, zeros=x)
    for given in (x, torch.randn(1, 67), torch.zeros(1, 67), thin(67, 0.04), thin(67, 0.99)):
        assert_close([compiled(given).numpy()], torch_results(net, (given,)))
        assert torch.equal(compiled(given), alone(given))


@pytest.mark.parametrize(("inputs", "units"), [(1, 16), (3, 4), (300, 17), (40, 257)])
def test_small_and_odd_sizes(inputs: int, units: int) -> None:
    net = nn.Linear(inputs, units).eval()
    module, state = raised_model(net, (torch.zeros(1, inputs),))
    force(module)
    for given in (thin(inputs), torch.randn(1, inputs)):
        assert_close(list(patc.run_module(module, state.parameters, (given.numpy(),))), torch_results(net, (given,)))


def force(module: Any) -> None:
    """Say of the linear layers that nothing but zeros comes."""
    with module.context:
        for op in layer_ops(module):
            write_zeros(op, Zeros(0.0, 0.99))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_inputs_that_are_no_numbers_are_not_skipped(value: float) -> None:
    net, x = nn.Linear(64, 48).eval(), thin(64)
    compiled = patc.compile(net, (x,), threads=1, zeros=x)
    assert used(compiled) == ["zero-skip"]
    x[0, 7] = value
    np.testing.assert_array_equal(np.isnan(compiled(x).numpy()), np.isnan(torch_results(net, (x,))[0]))
    np.testing.assert_array_equal(np.isinf(compiled(x).numpy()), np.isinf(torch_results(net, (x,))[0]))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_zeros_do_not_silence_are_never_skipped(value: float) -> None:
    """0 times infinity is NaN, as PyTorch has it."""
    net, x = nn.Linear(64, 48).eval(), thin(64)
    module, state = raised_model(net, (x,))
    force(module)
    (op,) = layer_ops(module)
    assert ZeroSkip().objection(op, state) == ""
    weight = read_constant(op.weight, state)
    assert weight is not None
    weight = weight.copy()
    weight[5] = value
    with module.context, ir.Location.unknown():
        replace_constant(op, 1, weight, state)
    why = "zero-skip is left out: 0 times weights that are NaN or infinite is NaN"
    assert ZeroSkip().objection(op, state) == why
    (found,) = patc.run_module(module, state.parameters, (x.numpy(),))
    assert np.isnan(found[0, 5]) and np.isfinite(np.delete(found[0], 5)).all()


def test_dense_inputs_are_computed_dense() -> None:
    net, x = nn.Linear(512, 512).eval(), torch.randn(1, 512)
    for zeros in (None, x):
        assert used(patc.compile(net, (x,), threads=1, zeros=zeros)) == ["gemv"]
    assert used(patc.compile(net, (torch.randn(4, 512),), threads=1, zeros=torch.zeros(4, 512))) != ["zero-skip"]


def test_pruned_weights_are_decoded_where_inputs_have_more_zeros() -> None:
    net, x = nn.Linear(256, 256).eval(), thin(256, 0.97)
    prune_(net, Plan([("*", Unstructured(), 3.0)]))
    compiled = patc.compile(net, (x,), threads=1, zeros=x)
    (layer,) = compiled.layers
    assert layer.algorithm == "zero-skip" and layer.zeros is not None
    assert layer.zeros.weights == pytest.approx(2 / 3, abs=1e-3) and layer.zeros.inputs == pytest.approx(0.97, abs=0.02)
    assert_close([compiled(x).numpy()], torch_results(net, (x,)))


def test_the_products_of_one_step_with_the_input_of_a_recurrent_layer() -> None:
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.layer = nn.Linear(16, 300), nn.LSTM(300, 96)

        def forward(self, x: torch.Tensor) -> Any:
            return self.layer(torch.relu(self.first(x) - 1))[0]

    net, x = Steps().eval(), torch.randn(1, 1, 16)
    compiled = patc.compile(net, (x,), threads=1, zeros=[torch.randn(1, 1, 16) for _ in range(3)])
    assert used(compiled) == ["gemv", "zero-skip", "recurrent"]
    assert_close([compiled(x).numpy()], torch_results(net, (x,)))


@needs_arm
@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_aarch64(dtype: str) -> None:
    net, x = Net(40, 75).eval(), thin(40)
    module, state = raised_model(net, (x,))
    force(module)
    with module.context, ir.Location.unknown():
        PatternDemote(dtype=dtype).run(module, state)
    algorithms = []

    def look(op: Any, schedule: Schedule) -> Schedule:
        algorithms.append(schedule.algorithm)
        return schedule

    found = compile_emulated(module, state.parameters, retile=look)
    assert algorithms.count("zero-skip") == 2
    for given in (x, torch.randn(1, 40)):
        assert_close(found(given.numpy()), torch_results(net, (given,)), 1e-5 if dtype == "f32" else 2e-2)


def test_measured_ways_are_timed_with_zeros(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    net, x = nn.Linear(2048, 1024).eval(), thin(2048, 0.95)
    compiled = patc.compile(net, (x,), threads=1, zeros=x, tune="measure")
    assert used(compiled) == ["zero-skip"]


@pytest.mark.parametrize("text", ["array<f64: 0.5>", "array<f64: 0.0, 1.5>", "dense<0.0> : tensor<2xf64>"])
def test_attributes_that_are_no_parts_are_refused(text: str) -> None:
    module, _ = raised_model(nn.Linear(4, 4).eval(), (torch.zeros(1, 4),))
    (op,) = layer_ops(module)
    with module.context:
        op.attributes[ZEROS] = ir.Attribute.parse(text)
    with pytest.raises(PatcError, match=r"expected pattern.zeros to be array<f64> of two parts from 0 to 1, got"):
        read_zeros(op)
