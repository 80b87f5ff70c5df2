"""How threads divide layers: the choice for all together is the best, and no thread gets much more than others."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from patc.dialects.schedules import Schedule
from patc.passes.algorithms.host.site import divide
from patc.passes.cost.division import Divisible, Read, divide_layers

WAYS = ("rows", "filters")


def random_layers(rng: np.random.Generator, count: int) -> list[Divisible]:
    """Return a net whose layers read up to two of the five before them; some can be divided in one way alone."""
    layers = []
    for number in range(count):
        before = range(max(0, number - 5), number)
        chosen = rng.choice(before, min(len(before), int(rng.integers(1, 3))), replace=False) if number else []
        reads = [
            Read(int(each), {pair: float(rng.uniform(0, 50)) for pair in itertools.product(WAYS, WAYS)})
            for each in chosen
        ]
        ways = WAYS if rng.random() < 0.8 else WAYS[:1]
        layers.append(Divisible({way: float(rng.uniform(0, 100)) for way in ways}, reads))
    return layers


def cycles_of(layers: list[Divisible], ways: tuple[str, ...]) -> float:
    fetched = sum(
        read.cycles[ways[read.layer], way] for layer, way in zip(layers, ways, strict=True) for read in layer.reads
    )
    return fetched + sum(layer.ways[way] for layer, way in zip(layers, ways, strict=True))


@pytest.mark.parametrize("seed", range(12))
def test_the_best_of_all_ways_is_found(seed: int) -> None:
    layers = random_layers(np.random.default_rng(seed), 9)
    best = min(cycles_of(layers, ways) for ways in itertools.product(*[tuple(layer.ways) for layer in layers]))
    found = divide_layers(layers)
    assert cycles_of(layers, tuple(way for way, _ in found)) == pytest.approx(best)
    assert sum(cycles for _, cycles in found) == pytest.approx(best)


def test_a_net_of_a_thousand_layers_whose_results_all_stay_takes_no_time() -> None:
    """As in a block whose layers read all before them: not all ways are kept."""
    costs = dict.fromkeys(itertools.product(WAYS, WAYS), 1.0)
    layers = [
        Divisible(dict.fromkeys(WAYS, 1.0), [Read(each, costs) for each in range(max(0, number - 30), number)])
        for number in range(1000)
    ]
    assert len(divide_layers(layers)) == 1000


@pytest.mark.parametrize("threads", range(1, 65))
def test_every_part_of_a_layer_is_computed_once_and_parts_are_even(threads: int) -> None:
    """Kept work: at most 5% above an even share beside one unit, which no two threads can share."""
    rng = np.random.default_rng(threads)
    for tiles, filters in ((56, 64), (196, 256), (7, 2048), (112, 3)):
        costs = rng.integers(1, 60, filters).astype(float)
        for split in WAYS:
            parts = divide(Schedule("pattern-direct", split=split, threads=threads), (0, tiles), list(costs))
            covered = np.zeros((tiles, filters), int)
            for first, last, low, high in parts:
                covered[first:last, low:high] += 1
            assert (covered == 1).all()
            work = [(last - first) * costs[low:high].sum() for first, last, low, high in parts]
            unit = costs.sum() if split == "rows" else tiles * costs.max()
            assert max(work) <= 1.05 * sum(work) / threads + unit
