"""pattern-layout: where elements lie, that windows find their pads around them, and that the numbers stay."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from interpreter import interpret
from native import Net, main_body
from networks import Network, networks
from torch_mlir import ir

from patc.diagnostics import PatcError
from patc.dialects.attributes import Layout
from patc.passes.base import PassState
from patc.passes.ir.views import is_view
from patc.passes.ir.windows import Window
from patc.passes.pattern_layout import PatternLayout

WINDOWS = ("pattern.conv2d", "pattern.sparse_conv2d", "pattern.max_pool2d", "pattern.avg_pool2d")


def lay_out(module: ir.Module, target: str = "x86-64-v4") -> None:
    with module.context, ir.Location.unknown():
        PatternLayout(target=target).run(module, PassState())
    assert module.operation.verify()


def offset(layout: Layout, y: int, x: int) -> int:
    """Return where element (y, x) of a plane lies, as the layout's documentation says; halo has negative ones too."""
    position, phase = divmod(x + layout.left, layout.phases)
    return (y + layout.top) * layout.row * layout.phases + phase * layout.row + position


def sliding_uses(module: ir.Module) -> Iterator[tuple[Any, Layout, list[int]]]:
    """Yield each op with a window, the layout and the shape of its input."""
    for op in main_body(module).operations:
        if op.operation.name in WINDOWS:
            yield op, Layout.of(op.input.type), list(op.input.type.shape)


# Where elements lie


def test_packed_layout_is_row_major() -> None:
    layout = Layout.packed(3, 5)
    assert layout.is_packed(3, 5)
    assert [offset(layout, y, x) for y in range(3) for x in range(5)] == list(range(15))
    assert layout.plane == 15


def test_two_phases_hold_even_and_odd_columns_apart() -> None:
    layout = Layout(left=1, row=3, plane=12, phases=2)
    assert layout.pitch == 6
    # Columns -1, 1, 3 and then 0, 2, 4.
    assert [offset(layout, 0, x) for x in (-1, 1, 3, 0, 2, 4)] == [0, 1, 2, 3, 4, 5]
    assert offset(layout, 1, -1) == 6


@st.composite
def windowed(draw: st.DrawFn) -> tuple[ir.Module, Layout, tuple[int, int]]:
    """Draw a tensor that windows read, and return the layout that it gets for them."""
    height, width = draw(st.integers(1, 20)), draw(st.integers(1, 40))
    net = Net((1, 2, height, width))
    value = net.activate(net.input)
    results = []
    for _ in range(draw(st.integers(1, 3))):
        kernel = draw(st.tuples(st.integers(1, min(5, height)), st.integers(1, min(5, width))))
        pads = draw(st.tuples(*[st.integers(0, 3)] * 4))
        strides = (draw(st.integers(1, 2)), draw(st.integers(1, 3)))
        window = Window(kernel, strides, pads)
        # A maximum of padding alone needs another halo than convolutions do.
        always_meets = window.always_meets((height, width))
        kind = draw(st.sampled_from(["conv", "conv", "max" if always_meets else "conv", "avg"]))
        if kind == "conv":
            results.append(net.conv(value, np.ones((1, 2, *kernel)), strides=strides, pads=pads))
        else:
            results.append(net.window_pool(kind, value, window))
    module = net.build(*results)
    lay_out(module, draw(st.sampled_from(["x86-64-v3", "x86-64-v4"])))
    activate = next(op for op in main_body(module).operations if op.operation.name == "pattern.activate")
    return module, Layout.of(activate.result.type), (height, width)


@given(windowed())
@settings(max_examples=150, deadline=None)
def test_elements_have_places_of_their_own(case: tuple[ir.Module, Layout, tuple[int, int]]) -> None:
    _, layout, (height, width) = case
    places = [offset(layout, y, x) for y in range(height) for x in range(width)]
    assert len(set(places)) == len(places)
    assert min(places) >= 0
    assert max(places) < layout.plane


@given(windowed())
@settings(max_examples=150, deadline=None)
def test_halo_surrounds_every_window(case: tuple[ir.Module, Layout, tuple[int, int]]) -> None:
    """What a window reads beside the elements is never an element, and lies in its plane."""
    module, layout, (height, width) = case
    elements = {offset(layout, y, x) for y in range(height) for x in range(width)}
    for op, found, _ in sliding_uses(module):
        assert found == layout
        top, left, bottom, right = op.pads
        assert (top <= layout.top, left <= layout.left, bottom <= layout.bottom) == (True, True, True)
        for y in range(-top, height + bottom):
            for x in range(-left, width + right):
                place = offset(layout, y, x)
                assert 0 <= place < layout.plane
                assert (place in elements) == (0 <= y < height and 0 <= x < width)


@given(windowed())
@settings(max_examples=100, deadline=None)
def test_taps_are_constant_offsets(case: tuple[ir.Module, Layout, tuple[int, int]]) -> None:
    """Where a layout has phases, outputs side by side read elements side by side."""
    module, layout, _ = case
    for op, _, _ in sliding_uses(module):
        stride = op.strides[1]
        assert layout.phases in (1, stride)
        steps = {offset(layout, 0, x + stride) - offset(layout, 0, x) for x in range(4)}
        assert steps == {stride // layout.phases}


# What the pass does to a module


@given(networks())
@settings(max_examples=60, deadline=None)
def test_numbers_stay(case: tuple[Network, ir.Module, np.ndarray]) -> None:
    network, module, x = case
    before = interpret(module, network.parameters, [x])
    lay_out(module)
    for old, new in zip(before, interpret(module, network.parameters, [x]), strict=True):
        np.testing.assert_array_equal(new, old)


@given(networks())
@settings(max_examples=60, deadline=None)
def test_boundary_and_flattened_tensors_are_packed(case: tuple[Network, ir.Module, np.ndarray]) -> None:
    _, module, _ = case
    lay_out(module)
    body = main_body(module)
    for op in body.operations:
        if op.operation.name in ("func.return", "tensor.collapse_shape"):
            types = [value.type for value in op.operation.operands if len(value.type.shape) == 4]
            assert all(Layout.of(type_).is_packed(*type_.shape[2:]) for type_ in types)
    assert all(argument.type.encoding is None for argument in body.arguments)


@given(networks())
@settings(max_examples=60, deadline=None)
def test_a_value_is_moved_only_where_its_users_differ(case: tuple[Network, ir.Module, np.ndarray]) -> None:
    _, module, _ = case
    assume("pattern.relayout" not in str(module))
    lay_out(module)
    for op in main_body(module).operations:
        if _moves(op):
            assert Layout.of(op.input.type) != Layout.of(op.result.type)
            moves = [use.owner.opview for use in op.input.uses if _moves(use.owner.opview)]
            layouts = [Layout.of(move.result.type) for move in moves]
            assert len(set(layouts)) == len(layouts), "the same value is moved to one layout twice"


def _moves(op: Any) -> bool:
    """Whether an op is a relayout, and no copy to where a concatenation lies or from there."""
    if op.operation.name != "pattern.relayout":
        return False
    return not any(is_view(use.owner.opview) for value in (op.input, op.result) for use in value.uses)


@given(networks())
@settings(max_examples=30, deadline=None)
def test_a_second_run_changes_nothing(case: tuple[Network, ir.Module, np.ndarray]) -> None:
    _, module, _ = case
    lay_out(module)
    text = str(module)
    lay_out(module)
    assert str(module) == text


def test_a_max_pool_and_a_mean_may_share_an_argument() -> None:
    net = Net((1, 2, 6, 6))
    largest = net.window_pool("max", net.input, Window((3, 3), pads=(1, 1, 1, 1)))
    module = net.build(largest, net.global_pool(net.input))
    lay_out(module)
    layouts = {op.operation.name: layout for op, layout, _ in sliding_uses(module)}
    assert layouts["pattern.max_pool2d"].fill == "lowest"
    assert layouts["pattern.avg_pool2d"].fill == "zero"


def test_unknown_target() -> None:
    net = Net((1, 2, 6, 6))
    with pytest.raises(PatcError, match=r"expected a target of host, .*, got 'x86-64-v9'"):
        lay_out(net.build(net.activate(net.input)), "x86-64-v9")


def test_a_relayout_of_the_user_gets_the_halo_of_its_users() -> None:
    net = Net((1, 2, 6, 6))
    module = net.build(net.conv(net.relayout(net.input), np.ones((1, 2, 3, 3), np.float32), pads=(1, 1, 1, 1)))
    lay_out(module)
    layouts = [layout for op, layout, _ in sliding_uses(module) if op.operation.name == "pattern.conv2d"]
    assert [(layout.top, layout.left) for layout in layouts] == [(1, 1)]
