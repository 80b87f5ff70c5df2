"""pattern-schedule: the tiles that it chooses are legal and fit the registers, and the same ones every time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from interpreter import interpret
from native import Net, main_body, scheduled_ops
from networks import CONTEXT, LIBRARY, Network, networks, pattern_weight
from random_layers import random_fkw
from torch_mlir import ir

from patc.diagnostics import PatcError
from patc.dialects.attributes import Library
from patc.dialects.schedules import Choice, Schedule
from patc.passes.algorithms.host.pattern_packed import Packing
from patc.passes.base import PassState
from patc.passes.formats.layer_weights import groups_of
from patc.passes.ir.windows import Window
from patc.passes.kernels import tiling
from patc.passes.pattern_encode import PatternEncode
from patc.passes.pattern_layout import PatternLayout
from patc.passes.pattern_schedule import PatternSchedule
from patc.targets import TARGETS, Target

SCHEDULED = ("conv2d", "sparse_conv2d", "linear", "max_pool2d", "avg_pool2d", "add", "activate", "relayout")


def schedule(module: ir.Module, network: Network, target: str = "x86-64-v4", threads: int = 1) -> None:
    """Encode, lay out and schedule a module."""
    state = PassState(network.copy_parameters())
    with module.context, ir.Location.unknown():
        PatternEncode().run(module, state)
        PatternLayout(target=target).run(module, state)
        PatternSchedule(target=target, threads=threads).run(module, state)
    assert module.operation.verify()


def only_schedule(net: Network, module: ir.Module, target: str = "x86-64-v4", threads: int = 1) -> Schedule:
    """Return the schedule of the last layer of a module."""
    schedule(module, net, target, threads)
    return list(scheduled_ops(module))[-1][1]


def check_tile(op: Any, chosen: Schedule, target: Target) -> None:
    """Require what the kernels require of a tile, and that its accumulators fit the registers."""
    assert chosen.lanes * (2 if chosen.algorithm == "filter-lanes" else 1) == target.lanes
    shape = list(op.result.type.shape)
    if len(shape) == 2:
        assert 1 <= chosen.filters <= shape[1] and 1 <= chosen.rows <= shape[0]
        return
    if chosen.algorithm == "global-pool":
        return
    _, channels, height, width = shape
    assert chosen.rows >= 1
    if chosen.algorithm != "winograd":
        assert chosen.rows <= height
    *all_but_last, _ = found = tiling.strips(width, chosen.columns, chosen.lanes)
    repeated = [strip for strip in found if strip.count > 1] + all_but_last
    assert all(chunk.valid == chunk.lanes for strip in repeated for chunk in strip.chunks)
    vectors = chosen.rows * max(len(strip.chunks) for strip in found)
    if chosen.algorithm == "winograd":
        assert 1 <= chosen.filters <= channels
        assert chosen.columns // chosen.lanes * (chosen.filters + 1) < target.registers
        return
    if chosen.algorithm == "input-stationary":
        assert 1 <= chosen.filters <= channels
        assert vectors < target.registers  # a pattern's inputs; accumulators are in memory
        return
    if chosen.algorithm == "pattern-packed":
        strips = Packing.of(op, chosen, target.registers, target.core_costs()).strips
        assert all(strip.rows <= target.registers // 2 for strip in strips)
        assert all(strip.tiles * strip.height >= chosen.rows >= strip.height for strip in strips)
        return
    if chosen.algorithm == "filter-lanes":
        outputs = chosen.rows * max(sum(chunk.valid for chunk in strip.chunks) for strip in found)
        assert chosen.filters <= channels and (outputs + 1) * chosen.filters // target.lanes < target.registers
        return
    assert vectors * chosen.filters * chosen.sums < target.registers
    if chosen.algorithm in ("dense-direct", "depthwise-direct"):
        group = channels // groups_of(op)
        assert chosen.filters <= group
        assert group == channels or group % chosen.filters == 0
    if chosen.algorithm == "pattern-direct":
        assert chosen.sums <= Library.from_attr(op.format).entries


@pytest.mark.parametrize("target", sorted(TARGETS))
@given(case=networks())
@settings(max_examples=60, deadline=None)
def test_tiles_are_legal(target: str, case: tuple[Network, ir.Module, np.ndarray]) -> None:
    network, module, _ = case
    schedule(module, network, target)
    for op, chosen in scheduled_ops(module):
        check_tile(op, chosen, TARGETS[target])


@pytest.mark.parametrize("target", sorted(TARGETS))
@pytest.mark.parametrize(
    ("channels", "height", "width"), [(64, 56, 56), (512, 7, 7), (3, 1, 1), (32, 3, 200), (8, 200, 3)]
)
def test_tiles_of_large_and_odd_planes_are_legal(target: str, channels: int, height: int, width: int) -> None:
    net = Net((2, channels, height, width))
    rng = np.random.default_rng(0)
    sparse = net.conv(net.input, pattern_weight(rng, 16, channels))
    dense = net.conv(sparse, rng.standard_normal((16, 16, 3, 3)))
    strided = net.conv(dense, rng.standard_normal((16, 16, 3, 3)), strides=(2, 2))
    module = net.build(net.conv(strided, rng.standard_normal((16, 1, 3, 3)), groups=16))
    schedule(module, net, target)
    found = [chosen.algorithm for _, chosen in scheduled_ops(module)]
    sparse, dense, *others = [name for name in found if name != "elementwise"]
    assert sparse in ("pattern-direct", "pattern-packed", "input-stationary", "dense-direct", "winograd")
    assert dense in ("dense-direct", "filter-lanes", "winograd")
    strided, depthwise = others
    assert strided in ("dense-direct", "filter-lanes") and depthwise == "depthwise-direct"
    for op, chosen in scheduled_ops(module):
        check_tile(op, chosen, TARGETS[target])


@given(networks())
@settings(max_examples=40, deadline=None)
def test_every_layer_says_how_and_why(case: tuple[Network, ir.Module, np.ndarray]) -> None:
    network, module, x = case
    before = interpret(module, network.parameters, [x])
    state = PassState(network.parameters)
    with module.context, ir.Location.unknown():
        PatternSchedule(threads=2).run(module, state)
    for op in main_body(module).operations:
        if op.operation.name.removeprefix("pattern.") in SCHEDULED:
            assert all(name in op.attributes for name in ("schedule", "explanation", "cycles"))
            assert op.attributes["cycles"].value >= 0
            explanation = Choice.from_attr(op.attributes["explanation"])
            assert explanation.bound and explanation.alternatives[0].ratio == 1.0
            ratios = [alternative.ratio for alternative in explanation.alternatives]
            assert ratios == sorted(ratios) and len(ratios) <= explanation.considered
            assert Schedule.from_attr(op.attributes["schedule"]).threads == 2
    for old, new in zip(before, interpret(module, network.parameters, [x]), strict=True):
        np.testing.assert_array_equal(new, old)


@given(networks())
@settings(max_examples=20, deadline=None)
def test_choices_are_the_same_every_time(case: tuple[Network, ir.Module, np.ndarray]) -> None:
    network, module, _ = case
    again = ir.Module.parse(str(module), CONTEXT)
    schedule(module, network)
    schedule(again, network)
    assert str(module) == str(again)


@given(networks())
@settings(max_examples=20, deadline=None)
def test_a_second_run_changes_nothing(case: tuple[Network, ir.Module, np.ndarray]) -> None:
    network, module, _ = case
    schedule(module, network)
    text = str(module)
    with module.context, ir.Location.unknown():
        PatternSchedule(target="x86-64-v3", threads=7).run(module, PassState(network.parameters))
    assert str(module) == text


def test_attribute_holds_every_field() -> None:
    given_schedule = Schedule("pattern-direct", 3, 24, 8, 2, 4, "rows", 5)
    with CONTEXT:
        assert Schedule.from_attr(given_schedule.to_attr()) == given_schedule


def test_weights_that_are_not_constant_are_taken_as_evenly_spread() -> None:
    text = """
    func.func @main(%x: tensor<1x2x8x8xf32>, %index: tensor<2xi16>, %pattern_offsets: tensor<1x3xi16>)
        -> tensor<1x1x8x8xf32> {
      %values = "pattern.parameter"() {name = "values"} : () -> tensor<2x4xf32>
      %offset = "pattern.parameter"() {name = "offset"} : () -> tensor<2xi32>
      %reorder = "pattern.parameter"() {name = "reorder"} : () -> tensor<1xi16>
      %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "none",
        dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 3, 3>, array<i64: 27, 54>>,
        operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 1, 1, 1, 1>,
        strides = array<i64: 1, 1>} : (tensor<1x2x8x8xf32>, tensor<2x4xf32>, tensor<2xi16>, tensor<2xi32>,
        tensor<1x3xi16>, tensor<1xi16>) -> tensor<1x1x8x8xf32>
      return %y : tensor<1x1x8x8xf32>
    }"""
    module = ir.Module.parse(text, CONTEXT)
    net = Net((1, 2, 8, 8))
    assert only_schedule(net, module).algorithm in ("pattern-direct", "input-stationary")


@pytest.mark.parametrize(("filters", "algorithm"), [(4, "pattern-direct"), (256, "input-stationary")])
def test_inputs_stay_in_registers_where_many_filters_share_them(filters: int, algorithm: str) -> None:
    net = Net((1, 64, 28, 28))
    module = net.build(net.conv(net.input, pattern_weight(np.random.default_rng(0), filters, 64, 0.3)))
    assert only_schedule(net, module).algorithm == algorithm


def test_zeros_that_kernels_store_cost_nothing_tap_by_tap() -> None:
    masks = [0b000011011, 0b110110000, 0b010011010, 0b101000101]

    def kept_cycles(zeros: int) -> int:
        net, rng = Net((1, 192, 14, 14)), np.random.default_rng(0)
        values, *arrays = random_fkw(rng, 48, 192, len(masks), 4, 9, 4)
        values[:, :zeros] = 0
        module = net.build(net.sparse_conv(net.input, [values, *arrays], (1, 1, 9), masks, Window((1, 1))))
        schedule(module, net)
        (op,) = (op for op, _ in scheduled_ops(module) if "sparse" in op.operation.name)
        ways = Choice.from_attr(op.attributes["explanation"]).alternatives
        (found,) = (way.kept_cycles for way in ways if way.schedule.algorithm == "tap-direct")
        assert found is not None
        return found

    assert kept_cycles(2) == pytest.approx(0.5 * kept_cycles(0), rel=0.01)


# Work for threads


@pytest.mark.parametrize(
    ("images", "height", "threads", "split"),
    [(6, 1, 3, "rows"), (6, 1, 4, "filters"), (1, 1, 2, "filters"), (32, 1, 4, "rows"), (31, 1, 4, "filters")],
)
def test_rows_are_divided_where_threads_get_as_many(images: int, height: int, threads: int, split: str) -> None:
    net = Net((images, 8, height, 16))
    assert only_schedule(net, net.build(net.activate(net.input)), threads=threads).split == split


@pytest.mark.parametrize(("images", "algorithm"), [(1, "gemv"), (4, "gemm")])
def test_linear_layers_divide_filters(images: int, algorithm: str) -> None:
    net = Net((images, 8))
    chosen = only_schedule(net, net.build(net.dense_layer(net.input, np.ones((6, 8)))), threads=2)
    assert (chosen.algorithm, chosen.split, chosen.threads) == (algorithm, "filters", 2)


# What the model is for


def test_fewer_kernels_take_fewer_cycles() -> None:
    cycles = []
    for keep in (0.1, 0.3, 1.0):
        net = Net((1, 32, 28, 28))
        weight = pattern_weight(np.random.default_rng(0), 32, 32, keep, LIBRARY)
        module = net.build(net.conv(net.input, weight))
        schedule(module, net)
        cycles.append([op.attributes["cycles"].value for op, _ in scheduled_ops(module)][-1])
    assert cycles[0] < cycles[1] < cycles[2]


def test_a_machine_with_narrower_vectors_is_not_faster() -> None:
    cycles = {}
    for target in TARGETS:
        net = Net((1, 32, 28, 28))
        module = net.build(net.conv(net.input, pattern_weight(np.random.default_rng(0), 32, 32)))
        schedule(module, net, target)
        cycles[target] = [op.attributes["cycles"].value for op, _ in scheduled_ops(module)][-1]
    assert cycles["x86-64-v4"] <= cycles["x86-64-v3"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "pdp11"}, "expected a target of host, .*, got 'pdp11'"),
        ({"threads": 0}, "'threads' to be an integer from 1 to 1024, got 0"),
        ({"threads": True}, "'threads' to be an integer from 1 to 1024, got True"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    net = Net((1, 2, 4, 4))
    module = net.build(net.activate(net.input))
    with pytest.raises(PatcError, match=message), module.context, ir.Location.unknown():
        PatternSchedule(**options).run(module, PassState())  # type: ignore[arg-type]


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (7, 2)])
@pytest.mark.parametrize("target", ["x86-64-v3", "x86-64-v4", "aarch64-linux"])
def test_no_winograd_where_channels_cancel(kernel: int, stride: int, target: str) -> None:
    rng = np.random.default_rng(0)
    colours = rng.standard_normal((64, 3, kernel, kernel))
    colours -= colours.mean(1, keepdims=True)
    edges = rng.standard_normal((64, 3, kernel, kernel))
    edges -= edges.mean((1, 2, 3), keepdims=True)
    found = []
    for weight in (colours, edges, np.concatenate([colours[:48], edges[:16]])):
        net = Net((1, 3, 112 * stride, 112 * stride))
        y = net.conv(net.input, weight, strides=(stride, stride), pads=(kernel // 2,) * 4)
        module = net.build(y)
        schedule(module, net, target)
        op, chosen = list(scheduled_ops(module))[-1]
        found.append(chosen.algorithm)
        notes = Choice.from_attr(op.attributes["explanation"]).notes
        assert any("no winograd: filters cancel" in note for note in notes) == (weight is colours)
    assert found[0] != "winograd" and found[1:] == ["winograd", "winograd"]


@pytest.mark.parametrize(
    ("layers", "is_mean", "algorithm"),
    [(8, False, "winograd"), (50, False, "dense-direct"), (50, True, "winograd")],
)
def test_stems_of_deep_nets_round_less(layers: int, is_mean: bool, algorithm: str) -> None:
    """Rounding errors grow in the layers behind, unless a mean over planes averages them."""
    net, rng = Net((1, 3, 64, 64)), np.random.default_rng(0)
    x = net.conv(net.input, rng.standard_normal((16, 3, 7, 7)), strides=(2, 2), pads=(3, 3, 3, 3))
    for _ in range(layers):
        x = net.conv(x, rng.standard_normal((128, x.shape[1], 1, 1)), pads=(0, 0, 0, 0))
    module = net.build(net.window_pool("avg", x, Window((32, 32))) if is_mean else x)
    schedule(module, net)
    (op, chosen), *_ = [(op, chosen) for op, chosen in scheduled_ops(module) if op.operation.name == "pattern.conv2d"]
    assert chosen.algorithm == algorithm
    notes = Choice.from_attr(op.attributes["explanation"]).notes
    assert any("more exactly" in note for note in notes) == (algorithm == "dense-direct")
