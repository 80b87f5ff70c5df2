"""Layers that stand at an end of something: of a plane, a row, a buffer or the net."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from native import Net
from networks import Value

from patc.passes.ir.windows import Window

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


# Layers at an end of a buffer beyond which nothing may be read.
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
