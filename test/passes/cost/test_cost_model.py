"""The cost model of the direct kernels: more work costs more, and what helps a machine is seen to help."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patc.dialects.attributes import Library
from patc.integers import ceil_div
from patc.passes.cost.geometry import Geometry
from patc.passes.cost.models import cost_model
from patc.passes.kernels import tiling
from patc.targets import TARGETS, Target, get_target

V3, V4 = TARGETS["x86-64-v3"], TARGETS["x86-64-v4"]
PLAIN = Geometry((1, 1), (1, 1), phases=1, pitch=64, channels=64, plane_bytes=0)
LIBRARY = Library((3, 3), (27, 54, 216, 432))


def sparse(
    pattern: int = 0,
    rows: int = 4,
    columns: int = 32,
    sums: int = 1,
    geometry: Geometry = PLAIN,
    target: Target = V4,
    library: Library = LIBRARY,
) -> float:
    chunks = tiling.cut(columns, target.lanes)
    return cost_model(target).sparse_kernel_cost(library.places(pattern), rows, chunks, sums, geometry).cycles


def dense(
    kernel: tuple[int, int] = (3, 3), rows: int = 2, columns: int = 32, filters: int = 4, target: Target = V4
) -> float:
    chunks = tiling.cut(columns, target.lanes)
    return cost_model(target).dense_channel_cost(kernel, rows, chunks, filters, PLAIN).cycles


TARGET = st.sampled_from([V3, V4])
COLUMNS = st.integers(1, 64)
GEOMETRY = st.builds(
    Geometry,
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilations=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    phases=st.just(1),
    pitch=st.integers(8, 256),
    channels=st.integers(1, 512),
)


@given(st.integers(0, 3), st.integers(1, 15), COLUMNS, st.sampled_from([1, 2, 4]), GEOMETRY, TARGET)
def test_more_rows_cost_no_less(
    pattern: int, rows: int, columns: int, sums: int, geometry: Geometry, target: Target
) -> None:
    less, more = (sparse(pattern, count, columns, sums, geometry, target) for count in (rows, rows + 1))
    assert 0 < less <= more


@given(st.integers(1, 8), st.integers(1, 3), GEOMETRY, TARGET)
def test_more_vectors_cost_no_less(rows: int, vectors: int, geometry: Geometry, target: Target) -> None:
    less, more = (sparse(0, rows, count * target.lanes, 1, geometry, target) for count in (vectors, vectors + 1))
    assert 0 < less <= more


@given(st.integers(1, 8), COLUMNS, TARGET)
def test_more_entries_cost_more(rows: int, columns: int, target: Target) -> None:
    masks = (0b1, 0b11, 0b11011, 0b111111, 0b111111111)
    costs = [sparse(0, rows, columns, target=target, library=Library((3, 3), (mask,))) for mask in masks]
    assert all(0 < less < more for less, more in itertools.pairwise(costs))


@given(st.integers(1, 4), COLUMNS, st.integers(1, 4), TARGET)
def test_dense_blocks_and_kernels_cost_more(rows: int, columns: int, filters: int, target: Target) -> None:
    assert 0 < dense((1, 1), rows, columns, filters, target) < dense((3, 3), rows, columns, filters, target)
    assert dense((3, 3), rows, columns, filters, target) <= dense((3, 3), rows, columns, filters + 1, target)


def test_a_tile_costs_at_least_its_multiply_adds() -> None:
    multiply_adds = 4 * 4 * 32
    for target in (V3, V4):
        assert sparse(target=target) >= multiply_adds / target.fma_lanes


def test_sums_wait_where_the_first_level_does_not_hold_them() -> None:
    model = cost_model(get_target("x86-64-v4:znver5"))
    in_time, *late = (model.far_sums_cycles(4, filters) for filters in (100, 200, 320, 512))
    assert in_time == 0.0
    assert late == sorted(late) and late[0] > 0.0
    assert late[-1] < 4 * model.costs.line_cycles


def test_shorter_vectors_keep_what_lies_behind_the_caches() -> None:
    short, long = (get_target(f"x86-64-{level}:znver5").core_costs() for level in ("v3", "v4"))
    assert (short.distant_line_cycles, short.stationary_far) == (long.distant_line_cycles, long.stationary_far)
    assert short.transform_operation != long.transform_operation


@pytest.mark.parametrize(
    ("height", "columns", "microseconds"), [(3, 15, 16.7), (4, 15, 17.0), (5, 15, 15.9), (8, 15, 16.4), (15, 15, 15.7)]
)
def test_a_depthwise_filter_loads_its_inputs_once(height: int, columns: int, microseconds: float) -> None:
    """Tiles of 672 channels of 15x15, as measured on a Zen 5 core of 4.1 GHz, whose inputs come from the second-level
    cache: no filter waits for the sums of another."""
    plane = dataclasses.replace(PLAIN, channels=1, pitch=32, plane_bytes=4 * 17 * 32)
    model = cost_model(get_target("x86-64-v4:znver5"))
    cost = model.dense_channel_cost((3, 3), height, tiling.cut(columns, 16), 1, plane)
    ends = height * model.costs.store_cycles + model.costs.loop_entry_cycles
    near = 672 * ceil_div(15, height) * (cost.cycles + ends)
    modelled = math.hypot(near, 672 * plane.plane_bytes / 64 * model.costs.prefetched_line_cycles) / 4100
    assert 0.85 < modelled / microseconds < 1.35
    assert cost.bound != "latency"


def test_small_tiles_wait_for_the_multiply_add_before() -> None:
    assert sparse(rows=1, columns=16, sums=4) < sparse(rows=1, columns=16, sums=1)
    assert sparse(rows=8, columns=48, sums=4) == sparse(rows=8, columns=48, sums=1)


def test_a_split_row_is_cheaper_than_picking_columns() -> None:
    picked = dataclasses.replace(PLAIN, strides=(2, 2))
    split = dataclasses.replace(picked, phases=2, pitch=128)
    assert picked.gathered and not split.gathered
    assert sparse(geometry=split) < sparse(geometry=picked)


def test_lines_cost_nothing_while_all_channels_stay_in_the_first_level_cache() -> None:
    few, many = (sparse(geometry=dataclasses.replace(PLAIN, channels=count)) for count in (4, 4096))
    assert few < many


def test_entries_in_several_channels_read_several_planes() -> None:
    same = Library((1, 1), (0b11,), depth=2)
    many_channels = dataclasses.replace(PLAIN, channels=4096)
    one = sparse(library=Library((1, 2), (0b11,)), geometry=many_channels)
    assert sparse(library=same, geometry=many_channels) > one


@pytest.mark.parametrize("target", [V3, V4])
def test_loads_and_multiply_adds_start_two_a_cycle(target: Target) -> None:
    model = cost_model(target)
    assert model.vector_cycles(4) == 0.5
    assert model.vector_cycles(4 * target.lanes) > model.vector_cycles(target.lanes)
    assert model.load_cycles(4, True) == 0.5
    for lanes in (4, 8, 16):
        assert model.load_cycles(lanes, True) < model.load_cycles(lanes, False)


def test_a_cost_names_what_binds_it() -> None:
    tall = cost_model(V4).sparse_kernel_cost(LIBRARY.places(0), 8, tiling.cut(48, 16), 1, PLAIN)
    short = cost_model(V4).sparse_kernel_cost(LIBRARY.places(0), 1, tiling.cut(8, 16), 1, PLAIN)
    assert tall.bound == "multiply-adds"
    assert short.bound == "latency"


def test_taps_beside_each_other_read_the_same_columns() -> None:
    assert PLAIN.columns_read(7, 3) == 9
    assert dataclasses.replace(PLAIN, strides=(2, 2)).columns_read(7, 3) == 15
    assert dataclasses.replace(PLAIN, dilations=(4, 4)).columns_read(3, 3) == 9
