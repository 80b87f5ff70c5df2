"""The loop nests compute what the ops mean: compiled code against the float64 interpreter, on random layers.

Each layer stands in a small net, because what is around it decides the layouts that it reads and writes: its input may
come from the caller or from another layer, its result may go to the caller, to a window with a halo or with stride 2,
or to a pool. Schedules are the chosen ones, or random legal ones. Results are within `native.BOUNDS` of the largest one.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native import BOUNDS, NATIVE_TARGETS, Net, Retile, check
from networks import Value

from patc.dialects.schedules import Schedule
from patc.passes.ir.windows import Window
from patc.passes.kernels import tiling
from patc.passes.kernels.builder import pieces

ACTIVATIONS = ('"none"', '"relu"', "#pattern.clamp<-5.000000e-01 : f32, 1.500000e+00 : f32>")
RANDOMS = st.randoms(use_true_random=False)
REPRODUCIBLE = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


SPARSE_KERNELS = [(3, 3), (3, 3), (3, 3), (5, 5), (1, 3), (2, 2), (1, 1)]
DENSE_KERNELS = [(1, 1), (3, 3), (3, 3), (5, 5), (7, 7), (1, 3), (5, 2)]
POOL_KERNELS = [(1, 1), (2, 2), (3, 3), (3, 3), (5, 1), (4, 7)]
RandomNet: TypeAlias = tuple[Net, Value, list[Value]]  # a value to check, and others that come from it

# Rows, strips and vectors

LANES = st.sampled_from([4, 8, 16])


@given(st.integers(1, 200), LANES)
def test_a_row_is_cut_into_vectors(width: int, lanes: int) -> None:
    *whole, last = chunks = tiling.cut(width, lanes)
    assert [chunk.column for chunk in chunks] == [number * lanes for number in range(len(chunks))]
    assert sum(chunk.valid for chunk in chunks) == width
    assert all(chunk.lanes == chunk.valid == lanes for chunk in whole)
    assert last.lanes in (4, 8, 16) and last.valid <= last.lanes <= lanes
    assert last.lanes == 4 or last.valid > last.lanes // 2


@given(st.integers(1, 200), st.integers(1, 70), LANES)
def test_strips_cover_a_row_once(width: int, columns: int, lanes: int) -> None:
    strips = tiling.strips(width, columns, lanes)
    places = []
    for strip in strips:
        starts = [strip.start + number * strip.columns for number in range(strip.count)]
        places += [
            start + chunk.column + lane for start in starts for chunk in strip.chunks for lane in range(chunk.valid)
        ]
    assert sorted(places) == list(range(width))
    assert width <= tiling.covered_by(strips) < width + lanes
    assert tiling.covered(width, lanes) == tiling.covered_by(tiling.strips(width, width, lanes))
    assert tiling.vectors(columns, lanes) == len(tiling.cut(columns, lanes))


@given(st.integers(0, 300), LANES)
def test_a_run_is_filled_with_vectors_that_fit(count: int, lanes: int) -> None:
    sizes = pieces(count, lanes)
    assert sum(sizes) == count
    assert sizes == sorted(sizes, reverse=True)
    assert {size for size in sizes if sizes.count(size) > 1} <= {lanes}


# Random layers


@st.composite
def windows(draw: st.DrawFn, kernels: Sequence[tuple[int, int]]) -> tuple[Window, tuple[int, int]]:
    """Draw a window and the height and width of an input that it fits."""
    kernel = draw(st.sampled_from(kernels))
    strides = draw(st.tuples(st.integers(1, 3), st.sampled_from([1, 1, 2, 2, 3, 4])))
    dilations = draw(st.tuples(*[st.sampled_from([1, 1, 2, 3])] * 2))
    spans = [dilations[axis] * (kernel[axis] - 1) + 1 for axis in (0, 1)]
    if draw(st.booleans()):
        top, left = bottom, right = spans[0] // 2, spans[1] // 2
    else:
        top, left, bottom, right = (draw(st.integers(0, spans[axis])) for axis in (0, 1, 0, 1))
    height = draw(st.integers(max(1, spans[0] - top - bottom), 24))
    width = draw(st.integers(max(1, spans[1] - left - right), 70))
    return Window(kernel, strides, (top, left, bottom, right), dilations), (height, width)


def random_source(net: Net, choices: random.Random) -> Value:
    """Return the input itself, or what another layer makes of it: its layout suits its users, then."""
    return net.input if choices.random() < 0.5 else net.activate(net.input, choices.choice(ACTIVATIONS))


def random_residual(net: Net, shape: tuple[int, ...], choices: random.Random) -> tuple[Value | None, list[Value]]:
    """Return a residual or None, and the results of windows that give the residual its layout."""
    if choices.random() < 0.6:
        return None, []
    residual = net.new_input(shape)
    if choices.random() < 0.4:
        return residual, []
    residual = net.activate(residual)
    return residual, random_readers(net, residual, choices)


def random_readers(net: Net, value: Value, choices: random.Random) -> list[Value]:
    """Add users that decide the layout of a value, and return their results."""
    sets = [[], ["conv"], ["even"], ["max"], ["global"], ["conv", "even"], ["conv", "max"], ["even", "global"]]
    return [random_reader(net, value, reader, choices) for reader in choices.choice(sets)]


def random_reader(net: Net, value: Value, reader: str, choices: random.Random) -> Value:
    channels, *size = value.shape[1:]
    if reader == "global":
        return net.global_pool(value)
    top, left, bottom, right = (choices.randrange(3) for _ in range(4))
    if reader == "max":
        top, left, bottom, right = (min(1, size[axis] // 2) for axis in (0, 1, 0, 1))
    kernel = (min(3, size[0] + top + bottom), min(3, size[1] + left + right))
    window = Window(kernel, pads=(top, left, bottom, right))
    if reader == "max":
        strides = (choices.randint(1, 2), choices.randint(1, 2))
        return net.window_pool("max", value, replace(window, strides=strides))
    weight = np.random.default_rng(0).standard_normal((channels, 1, *kernel))
    strides = (1, 2) if reader == "even" else (1, 1)
    return net.conv(value, weight, strides=strides, pads=window.pads, groups=channels)


def random_bias(filters: int, choices: random.Random, rng: np.random.Generator) -> np.ndarray | None:
    return rng.standard_normal(filters, np.float32) if choices.random() < 0.6 else None


def random_fkw(
    rng: np.random.Generator, filters: int, channels: int, patterns: int, entries: int, depth: int, most: int
) -> list[np.ndarray]:
    """Draw FKW arrays: filters keep up to `most` kernels of a pattern, maybe none; channels may repeat."""
    counts = rng.integers(0, most + 1, (filters, patterns))
    stride = np.pad(np.cumsum(counts, axis=1), ((0, 0), (1, 0)))
    offset = np.pad(np.cumsum(stride[:, -1]), (1, 0)).astype(np.int32)
    values = rng.standard_normal((offset[-1], entries), np.float32)
    index = rng.integers(0, channels - depth + 1, offset[-1])
    width = rng.choice([np.int16, np.int32])
    return [values, index.astype(width), offset, stride.astype(width), rng.permutation(filters).astype(width)]


def random_schedules(choices: random.Random) -> Retile | None:
    """Return what keeps the chosen schedules, or what draws random legal ones."""
    return None if choices.random() < 0.4 else lambda op, chosen: random_schedule(op, chosen, choices)


def random_schedule(op: Any, chosen: Schedule, choices: random.Random) -> Schedule:
    """Draw any legal tile: whole vectors in all strips but the last, blocks of filters that divide a group."""
    lanes = choices.choice([4, 8, 16])
    chosen = replace(chosen, lanes=lanes, split=choices.choice(["rows", "filters"]))
    shape = list(op.result.type.shape)
    if chosen.algorithm == "global-pool":
        return chosen
    if chosen.algorithm == "gemv":
        return replace(chosen, rows=choices.randint(1, 5), filters=choices.randint(1, min(shape[1], 9)))
    is_sparse = "format" in op.attributes
    if is_sparse:
        chosen = replace(chosen, algorithm=choices.choice(["pattern-direct", "input-stationary", "dense-direct"]))
    elif chosen.algorithm == "winograd":
        filters = choices.randint(1, min(shape[1], 8))
        return replace(chosen, rows=choices.randint(1, 30), columns=lanes * choices.randint(1, 3), filters=filters)
    whole = [width for width in range(4, 40, 4) if is_whole(tiling.cut(width, lanes))]
    columns = choices.choice([shape[-1], shape[-1] + 3, *whole])
    filters, sums = 1, 1
    if chosen.algorithm in ("dense-direct", "depthwise-direct"):
        group = shape[1] if is_sparse else shape[1] // op.groups.value
        filters = choices.choice([size for size in range(1, group + 1) if group == shape[1] or group % size == 0])
    if chosen.algorithm == "pattern-direct":
        sums = choices.randint(1, 4)
    vectors = tiling.vectors(min(columns, shape[-1]), lanes) * filters * sums
    rows = choices.randint(1, max(1, min(9, 30 // vectors)))
    if chosen.algorithm == "input-stationary":
        filters = choices.randint(1, shape[1])
    return replace(chosen, rows=rows, columns=columns, filters=filters, sums=sums)


def is_whole(chunks: Sequence[tiling.Chunk]) -> bool:
    return all(chunk.valid == chunk.lanes for chunk in chunks)


def check_random(case: RandomNet | None, choices: random.Random) -> None:
    """Check a net of any target, threads and schedules; its value is a result, or is read by others alone."""
    if case is None:
        return
    net, y, others = case
    results = [*others, y] if choices.random() < 0.6 or not others else others
    check(
        net,
        results,
        seed=choices.getrandbits(32),
        target=choices.choice(NATIVE_TARGETS),
        threads=choices.choice([1, 1, 2, 3]),
        retile=random_schedules(choices),
        dtype=choices.choice(["f32", "f32", "f16"]),
    )


def random_sparse(window: Window, size: tuple[int, int], choices: random.Random) -> RandomNet | None:
    """Return a net with a random pattern-pruned convolution."""
    rng = np.random.default_rng(choices.getrandbits(32))
    depth = 9 if window.kernel == (1, 1) else choices.choice([1, 1, 1, 2])
    taps = depth * window.kernel[0] * window.kernel[1]
    entries = choices.randint(2, min(6, taps))
    masks = {sum(1 << tap for tap in choices.sample(range(taps), entries)) for _ in range(choices.randint(1, 6))}
    filters, channels = choices.randint(1, 9), depth + choices.randint(0, 9)
    arrays = random_fkw(rng, filters, channels, len(masks), entries, depth, choices.choice([1, 1, 2, 5]))
    if not len(arrays[0]):
        return None  # a layer without weights stays dense
    net = Net((choices.randint(1, 3), channels, *size))
    x = random_source(net, choices)
    residual, others = random_residual(net, (x.shape[0], filters, *window.result_size(size)), choices)
    kernel = (*window.kernel, depth) if depth > 1 else window.kernel
    bias = random_bias(filters, choices, rng)
    y = net.sparse_conv(
        x,
        arrays,
        kernel,
        choices.sample(sorted(masks), len(masks)),
        window,
        bias,
        residual,
        choices.choice(ACTIVATIONS),
    )
    return net, y, others + random_readers(net, y, choices)


def random_dense(window: Window, size: tuple[int, int], choices: random.Random) -> RandomNet:
    """Return a net with a random dense, grouped or depthwise convolution."""
    rng = np.random.default_rng(choices.getrandbits(32))
    groups, rows, columns = choices.choice(
        [
            (1, choices.randint(1, 9), choices.randint(1, 9)),
            (3, choices.randint(1, 6), 2),
            (choices.randint(2, 6), 1, 1),
        ]
    )
    net = Net((choices.randint(1, 3), groups * columns, *size))
    x = random_source(net, choices)
    residual, others = random_residual(net, (x.shape[0], groups * rows, *window.result_size(size)), choices)
    y = net.conv(
        x,
        rng.standard_normal((groups * rows, columns, *window.kernel)),
        random_bias(groups * rows, choices, rng),
        residual,
        strides=window.strides,
        pads=window.pads,
        dilations=window.dilations,
        groups=groups,
        activation=choices.choice(ACTIVATIONS),
    )
    return net, y, others + random_readers(net, y, choices)


def random_pool(window: Window, size: tuple[int, int], choices: random.Random) -> RandomNet | None:
    """Return a net with a random pool."""
    kind = choices.choice(["max", "avg"])
    if kind == "max" and window.taps_inside(size).min() == 0:
        return None  # a window that sees nothing has no maximum
    net = Net((choices.randint(1, 3), choices.randint(1, 7), *size))
    x = random_source(net, choices)
    others = random_readers(net, x, choices)
    y = net.window_pool(kind, x, window, choices.random() < 0.5)
    return net, y, others + random_readers(net, y, choices)


def random_linear(choices: random.Random) -> RandomNet:
    """Return a net of two random linear layers."""
    rng = np.random.default_rng(choices.getrandbits(32))
    images, features, filters = choices.randint(1, 9), choices.randint(1, 80), choices.randint(1, 20)
    net = Net((images, features))
    weight, bias = rng.standard_normal((filters, features)), random_bias(filters, choices, rng)
    y = net.dense_layer(net.input, weight, bias, choices.choice(ACTIVATIONS))
    return net, y, [net.dense_layer(y, rng.standard_normal((5, filters)))]


def random_elementwise(choices: random.Random) -> RandomNet:
    """Return a net of random additions and activations."""
    shape = (choices.randint(1, 3), choices.randint(1, 7), choices.randint(1, 20), choices.randint(1, 70))
    net = Net(shape)
    lhs = random_source(net, choices)
    others = random_readers(net, lhs, choices)
    rhs = choices.choice([lhs, net.input, net.new_input(shape)])
    others += random_readers(net, rhs, choices)
    activation = choices.choice(ACTIVATIONS)
    y = net.activate(lhs, activation)
    if choices.random() < 0.6:
        y = net.op("pattern.add", [lhs, rhs], f"activation = {activation}", shape)
    others += random_readers(net, y, choices)
    z = net.activate(y, choices.choice(ACTIVATIONS))
    return net, choices.choice([z, net.flatten(z)]), others


@given(windows(SPARSE_KERNELS), RANDOMS)
@settings(REPRODUCIBLE, max_examples=40)
def test_sparse_convolutions(case: tuple[Window, tuple[int, int]], choices: random.Random) -> None:
    check_random(random_sparse(*case, choices), choices)


@given(windows(DENSE_KERNELS), RANDOMS)
@settings(REPRODUCIBLE, max_examples=40)
def test_dense_convolutions(case: tuple[Window, tuple[int, int]], choices: random.Random) -> None:
    check_random(random_dense(*case, choices), choices)


@given(windows(POOL_KERNELS), RANDOMS)
@settings(REPRODUCIBLE, max_examples=25)
def test_pools(case: tuple[Window, tuple[int, int]], choices: random.Random) -> None:
    check_random(random_pool(*case, choices), choices)


@given(RANDOMS)
@settings(REPRODUCIBLE, max_examples=12)
def test_linear_layers(choices: random.Random) -> None:
    check_random(random_linear(choices), choices)


@given(RANDOMS)
@settings(REPRODUCIBLE, max_examples=20)
def test_elementwise_layers(choices: random.Random) -> None:
    check_random(random_elementwise(choices), choices)


# Layers that stand at an end of something

RNG = np.random.default_rng(0)


def weights(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, np.float32)


def conv(net: Net, x: Value, kernel: int = 3, pads: int = 1, stride: int = 1, **rest: Any) -> Value:
    weight = weights(3, x.shape[1], kernel, kernel)
    return net.conv(x, weight, pads=(pads,) * 4, strides=(stride, stride), **rest)


MakeNet: TypeAlias = Callable[[Net], list[Value]]

CASES: dict[str, tuple[tuple[int, ...], MakeNet]] = {
    "one pixel": ((1, 1, 1, 1), lambda net: [conv(net, net.input)]),
    "one column": ((2, 3, 19, 1), lambda net: [conv(net, conv(net, net.input))]),
    "one row": ((2, 3, 1, 35), lambda net: [conv(net, conv(net, net.input), stride=2)]),
    "stride beyond the kernel": ((1, 2, 13, 31), lambda net: [conv(net, net.input, 1, 0, 5)]),
    "patches of 4x4": ((1, 3, 12, 36), lambda net: [conv(net, net.input, 4, 0, 4)]),
    "global pool, then a window with pads": ((1, 3, 5, 5), lambda net: [conv(net, net.global_pool(net.input))]),
    "global pool of a global pool": ((2, 3, 5, 5), lambda net: [net.global_pool(net.global_pool(net.input))]),
    "global pool, then stride 2": ((2, 3, 5, 5), lambda net: [conv(net, net.global_pool(net.input), 1, 0, 2)]),
    "activation alone": ((1, 3, 5, 7), lambda net: [net.activate(net.input)]),
    "nothing": ((1, 3, 5, 7), lambda net: [net.input]),
    "result twice": ((1, 3, 5, 7), lambda net: [y := conv(net, net.input), y]),
    "result and flattened": ((1, 3, 5, 7), lambda net: [y := conv(net, net.input), net.flatten(y)]),
    "argument is a result": ((1, 3, 5, 7), lambda net: [conv(net, net.input), net.input]),
    "flattened argument": ((2, 3, 5, 7), lambda net: [net.dense_layer(net.flatten(net.input), weights(4, 105))]),
    "constant is added": ((1, 3, 5, 7), lambda net: [net.add(conv(net, net.input), net.constant(weights(1, 3, 5, 7)))]),
    "max pool and mean of an argument": ((1, 3, 5, 7), lambda net: max_and_mean(net, net.input)),
    "max pool and mean of a result": ((1, 3, 5, 7), lambda net: max_and_mean(net, conv(net, net.input))),
}


def max_and_mean(net: Net, x: Value) -> list[Value]:
    return [net.window_pool("max", x, Window((3, 3), pads=(1, 1, 1, 1))), net.global_pool(x), net.activate(x)]


@pytest.mark.parametrize("case", CASES)
def test_ends(case: str) -> None:
    shape, make = CASES[case]
    net = Net(shape)
    check(net, make(net), threads=1)


# Nothing outside the buffers is read, either.

FENCED: dict[str, tuple[tuple[int, ...], MakeNet]] = {
    "argument read where it is": ((1, 2, 5, 16), lambda net: [conv(net, net.input, pads=0)]),
    "argument pooled where it is": (
        (1, 2, 5, 16),
        lambda net: [conv(net, net.window_pool("max", net.input, Window((3, 3))))],
    ),
    "odd rows": ((1, 2, 2, 17), lambda net: [conv(net, net.input)]),
    "odd rows of a residual": (
        (1, 2, 3, 17),
        lambda net: [conv(net, net.input, residual=net.new_input((1, 3, 3, 17)))],
    ),
    "result read again": ((1, 2, 7, 18), lambda net: [y := conv(net, net.input, pads=0), conv(net, y, pads=0)]),
    "wide strides": ((1, 1, 3, 144), lambda net: [conv(net, net.activate(net.input), 3, 0, 16)]),
    "linear": ((3, 37), lambda net: [net.dense_layer(net.input, weights(5, 37))]),
    "flattened": ((2, 3, 3, 3), lambda net: [net.dense_layer(net.flatten(conv(net, net.input)), weights(5, 27))]),
    "global pool": ((1, 3, 5, 7), lambda net: [conv(net, net.global_pool(net.input), 1, 0)]),
}


def whole_rows(op: Any, chosen: Schedule) -> Schedule:
    """Return the tile of one row, whose last vector may be nearly empty."""
    return replace(chosen, rows=1, columns=op.result.type.shape[-1])


@pytest.fixture(scope="module")
def fenced_runs() -> dict[str, str]:
    """What became of each fenced case: "ok", an error, or the number of a signal."""
    code = "import test_kernels; test_kernels.run_fenced()"
    run = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return dict(line.split(": ", 1) for line in run.stdout.splitlines())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that share what is loaded")
@pytest.mark.parametrize("case", FENCED)
def test_reads_stay_inside_the_buffers(case: str, fenced_runs: dict[str, str]) -> None:
    assert fenced_runs[case] == "ok"


def run_fenced() -> None:
    """Run each case in a process of its own and print what became of it."""
    for case, (shape, make) in FENCED.items():
        process = os.fork()
        if process == 0:
            os._exit(_run_fenced(shape, make))
        _, status = os.waitpid(process, 0)
        signal = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        print(f"{case}: {'ok' if status == 0 else 'error' if signal is None else f'signal {signal}'}", flush=True)


def _run_fenced(shape: tuple[int, ...], make: MakeNet) -> int:
    try:
        for target in NATIVE_TARGETS:
            for retile in (None, whole_rows):
                for dtype in BOUNDS:
                    net = Net(shape)
                    check(net, make(net), fenced=True, target=target, retile=retile, dtype=dtype)
    except Exception:
        traceback.print_exc()
        return 1
    return 0
