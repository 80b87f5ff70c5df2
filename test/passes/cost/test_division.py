"""How threads divide layers: the choice for all together is the best, and no thread gets much more than others."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import torch
from helpers import assert_close, torch_results
from torch import nn

import patc
from patc import models
from patc.dialects.schedules import Schedule
from patc.integers import ceil_div
from patc.passes.algorithms.host.site import divide, unevenness
from patc.passes.cost.division import Divisible, Read, divide_layers
from patc.pruning import PatternSpec, prune_

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
def test_every_part_of_a_layer_is_computed_once_and_shares_are_even(threads: int) -> None:
    """Kept work: at most 5% above an even share beside one unit, which no two threads can share."""
    rng = np.random.default_rng(threads)
    for tiles, filters in ((56, 64), (196, 256), (7, 2048), (112, 3), (1, 512), (3, 5)):
        costs = rng.integers(1, 60, filters).astype(float)
        for split, any_part in itertools.product(WAYS, (False, True)):
            schedule = Schedule("pattern-direct", split=split, threads=threads)
            shares = divide(schedule, (10, 10 + tiles), list(costs), any_part=any_part)
            covered = np.zeros((tiles, filters), int)
            for first, last, low, high in itertools.chain(*shares):
                covered[max(first - 10, 0) : max(last - 10, 0), low:high] += 1
            assert (covered == 1).all()
            assert len({len(parts) for parts in shares}) == 1
            unit = costs.max() if any_part else costs.sum() if split == "rows" else tiles * costs.max()
            even = tiles * costs.sum() / threads
            assert unevenness(shares, costs) * even <= 1.05 * even + unit


@functools.cache
def layers_of(name: str) -> list[tuple[int, int, int]]:
    """Return the height, the filters and the kernels of a filter of each layer of a net."""
    info, found = models.find(name), list[tuple[int, int, int]]()

    def note(layer: nn.Module, _: object, output: torch.Tensor) -> None:
        kernels = layer.in_channels // layer.groups if isinstance(layer, nn.Conv2d) else layer.in_features
        found.append((output.shape[2] if output.dim() == 4 else 1, output.shape[1], kernels))

    net = info.build().to("meta")
    for layer in net.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(note)
    net(torch.zeros(info.input_shape, device="meta"))
    return found


@pytest.mark.parametrize("name", models.MODELS)
def test_up_to_64_threads_share_the_kept_work_of_each_net(name: str) -> None:
    """Pruned 8x, filters keep unequally many kernels; tiles may have up to four rows. At most 5% off, over all layers."""
    rng = np.random.default_rng(0)
    layers = [
        (height, [*(rng.binomial(kernels, 1 / 3.6, filters) + 1.0)]) for height, filters, kernels in layers_of(name)
    ]
    work = [height**2 * sum(costs) for height, costs in layers]  # planes are as wide as they are high
    for threads in (*range(2, 17), 24, 31, 32, 48, 59, 63, 64):
        off = []
        for height, costs in layers:
            found = []
            for split, rows in itertools.product(WAYS, (4, 2, 1)):
                tiles, schedule = ceil_div(height, rows), Schedule("pattern-direct", split=split, threads=threads)
                if split == "filters" or tiles >= threads:
                    found.append(unevenness(divide(schedule, (0, tiles), costs, any_part=True), costs))
            off.append(min(found))
        assert np.average(off, weights=work) <= 1.05, threads


class Mixed(nn.Module):
    """Layers of all sorts that threads divide between filters and rows, some of few filters or rows."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.SiLU(),
            nn.Conv2d(24, 40, 1), nn.Conv2d(40, 40, 3, padding=1), nn.ReLU(), nn.Conv2d(40, 72, 3, stride=2, padding=1),
            nn.Conv2d(72, 10, 1),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


@pytest.mark.parametrize("kept", [1, 4])
def test_any_number_of_threads_computes_the_same_bits(kept: int) -> None:
    torch.manual_seed(0)
    net, x = Mixed().eval(), torch.randn(1, 3, 19, 19)
    if kept > 1:
        prune_(net, PatternSpec(compression=2.25 * kept))
    alone = patc.compile(net, (x,), threads=1)(x)
    assert_close([alone.numpy()], torch_results(net, (x,)))
    for threads in (3, 7, 16):
        assert torch.equal(patc.compile(net, (x,), threads=threads)(x), alone)
