"""Layers on quantised activations compute the same bits on all CPUs, in the reference and in numpy."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from quantised import QuantisedNet, Scale, Value, drawn, run_quantised
from quantised_nets import (
    Activations,
    elementwise,
    few_weights,
    planes,
    random_convolution,
    random_scale,
    rows,
    weights,
)

import patc
from patc.codegen.reference import execute
from patc.context import make_context
from patc.diagnostics import PatcError
from patc.dialects.quantised import Quantisation
from patc.dialects.schedules import Schedule
from patc.mlir_files import parse_module
from patc.parameters import ParameterStore
from patc.passes.algorithms.host.block_words import products_of
from patc.passes.ir.quantised import first_numbers
from patc.passes.ir.windows import Window
from patc.passes.kernels.host.block_words import Cover, Words, blocks_of
from patc.passes.kernels.host.partners import slots_of
from patc.passes.kernels.host.window_words import WindowWords
from patc.targets import get_target

NATIVE = ("host", "x86-64-v3", "x86-64-v4")
EMULATED = ("aarch64-linux", "aarch64-linux:cortex-a53")  # with dot products, and without


@pytest.mark.parametrize("seed", range(6))
def test_convolutions(seed: int) -> None:
    choices = random.Random(seed)
    net, results = random_convolution(seed, signed=False)
    check_natively(net, results, choices)
    check_reference(net, results)


def test_two_threads() -> None:
    net, results = random_convolution(3, signed=False)
    for found, wanted in zip(run_quantised(net, results, "host", threads=2), results, strict=True):
        np.testing.assert_array_equal(found, wanted.array)


@pytest.mark.parametrize("target", EMULATED)
@pytest.mark.parametrize("seed", range(2))
def test_convolutions_on_arm(seed: int, target: str) -> None:
    pytest.importorskip("unicorn")
    net, results = random_convolution(seed, signed=True)
    found = run_quantised(net, results, target, choose=drawn(random.Random(seed)))
    for value, wanted in zip(found, results, strict=True):
        np.testing.assert_array_equal(value, wanted.array)
    check_reference(net, results)


@pytest.mark.parametrize("channels", [1, 6, 8])
def test_sums_and_changes_of_scale(channels: int) -> None:
    net, results = elementwise(False, channels)
    check_natively(net, results, random.Random(0))
    check_reference(net, results)


def near_steps(signed: bool) -> tuple[QuantisedNet, list[Value]]:
    """The least number of each integer, the one before it, and numbers beyond all integers, in f32."""
    net, results = QuantisedNet(signed), []
    for scale, zero_point in ((0.0173, 117), (1 / 3, 0), (7.3e-5, 255), (1.0, 128)):
        first = first_numbers(Quantisation(scale, zero_point, False))
        before = np.nextafter(first[1:-1], np.float32(-np.inf))
        others = np.float32([-np.inf, np.inf, -1e30, 1e30, -0.0, 1e-40, scale / 2])
        numbers = np.concatenate([first[1:-1], before, others])
        x = net.input(np.resize(numbers, 3 * 8 * 32).reshape(1, 3, 8, 32))
        results.append(net.dequantise(net.quantise(x, Scale(scale, zero_point))))
    return net, results


def test_integers_begin_where_quotients_do() -> None:
    check_natively(*near_steps(signed=False), random.Random(0))


@pytest.mark.parametrize("target", EMULATED)
def test_integers_begin_where_quotients_do_on_arm(target: str) -> None:
    pytest.importorskip("unicorn")
    net, results = near_steps(signed=True)
    for value, wanted in zip(run_quantised(net, results, target), results, strict=True):
        np.testing.assert_array_equal(value, wanted.array)


@pytest.mark.parametrize("target", [*NATIVE, *EMULATED])
@pytest.mark.parametrize("zero_point", [0, 100, 117])
def test_nan_becomes_the_zero_point(zero_point: int, target: str) -> None:
    if target in EMULATED:
        pytest.importorskip("unicorn")
    net = QuantisedNet(signed=target in EMULATED)
    x = net.input(np.linspace(0, 1, 96).reshape(1, 3, 2, 16))
    y = net.dequantise(net.quantise(x, Scale(0.02, zero_point)))
    x.array[0, :, 0, 3], y.array[0, :, 0, 3] = np.nan, 0
    np.testing.assert_array_equal(run_quantised(net, [y], target)[0], y.array)
    check_reference(net, [y])


def test_activations_of_words_and_floats() -> None:
    """What an activation computes with is in units of 1."""
    net, generator = QuantisedNet(False), np.random.default_rng(0)
    a, b = (net.input(generator.uniform(-2, 2, (1, 6, 5, 9))) for _ in range(2))
    y = net.dequantise(net.add(net.quantise(a, Scale(0.02, 120)), b, Scale(1 / 255, 0), "relu"))
    net.lines = [line.replace('"relu"', '#pattern.activation<"sigmoid", []>') for line in net.lines]
    module, _ = parse_module(net.text(y), make_context())
    wanted = 1 / (1 + np.exp(-a.array - b.array))
    for found in (run_quantised(net, [y], "host"), execute(module, ParameterStore({}), [a.array, b.array])):
        np.testing.assert_allclose(found[0], wanted, atol=0.006)


def test_two_constants_of_each_channel() -> None:
    """Of six channels, which fill a word and a half."""
    net, generator = QuantisedNet(False), np.random.default_rng(0)
    x = net.quantise(net.input(generator.uniform(-1, 1, (1, 4, 5, 9))), Scale(0.01, 100))
    weight, scales = generator.integers(-127, 128, (6, 4, 1, 1)).astype(np.int8), np.full(6, 0.01, np.float32)
    given, shift = generator.uniform(0.5, 2, 6), generator.uniform(-1, 1, 6)
    real = net.conv(x, weight, scales, None, None)
    y = net.dequantise(net.conv(x, weight, scales, None, Scale(0.05, 128), activation="relu"))
    free = "0xFF800000 : f32, 0x7F800000 : f32"
    arrays = ", ".join(f"array<f32: {', '.join(map(repr, each.tolist()))}>" for each in (given, shift))
    affine = f'#pattern.activation<"affine", [{free}, {arrays}, {free}]>'
    net.lines = [line.replace('"relu"', affine) for line in net.lines]
    wanted = np.clip(real.array * given[:, None, None] + shift[:, None, None], -6.4, 6.35)
    np.testing.assert_allclose(run_quantised(net, [y], "host")[0], wanted, atol=0.026)


@pytest.mark.parametrize("channels", [6, 8])
def test_activations_that_compute(channels: int) -> None:
    """Some with constants of each channel, which may fill a word in part."""
    torch.manual_seed(channels)
    net, x = Activations(channels).eval(), torch.randn(2, 4, 9, 11)
    compiled = patc.quantize(net, [(x,)], threads=1)
    names = [layer.schedule.algorithm for layer in compiled.layers if layer.schedule]
    assert sum(name.startswith("dot") for name in names) == 2 and "elementwise" not in names
    wanted = net(x).detach()
    assert (compiled(x) - wanted).abs().max() < 0.03 * wanted.abs().max()


def test_depthwise_layers_pools_and_concatenations() -> None:
    net, results = planes(False)
    check_natively(net, results, random.Random(0))
    check_reference(net, results)


@pytest.mark.parametrize("shape", [(1, 7, 2), (3, 16, 33), (5, 50, 64)])
def test_fully_connected_layers(shape: tuple[int, int, int]) -> None:
    net, results = rows(False, shape)
    check_natively(net, results, random.Random(0))
    check_reference(net, results)


@pytest.mark.parametrize("target", EMULATED)
def test_other_layers_on_arm(target: str) -> None:
    pytest.importorskip("unicorn")
    for net, results in (elementwise(True, 6), rows(True, (3, 16, 33)), planes(True)):
        for value, wanted in zip(run_quantised(net, results, target), results, strict=True):
            np.testing.assert_array_equal(value, wanted.array)
        check_reference(net, results)


def ties_and_ends(factor: float, zero_point: int, signed: bool) -> tuple[QuantisedNet, list[Value]]:
    """Results halfway between integers, and up to `factor` times 32,385, near where 16 bits end."""
    net = QuantisedNet(signed)
    x = net.quantise(net.input(np.arange(1024.0).reshape(1, 4, 8, 32) % 256), Scale(1.0, 0))
    weight, scales = np.zeros((8, 4, 1, 1), np.int8), np.full(8, 0.5, np.float32)
    weight[:, 0, 0, 0] = [1, -1, 3, -3, 127, -127, 2, 0]
    scales[4:6] = factor
    results = [net.conv(x, weight, scales, None, Scale(1.0, zero_point), activation=kind) for kind in ("none", "relu")]
    return net, [net.dequantise(value) for value in results]


@pytest.mark.parametrize("zero_point", [0, 117, 128, 255])
@pytest.mark.parametrize("factor", [0.995, 1.02, 8.0])
def test_ties_and_the_ends_of_halves(factor: float, zero_point: int) -> None:
    check_natively(*ties_and_ends(factor, zero_point, signed=False), random.Random(0))


@pytest.mark.parametrize("zero_point", [0, 117, 128])
@pytest.mark.parametrize("factor", [0.995, 1.02])
def test_ties_and_the_ends_of_halves_on_arm(factor: float, zero_point: int) -> None:
    pytest.importorskip("unicorn")
    net, results = ties_and_ends(factor, zero_point, signed=True)
    for value, wanted in zip(run_quantised(net, results, "aarch64-linux"), results, strict=True):
        np.testing.assert_array_equal(value, wanted.array)


def test_the_largest_sums_are_exact() -> None:
    """As where instructions saturate that add up products of pairs."""
    net = QuantisedNet(False)
    x = net.quantise(net.input(np.full((1, 64, 6, 20), 9.0)), Scale(0.01, 0))
    weight = np.full((16, 64, 3, 3), 127, np.int8)
    weight[::2] = -127
    y = net.conv(x, weight, np.full(16, 1e-3, np.float32), None, None, pad=1)
    assert np.abs(y.array).max() == np.float32(255 * 127 * 576) * (np.float32(0.01) * np.float32(1e-3))
    check_natively(net, [y], random.Random(0))


def check_natively(net: QuantisedNet, results: list[Value], choices: random.Random) -> None:
    for target in NATIVE:
        for found, wanted in zip(run_quantised(net, results, target, choose=drawn(choices)), results, strict=True):
            np.testing.assert_array_equal(found, wanted.array, err_msg=target)


def check_reference(net: QuantisedNet, results: list[Value]) -> None:
    module, _ = parse_module(net.text(*results), make_context())
    inputs = [value.array for value in net.inputs]
    for found, wanted in zip(execute(module, ParameterStore(dict(net.parameters)), inputs), results, strict=True):
        np.testing.assert_array_equal(found, wanted.array)


def blocks_drawn(choices: random.Random) -> Callable[[Any, list[Schedule]], Schedule]:
    """Return a choice of the tiles, blocks of channels and sets of sums of block words."""

    def choose(op: Any, candidates: list[Schedule]) -> Schedule:
        chosen = [each for each in candidates if each.algorithm == "block-words"]
        assert chosen or op.operation.name != "pattern.conv2d"
        picked = choices.choice(chosen or candidates)
        return replace(picked, filters=choices.choice([4, 8, picked.filters])) if chosen else picked

    return choose


@pytest.mark.parametrize("seed", range(8))
def test_few_weights_by_blocks(seed: int) -> None:
    net, results = few_weights(seed, signed=False)
    for target in NATIVE:
        found = run_quantised(net, results, target, choose=blocks_drawn(random.Random(seed)))
        for value, wanted in zip(found, results, strict=True):
            np.testing.assert_array_equal(value, wanted.array, err_msg=target)
    check_reference(net, results)


@pytest.mark.parametrize("target", EMULATED)
@pytest.mark.parametrize("seed", range(3))
def test_few_weights_by_blocks_on_arm(seed: int, target: str) -> None:
    pytest.importorskip("unicorn")
    net, results = few_weights(seed, signed=True)
    found = run_quantised(net, results, target, choose=blocks_drawn(random.Random(seed)))
    for value, wanted in zip(found, results, strict=True):
        np.testing.assert_array_equal(value, wanted.array)


def test_places_that_share_an_element_fit_it() -> None:
    """All channels of a large tile have more words than 16 bits count."""
    generator, net = np.random.default_rng(0), QuantisedNet(True)
    x = net.quantise(net.input(generator.normal(size=(1, 160, 8, 60))), Scale(0.03, 100))
    weight, scales, bias = weights(generator, (4, 160, 3, 3))
    weight[generator.random(weight.shape) < 0.9] = 0
    y = net.dequantise(net.conv(x, weight, scales, bias, Scale(0.5, 9), pad=1))

    def widest(op: Any, candidates: list[Schedule]) -> Schedule:
        chosen = [each for each in candidates if each.algorithm == "block-words"]
        return replace(chosen[0], rows=8, columns=60, filters=160) if chosen else candidates[0]

    with pytest.raises(PatcError, match="a schedule with words of a block of 65535 or less, got 9"):
        run_quantised(net, [y], "aarch64-linux", choose=widest)


def few_channels(seed: int, signed: bool) -> tuple[QuantisedNet, list[Value]]:
    """Convolutions of planes of one to three channels, of small and large weights."""
    choices, generator = random.Random(seed), np.random.default_rng(seed)
    net = QuantisedNet(signed)
    channels, kernel, stride = choices.choice([1, 2, 3, 3]), choices.choice([2, 3, 5, 7]), choices.choice([1, 2, 3])
    size = choices.randint(8, 20), choices.randint(9, 41)
    x = net.quantise(net.input(generator.normal(size=(choices.choice([1, 2]), channels, *size))), random_scale(choices))
    weight, scales, bias = weights(generator, (choices.choice([5, 8, 22]), channels, kernel, kernel))
    weight[1:3] //= 3
    window = {"stride": stride, "pad": choices.randint(0, kernel // 2), "dilation": choices.choice([1, 1, 2])}
    window["pad"] *= window["dilation"]
    y = net.conv(x, weight, scales, bias, random_scale(choices), **window, activation=choices.choice(["none", "relu"]))
    return net, [net.dequantise(y), net.conv(x, weight, scales, None, None, **window)]


def windows_drawn(choices: random.Random) -> Callable[[Any, list[Schedule]], Schedule]:
    """Return a choice of the tiles and blocks of filters of words of windows."""

    def choose(op: Any, candidates: list[Schedule]) -> Schedule:
        chosen = [each for each in candidates if each.algorithm == "window-words"]
        assert chosen or op.operation.name != "pattern.conv2d"
        return choices.choice(chosen or candidates)

    return choose


@pytest.mark.parametrize("seed", range(8))
def test_words_of_windows(seed: int) -> None:
    net, results = few_channels(seed, signed=False)
    for target in NATIVE:
        found = run_quantised(net, results, target, choose=windows_drawn(random.Random(seed)))
        for value, wanted in zip(found, results, strict=True):
            np.testing.assert_array_equal(value, wanted.array, err_msg=target)


@pytest.mark.parametrize("target", EMULATED)
@pytest.mark.parametrize("seed", range(2))
def test_words_of_windows_on_arm(seed: int, target: str) -> None:
    pytest.importorskip("unicorn")
    net, results = few_channels(seed, signed=True)
    found = run_quantised(net, results, target, choose=windows_drawn(random.Random(seed)))
    for value, wanted in zip(found, results, strict=True):
        np.testing.assert_array_equal(value, wanted.array)


def depthwise(seed: int, signed: bool) -> tuple[QuantisedNet, list[Value]]:
    """Depthwise convolutions, of windows whose last columns are one or more."""
    choices, generator = random.Random(seed), np.random.default_rng(seed)
    net, channels = QuantisedNet(signed), choices.choice([4, 12])
    size = choices.randint(7, 16), choices.randint(7, 37)
    x = net.quantise(net.input(generator.normal(size=(choices.choice([1, 2]), channels, *size))), random_scale(choices))
    kernel, dilation = choices.choice([(1, 2), (3, 3), (3, 3), (5, 5), (2, 4), (3, 7)]), choices.choice([1, 1, 2])
    window = {"stride": choices.choice([1, 1, 2]), "pad": 0, "dilation": dilation, "groups": channels}
    window["dilation"] = 1 if kernel[1] * dilation > size[1] else dilation
    y = net.conv(x, *weights(generator, (channels, 1, *kernel)), random_scale(choices), **window, activation="relu")
    return net, [net.dequantise(y), net.conv(x, *weights(generator, (channels, 1, *kernel)), None, **window)]


def rows_drawn(choices: random.Random) -> Callable[[Any, list[Schedule]], Schedule]:
    """Return a choice of the tiles of words of rows."""

    def choose(op: Any, candidates: list[Schedule]) -> Schedule:
        chosen = [each for each in candidates if each.algorithm == "row-words"]
        assert chosen or op.operation.name != "pattern.conv2d"
        return choices.choice(chosen or candidates)

    return choose


@pytest.mark.parametrize("seed", range(8))
def test_depthwise_rows(seed: int) -> None:
    net, results = depthwise(seed, signed=False)
    for target in ("host", "x86-64-v4"):
        choose = rows_drawn(random.Random(seed)) if target == "host" else None
        found = run_quantised(net, results, target, choose=choose)
        for value, wanted in zip(found, results, strict=True):
            np.testing.assert_array_equal(value, wanted.array, err_msg=target)


@pytest.mark.parametrize("target", EMULATED)
@pytest.mark.parametrize("seed", range(3))
def test_depthwise_rows_on_arm(seed: int, target: str) -> None:
    pytest.importorskip("unicorn")
    net, results = depthwise(seed, signed=True)
    found = run_quantised(net, results, target, choose=rows_drawn(random.Random(seed)))
    for value, wanted in zip(found, results, strict=True):
        np.testing.assert_array_equal(value, wanted.array)


@pytest.mark.parametrize("algorithm", ["window-words", "dot-direct", "block-words"])
def test_neighbouring_weights_that_would_saturate(algorithm: str) -> None:
    """Products of pairs of bytes that are added up in 16 bits, at and beyond what these hold."""
    net = QuantisedNet(False)
    channels = 3 if algorithm == "window-words" else 8
    x = net.quantise(net.input(np.full((1, channels, 9, 20), 9.0)), Scale(0.01, 0))
    weight = np.zeros((8, channels, 3, 3), np.int8)
    for filter_, (first, second) in enumerate([(127, 1), (127, 2), (-127, -1), (-127, -2), (127, -127), (64, 64)]):
        weight[filter_, 0, 0], weight[filter_, 1] = (first, second, 0), second
        weight[filter_, 0, 1, 0] = first
    y = net.conv(x, weight, np.full(8, 1e-3, np.float32), None, None, pad=1)

    def choose(op: Any, candidates: list[Schedule]) -> Schedule:
        return next((each for each in candidates if each.algorithm == algorithm), candidates[0])

    for target in NATIVE:
        np.testing.assert_array_equal(run_quantised(net, [y], target, choose=choose)[0], y.array, err_msg=target)


def test_windows_are_whole_words() -> None:
    for channels, kernel in [(1, (2, 3)), (2, (3, 3)), (3, (7, 7))]:
        words = WindowWords.of(Window(kernel), channels)
        numbers = np.random.default_rng(channels).integers(0, 256, (words.places, channels)).astype(np.uint64)
        filled = [sum(int(byte) << 8 * place for place, byte in enumerate(row)) for row in numbers]
        made = []
        for word in range(words.count):
            moved = [
                filled[it.place] << it.bits if it.bits >= 0 else filled[it.place] >> -it.bits
                for it in words.pieces(word)
            ]
            made.append(sum(moved) & 0xFFFFFFFF)
        found = np.array(made, "<u4").view(np.uint8)[: numbers.size]
        np.testing.assert_array_equal(found, numbers.ravel())


@pytest.mark.parametrize("algorithm", ["block-words", "window-words"])
@pytest.mark.parametrize("threads", [2, 5])
def test_blocks_that_threads_divide(threads: int, algorithm: str) -> None:
    generator = np.random.default_rng(threads)
    net, channels = QuantisedNet(False), 32 if algorithm == "block-words" else 3
    x = net.quantise(net.input(generator.normal(size=(1, channels, 9, 14))), Scale(0.03, 100))
    weight, scales, bias = weights(generator, (32, channels, 3, 3))
    weight[generator.random((32, channels)) < (0.9 if algorithm == "block-words" else 0.0)] = 0
    y = net.conv(x, weight, scales, bias, Scale(0.05, 9), pad=1)

    def divided(op: Any, candidates: list[Schedule]) -> Schedule:
        chosen = next((each for each in candidates if each.algorithm == algorithm), candidates[0])
        is_made = op.operation.name == "pattern.conv2d"
        return (
            replace(chosen, rows=2, split="rows" if threads == 2 else "filters", threads=threads) if is_made else chosen
        )

    found = run_quantised(net, [net.dequantise(y)], "host", threads, divided)
    np.testing.assert_array_equal(found[0], net.dequantise(y).array)


@pytest.mark.parametrize("size", [(3, 3), (5, 5), (2, 4)])
def test_blocks_cover_each_weight_once(size: tuple[int, int]) -> None:
    generator = np.random.default_rng(size[0])
    for _ in range(20):
        mask = generator.random(size) < 0.5
        covered = np.zeros(size, int)
        for y, x, taken in blocks_of(mask):
            covered[y : y + 2, x : x + 2] += taken
        np.testing.assert_array_equal(covered, mask)


def test_entries_are_whole_turns_of_each_loop() -> None:
    weight = np.random.default_rng(0).integers(-1, 2, (6, 10, 3, 3)).astype(np.int8)
    words = Words(Window((3, 3)), 4, 20, 16, 4, True)
    cover = Cover.of(weight)
    pairs, ends = cover.entries(words, 6, 10, 2)
    counts = cover.counts(words, 6, 10)
    assert len(ends) == 3 * 6 * 2 + 1 and ends[0] == 0 and ends[-1] == len(pairs)
    np.testing.assert_array_equal(np.diff(ends), -(-counts // 2) * 2)
    assert counts.sum() == len(cover.weights) == np.count_nonzero(pairs[:, 1])
    assert pairs[:, 0].max() < words.size and not np.any(pairs[:, 0] % 16)


def test_two_entries_share_an_element_for_their_places() -> None:
    weight = np.random.default_rng(0).integers(-127, 128, (6, 9, 3, 3)).astype(np.int8)
    weight[:, ::2] = 0
    cover, words = Cover.of(weight), Words(Window((3, 3), pads=(1, 1, 1, 1)), 8, 9, 4, 4, False)
    pairs, ends = cover.entries(words, 6, 9, 2)
    twos, own = cover.entries(words, 6, 9, 1, 2)
    np.testing.assert_array_equal(own, ends // 2)
    places = twos[:, :1].view(np.uint32) >> np.uint32([0, 16]) & 0xFFFF
    np.testing.assert_array_equal(places.ravel(), pairs[:, 0])
    np.testing.assert_array_equal(twos[:, 1:].ravel(), pairs[:, 1])


def test_partners_are_small_together() -> None:
    generator = np.random.default_rng(0)
    counts = np.array([1, 0, 17, 40, 2])
    fours = generator.normal(scale=25, size=(counts.sum(), 4)).round().clip(-64, 64).astype(np.int8)
    slots, sizes = slots_of(fours.view("<i4").ravel(), counts, 128)
    assert not np.any(sizes % 2) and np.all(counts <= sizes) and sizes.sum() < 1.3 * counts.sum()
    ends = np.cumsum(counts)[:-1]
    for own, taken, size in zip(np.split(fours, ends), np.split(slots, ends), sizes, strict=True):
        placed = np.zeros((size, 4), int)
        placed[taken] = own
        assert len(np.unique(taken)) == len(own)
        halves = placed.reshape(-1, 2, 2, 2)  # pairs of entries x entries x halves of a word x weights
        assert all(np.maximum(sign * halves, 0).sum(axis=(1, 3)).max(initial=0) <= 128 for sign in (1, -1))


def test_no_partner_for_large_weights() -> None:
    words = np.full((5, 4), 64, np.int8).view("<i4").ravel()
    slots, sizes = slots_of(words, np.array([2, 3]), 128)
    np.testing.assert_array_equal(slots, [0, 2, 0, 2, 4])
    np.testing.assert_array_equal(sizes, [4, 6])


@pytest.mark.parametrize("scale", [10.0, 1000.0])
def test_entries_are_multiplied_together_where_that_is_faster(scale: float) -> None:
    """Small weights find partners, of which there are none for large ones."""
    generator = np.random.default_rng(0)
    weight = generator.normal(scale=scale, size=(9, 16, 3, 3)).round().clip(-127, 127).astype(np.int8)
    weight[generator.random((9, 16)) < 0.6] = 0
    dots, cover = products_of(get_target("x86-64-v3"), weight)
    assert dots.together == (2 if scale == 10.0 else 1)
    words = Words(Window((3, 3)), 4, 20, 8, 4, False)
    values, ends = cover.entries(words, 9, 16, 2, 1, dots.together)
    assert not np.any(ends % (2 * dots.together))
    kept = np.flatnonzero(values[:, 1])
    assert len(kept) == np.count_nonzero(cover.weights)
    np.testing.assert_array_equal(np.sort(values[kept, 1]), np.sort(cover.weights))


@pytest.mark.parametrize("weight", [64, -64])
def test_the_largest_sums_of_partners(weight: int) -> None:
    """Products of 255 with weights that are 128 together, and others that are so alone and have no partner; all are of
    four channels, which each block has together."""
    net, kernels = QuantisedNet(False), np.zeros((4, 4, 3, 3), np.int8)
    x = net.quantise(net.input(np.full((1, 4, 9, 20), 9.0)), Scale(0.01, 0))
    kernels[:, 0, (0, 2), (0, 2)], kernels[1:, 1:3, 0] = weight, (weight // 2, weight // 2, 0)
    kernels[2:, 3, 1:, 1:] = weight
    assert products_of(get_target("x86-64-v3"), kernels)[0].together == 2
    y = net.conv(x, kernels, np.full(4, 1e-3, np.float32), None, None, pad=1)
    for target in NATIVE:
        found = run_quantised(net, [y], target, choose=blocks_drawn(random.Random(0)))
        np.testing.assert_array_equal(found[0], y.array, err_msg=target)


def test_split_blocks_have_small_weights_and_the_same_sums() -> None:
    weight = np.random.default_rng(0).integers(-127, 128, (5, 6, 3, 3)).astype(np.int8)
    weight[0] = 127
    weight[1] = -127
    whole = Cover.of(weight)
    parts = whole.split(128)
    pairs = parts.weights.view(np.int8).astype(int).reshape(-1, 2)
    assert max(np.maximum(sign * pairs, 0).sum(axis=1).max() for sign in (1, -1)) <= 128
    assert len(parts.weights) < 1.5 * len(whole.weights)  # signs that differ saturate nothing
    totals = []
    for cover in (whole, parts):
        total = np.zeros((5, 6, 2, 2, 4), int)
        place = (cover.filters, cover.channels, *cover.places.T)
        np.add.at(total, place, cover.weights.view(np.int8).reshape(-1, 4))
        totals.append(total)
    np.testing.assert_array_equal(*totals)
