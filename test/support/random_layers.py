"""Random layers, each in a small net, for kernels of every target.

What is around a layer decides the layouts that it reads and writes: its input may come from the caller or from another
layer, its result may go to the caller, to a window with a halo or with stride 2, or to a pool.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from native import Net
from networks import Value

from patc.passes.ir.windows import Window

ACTIVATIONS = ('"none"', '"relu"', "#pattern.clamp<-5.000000e-01 : f32, 1.500000e+00 : f32>")
RANDOMS = st.randoms(use_true_random=False)
REPRODUCIBLE = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))

SPARSE_KERNELS = [(3, 3), (3, 3), (3, 3), (5, 5), (1, 3), (2, 2), (1, 1)]
DENSE_KERNELS = [(1, 1), (3, 3), (3, 3), (5, 5), (7, 7), (1, 3), (5, 2)]
POOL_KERNELS = [(1, 1), (2, 2), (3, 3), (3, 3), (5, 1), (4, 7)]
RandomNet: TypeAlias = tuple[Net, Value, list[Value]]  # a value to check, and others that come from it


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
    residual = net.new_input((images, filters)) if choices.random() < 0.5 else None
    y = net.dense_layer(net.input, weight, bias, choices.choice(ACTIVATIONS), residual)
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
