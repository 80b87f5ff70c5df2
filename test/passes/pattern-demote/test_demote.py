"""pattern-demote, and kernels of f16: constants, boundaries, and numbers against float64.

Bounds are relative to the largest result. f16 has 11 bits, so that a number is rounded by up to 2^-11, or 4.9e-4. Whole
nets stay within 2e-2, as documented; those of this file are within 5e-3. Where x86 runs code of f16 its multiply-adds
round twice, see `native`; what AArch64 computes comes from an emulator.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from edge_layers import CASES
from helpers import assert_close, torch_results
from hypothesis import HealthCheck, given, settings
from interpreter import interpret
from native import Net, check, compile_native
from networks import CONTEXT, Network, networks, pattern_weight
from torch import nn
from torch_mlir import ir

import patc
from patc import models
from patc.codegen.reference import execute
from patc.diagnostics import PatcError
from patc.dialects.schedules import Schedule
from patc.parameters import ParameterStore
from patc.passes.base import PassState
from patc.passes.pattern_demote import PatternDemote
from patc.pipeline import Pipeline
from patc.pruning import PatternSpec, prune_
from patc.targets import host_features

RNG = np.random.default_rng(0)
F16 = {"dtype": "f16", "target": "aarch64-linux"}


def demote(module: ir.Module, parameters: ParameterStore) -> None:
    with module.context, ir.Location.unknown():
        PatternDemote(dtype="f16").run(module, PassState(parameters))
    assert module.operation.verify()


def round_half(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float16).astype(np.float32)


# Constants


def test_parameters_become_f16_under_their_names() -> None:
    net = Network((1, 2, 5, 5))
    weight, bias = RNG.standard_normal((3, 2, 3, 3)), RNG.standard_normal(3)
    module = net.build(net.conv(net.input, weight, bias))
    names = list(net.parameters)
    demote(module, net.parameters)
    assert list(net.parameters) == names
    for name, array in zip(names, (weight, bias), strict=True):
        assert net.parameters[name].dtype == np.float16
        np.testing.assert_array_equal(net.parameters[name], array.astype(np.float32).astype(np.float16))


def test_parameters_that_are_returned_as_well_keep_f32() -> None:
    array = RNG.standard_normal((4,)).astype(np.float32)
    op = '"pattern.parameter"() {name = "shared"} : () -> tensor<4xf32>'
    text = f"""
        func.func @main(%x: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>) {{
          %a = {op}
          %b = {op}
          %y = "pattern.add"(%x, %a) {{activation = "none"}} : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
          return %y, %b : tensor<4xf32>, tensor<4xf32>
        }}"""
    parameters, x = ParameterStore({"shared": array}), RNG.standard_normal(4, np.float32)
    module = ir.Module.parse(text, CONTEXT)
    demote(module, parameters)
    assert {parameters[name].dtype.name for name in parameters} == {"float32", "float16"}
    y, same = interpret(module, parameters, [x])
    np.testing.assert_array_equal(same.astype(np.float32), array)
    assert_close([y], [x + array], 1e-3)


def test_a_parameter_of_two_layers_is_rounded_once() -> None:
    net = Network((1, 2, 5, 5))
    weight = net.parameter(RNG.standard_normal((2, 2, 1, 1)), "weight")
    attributes = (
        "strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 1 : i64, "
        'activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>'
    )
    once = net.op("pattern.conv2d", [net.input, weight], attributes, net.input_shape)
    module = net.build(net.op("pattern.conv2d", [once, weight], attributes, net.input_shape))
    demote(module, net.parameters)
    assert len(net.parameters) == 1


def test_an_overflow_names_the_parameter() -> None:
    net = Network((1, 2, 5, 5))
    weight = RNG.standard_normal((3, 2, 3, 3))
    weight[1, 1, 1, 1] = 70000.0
    module = net.build(net.conv(net.input, weight))
    with pytest.raises(PatcError, match=r"of magnitude 65504 or less for f16, got 70000 in 'layer0\.weight'"):
        demote(module, net.parameters)


def test_numbers_that_f16_cannot_hold_but_rounds_to_are_kept() -> None:
    net = Network((1, 1, 5, 5))
    module = net.build(net.conv(net.input, np.full((1, 1, 3, 3), 65519.0), np.array([np.inf])))
    demote(module, net.parameters)
    assert [float(net.parameters[name].max()) for name in net.parameters] == [65504.0, np.inf]


# Meaning


@given(networks())
@settings(deadline=None, derandomize=True, database=None, max_examples=30, suppress_health_check=list(HealthCheck))
def test_demoted_nets_compute_nearly_the_same(case: tuple[Network, ir.Module, np.ndarray]) -> None:
    network, module, x = case
    before = interpret(module, network.parameters, [x])
    demote(module, network.parameters)
    assert_close(execute(module, network.parameters, [x]), before, 1e-2)


# Kernels


@pytest.mark.parametrize("case", CASES)
def test_kernels_at_the_ends(case: str) -> None:
    shape, make = CASES[case]
    net = Net(shape)
    check(net, make(net), dtype="f16")


def largest_error(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def compare(net: Network, module: ir.Module, **how: Any) -> float:
    """Return the error of a net in f16, of which inputs and weights are rounded for the reference too."""
    parameters = net.copy_parameters()
    demote(module, parameters)
    x = round_half(RNG.standard_normal(net.input_shape, np.float32))
    wanted = interpret(module, parameters, [x])[0]
    return largest_error(compile_native(module, parameters, **how)(x)[0], wanted)


def test_dense_sums_of_thousands_of_products_are_made_in_parts() -> None:
    # In one accumulator this error is 1.1e-2.
    net = Network((1, 512, 6, 6))
    module = net.build(net.conv(net.input, RNG.standard_normal((8, 512, 3, 3))))
    assert compare(net, module) < 4e-3


def test_sparse_sums_of_thousands_of_products_are_made_in_parts() -> None:
    net = Network((1, 512, 6, 6))
    module = net.build(net.conv(net.input, pattern_weight(RNG, 8, 512, keep=1.0)))
    Pipeline().add("pattern-encode").run(module, PassState(net.parameters))
    chosen: list[str] = []

    def keep(op: Any, schedule: Schedule) -> Schedule:
        chosen.append(schedule.algorithm)
        return schedule

    assert compare(net, module, retile=keep) < 4e-3
    assert "pattern-direct" in chosen


def test_features_and_means_are_summed_in_f32() -> None:
    net = Net((2, 3, 40, 40))
    mean = net.global_pool(net.input)
    assert compare(net, net.build(mean)) < 1e-3
    net = Net((2, 9000))
    assert compare(net, net.build(net.dense_layer(net.input, RNG.standard_normal((5, 9000))))) < 1e-3


# Whole nets


class SmallNet(nn.Module):
    """Sparse layers of stride 1 and 2, a residual, max pooling, a mean and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.same = nn.Conv2d(16, 16, 3, padding=1)
        self.down = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.classify = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.max_pool2d(torch.relu(self.norm(self.stem(x))), 3, 2, 1)
        x = torch.relu(self.same(x) + x)
        return self.classify(torch.relu(self.down(x)).mean((2, 3)))


def emulated_error(model: nn.Module, x: torch.Tensor) -> float:
    """Return the error of a model in f16 on an AArch64 CPU."""
    pytest.importorskip("unicorn")
    from patc.bench.emulator import run_program

    program = patc.compile(model, (x,), **F16).program
    return largest_error(run_program(program, [x.numpy()])[0], torch_results(model, [x])[0])


def test_small_net_on_aarch64() -> None:
    torch.manual_seed(0)
    model = SmallNet().eval()
    prune_(model, PatternSpec(connectivity=2.0))
    assert emulated_error(model, torch.randn(1, 3, 21, 19)) < 5e-3


def test_resnet18_cifar_on_aarch64() -> None:
    torch.manual_seed(0)
    model = models.build("resnet18_cifar").eval()
    prune_(model, PatternSpec.for_compression(8.0))
    assert emulated_error(model, torch.randn(1, 3, 32, 32)) < 5e-3  # 1.2e-3 for these numbers


def test_layers_say_what_they_move() -> None:
    x = torch.randn(1, 3, 8, 8)
    model = nn.Conv2d(3, 4, 3, padding=1).eval()
    copy_in, convolution, copy_out = patc.compile(model, (x,), **F16).program.layers
    assert (copy_in.op, convolution.op, copy_out.op) == ("relayout", "conv2d", "relayout")
    assert convolution.schedule.lanes == 8
    assert copy_in.moved_bytes == 3 * 64 * (4 + 2)
    assert convolution.moved_bytes == 2 * (3 * 64 + 4 * 64 + 3 * 4 * 9 + 4)


# Who may ask for it


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "half"}, "expected dtype to be one of f32, f16, got 'half'"),
        (
            {"dtype": "f16", "target": "aarch64-linux:cortex-a72"},
            "expected a CPU with fullfp16 or avx512fp16 for dtype f16, got cortex-a72, which lacks it: "
            "choose one of cortex-a55, cortex-a76, cortex-a78, neoverse-n1, cortex-x1, cortex-x2, cortex-x3, cortex-x4, "
            "apple-m1, apple-m2, apple-m3, apple-m4",
        ),
        (
            {"dtype": "f16", "target": "x86-64-v3"},
            "expected a CPU with fullfp16 or avx512fp16 for dtype f16, got target 'x86-64-v3', which lacks it: "
            "choose dtype f32, or a target of aarch64-linux, aarch64-android",
        ),
    ],
)
def test_other_types_and_cpus_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PatcError) as error:
        patc.compile(nn.Conv2d(3, 4, 3).eval(), (torch.zeros(1, 3, 8, 8),), **options)
    assert str(error.value) == message


@pytest.mark.skipif(not host_features().isdisjoint({"fullfp16", "avx512fp16"}), reason="this CPU computes in f16")
def test_a_host_without_f16_is_refused() -> None:
    with pytest.raises(PatcError, match=r"for dtype f16, got .*, which lacks it: choose"):
        patc.compile(nn.Conv2d(3, 4, 3).eval(), (torch.zeros(1, 3, 8, 8),), dtype="f16")
