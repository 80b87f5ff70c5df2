"""pattern-reorder: which channels are renumbered, that no shuffle is left, and that the numbers stay."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from helpers import assert_close, layer_ops, raised_model, torch_results
from hypothesis import assume, given, settings
from interpreter import interpret
from networks import Network, Value, networks, pattern_weight, pointwise_weight
from torch import nn
from torch_mlir import ir

from patc.codegen.reference import execute
from patc.diagnostics import PatcError
from patc.passes.base import PassState
from patc.passes.pattern_encode import PatternEncode
from patc.passes.pattern_reorder import PatternReorder
from patc.pruning import PatternSpec, prune_

SHAPE = (1, 4, 6, 6)


def reorder(network: Network, module: ir.Module) -> PassState:
    """Encode and reorder a module, and check that its numbers stay."""
    x = np.random.default_rng(7).standard_normal(network.input_shape, np.float32)
    return check_numbers(network, module, x)


def check_numbers(network: Network, module: ir.Module, x: np.ndarray) -> PassState:
    before = interpret(module, network.parameters, [x])
    state = PassState(network.parameters)
    PatternEncode().run(module, state)
    PatternReorder().run(module, state)
    assert module.operation.verify()
    for old, new in zip(before, interpret(module, state.parameters, [x]), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-12, atol=1e-12)
    return state


def arrays(module: ir.Module, state: PassState, operand: str) -> list[np.ndarray]:
    """Return one array of each sparse convolution."""
    ops = module.body.operations[0].regions[0].blocks[0].operations
    sparse = [op for op in ops if op.operation.name == "pattern.sparse_conv2d"]
    return [state.parameters[op.array(operand).owner.attributes["name"].value] for op in sparse]


def reorders(module: ir.Module, state: PassState) -> list[list[int]]:
    return [array.tolist() for array in arrays(module, state, "reorder")]


def uneven_weight(filters: int, channels: int, seed: int = 0) -> np.ndarray:
    """Return pattern weights whose filters grow from one to the next, so that FKR reverses them."""
    weight = pattern_weight(np.random.default_rng(seed), filters, channels, 1.0)
    for row in range(filters):
        weight[row, : channels - 1 - row % channels] = 0
    return weight


# Numbers


@given(networks())
@settings(max_examples=100, deadline=None)
def test_reordering_keeps_the_numbers(case: tuple[Network, ir.Module, np.ndarray]) -> None:
    check_numbers(*case)


@given(networks())
@settings(max_examples=30, deadline=None)
def test_a_second_run_changes_nothing(case: tuple[Network, ir.Module, np.ndarray]) -> None:
    network, module, _ = case
    state = PassState(network.parameters)
    PatternEncode().run(module, state)
    PatternReorder().run(module, state)
    text, names = str(module), set(state.parameters)
    PatternReorder().run(module, state)
    assert str(module) == text
    assert set(state.parameters) == names


@given(networks())
@settings(max_examples=8, deadline=None)
def test_the_reference_lowering_computes_the_same(case: tuple[Network, ir.Module, np.ndarray]) -> None:
    network, module, x = case
    assume("tensor.concat" not in str(module))  # upstream cannot bufferize it
    expected = interpret(module, network.parameters, [x])
    state = PassState(network.parameters)
    PatternEncode().run(module, state)
    PatternReorder().run(module, state)
    for old, new in zip(expected, execute(module, state.parameters, [x]), strict=True):
        np.testing.assert_allclose(new, old, rtol=0, atol=1e-5 * max(1, np.abs(old).max()))


def test_a_model_pruned_with_pointwise_groups_is_encoded_and_keeps_its_numbers() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 20, 3), nn.BatchNorm2d(20), nn.ReLU(), nn.Conv2d(20, 24, 1), nn.Conv2d(24, 24, 3, groups=24),
        nn.ReLU(), nn.Conv2d(24, 33, 1, stride=2),
    )  # fmt: skip
    prune_(model, PatternSpec(pointwise="groups", connectivity=1.5))
    x = torch.randn(1, 3, 12, 11)
    module, state = raised_model(model, [x])
    PatternEncode().run(module, state)
    PatternReorder().run(module, state)
    assert [op.operation.name for op in layer_ops(module)].count("pattern.sparse_conv2d") == 3
    assert not state.diagnostics
    assert_close(interpret(module, state.parameters, [x.numpy()]), torch_results(model, [x]), 1e-6)


# Channels that are renumbered: every consumer absorbs the permutation


def dense(network: Network, x: Value) -> Value:
    rng = np.random.default_rng(1)
    return network.conv(x, rng.standard_normal((3, x.shape[1], 1, 1)), pads=(0, 0, 0, 0))


def depthwise(network: Network, x: Value) -> Value:
    rng = np.random.default_rng(2)
    weight, bias = rng.standard_normal((x.shape[1], 1, 3, 3)), rng.standard_normal(x.shape[1])
    return dense(network, network.conv(x, weight, bias, groups=x.shape[1]))


def narrow_linear(network: Network, flat: Value) -> Value:
    return network.linear(flat, np.random.default_rng(3).standard_normal((2, flat.shape[1])))


def flattened(network: Network, x: Value) -> Value:
    return narrow_linear(network, network.flatten(x))


CONSUMERS: dict[str, Callable[[Network, Value], Value]] = {
    "dense": dense,
    "depthwise": depthwise,
    "flatten and linear": flattened,
    "max pool": lambda network, x: dense(network, network.pool("max", x)),
    "average pool": lambda network, x: flattened(network, network.pool("avg", x, x.shape[2:], (1, 1))),
    "activate": lambda network, x: dense(network, network.activate(x)),
    "relayout": lambda network, x: dense(network, network.relayout(x)),
    "add": lambda network, x: dense(network, network.add(x, network.pool("max", x, (3, 3), (1, 1), (1,) * 4))),
    "residual": lambda network, x: dense(
        network, network.conv(x, np.random.default_rng(4).standard_normal((4, 4, 3, 3)), residual=x)
    ),
}


@pytest.mark.parametrize("consumer", CONSUMERS.values(), ids=CONSUMERS)
def test_consumers_absorb_the_permutation(consumer: Callable[[Network, Value], Value]) -> None:
    network = Network(SHAPE)
    y = network.conv(network.input, uneven_weight(4, 4), np.arange(4), activation='"relu"')
    module = network.build(consumer(network, y))
    assert reorders(module, reorder(network, module)) == [[0, 1, 2, 3]]


def test_sparse_consumers_absorb_the_permutation_and_sort_their_kernels() -> None:
    network = Network(SHAPE)
    y = network.conv(network.input, uneven_weight(4, 4))
    z = network.conv(y, pattern_weight(np.random.default_rng(5), 4, 4, 1.0, (27,)))
    module = network.build(dense(network, z))
    state = reorder(network, module)
    assert reorders(module, state)[0] == [0, 1, 2, 3]
    assert arrays(module, state, "index")[1].reshape(4, 4).tolist() == [[0, 1, 2, 3]] * 4


def sparse_depthwise(network: Network, x: Value) -> Value:
    weight = pattern_weight(np.random.default_rng(8), x.shape[1], 1, 0.9)
    return network.conv(x, weight, np.arange(x.shape[1]), groups=x.shape[1])


def test_sparse_depthwise_layers_tie_the_channels_of_input_and_output() -> None:
    """The layer before does most of the work, and chooses the order of both."""
    network = Network(SHAPE)
    y = network.conv(network.input, uneven_weight(4, 4))
    z = sparse_depthwise(network, y)
    module = network.build(dense(network, z))
    first, second = reorders(module, reorder(network, module))
    assert first == [0, 1, 2, 3] != second

    network = Network(SHAPE)
    y = network.conv(network.input, uneven_weight(4, 4))
    module = network.build(sparse_depthwise(network, y))  # the result keeps its channels
    first, _ = reorders(module, reorder(network, module))
    assert first == [3, 2, 1, 0]


def test_producers_that_meet_adopt_the_order_of_the_heaviest() -> None:
    network = Network(SHAPE)
    light = network.conv(network.input, uneven_weight(4, 4))
    heavy_weight = pattern_weight(np.random.default_rng(6), 4, 4, 1.0)
    heavy_weight[[1, 3], 0] = 0
    heavy = network.conv(network.input, heavy_weight)
    module = network.build(dense(network, network.add(light, heavy)))
    light_order, heavy_order = reorders(module, reorder(network, module))
    assert heavy_order == [0, 1, 2, 3]
    assert light_order != [0, 1, 2, 3]


# Channels that keep their numbers: the stored filters are sorted all the same


def test_results_keep_their_channels() -> None:
    network = Network(SHAPE)
    module = network.build(network.conv(network.input, uneven_weight(4, 4), np.arange(4)))
    assert reorders(module, reorder(network, module)) == [[3, 2, 1, 0]]


def test_inputs_of_kernels_that_span_channels_keep_them() -> None:
    network = Network(SHAPE)
    y = network.conv(network.input, uneven_weight(20, 4))
    weight = pointwise_weight(np.random.default_rng(9), 6, 20, 1.0)
    weight[:3, :9] = 0
    module = network.build(dense(network, network.conv(y, weight, np.arange(6), pads=(0, 0, 0, 0))))
    state = reorder(network, module)
    first, second = reorders(module, state)
    assert first != sorted(first)
    assert second == sorted(second)
    assert (np.diff(arrays(module, state, "offset")[1])[:3] > np.diff(arrays(module, state, "offset")[1])[3:]).all()


def wide_linear(network: Network) -> Value:
    flat = network.flatten(network.input)
    return network.linear(flat, np.random.default_rng(0).standard_normal((flat.shape[1], flat.shape[1])))


@pytest.mark.parametrize(
    "consumer",
    [
        lambda network, x: dense(network, network.add(x, network.input)),
        lambda network, x: dense(network, network.concat(x, x)),
        lambda network, x: network.conv(x, np.ones((4, 2, 3, 3)), groups=2),
        lambda network, x: narrow_linear(network, network.add(network.flatten(x), wide_linear(network))),
        lambda network, x: network.conv(x, np.ones((4, 4, 3, 3)), residual=network.input),
        lambda network, x: dense(network, network.conv(network.input, np.ones((4, 4, 3, 3)), residual=x)),
    ],
    ids=["argument", "concat", "groups", "linear", "absorbed", "absorbed residual"],
)
def test_ties_to_other_tensors(consumer: Callable[[Network, Value], Value], request: pytest.FixtureRequest) -> None:
    network = Network(SHAPE)
    y = network.conv(network.input, uneven_weight(4, 4))
    module = network.build(consumer(network, y))
    absorbed = "absorbed" in request.node.callspec.id
    assert reorders(module, reorder(network, module)) == [[0, 1, 2, 3] if absorbed else [3, 2, 1, 0]]


def test_flattened_tensors_of_other_channels_do_not_mix() -> None:
    network = Network((1, 4, 4, 4))
    four = network.conv(network.input, uneven_weight(4, 4))
    sixteen = network.pool("max", network.conv(network.input, uneven_weight(16, 4)))
    total = network.add(network.flatten(four), network.flatten(sixteen))
    module = network.build(network.linear(total, np.random.default_rng(0).standard_normal((2, 64))))
    assert reorders(module, reorder(network, module))[0] == [3, 2, 1, 0]


def test_weights_of_two_layers_are_permuted_for_each() -> None:
    network = Network(SHAPE)
    y = network.conv(network.input, uneven_weight(4, 4))
    shared = network.parameter(np.random.default_rng(0).standard_normal((3, 4, 1, 1)), "shared")
    attributes = (
        "strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, "
        'groups = 1 : i64, activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>'
    )
    shape = (1, 3, 6, 6)
    results = [network.op("pattern.conv2d", [x, shared], attributes, shape) for x in (network.input, y)]
    module = network.build(*results)
    assert reorders(module, reorder(network, module)) == [[0, 1, 2, 3]]


def test_the_store_keeps_the_arrays_of_earlier_stages() -> None:
    network = Network(SHAPE)
    y = network.conv(network.input, uneven_weight(4, 4))
    module = network.build(dense(network, y))
    earlier = {name: network.parameters[name].copy() for name in network.parameters}
    state = reorder(network, module)
    for name, array in earlier.items():
        np.testing.assert_array_equal(state.parameters[name], array)


# Invalid arrays


def test_invalid_arrays_are_refused() -> None:
    network = Network(SHAPE)
    module = network.build(network.conv(network.input, uneven_weight(4, 4)))
    state = PassState(network.parameters)
    PatternEncode().run(module, state)
    state.parameters["layer0.index"] = state.parameters["layer0.index"] + 4
    with pytest.raises(PatcError, match=r"op expected index below 4, the input channels, got \d"):
        PatternReorder().run(module, state)


def test_kernels_that_span_channels_behind_the_last_are_refused() -> None:
    network = Network((1, 20, 6, 6))
    weight = pointwise_weight(np.random.default_rng(0), 4, 20, 1.0)
    module = network.build(network.conv(network.input, weight, pads=(0, 0, 0, 0)))
    state = PassState(network.parameters)
    PatternEncode().run(module, state)
    state.parameters["layer0.index"] = state.parameters["layer0.index"] + 1
    with pytest.raises(PatcError, match="op expected index below 12, as a kernel spans 9 of 20 input channels, got 12"):
        PatternReorder().run(module, state)
