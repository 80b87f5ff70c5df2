"""What a GPU computes with, without one: packed weights, schedules within every device's limits, and kernels."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from gpu import compile_for_gpu, needs_validator, require_valid
from hypothesis import given
from hypothesis import strategies as st
from native import main_body
from networks import LIBRARY, Network, pattern_weight
from torch_mlir import ir

from patc.dialects.schedules import Choice, Schedule
from patc.integers import ceil_div
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.formats.fkw import Fkw, encode
from patc.passes.kernels.gpu.kernel import LANES
from patc.passes.kernels.gpu.weights import pack_features, pack_kernels, pack_taps, share_kernels
from patc.passes.layers.registry import kind_of
from patc.pipeline import Pipeline
from patc.targets import SPIRV_VULKAN, get_target


def shared_fkw(rng: np.random.Generator, groups: int, block: int, channels: int) -> Fkw:
    """Return kernels that the filters of each block share."""
    kept = np.repeat(pattern_weight(rng, groups, channels, 0.6) != 0, block, axis=0)
    return encode((kept * rng.standard_normal(kept.shape)).astype(np.float32), LIBRARY)


@given(st.integers(0, 1000), st.integers(1, 5), st.sampled_from([1, 2, 4]), st.integers(1, 9))
def test_kernels_of_a_block_are_side_by_side(seed: int, groups: int, block: int, channels: int) -> None:
    fkw = shared_fkw(np.random.default_rng(seed), groups, block, channels)
    assert share_kernels(fkw, block)
    plane = 7
    packed = pack_kernels(fkw, block, plane)
    assert packed["bounds"].shape == (groups, len(LIBRARY) + 1)
    for stored in range(groups * block):
        group, member = divmod(stored, block)
        for pattern in range(len(LIBRARY)):
            first, end = packed["bounds"][group, pattern : pattern + 2]
            own = slice(
                fkw.offset[stored] + fkw.pattern_offsets[stored, pattern],
                fkw.offset[stored] + fkw.pattern_offsets[stored, pattern + 1],
            )
            np.testing.assert_array_equal(packed["index"][first:end], plane * fkw.index[own].astype(np.int32))
            np.testing.assert_array_equal(packed["values"][first:end, member], fkw.values[own])
    assert packed["values"].shape[2] % LANES == 0


def test_filters_that_keep_other_kernels_do_not_share() -> None:
    rng = np.random.default_rng(0)
    fkw = shared_fkw(rng, 3, 2, 6)
    assert share_kernels(fkw, 1) and share_kernels(fkw, 2)
    assert not share_kernels(fkw, 4), "6 filters do not divide into blocks of 4"
    others = encode(pattern_weight(rng, 6, 6, 0.6), LIBRARY)
    assert not share_kernels(others, 2)
    moved = replace(fkw, index=np.where(np.arange(fkw.kernels) == fkw.kernels - 1, (fkw.index + 1) % 6, fkw.index))
    assert not share_kernels(moved, 2), "another channel"


@given(st.integers(1, 9), st.integers(1, 5), st.sampled_from([(1, 1), (3, 3), (2, 5)]), st.integers(1, 4))
def test_taps_of_a_block_are_vectors(filters: int, channels: int, kernel: tuple[int, int], block: int) -> None:
    weight = np.random.default_rng(0).standard_normal((filters, channels, *kernel), np.float32)
    packed = pack_taps(weight, block)
    assert packed.shape[:2] == (ceil_div(filters, block), channels) and packed.shape[2] % LANES == 0
    for filter_ in range(filters):
        number, member = divmod(filter_, block)
        taps = packed[number, :, member : kernel[0] * kernel[1] * block : block]
        np.testing.assert_array_equal(taps, weight[filter_].reshape(channels, -1))


def test_features_of_a_block_are_vectors() -> None:
    weight = np.arange(5 * 6, dtype=np.float32).reshape(5, 6) + 1
    packed = pack_features(weight, 4)
    assert packed.shape == (2, 2, 4, LANES)
    np.testing.assert_array_equal(packed[0, 0, 1], weight[1, :4])
    np.testing.assert_array_equal(packed[1, 1, 0], [*weight[4, 4:], 0, 0])
    assert not packed[1, :, 1:].any()


@dataclass(frozen=True)
class Layer:
    """An op with its schedule, and the module that it lives in."""

    op: Any
    state: PassState
    module: ir.Module

    @property
    def schedule(self) -> Schedule:
        return Schedule.from_attr(self.op.attributes["schedule"])

    def candidates(self) -> list[Candidate]:
        algorithms = [algorithm for algorithm in kind_of(self.op).gpu if algorithm.applies(self.op)]
        ways = [algorithm.candidates(self.op, SPIRV_VULKAN, self.state, 1) for algorithm in algorithms]
        return list(itertools.chain.from_iterable(ways))


def scheduled(network: Network, result: Any) -> Layer:
    """Return the op that computes the result."""
    module, state = network.build(result), PassState(network.copy_parameters())
    passes = Pipeline.named("spirv").until("schedule").passes[2:]
    Pipeline(passes).run(module, state)
    ops = [op for op in main_body(module).operations if "schedule" in op.attributes]
    return Layer(ops[-1], state, module)


def conv(keep: float, size: int, channels: int = 32, filters: int = 32, **how: Any) -> Layer:
    network = Network((1, channels, size, size))
    weight = pattern_weight(np.random.default_rng(0), filters, channels, keep)
    return scheduled(network, network.conv(network.input, weight, **how))


@pytest.mark.parametrize("size", [4, 7, 14, 56])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
def test_candidates_keep_to_every_device(size: int, strides: tuple[int, int]) -> None:
    layer = conv(0.3, size, strides=strides)
    shared = SPIRV_VULKAN.costs.shared_bytes
    found = layer.candidates()
    assert found == layer.candidates()
    for candidate in found:
        schedule = candidate.schedule
        assert schedule.threads <= 128 and schedule.threads % schedule.sums == 0
        assert schedule.sums == 1 or schedule.rows * schedule.filters * schedule.threads * 16 <= shared
        assert (schedule.lanes, schedule.columns, schedule.split) == (LANES, LANES, "pixels")
        assert candidate.cycles > 0 and candidate.bound


def test_weighs_pattern_loops_against_dense_ones() -> None:
    ratios = []
    for keep in (0.3, 1.0):
        layer = conv(keep, 28)
        assert layer.schedule.algorithm == "pattern-direct"
        alternatives = Choice.from_attr(layer.op.attributes["explanation"]).alternatives
        ratios += [item.ratio for item in alternatives if item.schedule.algorithm == "dense-direct"]
    assert ratios[0] > 2 * ratios[1] > 2


def test_sparse_layers_may_be_computed_dense() -> None:
    for groups, dense in ((1, "dense-direct"), (32, "depthwise-direct")):
        network = Network((1, 32, 28, 28))
        weight = pattern_weight(np.random.default_rng(0), 32, 32 // groups, 1.0)
        layer = scheduled(network, network.conv(network.input, weight, groups=groups))
        assert {candidate.schedule.algorithm for candidate in layer.candidates()} == {"pattern-direct", dense}


def test_small_planes_divide_their_sums() -> None:
    few, many = (conv(0.3, size, 128, 64).schedule for size in (4, 56))
    assert few.sums > 1 and many.sums == 1


def test_filters_that_share_kernels_are_computed_together() -> None:
    rng = np.random.default_rng(0)
    kept = np.repeat(pattern_weight(rng, 16, 32, 0.4) != 0, 2, axis=0)
    network = Network((1, 32, 28, 28))
    layer = scheduled(network, network.conv(network.input, kept * rng.standard_normal(kept.shape)))
    assert layer.schedule.filters == 2


def test_there_is_room_for_what_threads_read_too_much() -> None:
    """A thread of four rows reads three that are not there, of the shape that its own layer sees."""
    network = Network((1, 3, 20, 54))
    flat = network.flatten(network.activate(network.input))
    result = network.op("pattern.activate", [flat], 'activation = "relu"', flat.shape)
    four = compile_for_gpu(network.build(result), network.copy_parameters(), lambda op, chosen: replace(chosen, rows=4))
    first = four.code.dispatches[-1].push_constants[-3] * 16  # bytes, of the input's first vector
    assert four.program.arena_bytes >= first + 4 * 4 * 3240


def test_layers_that_differ_in_sizes_share_kernels() -> None:
    network = Network((1, 8, 24, 24))
    rng = np.random.default_rng(0)
    x = network.conv(network.input, rng.standard_normal((8, 8, 3, 3)), rng.standard_normal(8))
    for _ in range(3):
        x = network.conv(x, rng.standard_normal((8, 8, 3, 3)), rng.standard_normal(8))
    model = compile_for_gpu(network.build(x), network.copy_parameters())
    names = [dispatch.kernel for dispatch in model.code.dispatches if dispatch.kernel.startswith("dense")]
    assert len(names) == 4 and len(set(names)) < 4
    assert len({dispatch.push_constants for dispatch in model.code.dispatches}) == len(model.code.dispatches)


@needs_validator
@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_kernels_are_valid_without_a_device(dtype: str) -> None:
    network = Network((2, 6, 13, 11))
    rng = np.random.default_rng(0)
    x = network.conv(network.input, rng.standard_normal((8, 6, 3, 3)), activation='"relu"')
    y = network.conv(x, rng.standard_normal((8, 8, 3, 3)), residual=x)
    z = network.linear(network.flatten(network.pool("max", y)), rng.standard_normal((3, 8 * 6 * 5)))
    code = compile_for_gpu(network.build(z), network.copy_parameters(), dtype=dtype).code
    require_valid(code)
    assert code.capabilities == ({"Shader"} if dtype == "f32" else {"Shader", "Float16", "StorageBuffer16BitAccess"})


def test_the_target_has_one_name() -> None:
    assert get_target("spirv-vulkan") is SPIRV_VULKAN and SPIRV_VULKAN.backend == "vulkan"
    assert Pipeline.named("spirv").stages[-2:] == ("map-to-gpu", "to-spirv")
