"""The loop nests compute what the ops mean: compiled code against the float64 interpreter, on random layers.

Each layer stands in a small net, because what is around it decides the layouts that it reads and writes: its input may
come from the caller or from another layer, its result may go to the caller, to a window with a halo or with stride 2,
or to a pool. Schedules are the chosen ones, or random legal ones. Results are within `native.BOUNDS` of the largest one.
"""

from __future__ import annotations

import os
import random
import traceback
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from edge_layers import CASES, FENCED, MakeNet
from hypothesis import given, settings
from hypothesis import strategies as st
from native import BOUNDS, NATIVE_TARGETS, Net, check
from random_layers import (
    DENSE_KERNELS,
    POOL_KERNELS,
    RANDOMS,
    REPRODUCIBLE,
    SPARSE_KERNELS,
    RandomNet,
    random_dense,
    random_elementwise,
    random_fkw,
    random_linear,
    random_pool,
    random_sparse,
    windows,
)
from repository import run_function
from tile_schedules import random_filter_lanes, random_implicit_gemm, random_schedules

from patc.dialects.attributes import Layout
from patc.dialects.schedules import Schedule
from patc.integers import ceil_div
from patc.passes.ir.windows import Window
from patc.passes.kernels import tiling
from patc.passes.kernels.builder import pieces
from patc.targets import get_target, host_features

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


@given(st.integers(1, 16), st.integers(1, 70), LANES, st.sampled_from([4, 8, 16]), st.integers(1, 9))
def test_rows_of_a_tile_share_vectors(rows: int, columns: int, lanes: int, pipe_lanes: int, taps: int) -> None:
    chunks = tiling.cut(columns, lanes)
    packing = tiling.packing(rows, chunks, lanes, pipe_lanes, taps)
    pieces = [piece for pack in packing.packs for piece in pack.pieces]
    assert sorted(pieces) == [(row, number) for row in range(rows) for number in range(len(packing.chunks))]
    assert sum(chunk.valid for chunk in packing.chunks) == columns
    for pack in packing.packs:
        (width,) = {packing.chunks[number].lanes for _, number in pack.pieces}
        assert len(pack.pieces) * width <= pack.part
        assert pack.lanes <= lanes
        assert taps % pack.taps == 0
        assert pack.taps == 1 or pack.lanes <= pipe_lanes


@pytest.mark.parametrize(
    ("rows", "columns", "pipe_lanes", "lanes"),
    [
        (7, 7, 16, [16, 16, 16, 8]),
        (7, 7, 8, [8] * 7),
        (4, 28, 16, [16] * 7),  # 8 and 4 columns instead of 12 in a vector of 16
        (1, 28, 16, [16, 16]),
        (2, 56, 16, [16] * 7),
        (7, 14, 16, [16] * 7),
    ],
)
def test_no_part_of_a_pipe_stays_empty(rows: int, columns: int, pipe_lanes: int, lanes: list[int]) -> None:
    packs = tiling.packing(rows, tiling.cut(columns, 16), 16, pipe_lanes, 1).packs
    assert [pack.lanes for pack in packs] == lanes


@pytest.mark.parametrize(
    ("rows", "columns", "pipe_lanes", "taps", "beside"),
    [
        (1, 49, 16, 4, [1, 1, 1, 4]),
        (1, 49, 8, 4, [1, 1, 1, 2]),
        (1, 49, 16, 3, [1, 1, 1, 1]),
        (1, 49, 16, 6, [1, 1, 1, 2]),
        (7, 7, 16, 4, [1, 1, 1, 2]),
        (1, 20, 4, 4, [1, 1]),
    ],
)
def test_taps_lie_beside_each_other_in_what_columns_leave(
    rows: int, columns: int, pipe_lanes: int, taps: int, beside: list[int]
) -> None:
    packs = tiling.packing(rows, tiling.cut(columns, 16), 16, pipe_lanes, taps).packs
    assert [pack.taps for pack in packs] == beside


@given(st.integers(0, 300), LANES)
def test_a_run_is_filled_with_vectors_that_fit(count: int, lanes: int) -> None:
    sizes = pieces(count, lanes)
    assert sum(sizes) == count
    assert sizes == sorted(sizes, reverse=True)
    assert {size for size in sizes if sizes.count(size) > 1} <= {lanes}


# Random layers


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


@given(windows(SPARSE_KERNELS), RANDOMS)
@settings(REPRODUCIBLE, max_examples=40)
def test_sparse_convolutions(case: tuple[Window, tuple[int, int]], choices: random.Random) -> None:
    check_random(random_sparse(*case, choices), choices)


@given(windows(DENSE_KERNELS), RANDOMS)
@settings(REPRODUCIBLE, max_examples=40)
def test_dense_convolutions(case: tuple[Window, tuple[int, int]], choices: random.Random) -> None:
    check_random(random_dense(*case, choices), choices)


@pytest.mark.parametrize("sums", [1, 4])
@pytest.mark.parametrize(("width", "rows"), [(7, 7), (12, 3), (28, 4), (9, 5), (23, 2)])
def test_rows_share_vectors_where_inputs_stay(width: int, rows: int, sums: int) -> None:
    """Taps of a kernel do, or not. Results with a halo, a residual and even and odd columns apart; pipes of 16 and of 8 lanes."""
    choices, rng = random.Random(width), np.random.default_rng(width)
    masks = [0b000011011, 0b110110000, 0b010011010, 0b101000101]
    net = Net((1, 6, ceil_div(9, rows) * rows, width))
    x = net.activate(net.input)
    window = Window((3, 3), pads=(1, 1, 1, 1))
    y = net.sparse_conv(x, random_fkw(rng, 5, 6, 4, 4, 1, 2), (3, 3), masks, window, rng.standard_normal(5))
    z = net.sparse_conv(y, random_fkw(rng, 5, 5, 4, 4, 1, 1), (3, 3), masks, window, None, y)
    strided = Window((3, 3), strides=(2, 2), pads=(1, 1, 1, 1))
    last = net.sparse_conv(z, random_fkw(rng, 4, 5, 4, 4, 1, 1), (3, 3), masks, strided, None)

    def retile(op: Any, chosen: Schedule) -> Schedule:
        if op.operation.name != "pattern.sparse_conv2d":
            return chosen
        beside = sums if op.result.type.shape[2] % rows == 0 else 1  # rows of two tiles have one order
        return replace(chosen, algorithm="input-stationary", rows=rows, columns=width, lanes=16, sums=beside, filters=3)

    for name in ("x86-64-v3", "x86-64-v4", "x86-64-v4:znver5"):
        if host_features().issuperset(get_target(name).features):
            check(net, [y, last], target=name, threads=choices.choice([1, 2]), retile=retile)


@pytest.mark.parametrize("seed", range(8))
def test_packed_patterns(seed: int) -> None:
    """Blocks of channels, strips that share vectors, windows wider than those, residuals, images and threads."""
    choices, rng = random.Random(seed), np.random.default_rng(seed)
    kernel = choices.choice([(3, 3), (3, 3), (1, 7), (5, 2)])
    taps, entries = kernel[0] * kernel[1], choices.choice([2, 4])
    masks = sorted({sum(1 << tap for tap in choices.sample(range(taps), entries)) for _ in range(6)})
    filters, channels = choices.randint(2, 6), choices.choice([5, 40, 90])
    net = Net((choices.randint(1, 2), channels, choices.randint(3, 17), choices.randint(4, 31)))
    x = net.activate(net.input)
    window = Window(kernel, pads=(1, 2, kernel[0], 1))
    arrays = random_fkw(rng, filters, channels, len(masks), entries, 1, 2)
    y = net.sparse_conv(x, arrays, kernel, masks, window, rng.standard_normal(filters), activation='"relu"')
    arrays = random_fkw(rng, filters, channels, len(masks), entries, 1, 1)
    z = net.sparse_conv(x, arrays, kernel, masks, window, None, y)

    def retile(op: Any, chosen: Schedule) -> Schedule:
        if op.operation.name != "pattern.sparse_conv2d":
            return chosen
        lanes = choices.choice([8, 8, 16])
        return replace(
            chosen, algorithm="pattern-packed", rows=choices.randint(1, 17), columns=lanes, lanes=lanes, sums=1
        )

    check(net, [y, z], fenced=True, threads=choices.choice([1, 2]), retile=retile)


@pytest.mark.parametrize("seed", range(10))
def test_filters_in_lanes(seed: int) -> None:
    """Strides, dilations, groups, residuals, halos and several images, in blocks and tiles of any size."""
    choices, rng = random.Random(seed), np.random.default_rng(seed)
    groups, filters = choices.choice([(1, 9), (1, 16), (1, 35), (2, 16)])
    stride, dilation, kernel = (
        choices.choice([1, 1, 2, 3]),
        choices.choice([1, 2]),
        choices.choice([(1, 1), (3, 3), (1, 7)]),
    )
    net = Net((choices.randint(1, 2), 3 * groups, choices.randint(7, 12), choices.randint(7, 30)))
    x = net.activate(net.input)
    weight = rng.standard_normal((groups * filters, 3, *kernel))
    window = {"strides": (stride, stride), "dilations": (dilation, dilation), "pads": (2, 6, 1, 7), "groups": groups}
    y = net.conv(x, weight, rng.standard_normal(len(weight)), **window, activation='"relu"')
    z = net.conv(x, weight, None, y, **window)

    def retile(op: Any, chosen: Schedule) -> Schedule:
        chosen = replace(chosen, lanes=choices.choice([4, 8] if filters >= 16 else [4]))
        return random_filter_lanes(op, chosen, choices) if op.operation.name == "pattern.conv2d" else chosen

    z = net.conv(z, rng.standard_normal((16, z.shape[1], 3, 3)))
    check(net, [y, z], fenced=True, threads=choices.choice([1, 2]), retile=retile)


@pytest.mark.parametrize("seed", range(10))
def test_implicit_gemm(seed: int) -> None:
    """Ranges of channels and of taps, windows that reach far beyond the plane, halos, strides, images and threads."""
    choices, rng = random.Random(seed), np.random.default_rng(seed)
    stride, dilation, kernel = choices.choice(
        [(1, 1, (3, 3)), (1, 4, (3, 3)), (2, 1, (3, 3)), (1, 1, (1, 7)), (1, 5, (5, 3))]
    )
    channels = choices.choice([32, 70, 240]) if kernel != (5, 3) else 70
    net = Net((choices.randint(1, 2), channels, choices.randint(5, 9), choices.randint(5, 25)))
    x = net.activate(net.input)
    pads = tuple((size - 1) // 2 * dilation for size in kernel) * 2
    window = {"strides": (stride, stride), "dilations": (dilation, dilation), "pads": pads}
    weight = rng.standard_normal((35, channels, *kernel))
    y = net.conv(x, weight, rng.standard_normal(35), **window, activation='"relu"')
    z = net.conv(x, weight, None, y, **window)

    def retile(op: Any, chosen: Schedule) -> Schedule:
        if op.operation.name != "pattern.conv2d" or op.result.type.shape[1] != 35:
            return chosen
        return random_implicit_gemm(op, replace(chosen, lanes=choices.choice([4, 8, 16]), sums=1), choices)

    z = net.conv(z, rng.standard_normal((16, z.shape[1], 3, 3)))
    check(
        net,
        [y, z],
        fenced=True,
        target=choices.choice(NATIVE_TARGETS),
        threads=choices.choice([1, 2, 3]),
        retile=retile,
    )


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


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("kernel", "stride"), [(1, 2), (3, 2), (3, 3), (5, 4)])
def test_panels_of_planes_that_others_read_as_they_are(kernel: int, stride: int, seed: int) -> None:
    """Layers with strides, whose inputs are in one phase for the sake of others."""
    choices, rng = random.Random(f"{kernel} {stride} {seed}"), np.random.default_rng(seed)
    net = Net((choices.randint(1, 2), 70, choices.randint(5, 9), choices.randint(5, 45)))
    x = net.activate(net.input)
    near = choices.choice([1, 3])
    y = net.conv(x, rng.standard_normal((3, 70, near, near)), pads=(near // 2,) * 4)
    z = net.conv(x, rng.standard_normal((35, 70, kernel, kernel)), pads=(kernel // 2,) * 4, strides=(stride, stride))

    def retile(op: Any, chosen: Schedule) -> Schedule:
        if op.operation.name != "pattern.conv2d" or op.result.type.shape[1] != 35:
            return chosen
        assert Layout.of(op.input.type).phases == 1
        return random_implicit_gemm(op, replace(chosen, lanes=choices.choice([4, 8, 16]), sums=1), choices)

    check(net, [y, z], fenced=True, threads=choices.choice([1, 2]), retile=retile)


@pytest.mark.parametrize("case", CASES)
def test_ends(case: str) -> None:
    shape, make = CASES[case]
    net = Net(shape)
    check(net, make(net), threads=1)


# Nothing outside the buffers is read, either.


def whole_rows(op: Any, chosen: Schedule) -> Schedule:
    """Return the tile of one row, whose last vector may be nearly empty."""
    return replace(chosen, rows=1, columns=op.result.type.shape[-1])


@pytest.fixture(scope="module")
def fenced_runs() -> dict[str, str]:
    """What became of each fenced case: "ok", an error, or the number of a signal."""
    return dict(line.split(": ", 1) for line in run_function(__file__, "run_fenced()").splitlines())


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
