"""pattern-schedule: products are added up in one order for any number of threads, so that results have the same bits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from native import NATIVE_TARGETS, Net, check, lower
from networks import Value
from random_layers import random_fkw

from patc.diagnostics import PatcError
from patc.dialects.schedules import Schedule
from patc.passes.algorithms.base import Algorithm
from patc.passes.algorithms.host.implicit_gemm import ImplicitGemm
from patc.passes.algorithms.host.input_stationary import InputStationary
from patc.passes.ir.windows import Window
from patc.targets import get_target

MASKS = [0b000011011, 0b110110000, 0b010011010, 0b101000101]


def groups(filters: int, channels: int, size: int) -> tuple[Net, Value]:
    """Return a pruned 1x1 layer whose kernels span nine channels."""
    net, rng = Net((1, channels, size, size)), np.random.default_rng(size)
    arrays = random_fkw(rng, filters, channels, len(MASKS), 4, 9, channels // 40)
    return net, net.sparse_conv(net.activate(net.input), arrays, (1, 1, 9), MASKS, Window((1, 1)))


def patterns(filters: int, channels: int, size: int) -> tuple[Net, Value]:
    net, rng = Net((1, channels, size, size)), np.random.default_rng(size)
    arrays = random_fkw(rng, filters, channels, len(MASKS), 4, 1, channels // 5)
    window = Window((3, 3), pads=(1, 1, 1, 1))
    return net, net.sparse_conv(net.activate(net.input), arrays, (3, 3), MASKS, window)


def dense(filters: int, channels: int, size: int) -> tuple[Net, Value]:
    net, rng = Net((1, channels, size, size)), np.random.default_rng(size)
    return net, net.conv(net.activate(net.input), rng.standard_normal((filters, channels, 3, 3)) / channels)


LAYERS: dict[str, Callable[[], tuple[Net, Value]]] = {
    "1x1 14": lambda: groups(48, 192, 14),
    "1x1 28": lambda: groups(32, 128, 28),
    "1x1 56": lambda: groups(32, 128, 56),
    "3x3 28": lambda: patterns(64, 32, 28),
    "3x3 7": lambda: patterns(64, 64, 7),
    "dense 7": lambda: dense(48, 320, 7),
}


@pytest.mark.parametrize("target", NATIVE_TARGETS)
@pytest.mark.parametrize("layer", LAYERS)
def test_any_number_of_threads_gives_the_same_bits(target: str, layer: str) -> None:
    net, y = LAYERS[layer]()
    one, *others = (check(net, [y], target=target, threads=threads)[0] for threads in (1, 2, 3, 5))
    for other in others:
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("target", NATIVE_TARGETS)
@pytest.mark.parametrize(
    ("layer", "algorithm", "tiles"),
    [
        ("3x3 7", InputStationary(), [(rows, 7, 64, sums) for rows in (1, 2, 4, 7) for sums in (1, 4)]),
        ("3x3 28", InputStationary(), [(rows, 28, 32, sums) for rows in (1, 2, 4) for sums in (1, 2, 4)]),
        ("1x1 14", InputStationary(), [(1, columns, 48, sums) for columns in (16, 32, 64, 200) for sums in (1, 4)]),
        ("dense 7", ImplicitGemm(), [(7, 7, filters, 1) for filters in (4, 6, 8, 12, 14)]),
    ],
)
def test_schedules_of_one_order_give_the_same_bits(
    target: str, layer: str, algorithm: Algorithm[Any], tiles: list[tuple[int, int, int, int]]
) -> None:
    net, y = LAYERS[layer]()
    found: dict[Hashable, list[np.ndarray]] = defaultdict(list)
    for tile in tiles:
        order, result = compute(net, y, algorithm, tile, target)
        found[order].append(result)
    for one, *others in found.values():
        for other in others:
            np.testing.assert_array_equal(one, other)
    assert len(tiles) > len(found)


def test_rows_of_two_tiles_have_one_order() -> None:
    """Tiles of five of seven rows overlap, and the row that is alone in its vector in one is not in the other."""
    net, y = LAYERS["3x3 7"]()

    def retile(op: Any, chosen: Schedule) -> Schedule:
        if "conv2d" not in op.operation.name:
            return chosen
        return Schedule("input-stationary", rows=5, columns=7, lanes=16, filters=64, sums=4)

    with pytest.raises(
        PatcError, match="rows of a number that lets tiles add up alike what two of them compute, got 5"
    ):
        lower(net.build(y), net.copy_parameters(), target="x86-64-v4:znver5", retile=retile)


def compute(
    net: Net, y: Value, algorithm: Algorithm[Any], tile: tuple[int, int, int, int], target: str
) -> tuple[Hashable, np.ndarray]:
    """Return the order of a layer's additions, and what they give, with a tile of rows, columns, filters and sums."""
    orders: list[Hashable] = []
    rows, columns, filters, sums = tile

    def retile(op: Any, chosen: Schedule) -> Schedule:
        if "conv2d" not in op.operation.name:
            return chosen
        wanted = replace(chosen, algorithm=algorithm.name, rows=rows, columns=columns, filters=filters, sums=sums)
        orders.append(algorithm.order(op, wanted, get_target(target)))
        return wanted

    (result,) = check(net, [y], target=target, threads=1, retile=retile)
    return orders[-1], result
