"""Schedules of files may be edited: within the limits of its algorithm a layer is right, beyond them a line says so."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import pytest
import torch
from gpu import compile_for_gpu, needs_device
from helpers import layer_ops, raised_model
from interpreter import interpret
from large import LARGE
from native import Net, compile_native, lower, scheduled_ops
from networks import LIBRARY, Value, pattern_weight, pointwise_weight
from quantised import QuantisedNet, Scale, run_quantised
from quantised import Value as Words
from torch import nn
from torch.utils._pytree import tree_leaves
from torch_mlir import ir

from patc.diagnostics import PatcError
from patc.dialects.schedules import FILTERS, IMAGES, ROWS, Schedule
from patc.parameters import ParameterStore
from patc.passes.algorithms.base import Algorithm, require_limits
from patc.passes.algorithms.limits import Limit, divisor_of, multiple_of, one_of, power_of_two
from patc.passes.base import PassState
from patc.passes.kernels.dots import dots_of
from patc.passes.layers.image_runs import images_alone
from patc.passes.layers.registry import kind_of, kinds
from patc.pipeline import Pipeline
from patc.targets import SPIRV_VULKAN, Target, get_target

HOST = get_target("host")
RNG = np.random.default_rng
SEEDS = range(20 if LARGE else 1)
REFUSED = re.compile(r"([^\n]+: )?'[\w.]+' op expected a schedule with [^\n]+ of [^\n]+, got [^\n]+")


@dataclass(frozen=True)
class Layer:
    """A net of one layer, or of few, with inputs and the results of them."""

    module: ir.Module
    parameters: ParameterStore
    inputs: list[np.ndarray]
    wanted: list[np.ndarray]

    def prepare(self, target: Target, stage: str) -> None:
        name = "spirv" if target.algorithms == "gpu" else "host"
        Pipeline.named(name, target=target).until(stage).run(self.module, PassState(self.parameters))

    def check(self, found: Sequence[np.ndarray]) -> None:
        for one, other in zip(found, self.wanted, strict=True):
            np.testing.assert_allclose(one, other, atol=2e-5 * max(1.0, np.abs(other).max()), rtol=0)


def of_net(shape: tuple[int, ...], make: Callable[[Net], Value]) -> Callable[[], Layer]:
    def build() -> Layer:
        net = Net(shape)
        result = make(net)
        x = RNG(0).standard_normal(shape, np.float32)
        wanted = interpret(net.build(result), net.copy_parameters(), [x])
        return Layer(net.build(result), net.copy_parameters(), [x], wanted)

    return build


def of_torch(make: Callable[[], nn.Module], *shape: int) -> Callable[[], Layer]:
    def build() -> Layer:
        torch.manual_seed(0)
        model, x = make().eval(), torch.randn(shape)
        module, state = raised_model(model, [x])
        with torch.no_grad():
            wanted = [value.numpy() for value in tree_leaves(model.double()(x.double()))]
        return Layer(module, state.parameters, [x.numpy()], wanted)

    return build


def weight(*shape: int, keep: float = 1.0, rows: int = 1) -> np.ndarray:
    """Return weights of which bands of filters keep the same part."""
    rng = RNG(1)
    kept = np.repeat(rng.random((shape[0] // rows, *shape[1:])) < keep, rows, 0)
    return rng.standard_normal(shape, np.float32) * kept


def balanced(filters: int, channels: int) -> np.ndarray:
    """Return 3x3 weights of which each filter has two in 32 channels of a tap."""
    kept = RNG(1).random((filters, 9, channels // 32, 32)).argsort(3) < 2
    return np.moveaxis(kept.reshape(filters, 3, 3, channels), 3, 1) * weight(filters, channels, 3, 3)


def patterns(net: Net) -> Value:
    found = pattern_weight(RNG(0), 12, 8, 0.5, LIBRARY[:4])
    return net.conv(net.input, found, weight(12))


def linear(count: int, features: int, results: int, **kept: Any) -> Callable[[], Layer]:
    def make(net: Net) -> Value:
        return net.dense_layer(net.input, weight(results, features, **kept), weight(results))

    return of_net((count, features), make)


def of_bits(bits: int, build: Callable[[], Layer]) -> Callable[[], Layer]:
    """Let the weights of a layer, which are multiples of a number, be stored in so many bits."""

    def stored() -> Layer:
        layer = build()
        for op in layer_ops(layer.module):
            if "operandSegmentSizes" in op.attributes and len(op.operands) > 1:
                number = ir.IntegerAttr.get(ir.IntegerType.get_signless(64, layer.module.context), bits)
                op.attributes["pattern.weight_bits"] = number
        return layer

    return stored


def signs(rows: int) -> Callable[[], Layer]:
    def make(net: Net) -> Value:
        return net.dense_layer(net.input, np.sign(weight(50, 67)) / 2)

    return of_net((rows, 67), make)


def simple_gates() -> nn.Module:
    model = nn.GRU(5, 21)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.sign() / 4)
    return model


# Layers, and the algorithms that may compute them on CPUs and on GPUs.
LAYERS: dict[str, tuple[Callable[[], Layer], str, str]] = {
    "3x3": (
        of_net((2, 8, 9, 21), lambda net: net.conv(net.input, weight(34, 8, 3, 3), weight(34))),
        "dense-direct filter-lanes implicit-gemm winograd",
        "dense-direct",
    ),
    "strides": (
        of_net((1, 8, 10, 37), lambda net: net.conv(net.activate(net.input), weight(34, 8, 3, 3), strides=(2, 2))),
        "dense-direct filter-lanes implicit-gemm elementwise",
        "dense-direct elementwise",
    ),
    "1x1": (
        of_net((2, 64, 7, 9), lambda net: net.conv(net.input, weight(40, 64, 1, 1), pads=(0, 0, 0, 0))),
        "dense-direct filter-lanes implicit-gemm",
        "dense-direct",
    ),
    "groups": (
        of_net((1, 24, 9, 17), lambda net: net.conv(net.input, weight(48, 8, 3, 3), groups=3)),
        "dense-direct filter-lanes winograd",
        "dense-direct",
    ),
    "depthwise": (
        of_net((1, 12, 9, 17), lambda net: net.conv(net.input, weight(12, 1, 3, 3), groups=12)),
        "depthwise-direct",
        "depthwise-direct",
    ),
    "patterns": (
        of_net((2, 8, 13, 35), patterns),
        "pattern-direct pattern-packed input-stationary dense-direct winograd",
        "dense-direct",
    ),
    "equal patterns": (
        of_net((2, 8, 13, 35), lambda net: net.conv(net.input, pattern_weight(RNG(0), 1, 8).repeat(12, axis=0))),
        "",
        "pattern-direct",
    ),
    "1x1 patterns": (
        of_net((1, 36, 7, 9), lambda net: net.conv(net.input, pointwise_weight(RNG(0), 12, 36), pads=(0, 0, 0, 0))),
        "pattern-direct input-stationary tap-direct dense-direct",
        "",
    ),
    "single weights": (
        of_net((1, 32, 9, 9), lambda net: net.conv(net.input, weight(32, 32, 3, 3, keep=0.06))),
        "tap-direct",
        "",
    ),
    "bands": (
        of_net((1, 32, 9, 9), lambda net: net.conv(net.input, weight(32, 32, 3, 3, keep=0.2, rows=8))),
        "band-direct",
        "",
    ),
    "packs of 3x3": (
        of_net((2, 64, 9, 9), lambda net: net.conv(net.input, balanced(46, 64), weight(46))),
        "pack-direct",
        "pattern-direct",
    ),
    "one row": (linear(1, 67, 50), "gemv zero-skip", "gemv"),
    "three results": (linear(1, 9, 3), "gemv", "gemv"),
    "rows": (linear(9, 67, 50), "gemv gemm", "gemm"),
    "linear bands": (linear(5, 64, 48, keep=0.2, rows=16), "band-vector", ""),
    "packs": (linear(5, 75, 70, keep=0.1), "pack-permute", ""),
    "maximum": (
        of_net((2, 6, 9, 21), lambda net: net.pool("max", net.input, (3, 3), (2, 2), (1, 1, 1, 1))),
        "pool",
        "pool",
    ),
    "mean": (
        of_net((2, 6, 9, 21), lambda net: net.pool("avg", net.input, (3, 3), (1, 1), (1, 1, 1, 1))),
        "pool",
        "pool",
    ),
    "global mean": (of_net((2, 6, 9, 21), lambda net: net.global_pool(net.input)), "global-pool", "global-pool"),
    "sum": (
        of_net((2, 6, 9, 21), lambda net: net.add(net.input, net.activate(net.input))),
        "elementwise",
        "elementwise",
    ),
    "shuffle": (of_torch(lambda: nn.PixelShuffle(2), 2, 12, 5, 21), "depth-to-space", ""),
    "larger": (of_torch(lambda: nn.Upsample(scale_factor=2, mode="bilinear"), 2, 3, 5, 21), "resample", "resample"),
    "steps": (of_torch(lambda: nn.LSTM(5, 21, bidirectional=True), 3, 5, 5), "recurrent", ""),
    "gates": (of_torch(lambda: nn.GRU(5, 21), 3, 5, 5), "recurrent", ""),
    "one row of bits": (of_bits(1, signs(1)), "gemv", ""),
    "rows of bits": (of_bits(1, signs(9)), "gemv", ""),
    "rows of bytes": (of_bits(8, signs(9)), "gemv", ""),
    "gates of bits": (of_bits(1, of_torch(simple_gates, 3, 5, 5)), "recurrent", ""),
    "softmax": (of_torch(lambda: nn.Softmax(1), 3, 37), "generic", "generic"),
}
ON_CPUS = [(name, algorithm) for name, (_, found, _) in LAYERS.items() for algorithm in found.split()]
ON_GPUS = [(name, algorithm) for name, (*_, found) in LAYERS.items() for algorithm in found.split()]


class Quantised(Protocol):
    """Makes the results of a net of integers from its input."""

    def __call__(self, net: QuantisedNet, x: Words) -> list[Words]: ...


def integers(*shape: int, keep: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return weights of which some kernels are kept, their scales, and a bias."""
    rng = RNG(2)
    values = rng.integers(-90, 90, shape).astype(np.int8) * (rng.random((*shape[:2], *[1] * (len(shape) - 2))) < keep)
    scales = rng.uniform(0.01, 0.02, shape[0]).astype(np.float32)
    return values.astype(np.int8), scales, np.arange(shape[0], dtype=np.int32)


SCALE = Scale(0.05, 9)
QUANTISED: dict[str, tuple[tuple[int, ...], Quantised, str, str]] = {
    "3x3": (
        (2, 32, 9, 14),
        lambda net, x: [net.conv(x, *integers(36, 32, 3, 3), SCALE, pad=1)],
        "dot-direct dot-lanes",
        "dot-direct",
    ),
    "strides": (
        (1, 12, 9, 37),
        lambda net, x: [net.conv(x, *integers(18, 12, 3, 3), SCALE, pad=1, stride=2)],
        "dot-direct dot-lanes",
        "dot-direct",
    ),
    "depthwise": (
        (1, 32, 9, 14),
        lambda net, x: [net.conv(x, *integers(32, 1, 3, 3), SCALE, pad=1, groups=32)],
        "dot-direct row-words",
        "dot-direct",
    ),
    "few weights": (
        (2, 34, 9, 14),
        lambda net, x: [net.conv(x, *integers(30, 34, 3, 3, keep=0.2), SCALE, pad=1)],
        "block-words",
        "",
    ),
    "first": (
        (2, 3, 12, 17),
        lambda net, x: [net.conv(x, *integers(10, 3, 5, 5), SCALE, pad=2, stride=2)],
        "window-words",
        "",
    ),
    "linear": (
        (3, 40, 1, 1),
        lambda net, x: [net.linear(net.flatten(x), *integers(22, 40), SCALE)],
        "dot-rows",
        "dot-rows",
    ),
    "rows": (
        (11, 40, 1, 1),
        lambda net, x: [net.linear(net.flatten(x), *integers(22, 40), SCALE)],
        "dot-rows",
        "dot-gemm",
    ),
    "pools": (
        (2, 6, 9, 14),
        lambda net, x: [
            net.max_pool(x, 3, 1, 1),
            net.mean_pool(x, (3, 3), 2, SCALE, 1),
            net.mean_pool(x, (9, 14), 1, SCALE),
        ],
        "pool global-pool",
        "pool global-pool",
    ),
    "others": (
        (2, 6, 9, 14),
        lambda net, x: [net.add(x, x, SCALE), net.enlarge(x, 2)],
        "words resample",
        "words resample",
    ),
}
ON_INTEGERS = [(name, algorithm) for name, (*_, found, _) in QUANTISED.items() for algorithm in found.split()]
ON_INTEGERS_OF_GPUS = [(name, algorithm) for name, (*_, found) in QUANTISED.items() for algorithm in found.split()]


def ways(op: Any, target: Target, state: PassState) -> Iterator[tuple[Algorithm[Any], list[Schedule]]]:
    """Yield the algorithms that can compute an op, and the schedules that they offer."""
    kind = kind_of(op)
    assert kind is not None
    for algorithm in kind.algorithms(target, op):
        if algorithm.applies(op):
            yield algorithm, [each.schedule for each in algorithm.candidates(op, target, state, 1)]


def is_within(op: Any, algorithm: Algorithm[Any], schedule: Schedule, target: Target) -> bool:
    kind = kind_of(op)
    assert kind is not None
    try:
        require_limits(op, algorithm, schedule, target)
    except PatcError:
        return False
    return schedule.split != IMAGES or images_alone(op, kind) > 0


def edited(chosen: Schedule, fields: Sequence[str], choices: random.Random) -> Schedule:
    """Change one field or several: to any small number, to a power of two, or to what no layer has."""

    def draw(name: str) -> int | str:
        if name == "split":
            return choices.choice([ROWS, FILTERS, IMAGES, "columns"])
        large = [100, 1000, 1 << 20, 1 << 31, 1 << 62]
        return choices.choice([choices.randint(1, 40), 1 << choices.randint(0, 7), choices.choice(large)])

    return replace(chosen, **{name: draw(name) for name in choices.sample(fields, choices.randint(1, len(fields)))})


@dataclass
class Edits:
    """Gives the layers of a net that may have an algorithm schedules of it, within its limits or beyond them."""

    algorithm: str
    target: Target
    state: PassState
    choices: random.Random
    within: bool
    count: int = 0

    def __call__(self, op: Any, chosen: Schedule) -> Schedule:
        fields = ["rows", "columns", "filters", "sums"]
        fields += ["threads"] if self.target.algorithms == "gpu" else ["lanes", "split"]
        for algorithm, found in ways(op, self.target, self.state):
            if algorithm.name == self.algorithm:
                first = replace(self.choices.choice(found or [chosen]), algorithm=self.algorithm)
                first = replace(first, threads=chosen.threads)
                self.count += 1
                drawn = (edited(first, fields, self.choices) for _ in range(5000))
                return next(each for each in drawn if is_within(op, algorithm, each, self.target) == self.within)
        return chosen


def edits(layer: Layer, algorithm: str, target: Target, choices: random.Random, *, within: bool) -> Edits:
    parameters = ParameterStore({name: layer.parameters[name] for name in layer.parameters})
    return Edits(algorithm, target, PassState(parameters), choices, within)


def test_all_algorithms_are_edited() -> None:
    all_drawn = {"host": ON_CPUS, "quantised": ON_INTEGERS, "gpu": ON_GPUS, "quantised_gpu": ON_INTEGERS_OF_GPUS}
    for given, drawn in all_drawn.items():
        names = {algorithm.name for kind in kinds() for algorithm in getattr(kind, given)}
        assert {algorithm for _, algorithm in drawn} == names


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "algorithm"), ON_CPUS)
def test_layers_within_the_limits_are_right(name: str, algorithm: str, seed: int) -> None:
    choices, layer = random.Random(f"{name} {algorithm} {seed}"), LAYERS[name][0]()
    layer.prepare(HOST, "demote")
    retile = edits(layer, algorithm, HOST, choices, within=True)
    threads = choices.choice([1, 1, 2, 3])
    layer.check(compile_native(layer.module, layer.parameters, threads=threads, retile=retile)(*layer.inputs))
    assert retile.count


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "algorithm"), ON_CPUS)
def test_layers_beyond_the_limits_are_refused(name: str, algorithm: str, seed: int) -> None:
    layer = LAYERS[name][0]()
    layer.prepare(HOST, "demote")
    retile = edits(layer, algorithm, HOST, random.Random(f"{name} {algorithm} {seed}"), within=False)
    with pytest.raises(PatcError) as caught:
        lower(layer.module, layer.parameters, target="host", retile=retile)
    assert REFUSED.fullmatch(str(caught.value))


def quantised(name: str, algorithm: str, seed: int, target: Target = HOST, *, within: bool) -> None:
    """Compute a net of integers, or refuse it."""
    shape, make, *_ = QUANTISED[name]
    net, choices = QuantisedNet(dots_of(target).signed), random.Random(f"{name} {algorithm} {seed}")
    x = net.quantise(net.input(RNG(0).normal(size=shape)), Scale(0.03, 100))
    results = [net.dequantise(value) for value in make(net, x)]
    is_gpu, state = target.algorithms == "gpu", PassState(ParameterStore(dict(net.parameters)))
    threads = 1 if is_gpu else choices.choice([1, 1, 2, 3])
    draw = Edits(algorithm, target, state, choices, within)

    def choose(op: Any, found: list[Schedule]) -> Schedule:
        return draw(op, found[0] if is_gpu else replace(found[0], threads=threads))

    for value, wanted in zip(run_quantised(net, results, target.name, threads, choose), results, strict=True):
        np.testing.assert_array_equal(value, wanted.array)
    assert draw.count


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "algorithm"), ON_INTEGERS)
def test_quantised_layers_within_the_limits_are_right(name: str, algorithm: str, seed: int) -> None:
    quantised(name, algorithm, seed, within=True)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "algorithm"), ON_INTEGERS)
def test_quantised_layers_beyond_the_limits_are_refused(name: str, algorithm: str, seed: int) -> None:
    with pytest.raises(PatcError) as caught:
        quantised(name, algorithm, seed, within=False)
    assert REFUSED.fullmatch(str(caught.value))


@needs_device
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "algorithm"), ON_INTEGERS_OF_GPUS)
def test_quantised_layers_on_gpus_within_the_limits_are_right(name: str, algorithm: str, seed: int) -> None:
    quantised(name, algorithm, seed, SPIRV_VULKAN, within=True)


@needs_device
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "algorithm"), ON_INTEGERS_OF_GPUS)
def test_quantised_layers_on_gpus_beyond_the_limits_are_refused(name: str, algorithm: str, seed: int) -> None:
    with pytest.raises(PatcError) as caught:
        quantised(name, algorithm, seed, SPIRV_VULKAN, within=False)
    assert REFUSED.fullmatch(str(caught.value))


def on_gpu(name: str, algorithm: str, seed: int, *, within: bool) -> tuple[Layer, Edits]:
    """Return a layer as GPUs compute it, and its edited schedules."""
    layer = LAYERS[name][0]()
    layer.prepare(SPIRV_VULKAN, "reorder")
    choices = random.Random(f"{name} {algorithm} {seed}")
    return layer, edits(layer, algorithm, SPIRV_VULKAN, choices, within=within)


@needs_device
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "algorithm"), ON_GPUS)
def test_layers_on_gpus_within_the_limits_are_right(name: str, algorithm: str, seed: int) -> None:
    layer, retile = on_gpu(name, algorithm, seed, within=True)
    layer.check(compile_for_gpu(layer.module, layer.parameters, retile)(*layer.inputs))
    assert retile.count


@needs_device
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "algorithm"), ON_GPUS)
def test_layers_on_gpus_beyond_the_limits_are_refused(name: str, algorithm: str, seed: int) -> None:
    layer, retile = on_gpu(name, algorithm, seed, within=False)
    with pytest.raises(PatcError) as caught:
        compile_for_gpu(layer.module, layer.parameters, retile)
    assert REFUSED.fullmatch(str(caught.value))


@pytest.mark.parametrize(
    ("name", "target"),
    [(name, target) for name in LAYERS for target in ("host", "x86-64-v3", "aarch64-linux")]
    + [(name, SPIRV_VULKAN.name) for name in dict(ON_GPUS)],
)
def test_all_candidates_are_within_the_limits(name: str, target: str) -> None:
    machine, layer = get_target(target), LAYERS[name][0]()
    layer.prepare(machine, "schedule")
    state = PassState(layer.parameters)
    with layer.module.context:
        for op, _ in scheduled_ops(layer.module):
            for algorithm, found in ways(op, machine, state):
                for schedule in found:
                    require_limits(op, algorithm, schedule, machine)


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (one_of("split", "columns", ("rows", "filters")), "rows or filters"),
        (multiple_of("filters", 40, 16, 64), "a multiple of 16, 64 or less"),
        (multiple_of("filters", 80, 16, 64), "a multiple of 16, 64 or less"),
        (divisor_of("filters", 5, 12), "a divisor of 12"),
        (power_of_two("lanes", 1, 2, 64), "a power of two from 2 to 64"),
        (power_of_two("lanes", 24, 2, 64), "a power of two from 2 to 64"),
    ],
)
def test_limits_say_what_they_allow(limit: Limit, words: str) -> None:
    assert (limit.wanted, limit.holds) == (words, False)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"columns": 9}, "columns of whole vectors of 16 or fewer, or 19 or more, got 9"),
        ({"rows": 5, "columns": 19, "filters": 16}, "registers of a tile of 128 or less, got 160"),
    ],
)
def test_tiles(fields: dict[str, int], words: str) -> None:
    """Columns that cut a vector were computed wrong, and of large tiles all code is written out."""
    layer = LAYERS["strides"][0]()
    layer.prepare(HOST, "demote")

    def retile(op: Any, chosen: Schedule) -> Schedule:
        if op.operation.name != "pattern.conv2d":
            return chosen
        return replace(Schedule("dense-direct", lanes=16, threads=chosen.threads), **fields)

    with pytest.raises(PatcError, match=f"op expected a schedule with {words}$"):
        lower(layer.module, layer.parameters, target="x86-64-v4", retile=retile)
