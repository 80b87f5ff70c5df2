"""Nets on quantised activations of all kinds of layers, of random sizes."""

from __future__ import annotations

import random

import numpy as np
import torch
from quantised import QuantisedNet, Scale, Value
from torch import nn


def random_scale(choices: random.Random) -> Scale:
    return Scale(choices.uniform(0.01, 0.05), choices.choice([0, 3, 117, 128, 255]))


def weights(generator: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    filters = shape[0]
    scales = (generator.random(filters) * 0.01 + 0.001).astype(np.float32)
    biases = generator.integers(-3000, 3000, filters).astype(np.int32)
    return generator.integers(-127, 128, shape).astype(np.int8), scales, biases


def random_convolution(seed: int, signed: bool) -> tuple[QuantisedNet, list[Value]]:
    """Two convolutions, one behind the other, with whatever they may have."""
    choices, generator = random.Random(seed), np.random.default_rng(seed)
    net = QuantisedNet(signed)
    images, channels, size = choices.choice([1, 1, 2]), choices.choice([1, 3, 4, 6, 8, 16]), choices.randint(5, 19)
    width = choices.randint(5, 40)
    given = net.input(generator.normal(size=(images, channels, size, width)))
    x = net.quantise(given, random_scale(choices))
    for _ in range(2):
        groups = choices.choice([1, 1, 2]) if x.array.shape[1] % 8 == 0 else 1
        filters = groups * choices.choice([4, 8, 12, 32, 36] if groups > 1 else [1, 5, 8, 16, 33, 48])
        kernel, is_last = choices.choice([1, 1, 3, 5]), choices.random() < 0.2
        weight, scales, bias = weights(generator, (filters, x.array.shape[1] // groups, kernel, kernel))
        options = {"stride": choices.choice([1, 1, 2]), "pad": choices.randint(0, kernel // 2), "groups": groups}
        options["dilation"] = choices.choice([1, 1, 2]) if kernel == 3 and options["pad"] else 1
        scale, activation = None if is_last else random_scale(choices), choices.choice(["none", "relu", "clamp"])
        known = bias if choices.random() < 0.8 else None
        y = net.conv(x, weight, scales, known, scale, activation=activation, **options)
        if choices.random() < 0.5:
            other = net.input(generator.normal(size=y.array.shape))
            residual = other if is_last else net.quantise(other, random_scale(choices))
            net.lines.remove(next(line for line in net.lines if line.startswith(f"{y.name} ")))
            y = net.conv(x, weight, scales, known, scale, activation=activation, residual=residual, **options)
        x = y
        if is_last or min(x.array.shape[2:]) < 5:
            break
    return net, [x if x.scale is None else net.dequantise(x)]


def elementwise(signed: bool, channels: int, *, is_mixed: bool = True) -> tuple[QuantisedNet, list[Value]]:
    """Sums of words, and where mixed of words and floats; words of other scales."""
    generator = np.random.default_rng(channels)
    net = QuantisedNet(signed)
    shape = (2, channels, 7, 19)
    a, b = (net.input(generator.normal(size=shape)) for _ in range(2))
    left, right = net.quantise(a, Scale(0.02, 120)), net.quantise(b, Scale(0.03, 7))
    total = net.add(left, right, Scale(0.04, 99), "relu")
    mixed = net.add(total, b if is_mixed else right, Scale(0.05, 128))
    again = net.quantise(total, Scale(0.11, 0))
    return net, [net.dequantise(value) for value in (total, mixed, again)]


def planes(signed: bool) -> tuple[QuantisedNet, list[Value]]:
    """Depthwise convolutions, pools of either sort, and a concatenation."""
    generator = np.random.default_rng(0)
    net = QuantisedNet(signed)
    x = net.quantise(net.input(generator.normal(size=(2, 8, 13, 37))), Scale(0.03, 100))
    largest, again = net.max_pool(x, 3, 2, 1), net.max_pool(x, 2, 2, 0)
    deep = net.conv(x, *weights(generator, (8, 1, 3, 3)), Scale(0.05, 9), pad=1, groups=8, activation="relu")
    strided = net.conv(x, *weights(generator, (8, 1, 3, 3)), Scale(0.05, 9), pad=1, stride=2, groups=8)
    real = net.conv(x, *weights(generator, (8, 1, 5, 5)), None, pad=2, groups=8)
    mean = net.mean_pool(x, (3, 3), 1, Scale(0.02, 77), 1)
    both = net.concat([deep, net.quantise(mean, Scale(0.05, 9))])
    everything = net.conv(both, *weights(generator, (12, 16, 1, 1)), Scale(0.3, 128))
    made = (
        largest,
        again,
        net.enlarge(again, 2),
        strided,
        mean,
        everything,
        net.mean_pool(x, (13, 37), 1, Scale(0.002, 88)),
    )
    return net, [*(net.dequantise(value) for value in made), real]


def rows(signed: bool, shape: tuple[int, int, int]) -> tuple[QuantisedNet, list[Value]]:
    images, features, filters = shape
    generator = np.random.default_rng(features)
    net = QuantisedNet(signed)
    x = net.quantise(net.input(generator.normal(size=(images, features))), Scale(0.03, 100))
    hidden = net.linear(x, *weights(generator, (filters, features)), Scale(0.2, 10), "relu")
    again = net.quantise(hidden, Scale(0.3, 12))
    weight, scales, _ = weights(generator, (10, filters))
    planes = net.quantise(net.input(generator.normal(size=(images, features, 1, 1))), Scale(0.03, 90))
    flat = net.linear(net.flatten(planes), *weights(generator, (3, features)), None)
    return net, [net.linear(hidden, weight, scales, None, None), net.dequantise(again), flat]


def few_weights(seed: int, signed: bool) -> tuple[QuantisedNet, list[Value]]:
    """A convolution whose kernels are four neighbours, other masks, and none; filters without any weight."""
    choices, generator = random.Random(seed), np.random.default_rng(seed)
    net = QuantisedNet(signed)
    size = choices.choice([(7, 7), (9, 33), (14, 14), (5, 18)])
    kernel, stride, channels = choices.choice([2, 3, 3, 5]), choices.choice([1, 2]), choices.choice([3, 6, 21])
    x = net.quantise(net.input(generator.normal(size=(choices.choice([1, 2]), channels, *size))), random_scale(choices))
    weight, scales, bias = weights(generator, (10, channels, kernel, kernel))
    weight[generator.random((10, channels)) < 0.4] = 0
    weight[generator.random(weight.shape) < 0.6] = 0
    weight[3] = 0
    window = {"stride": stride, "pad": choices.randint(0, 1)}
    real = net.conv(x, weight, scales, bias, None, **window)
    residual = net.quantise(net.input(generator.normal(size=real.array.shape)), random_scale(choices))
    activation = choices.choice(["none", "relu"])
    y = net.conv(x, weight, scales, bias, random_scale(choices), **window, residual=residual, activation=activation)
    return net, [net.dequantise(y), real]


class Activations(nn.Module):
    """A convolution, one with a residual, and a sum, each with what does more than limit numbers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(size, channels, 3, padding=1) for size in (4, channels))
        self.slopes = nn.ModuleList(nn.PReLU(channels) for _ in range(2))
        for slope in self.slopes:
            nn.init.uniform_(slope.weight, 0.1, 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.slopes[0](self.first(x))
        z = nn.functional.hardswish(self.second(y) + y)
        return self.slopes[1](nn.functional.max_pool2d(y, 2) + nn.functional.max_pool2d(z, 2))
