"""Winograd convolution: compiled code against the float64 interpreter, on random layers and at the edges of planes."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from interpreter import interpret
from native import NATIVE_TARGETS, Net, Retile, check, compile_native
from networks import Value
from test_kernels import ACTIVATIONS, random_bias, random_readers, random_residual, random_source

from patc.dialects.attributes import Layout, Schedule
from patc.passes.kernels import winograd
from patc.passes.kernels.winograd_transforms import POINTS
from patc.targets import get_target

RANDOMS = st.randoms(use_true_random=False)
REPRODUCIBLE = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
RNG = np.random.default_rng(0)


def weights(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, np.float32)


def by_winograd(**fields: Any) -> Retile:
    """Return what gives the convolutions that it suits a Winograd schedule, and leaves other layers alone."""

    def retile(op: Any, chosen: Schedule) -> Schedule:
        if op.operation.name != "pattern.conv2d":
            return chosen
        phases = Layout.of(op.input.type).phases
        if not winograd.applies(op.weight.type.shape[2:], op.strides, op.dilations, op.groups.value, phases):
            return chosen
        filters = min(fields.get("filters", 8), op.weight.type.shape[0])
        defaults = {"rows": 1 << 20, "columns": 48, "lanes": chosen.lanes, "threads": chosen.threads, "split": "rows"}
        return Schedule("winograd", **{**defaults, **fields, "filters": filters})

    return retile


@given(st.sampled_from([3, 4]), st.integers(1, 5), st.integers(1, 5))
@settings(max_examples=10)
def test_transformed_weights_are_values_of_polynomials(taps: int, filters: int, channels: int) -> None:
    """A kernel's rows and columns as polynomials, at the points; each point has a scale of its own."""
    weight = weights(filters, channels, taps, taps)
    found = winograd.transform_weights(weight).reshape(taps + 3, taps + 3, filters, channels)
    assert found.dtype == np.float32
    points = np.array(POINTS[: taps + 2])
    places = [0, 1, 2, 3, 4, 6][: taps + 2]
    scales = [np.prod([point - other for other in points if other != point]) for point in points]
    powers = np.vander(points, taps, increasing=True) / np.array(scales)[:, None]
    wanted = np.einsum("iu,fcuv,jv->ijfc", powers, weight, powers)
    np.testing.assert_allclose(found[np.ix_(places, places)], wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found[5, 5], weight[:, :, -1, -1])


def test_phases_of_fewer_taps_leave_positions_out() -> None:
    """A 7x7 kernel: 4x3, 4x4, 3x4 and 3x3 taps."""
    found = winograd.transform_weights(weights(1, 1, 7, 7), 2).reshape(7, 7, 4)
    used = [(int(lines.any(1).sum()), int(lines.any(0).sum())) for lines in np.moveaxis(found != 0, 2, 0)]
    assert used == [(7, 6), (7, 7), (6, 7), (6, 6)]
    assert used == [(phase.lines, phase.shifts) for phase in winograd.phases(7, 2)]


KERNELS = {3: 1, 4: 1, 5: 2, 6: 2, 7: 2, 8: 2}  # rows and columns, and the stride


@pytest.mark.parametrize("kernel", KERNELS)
@given(RANDOMS)
@settings(REPRODUCIBLE, max_examples=5)
def test_random_layers(kernel: int, choices: random.Random) -> None:
    rng = np.random.default_rng(choices.getrandbits(32))
    stride, most = KERNELS[kernel], 3 if kernel < 7 else 4
    pads = choices.choice([(kernel // 2,) * 4, tuple(choices.randrange(most) for _ in range(4))])
    top, left, bottom, right = pads
    height = choices.randint(max(1, kernel - top - bottom), 24 * stride)
    width = choices.randint(max(1, kernel - left - right), choices.choice([9, 33, 70]) * stride)
    filters, channels = choices.randint(1, 13), choices.randint(1, 9)
    net = Net((choices.randint(1, 3), channels, height, width))
    x = random_source(net, choices)
    size = ((height + top + bottom - kernel) // stride + 1, (width + left + right - kernel) // stride + 1)
    residual, others = random_residual(net, (x.shape[0], filters, *size), choices)
    y = net.conv(
        x,
        rng.standard_normal((filters, channels, kernel, kernel)) / (2 * kernel * np.sqrt(channels)),
        random_bias(filters, choices, rng),
        residual,
        strides=(stride, stride),
        pads=pads,
        activation=choices.choice(ACTIVATIONS),
    )
    others += random_readers(net, y, choices)
    schedule = by_winograd(
        rows=choices.choice([4, 8, 12, 100]),
        columns=choices.choice([4, 8, 16, 20, 48]),
        lanes=choices.choice([4, 8, 16]),
        filters=choices.randint(1, 8),
        split=choices.choice(["rows", "filters"]),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "GROUP_BYTES", choices.choice([1, 32 * 1024, 128 * 1024]))
        check(
            net,
            [*others, y] if choices.random() < 0.6 or not others else others,
            seed=choices.getrandbits(32),
            target=choices.choice(NATIVE_TARGETS),
            threads=choices.choice([1, 1, 2, 3, 5]),
            retile=schedule,
        )


def conv(net: Net, x: Value, filters: int, kernel: int = 3, **rest: Any) -> Value:
    stride = KERNELS[kernel]
    rest = {"strides": (stride, stride), "pads": (kernel // 2,) * 4, **rest}
    return net.conv(x, weights(filters, x.shape[1], kernel, kernel), **rest)


@pytest.mark.parametrize("width", [1, 2, 5, 8, 13, 16, 20, 28, 62, 63, 64, 65, 126, 130])
@pytest.mark.parametrize("height", [1, 6])
def test_every_way_to_cut_a_row(height: int, width: int) -> None:
    net = Net((2, 2, height, width))
    check(net, [conv(net, conv(net, net.input, 3, activation='"relu"'), 2)], retile=by_winograd())


@pytest.mark.parametrize("width", [7, 8, 31, 61, 124, 129])
def test_every_way_to_cut_a_row_in_phases(width: int) -> None:
    net = Net((2, 1, 11, width))
    y = net.activate(net.input)
    check(
        net, [conv(net, y, 2, kernel, pads=(1, 0, 2, 0)) for kernel in (7, 8) if kernel <= width], retile=by_winograd()
    )


def test_many_channels_are_accurate() -> None:
    net = Net((1, 512, 8, 8))
    check(net, [conv(net, net.input, 32)], retile=by_winograd())


@pytest.mark.parametrize("size", [(64, 64), (37, 51)])
def test_stem_is_accurate(size: tuple[int, int]) -> None:
    """The first layer of a ResNet, on less rows and columns."""
    net = Net((1, 3, *size))
    x, weight, bias = RNG.standard_normal((1, 3, *size), np.float32), weights(64, 3, 7, 7), weights(64)
    y = net.conv(net.input, weight, bias, strides=(2, 2), pads=(3, 3, 3, 3), activation='"relu"')
    module = net.build(y)
    (wanted,) = interpret(module, net.parameters, [x])
    (found,) = compile_native(module, net.copy_parameters(), retile=by_winograd(rows=8))(x)
    assert np.abs(found - wanted).max() < 5e-6 * wanted.max()
    assert np.sqrt(np.mean((found - wanted) ** 2)) < 2e-6 * wanted.std()


@pytest.mark.parametrize("kernel", [3, 7])
@pytest.mark.parametrize("split", ["rows", "filters"])
def test_threads_give_the_same_bits(split: str, kernel: int) -> None:
    """Bands and blocks that overlap are computed alike by both threads."""
    net = Net((1, 5, 22 * KERNELS[kernel], 30))
    y = conv(net, net.input, 11, kernel, bias=weights(11))
    results = [
        check(net, [y], threads=threads, retile=by_winograd(split=split, rows=8, filters=4))[0] for threads in (1, 2, 4)
    ]
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)


def test_reads_stay_inside_the_buffers() -> None:
    code = "import test_winograd; test_winograd.run_fenced()"
    run = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def run_fenced() -> None:
    """Run layers whose buffers end at a page that cannot be touched."""
    for size in ((7, 7), (3, 17), (14, 14), (4, 62)):
        for pads in ((1, 1, 1, 1), (0, 2, 1, 0)):
            net = Net((1, 2, *size))
            y = conv(net, net.activate(net.input), 3, pads=pads)
            residual = net.activate(net.new_input(y.shape))
            z = conv(net, y, 3, residual=residual)
            check(net, [z], fenced=True, retile=by_winograd())
    for size in ((7, 7), (15, 124), (30, 32)):
        net = Net((1, 2, *size))
        check(net, [conv(net, net.activate(net.input), 3, 7, pads=(0, 1, 0, 2))], fenced=True, retile=by_winograd())


# Cost


def best_layer(
    channels: int, size: int, filters: int = 0, kernel: int = 3, stride: int = 1
) -> tuple[winograd.Layer, float]:
    target = get_target("x86-64-v4")
    found = list(winograd.layers(1, channels, filters or channels, size, size, target, kernel, stride))
    costs = [winograd.modelled_cycles(layer, target) for layer in found]
    return found[int(np.argmin(costs))], min(costs)


@pytest.mark.parametrize(
    ("channels", "size", "cycles"), [(64, 56, 2.25e6), (128, 28, 2.35e6), (256, 14, 2.45e6), (512, 7, 7.8e6)]
)
def test_cost_is_near_to_what_was_measured(channels: int, size: int, cycles: float) -> None:
    assert 0.8 < best_layer(channels, size)[1] / cycles < 1.25


@pytest.mark.parametrize(
    ("channels", "filters", "size", "kernel", "cycles"),
    [(3, 64, 112, 7, 2.6e6), (3, 64, 112, 8, 3.0e6), (16, 64, 28, 8, 0.91e6), (64, 128, 28, 4, 1.72e6)],
)
def test_cost_of_large_kernels(channels: int, filters: int, size: int, kernel: int, cycles: float) -> None:
    assert 0.85 < best_layer(channels, size, filters, kernel, KERNELS[kernel])[1] / cycles < 1.15


def test_few_channels_keep_the_products_of_few_filters() -> None:
    layer = best_layer(3, 112, 64, 7, 2)[0]
    assert layer.bands > 4 and layer.kept < 64
    assert best_layer(128, 28)[0].kept == 128


def test_large_planes_are_cut_into_bands() -> None:
    assert best_layer(64, 28)[0].bands == 1
    assert best_layer(64, 224)[0].bands > 4


@pytest.mark.parametrize("name", ["x86-64-v3", "x86-64-v4"])
def test_products_keep_to_the_registers(name: str) -> None:
    for filters in (1, 3, 5, 16, 100):
        for layer in winograd.layers(2, 7, filters, 30, 17, get_target(name)):
            vectors = layer.strip // layer.lanes
            assert layer.block <= filters
            assert (layer.block + 1) * vectors < get_target(name).registers or layer.block == 1
