"""Winograd convolution: compiled code against the float64 interpreter, on random layers and at the edges of planes."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreter import interpret
from native import NATIVE_TARGETS, Net, check, compile_native
from networks import Network, Value, pattern_weight
from random_layers import (
    ACTIVATIONS,
    RANDOMS,
    REPRODUCIBLE,
    random_bias,
    random_readers,
    random_residual,
    random_source,
)
from repository import run_function
from tile_schedules import by_winograd
from torch.nn import functional
from torch_mlir import ir

from patc.dialects.schedules import Schedule
from patc.integers import ceil_div
from patc.passes.algorithms.host.winograd import cuts
from patc.passes.base import PassState
from patc.passes.cost.models import cost_model
from patc.passes.cost.winograd import winograd_cycles
from patc.passes.kernels.host import winograd, winograd_repair
from patc.passes.kernels.host.winograd_repair import READ
from patc.passes.kernels.host.winograd_transforms import POINTS
from patc.passes.pattern_encode import PatternEncode
from patc.targets import get_target

RNG = np.random.default_rng(0)


def weights(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, np.float32)


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
    groups = choices.choice([1, 2, 3]) if stride == 1 else 1
    filters, channels = choices.randint(1, 13 // groups), choices.randint(1, 9 // groups)
    net = Net((choices.randint(1, 3), channels * groups, height, width))
    x = random_source(net, choices)
    size = ((height + top + bottom - kernel) // stride + 1, (width + left + right - kernel) // stride + 1)
    filters *= groups
    residual, others = random_residual(net, (x.shape[0], filters, *size), choices)
    y = net.conv(
        x,
        rng.standard_normal((filters, channels, kernel, kernel)) / (2 * kernel * np.sqrt(channels)),
        random_bias(filters, choices, rng),
        residual,
        strides=(stride, stride),
        pads=pads,
        activation=choices.choice(ACTIVATIONS),
        groups=groups,
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
        patch.setattr(winograd, "GROUP_PART", choices.choice([1 << 20, 32, 8]))
        check(
            net,
            [*others, y] if choices.random() < 0.6 or not others else others,
            seed=choices.getrandbits(32),
            target=choices.choice(NATIVE_TARGETS),
            threads=choices.choice([1, 1, 2, 3, 5]),
            retile=schedule,
        )


def conv(net: Net, x: Value, filters: int | np.ndarray, kernel: int = 3, **rest: Any) -> Value:
    """Add a convolution with random weights for so many filters, or with these weights."""
    stride = KERNELS[kernel]
    rest = {"strides": (stride, stride), "pads": (kernel // 2,) * 4, **rest}
    weight = weights(filters, x.shape[1], kernel, kernel) if isinstance(filters, int) else filters
    return net.conv(x, weight, **rest)


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
    run_function(__file__, "run_fenced()")


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


# Numbers that are not finite


def convolve(
    x: np.ndarray, weight: np.ndarray, stride: int, dtype: torch.dtype, pads: Sequence[int] = (0,) * 4, groups: int = 1
) -> Any:
    """Return a convolution by PyTorch; float32 overflows as compiled code does."""
    top, left, bottom, right = pads
    padded = functional.pad(torch.tensor(x, dtype=dtype), (left, right, top, bottom))
    return functional.conv2d(padded, torch.tensor(weight, dtype=dtype), stride=stride, groups=groups).numpy()


def check_not_finite(found: np.ndarray, wanted: np.ndarray) -> None:
    """Require the same outputs to be infinite and NaN, and the others to be right."""
    np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted))
    np.testing.assert_array_equal(found[np.isinf(wanted)], wanted[np.isinf(wanted)])
    finite = np.isfinite(wanted)
    assert np.abs(found[finite] - wanted[finite]).max() <= 1e-4 * np.abs(wanted[finite]).max()


ODD = (np.inf, -np.inf, np.nan, 3e38, -3e38, 1e38, 3e37)
ODD_CASES = {
    "one strip": ((1, 6, 20, 20), 3, (1, 1, 1, 1), {}),
    "two strips, two threads": ((1, 6, 9, 70), 3, (1, 1, 1, 1), {"threads": 2}),
    "shared stages, two images": ((2, 6, 13, 28), 3, (0, 2, 1, 0), {"threads": 2, "split": "filters"}),
    "several rows of tiles in a vector": ((2, 9, 7, 7), 3, (1, 1, 1, 1), {"threads": 3}),
    "groups": ((2, 6, 13, 20), 3, (1, 1, 1, 1), {"groups": 3}),
    "4x4": ((1, 4, 17, 17), 4, (1, 2, 2, 1), {}),
    "phases": ((1, 3, 33, 44), 7, (3, 3, 3, 3), {"threads": 2}),
    "phases of few taps": ((1, 4, 30, 31), 5, (0, 1, 0, 2), {}),
}


def odd_inputs(shape: Sequence[int], rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield inputs with one element that is infinite, NaN or nearly too large."""
    for value in ODD:
        x = rng.standard_normal(shape).astype(np.float32)
        x[tuple(rng.integers(size) for size in shape)] = value
        yield x


@pytest.mark.parametrize("case", ODD_CASES)
def test_what_is_not_finite_reaches_its_windows_alone(case: str) -> None:
    """Of the weights, one in each kernel is zero: it makes NaN of an infinite input."""
    shape, kernel, pads, how = ODD_CASES[case]
    rng = np.random.default_rng(0)
    net = Net(shape)
    how = {"threads": 1, "split": "rows", "groups": 1, **how}
    rest = KERNELS[kernel], torch.float32, pads, how["groups"]
    weight = rng.standard_normal((6, shape[1] // how["groups"], kernel, kernel)).astype(np.float32)
    weight[:, :, 0, 1] = 0.0
    bias = rng.standard_normal(6).astype(np.float32)
    wanted_shape = convolve(np.zeros(shape), weight, *rest).shape
    residual = net.new_input(wanted_shape)
    joined = {"bias": bias, "residual": residual, "activation": '"relu"'}
    y = conv(net, net.input, weight, kernel, pads=pads, groups=how["groups"], **joined)
    schedule = by_winograd(split=how["split"], rows=8, filters=4)
    compiled = compile_native(net.build(y), net.copy_parameters(), retile=schedule, threads=how["threads"])
    for x in odd_inputs(shape, rng):
        other = rng.standard_normal(wanted_shape).astype(np.float32)
        sums = convolve(x, weight, *rest) + bias[:, None, None] + other
        check_not_finite(compiled(x, other)[0], np.where(np.isnan(sums), sums, np.maximum(sums, 0.0)))


def test_an_infinite_input_of_a_pruned_layer() -> None:
    """Where a pruned layer is computed dense, its zeros make NaN of infinite inputs, as in PyTorch."""
    rng = np.random.default_rng(0)
    net = Network((1, 8, 12, 20))
    weight = pattern_weight(rng, 8, 8, 0.9).astype(np.float32)
    module = net.build(net.conv(net.input, weight))
    state = PassState(net.copy_parameters())
    with module.context, ir.Location.unknown():
        PatternEncode().run(module, state)
    ops = []

    def retile(op: Any, chosen: Schedule) -> Schedule:
        if "format" not in op.attributes:
            return chosen
        ops.append(op.operation.name)
        return replace(chosen, algorithm="winograd", rows=8, columns=16, filters=4, sums=1)

    compiled = compile_native(module, state.parameters, retile=retile)
    assert ops == ["pattern.sparse_conv2d"]
    for x in odd_inputs(net.input.shape, rng):
        check_not_finite(compiled(x)[0], convolve(x, weight, 1, torch.float32, (1, 1, 1, 1)))


@pytest.mark.parametrize("split", ["rows", "filters"])
def test_threads_give_the_same_bits_where_a_layer_is_computed_again(split: str) -> None:
    net = Net((2, 5, 22, 30))
    y = conv(net, net.input, 11)
    x = RNG.standard_normal(net.input.shape, np.float32)
    x[1, 2, 3, 4] = np.nan
    retile = by_winograd(split=split, rows=8, filters=4)
    one, *others = [
        compile_native(net.build(y), net.copy_parameters(), retile=retile, threads=threads)(x)[0]
        for threads in (1, 2, 4)
    ]
    assert np.isnan(one).sum() == 11 * 9
    for other in others:
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_are_restored(kernel: int) -> None:
    """With errors that are far below what is taken for zero."""
    layer = winograd.TiledLayer(1, 3, 8, 8, 8, 2, 8, 8, 8, kernel, KERNELS[kernel])
    weight = weights(8, 3, kernel, kernel)
    shape = layer.read, layer.read, 8, len(layer.phases), 3
    transformed = (
        winograd.transform_weights(weight, layer.stride).reshape(shape)[np.ix_(READ, READ)].reshape(16, *shape[2:])
    )
    matrices = iter(winograd_repair.restoring_matrices(layer))
    for number, phase in enumerate(layer.phases):
        for dy in range(phase.row, kernel, layer.stride):
            for dx in range(phase.column, kernel, layer.stride):
                found = np.tensordot(next(matrices), transformed[:, :, number], 1)
                largest = np.abs(weight).max((2, 3))
                assert (np.abs(found - weight[:, :, dy, dx]) < winograd_repair.LEAST_TAP / 2 * largest).all()


# Accuracy


def edges(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return kernels that look for edges: derivatives of Gaussians in any direction."""
    y, x = np.mgrid[: shape[2], : shape[3]] - (shape[2] - 1) / 2
    angle = rng.uniform(0, 2 * np.pi, (shape[0], 1, 1, 1))
    return (
        (np.cos(angle) * x + np.sin(angle) * y) * np.exp(-(x**2 + y**2) / 3) * rng.uniform(0.5, 1.5, (*shape[:2], 1, 1))
    )


def spots(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return kernels that look for spots: differences of two Gaussians."""
    y, x = np.mgrid[: shape[2], : shape[3]] - (shape[2] - 1) / 2
    size = rng.uniform(0.5, 1.5, (*shape[:2], 1, 1))
    small, large = (np.exp(-(x**2 + y**2) / (2 * size * factor)) for factor in (1, 2))
    return small / small.sum((2, 3), keepdims=True) - large / large.sum((2, 3), keepdims=True)


def laplacians(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    kernel = np.full(shape[2:], -1.0)
    kernel[shape[2] // 2, shape[3] // 2] = kernel.size - 1
    return kernel * rng.standard_normal((*shape[:2], 1, 1))


def without_mean(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    kernels = rng.standard_normal(shape)
    return kernels - kernels.mean((1, 2, 3), keepdims=True)


def without_means(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    kernels = rng.standard_normal(shape)
    return kernels - kernels.mean((2, 3), keepdims=True)


def opponents(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return kernels whose channels cancel: they see colours alone."""
    kernels = rng.standard_normal(shape)
    return kernels - kernels.mean(1, keepdims=True)


FILTERS = [edges, spots, laplacians, without_mean, without_means, lambda rng, shape: rng.standard_normal(shape)]


def pages(rng: np.random.Generator, channels: int, size: int) -> Iterator[np.ndarray]:
    """Yield pictures: plain, nearly plain, of one colour, of colours of both signs, gradients, grey and any noise."""
    shape, one = (channels, size, size), np.ones((channels, 1, 1))
    y, x = np.mgrid[:size, :size]
    yield 255.0 - np.abs(np.round(0.7 * rng.standard_normal(shape)))
    yield 0.7 + 1e-3 * rng.standard_normal(shape)
    yield 0.9 * np.eye(channels)[0][:, None, None] + 1e-3 * rng.standard_normal(shape)
    yield rng.standard_normal((channels, 1, 1)) + 1e-3 * rng.standard_normal(shape)
    yield (3 * x + 2 * y) * one + rng.integers(0, 2, shape)
    yield 255.0 * rng.random((1, size, size)) * one
    yield rng.standard_normal(shape)


def largest_errors(kernel: int, channels: int, weight: np.ndarray, seed: int) -> Iterator[tuple[float, float]]:
    """Yield the largest error on each page, of compiled code and of PyTorch in float32, over the largest output."""
    size, stride = 28 * KERNELS[kernel], KERNELS[kernel]
    net = Net((1, channels, size, size))
    y = net.conv(net.input, weight, strides=(stride, stride), pads=(0, 0, 0, 0))
    compiled = compile_native(net.build(y), net.copy_parameters(), retile=by_winograd())
    for page in pages(np.random.default_rng(seed), channels, size):
        x = page[None].astype(np.float32)
        wanted = convolve(x, weight, stride, torch.float64)
        errors = [compiled(x)[0] - wanted, convolve(x, weight, stride, torch.float32) - wanted]
        yield tuple(np.abs(error).max() / np.abs(wanted).max() for error in errors)


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize(("kernel", "channels"), [(3, 3), (3, 32), (4, 3), (5, 3), (7, 3)])
def test_filters_that_cancel_are_accurate(filters: Any, kernel: int, channels: int) -> None:
    weight = filters(np.random.default_rng(kernel), (16, channels, kernel, kernel)).astype(np.float32)
    assert not winograd.cancels(weight, KERNELS[kernel])
    for found, plain in largest_errors(kernel, channels, weight, 1):
        assert found <= max(1e-4, 3 * plain)


@pytest.mark.parametrize("kernel", [3, 4, 7])
def test_channels_that_cancel(kernel: int) -> None:
    """What is left of a filter where channels are equal decides whether it is computed this way."""
    rng = np.random.default_rng(0)
    shape = (16, 3, kernel, kernel)
    grey = rng.standard_normal((16, 1, kernel, kernel))
    accurate = []
    for share in (0.0, 0.03, 0.3):
        weight = (opponents(rng, shape) + share * grey).astype(np.float32)
        accurate.append(not winograd.cancels(weight, KERNELS[kernel]))
        if accurate[-1]:
            assert all(found <= max(1e-4, 3 * plain) for found, plain in largest_errors(kernel, 3, weight, 1))
    assert accurate == [False, False, True]


@pytest.mark.parametrize("kernel", KERNELS)
def test_random_errors(kernel: int) -> None:
    weight = np.random.default_rng(kernel).standard_normal((16, 16, kernel, kernel)).astype(np.float32)
    *_, (found, _) = largest_errors(kernel, 16, weight, 2)
    assert found < winograd.RANDOM_ERRORS[ceil_div(kernel, KERNELS[kernel])]


# Cost


def best_layer(
    channels: int, size: int, filters: int = 0, kernel: int = 3, stride: int = 1
) -> tuple[winograd.TiledLayer, float]:
    target = get_target("x86-64-v4")
    cut = 1, target.lanes, 1, target.lanes
    layer = winograd.TiledLayer(1, channels, filters or channels, size, size, *cut, kernel, stride)
    found = list(cuts(layer, target.registers))
    costs = [winograd_cycles(layer, cost_model(target)) for layer in found]
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


def test_bands_of_any_number_of_rows_fill_vectors() -> None:
    """Three images of 14x14 are 12 rows of 4 tiles: two bands of 6 rows would fill a vector and a half each."""
    layer = replace(best_layer(256, 14)[0], band=8, lanes=16)
    assert [layer.equal_bands(rows) for rows in (3, 8, 12, 20, 28)] == [4, 8, 8, 8, 8]
    assert replace(layer, band=3).equal_bands(4) == 2  # no band has as many rows as fill a vector
    assert replace(layer, band=6).equal_bands(12) == 6


@pytest.mark.parametrize("name", ["x86-64-v3", "x86-64-v4"])
def test_products_keep_to_the_registers(name: str) -> None:
    lanes, registers = get_target(name).lanes, get_target(name).registers
    for filters in (1, 3, 5, 16, 100):
        for layer in cuts(winograd.TiledLayer(2, 7, filters, 30, 17, 1, lanes, 1, lanes), registers):
            vectors = layer.strip // layer.lanes
            assert layer.block <= filters
            assert (layer.block + 1) * vectors < registers or layer.block == 1
