"""Layers that run band by band: rows are there when they are read, and results are those of whole layers."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from emulated import needs_arm
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import patc
from patc.passes import pattern_specialize
from patc.passes.algorithms.host.rings import Read, Tiled, plan
from patc.passes.algorithms.host.streams import Stream
from patc.pruning import PatternSpec, prune_
from patc.targets import get_target


def random_layers(choices: random.Random) -> list[Tiled]:
    """Draw layers, each of which reads the one before, and some of them another one of the same height."""
    layers: list[Tiled] = []
    height = choices.randint(1, 40)
    for number in range(choices.randint(2, 5)):
        reads: list[Read] = []
        if layers:
            kernel, stride, below = choices.randint(1, 5), choices.randint(1, 3), layers[-1]
            pads = choices.randint(0, below.top), choices.randint(0, below.total - below.top - below.height)
            height = (below.height + sum(pads) - kernel) // stride + 1
            if height < 1:
                break
            first = below.top - pads[0]
            reads.append(Read(number - 1, stride, first, first + kernel - 1))
            same = [place for place, layer in enumerate(layers[:-1]) if layer.height == height]
            reads += [Read(place, 1, layers[place].top, layers[place].top) for place in same[:1]]
        top = choices.randint(0, 2)
        rows = choices.randint(1, height)
        layers.append(Tiled(rows, height, top, top + height + choices.randint(0, 2), tuple(reads)))
    return layers


@given(st.randoms(use_true_random=False), st.integers(1, 5))
@settings(max_examples=150, deadline=None)
def test_what_a_band_reads_is_in_the_ring(choices: random.Random, step: int) -> None:
    """Rings are moved and written as the plan says; each row remembers what it is."""
    layers = random_layers(choices)
    found = plan(layers, step)
    held = [np.full(ring.rows, -1) for ring in found.rings]
    for band, tiles in enumerate(found.tiles):
        for number, layer in enumerate(layers):
            first, last = tiles[number]
            if first == last:
                continue
            for read in layer.reads:
                begin, end = layer.read(read, (first, last))
                end = min(end, layers[read.maker].total)
                start = found.rings[read.maker].starts[band]
                assert begin >= start
                assert held[read.maker][begin - start : end - start].tolist() == [*range(begin, end)]
            if number < len(found.rings):
                begin, end = layer.written((first, last))
                start = found.rings[number].starts[band]
                assert begin >= start
                held[number][begin - start : end - start] = range(begin, end)
        for ring, rows in zip(found.rings, held, strict=True):
            if band + 1 < found.bands:
                moved, kept = ring.starts[band + 1] - ring.starts[band], ring.kept[band + 1]
                rows[:kept] = rows[moved : moved + kept].copy()
    assert [tiles[-1] for tiles in zip(*found.tiles, strict=True)][-1][1] == layers[-1].tiles


class Layers(nn.Module):
    """Convolutions with and without strides and dilations, a residual, and pools."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 16, 3, padding=1)
        self.third = nn.Conv2d(16, 16, 3, padding=1)
        self.strided = nn.Conv2d(16, 12, 3, 2, padding=1)
        self.dilated = nn.Conv2d(12, 8, 3, padding=2, dilation=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        x = functional.max_pool2d((self.third(self.second(x).relu()) + x).relu(), 3, 1, 1)
        return self.dilated(functional.avg_pool2d(self.strided(x).relu(), 3, 1, 1))


@pytest.mark.parametrize(("threads", "images", "kept"), [(1, 1, 60_000), (2, 1, 60_000), (2, 3, 60_000)])
def test_results_do_not_depend_on_bands(threads: int, images: int, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    streams: list[Stream] = []

    def find(*given: Any) -> list[Stream]:
        streams.extend(find_streams(*given))
        return streams

    find_streams = pattern_specialize.find_streams
    monkeypatch.setattr(pattern_specialize, "find_streams", find)
    torch.manual_seed(0)
    model, x = Layers().eval(), torch.randn(images, 3, 45, 37)
    prune_(model, PatternSpec(connectivity=2.0))
    target = get_target("x86-64-v3")
    small = replace(target, name="small", costs=replace(target.core_costs(), shared_level_bytes=kept))
    compiled = patc.compile(model, (x,), target=small, threads=threads)
    assert max(stream.plan.bands for stream in streams) > 2
    with torch.no_grad():
        wanted = model.double()(x.double())
    for _ in range(2):  # rings hold rows of the call before
        assert float((compiled(x) - wanted).abs().max() / wanted.abs().max()) < 1e-5
    assert len(compiled.profile(x, repetitions=1)) == len(compiled.layers)


@needs_arm
def test_layers_in_bands_are_counted_with_the_first_of_them() -> None:
    """Time stamps of layers that take turns are corrected behind the loop."""
    from patc.bench.emulator import EmulatedProgram
    from patc.bench.execution import trace_layers

    torch.manual_seed(0)
    model, x = Layers().eval(), torch.randn(1, 3, 45, 37)
    target = get_target("aarch64-linux:cortex-a76")
    small = replace(target, name="small", costs=replace(target.core_costs(), shared_level_bytes=60_000))
    compiled = patc.compile(model, (x,), target=small)
    (found,), traces = trace_layers(EmulatedProgram(compiled.program), [x.numpy()], len(compiled.layers))
    with torch.no_grad():
        wanted = model(x).numpy()
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()
    blocks = [sum(trace.blocks().values()) for trace in traces]
    assert len(blocks) == len(compiled.layers) and min(blocks) < max(blocks) / 100
