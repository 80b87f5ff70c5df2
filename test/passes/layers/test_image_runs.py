"""Layers that compute image by image: which ones do, and that their numbers are those of other ways."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import patc
from patc.runtime.model import CompiledModel

SIDE = 96  # planes of 16 channels in batches of 8 are larger than second-level caches


class Net(nn.Module):
    """Large planes with residuals, concatenations and pools, then small ones with many weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.same = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.single, self.depthwise = nn.Conv2d(32, 16, 1), nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.small, self.last = nn.Conv2d(16, 256, 3, stride=4), nn.Conv2d(256, 256, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.relu(self.first(x))
        z = torch.relu(self.same(y) + y)
        z = self.depthwise(self.single(torch.cat([y, z], 1)))
        return torch.sigmoid(z), self.last(self.small(nn.functional.max_pool2d(z, 2)))


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return Net().eval()


def images(count: int) -> Tensor:
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(count))


def splits(compiled: CompiledModel) -> dict[str, str]:
    return {layer.name: layer.schedule.split for layer in compiled.layers}


def check(compiled: CompiledModel, net: nn.Module, x: Tensor) -> list[np.ndarray]:
    found = [np.asarray(each) for each in compiled(x)]
    with torch.no_grad():
        for one, other in zip(found, net(x), strict=True):
            torch.testing.assert_close(torch.from_numpy(one), other, rtol=1e-4, atol=1e-5)
    return found


def test_large_planes_do_and_weights_that_are_large_beside_them_do_not(net: nn.Module) -> None:
    found = splits(patc.compile(net, (images(8),), threads=1))
    assert found["same"] == found["depthwise"] == "images" != found["last"]
    assert "images" not in splits(patc.compile(net, (images(1),), threads=1)).values()


@pytest.mark.parametrize(("count", "threads"), [(8, 2), (9, 2), (8, 3)])
def test_numbers_are_those_of_any_number_of_threads(net: nn.Module, count: int, threads: int) -> None:
    """Two threads share eight images evenly; parts of the ninth they compute together, as three do of two images."""
    one, two = (patc.compile(net, (images(count),), threads=number) for number in (1, threads))
    assert splits(one)["same"] == splits(two)["same"] == "images"
    for a, b in zip(check(one, net, images(count)), check(two, net, images(count)), strict=True):
        assert np.array_equal(a, b)


class Products(nn.Module):
    """Images that are pooled one by one, and larger results of all of them."""

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.max_pool2d(x, 2).flatten(2)
        return torch.softmax(y.transpose(1, 2) @ y, 2).sum(2)


def test_layers_behind_leave_time_stamps_alone() -> None:
    """Nobody waits for the thread that takes the last time stamp of the images: it must not write into what is theirs."""
    compiled = patc.compile(Products().eval(), (torch.randn(3, 48, SIDE, 72),), threads=4)
    run = [layer for layer in compiled.layers if layer.schedule.split == "images"]
    buffers = compiled.program.buffers
    (stamps,) = (each for each in buffers if each.size == 8 * (len(run) + 1))
    assert not any(
        each.start < stamps.start + stamps.size and stamps.start < each.start + each.size
        for each in buffers
        if each is not stamps
    )


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_batch(net: nn.Module, threads: int) -> None:
    compiled = patc.compile(net, (images(8),), threads=threads, dynamic_batch=True)
    assert splits(compiled)["same"] == "images"
    for count in (1, 2, 3, 7, 8, 9, 17):
        check(compiled, net, images(count))


def test_memory_between_layers_is_that_of_an_image_for_each_thread(net: nn.Module) -> None:
    small, large = (patc.compile(net, (images(count),), threads=1).program.arena_bytes for count in (8, 16))
    assert large < 1.2 * small * 16 / 8 and small < 8 * 3 * 16 * SIDE * SIDE * 4


@pytest.mark.parametrize("count", [8, 9])
def test_profiles_have_times_of_all_layers(net: nn.Module, count: int) -> None:
    compiled = patc.compile(net, (images(count),), threads=2)
    times = compiled.profile(images(count))
    assert len(times) == len(compiled.layers) and all(each.seconds > 0 for each in times)


def test_integers(net: nn.Module) -> None:
    x = images(32)
    one, two, left = (patc.quantize(net, (x,), threads=threads) for threads in (1, 2, 5))
    assert all("images" in splits(each).values() for each in (one, two, left))
    for a, b, c in zip(one(x), two(x), left(x), strict=True):
        assert np.array_equal(np.asarray(a), np.asarray(b)) and np.array_equal(np.asarray(a), np.asarray(c))
