"""pattern-plan-memory: buffers that live together lie apart, the arena is small, and nets still compute the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from interpreter import interpret
from native import Native, Net, compile_native, main_body
from networks import CONTEXT, Network, networks
from torch_mlir import ir

from patc.diagnostics import PatcError
from patc.integers import ceil_div
from patc.parameters import ParameterStore
from patc.passes.base import PassState
from patc.passes.ir.arena import ALIGNMENT, WEIGHTS, Lifetime, place
from patc.passes.pattern_encode import PatternEncode
from patc.passes.pattern_plan_memory import PatternPlanMemory
from patc.passes.pattern_reorder import PatternReorder

LIFETIMES = st.lists(
    st.builds(
        lambda size, first, length: Lifetime(size, first, first + length),
        st.integers(1, 5000),
        st.integers(0, 30),
        st.integers(0, 10),
    ),
    max_size=25,
)


def rounded(size: int) -> int:
    return ceil_div(size, ALIGNMENT) * ALIGNMENT


def overlap(a: Lifetime, b: Lifetime) -> bool:
    return a.first <= b.last and b.first <= a.last


@given(LIFETIMES)
@settings(max_examples=300)
def test_buffers_that_live_together_lie_apart(buffers: list[Lifetime]) -> None:
    offsets, total = place(buffers)
    spans = list(zip(buffers, offsets, strict=True))
    for number, (buffer, start) in enumerate(spans):
        assert start % ALIGNMENT == 0
        assert start >= 0 and start + buffer.size <= total
        for other, other_start in spans[:number]:
            apart = start + buffer.size <= other_start or other_start + other.size <= start
            assert apart or not overlap(buffer, other)


@given(LIFETIMES)
@settings(max_examples=200)
def test_arena_is_no_larger_than_all_buffers_and_no_smaller_than_any_moment(buffers: list[Lifetime]) -> None:
    _, total = place(buffers)
    assert total <= sum(rounded(buffer.size) for buffer in buffers)
    moments = {buffer.first for buffer in buffers}
    live = [[buffer for buffer in buffers if buffer.first <= now <= buffer.last] for now in moments]
    assert total >= max((sum(rounded(buffer.size) for buffer in alive) for alive in live), default=0)


@given(st.integers(1, 4000), st.integers(1, 20))
def test_chain_of_equal_layers_needs_two_buffers(size: int, layers: int) -> None:
    buffers = [Lifetime(size, number, number + 1) for number in range(layers)]
    assert place(buffers)[1] == rounded(size) * min(layers, 2)


def test_smallest_gap_that_fits_is_taken() -> None:
    buffers = [
        Lifetime(64 * 8, 0, 1),  # leaves a gap of 8 lines
        Lifetime(64 * 7, 0, 9),
        Lifetime(64 * 6, 0, 1),  # leaves a gap of 6 lines
        Lifetime(64 * 5, 0, 9),
        Lifetime(64 * 4, 2, 3),
    ]
    offsets, _ = place(buffers)
    assert offsets == [0, 8 * 64, 15 * 64, 21 * 64, 15 * 64]


# Modules


def compile_encoded(network: Network, module: ir.Module) -> Native:
    parameters = network.copy_parameters()
    state = PassState(parameters)
    with module.context, ir.Location.unknown():
        PatternEncode().run(module, state)
        PatternReorder().run(module, state)
    return compile_native(module, parameters)


@given(networks())
@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_random_nets_compute_the_same_in_one_arena(case: tuple[Network, ir.Module, np.ndarray]) -> None:
    network, module, x = case
    assume("pattern.conv2d" in str(module) and "tensor.concat" not in str(module))
    wanted = interpret(module, network.parameters, [x])
    native = compile_encoded(network, module)
    for _ in range(2):
        for found, other in zip(native(x), wanted, strict=True):
            # The bound that is promised; nothing here is normalised, and a clamp may follow sums a thousand times as large.
            assert np.abs(found - other).max() <= 1e-4 * max(1.0, np.abs(other).max())


@pytest.mark.parametrize("layers", [3, 8])
def test_deep_nets_need_no_more_memory(layers: int) -> None:
    net = Net((1, 8, 16, 16))
    x = net.input
    for _ in range(layers):
        x = net.activate(x)
    module = net.build(net.conv(x, np.ones((8, 8, 1, 1)), pads=(0, 0, 0, 0)))
    arena = compile_native(module, net.copy_parameters()).program.arena_bytes
    assert arena < 2.5 * 4 * 8 * 16 * 16


def test_blob_holds_every_array_on_a_cache_line() -> None:
    text = """
    memref.global "private" @stored : memref<20xf32>
    memref.global "private" constant @written : memref<3xi16> = dense<[1, -2, 3]>
    memref.global "private" constant @equal : memref<5xi32> = dense<-7>
    func.func @main(%y: memref<20xf32>, %z: memref<3xi16>, %u: memref<5xi32>) {
      %a = memref.get_global @stored : memref<20xf32>
      memref.copy %a, %y : memref<20xf32> to memref<20xf32>
      %b = memref.get_global @written : memref<3xi16>
      memref.copy %b, %z : memref<3xi16> to memref<3xi16>
      %c = memref.get_global @equal : memref<5xi32>
      memref.copy %c, %u : memref<5xi32> to memref<5xi32>
      return
    }"""
    module = ir.Module.parse(text, CONTEXT)
    stored = np.arange(20, dtype=np.float32)
    state = PassState(ParameterStore({"stored": stored}))
    with module.context, ir.Location.unknown():
        PatternPlanMemory().run(module, state)
    blob = state.parameters[WEIGHTS]
    np.testing.assert_array_equal(blob[:80].view(np.float32), stored)
    np.testing.assert_array_equal(blob[128:134].view(np.int16), [1, -2, 3])
    np.testing.assert_array_equal(blob[192:212].view(np.int32), [-7] * 5)
    assert len(blob) == 256
    types = [str(argument.type) for argument in main_body(module).arguments]
    assert types[-2:] == ["memref<64xi8>", "memref<256xi8>"]


def test_functions_of_one_module_share_the_blob() -> None:
    function = """
    memref.global "private" constant @{name}s : memref<16xf32> = dense<{value}>
    func.func @{name}(%y: memref<16xf32>) {{
      %a = memref.get_global @{name}s : memref<16xf32>
      memref.copy %a, %y : memref<16xf32> to memref<16xf32>
      return
    }}"""
    text = function.format(name="one", value="1.0") + function.format(name="two", value="2.0")
    module, state = ir.Module.parse(text, CONTEXT), PassState()
    with module.context, ir.Location.unknown():
        PatternPlanMemory().run(module, state)
    found = {float(value) for value in state.parameters[WEIGHTS].view(np.float32)}
    assert {1.0, 2.0} <= found


def test_missing_array() -> None:
    text = """
    memref.global "private" @missing : memref<4xf32>
    func.func @main(%y: memref<4xf32>) {
      %a = memref.get_global @missing : memref<4xf32>
      memref.copy %a, %y : memref<4xf32> to memref<4xf32>
      return
    }"""
    module = ir.Module.parse(text, CONTEXT)
    with pytest.raises(PatcError, match="'missing' is not in the store"), module.context, ir.Location.unknown():
        PatternPlanMemory().run(module, PassState())
