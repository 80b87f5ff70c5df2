"""Layers on quantised activations compute on a Vulkan device the bits that numpy does, and so all CPUs."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from shutil import which

import numpy as np
import pytest
import torch
from gpu import NAN_BYTE, fill_arena, needs_device, require_valid
from quantised import QuantisedNet, Scale, Value, compile_quantised, drawn
from quantised_nets import Activations, elementwise, few_weights, planes, random_convolution, rows

import patc
from patc.backends.base import Options
from patc.backends.vulkan import VulkanBackend
from patc.diagnostics import PatcError
from patc.passes.pattern_map_to_gpu import PatternMapToGpu
from patc.pipeline import Pipeline
from patc.runtime.vulkan import find_device
from patc.runtime.vulkan_model import VulkanModel

pytestmark = needs_device
PLAIN, DOTS = "spirv-vulkan", "spirv-vulkan:dotprod"  # without dot products, and with


def check(net: QuantisedNet, results: Sequence[Value], seed: int, target: str) -> VulkanModel:
    """Require a net with schedules that are drawn to compute its numbers, in an arena that held others before."""
    if target == DOTS and "DotProduct" not in find_device().capabilities:
        pytest.skip("the device has no dot products of integers")
    model = VulkanModel(compile_quantised(net, results, target, choose=drawn(random.Random(seed))))
    fill_arena(model, NAN_BYTE)
    for _ in range(2):
        for found, wanted in zip(model(*(value.array for value in net.inputs)), results, strict=True):
            np.testing.assert_array_equal(np.asarray(found), wanted.array)
    if which("spirv-val"):
        require_valid(model.code)
    return model


@pytest.mark.parametrize("target", [PLAIN, DOTS])
@pytest.mark.parametrize("seed", range(6))
def test_convolutions(seed: int, target: str) -> None:
    check(*random_convolution(seed, signed=True), seed, target)


@pytest.mark.parametrize("target", [PLAIN, DOTS])
def test_depthwise_layers_pools_and_concatenations(target: str) -> None:
    check(*planes(signed=True), 0, target)


@pytest.mark.parametrize("channels", [1, 6, 8])
def test_sums_and_changes_of_scale(channels: int) -> None:
    check(*elementwise(True, channels, is_mixed=False), 0, PLAIN)


def test_sums_of_floats_do_not_become_integers() -> None:
    """Quotients are not rounded as f32 is on GPUs."""
    net = QuantisedNet(True)
    a, b = (net.input(np.ones((1, 4, 5, 7))) for _ in range(2))
    for left in (a, net.quantise(a, Scale(0.02, 120))):
        with pytest.raises(PatcError, match=r"cannot compute: pattern\.add"):
            compile_quantised(net, [net.dequantise(net.add(left, b, Scale(0.04, 99)))], PLAIN)


@pytest.mark.parametrize("channels", [6, 8])
def test_activations_that_compute(channels: int) -> None:
    """Some with constants of each channel, which may leave a word in part."""
    torch.manual_seed(channels)
    net, x = Activations(channels).eval(), torch.randn(2, 4, 9, 11)
    there, here = (patc.quantize(net, [(x,)], target=target) for target in (PLAIN, "host"))
    names = [layer.schedule.algorithm for layer in there.layers if layer.schedule]
    assert names.count("dot-direct") == 2 and "elementwise" not in names
    assert torch.equal(there(x), here(x))


@pytest.mark.parametrize("target", [PLAIN, DOTS])
@pytest.mark.parametrize("shape", [(1, 7, 2), (3, 16, 33), (5, 50, 64), (9, 75, 33), (131, 24, 66)])
def test_fully_connected_layers(shape: tuple[int, int, int], target: str) -> None:
    check(*rows(True, shape), 0, target)


@pytest.mark.parametrize("seed", range(2))
def test_layers_of_few_weights(seed: int) -> None:
    check(*few_weights(seed, signed=True), seed, PLAIN)


def test_weights_that_kernels_see_a_part_of(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = VulkanBackend.pipeline

    def in_parts(self: VulkanBackend, options: Options) -> Pipeline:
        pipeline = whole(self, options)
        parts = [
            replace(each, window_bytes=1024) if isinstance(each, PatternMapToGpu) else each for each in pipeline.passes
        ]
        return Pipeline(parts, pipeline.target)

    monkeypatch.setattr(VulkanBackend, "pipeline", in_parts)
    assert len(check(*rows(True, (3, 160, 70)), 0, PLAIN).code.windows) > 1


def test_the_largest_sums_are_exact() -> None:
    net = QuantisedNet(True)
    x = net.quantise(net.input(np.full((1, 64, 6, 20), 9.0)), Scale(0.01, 0))
    weight = np.full((16, 64, 3, 3), 127, np.int8)
    weight[::2] = -127
    y = net.conv(x, weight, np.full(16, 1e-3, np.float32), None, None, pad=1)
    check(net, [y], 0, PLAIN)


def test_numbers_halfway_between_integers_and_beside_them() -> None:
    """Quotients are not rounded as f32 is on GPUs."""
    net, scale = QuantisedNet(True), Scale(0.037, 100)
    halves = ((np.arange(-140, 200) + 0.5) * np.float64(np.float32(scale.scale))).astype(np.float32)
    beside = [halves]
    for end in (-np.inf, np.inf):
        near = halves
        for _ in range(3):
            near = np.nextafter(near, np.float32(end))
            beside.append(near)
    numbers = np.concatenate([*beside, np.array([np.inf, -np.inf, 1e37, -1e37, 1e-45, -0.0], np.float32)])
    x = net.input(np.resize(numbers, (1, 4, 25, 24)))
    flat = net.input(np.resize(numbers, (2, 1201)))
    results = [net.dequantise(net.quantise(value, scale)) for value in (x, flat)]
    check(net, results, 0, PLAIN)
