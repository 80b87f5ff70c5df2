"""pattern-encode: which libraries it finds, which layers stay dense, and that the numbers stay."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreter import interpret
from networks import LIBRARY, Network, all_masks, networks, pattern_weight, pointwise_weight
from torch.nn import functional
from torch_mlir import ir

from patc.diagnostics import PatcError
from patc.dialects.attributes import Library
from patc.integers import ceil_div
from patc.passes.base import PassState
from patc.passes.formats.base import StaysDense
from patc.passes.formats.fkw import choose_patterns, mask_taps
from patc.passes.formats.fkw_library import find_library, find_rest_patterns
from patc.passes.pattern_encode import PatternEncode


def encode_layer(
    weight: np.ndarray, groups: int = 1, options: PatternEncode | None = None
) -> tuple[ir.Module, PassState]:
    network = Network((1, weight.shape[1] * groups, 8, 8))
    module = network.build(network.conv(network.input, weight, groups=groups, pads=(2, 2, 2, 2)))
    state = PassState(network.parameters)
    (options or PatternEncode()).run(module, state)
    assert module.operation.verify()
    return module, state


def remark(weight: np.ndarray, groups: int = 1, options: PatternEncode | None = None) -> str:
    module, state = encode_layer(weight, groups, options)
    assert "pattern.sparse_conv2d" not in str(module)
    assert len(state.diagnostics) == 1
    return state.diagnostics[0].message


def check_layer(
    weight: np.ndarray, groups: int = 1, options: PatternEncode | None = None
) -> tuple[ir.Module, PassState]:
    """Encode a layer and check its numbers."""
    module, state = encode_layer(weight, groups, options or PatternEncode())
    x = np.random.default_rng(1).standard_normal((1, weight.shape[1] * groups, 8, 8))
    padded = np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)))
    wanted = functional.conv2d(torch.from_numpy(padded), torch.from_numpy(weight).double(), groups=groups)
    np.testing.assert_allclose(interpret(module, state.parameters, [x])[0], wanted, rtol=1e-12, atol=1e-12)
    return module, state


def full_library(module: ir.Module) -> Library:
    for op in module.body.operations[0].regions[0].blocks[0].operations:
        if op.operation.name == "pattern.sparse_conv2d":
            return Library.from_attr(op.format)
    raise AssertionError("no layer was encoded")


def found_library(module: ir.Module) -> tuple[int, ...]:
    return full_library(module).masks


def weight_of(masks: list[int], taps: int = 9) -> np.ndarray:
    """Return a weight of one filter whose kernels have the given masks."""
    entries = [[mask >> tap & 1 for tap in range(taps)] for mask in masks]
    side = int(taps**0.5)
    return np.array(entries, np.float32).reshape(1, len(masks), side, side)


# Numbers


@given(networks())
@settings(max_examples=60, deadline=None)
def test_encoding_keeps_the_numbers(case: tuple[Network, ir.Module, np.ndarray]) -> None:
    network, module, x = case
    before = interpret(module, network.parameters, [x])
    state = PassState(network.parameters)
    PatternEncode().run(module, state)
    assert module.operation.verify()
    for old, new in zip(before, interpret(module, state.parameters, [x]), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-12, atol=1e-12)


@given(networks())
@settings(max_examples=15, deadline=None)
def test_a_second_run_changes_nothing(case: tuple[Network, ir.Module, np.ndarray]) -> None:
    network, module, _ = case
    state = PassState(network.parameters)
    PatternEncode().run(module, state)
    text, names = str(module), set(state.parameters)
    PatternEncode().run(module, state)
    assert str(module) == text
    assert set(state.parameters) == names


def test_grouped_layers_name_absolute_input_channels() -> None:
    weight = pattern_weight(np.random.default_rng(0), 6, 4, 0.6)
    _, state = encode_layer(weight, groups=3)
    index, offset = state.parameters["layer0.index"], state.parameters["layer0.offset"]
    groups = [set((index[offset[row] : offset[row + 2]] // 4).tolist()) for row in (0, 2, 4)]
    assert groups == [{0}, {1}, {2}]


def test_arrays_are_named_after_the_weight_and_the_weight_stays_in_the_store() -> None:
    module, state = encode_layer(pattern_weight(np.random.default_rng(0), 4, 4))
    arrays = {f"layer0.{name}" for name in ("values", "index", "offset", "pattern_offsets", "reorder")}
    assert set(state.parameters) == {"layer0.weight", *arrays}
    assert "layer0.weight" not in str(module)


# Libraries


@given(st.integers(2, 6), st.sampled_from([9, 25]), st.data())
@settings(max_examples=60, deadline=None)
def test_any_library_is_found(entries: int, taps: int, data: st.DataObject) -> None:
    masks = st.sampled_from(all_masks(taps, entries)) if taps == 9 else _large_masks(entries)
    library = data.draw(st.lists(masks, min_size=1, max_size=16, unique=True))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    kernels = np.concatenate([library, rng.choice(library, 20), np.zeros(9, int)])
    found = find_library(rng.permutation(kernels).reshape(1, -1), taps, 16)
    assert found == tuple(sorted(library))  # layers with the same patterns have equal libraries


def _large_masks(entries: int) -> st.SearchStrategy[int]:
    taps = st.lists(st.integers(0, 24), min_size=entries, max_size=entries, unique=True)
    return taps.map(lambda chosen: sum(1 << tap for tap in chosen))


@given(st.lists(st.integers(1, 511), min_size=1, max_size=30))
@settings(max_examples=100, deadline=None)
def test_a_found_library_covers_every_kernel_with_equal_patterns(masks: list[int]) -> None:
    kernels = np.array(masks)
    try:
        library = find_library(kernels, 9, 16)
    except StaysDense:
        return
    assert (choose_patterns(kernels, library) < len(library)).all()
    assert {bin(mask).count("1") for mask in library} == {max(2, *(bin(mask).count("1") for mask in masks))}
    assert library == find_library(kernels[::-1], 9, 16)


def test_kernels_with_chance_zeros_join_a_pattern_that_occurs() -> None:
    part_of_27, part_of_both = 0b001010, 0b010010
    kernels = np.array([27, 54, 54, 54, part_of_27, part_of_both, 0])
    assert find_library(kernels, 9, 16) == (27, 54)
    assert choose_patterns(kernels, (27, 54)).tolist() == [0, 1, 1, 1, 0, 0, -1]


def test_masks_that_nothing_covers_are_merged() -> None:
    kernels = np.array([0b000_000_111_1, 0b1_0000_0000, 0b0_1000_0000, 0b1_1000_0000])
    assert find_library(kernels, 9, 16) == (0b0_0000_1111, 0b1_1000_0011)


def test_kernels_of_one_entry_get_patterns_of_two() -> None:
    assert find_library(np.array([1, 2, 2, 4]), 9, 16) == (3, 5)


def test_chance_zeros_of_a_whole_layer_do_not_add_patterns() -> None:
    rng = np.random.default_rng(0)
    weight = pattern_weight(rng, 32, 32)
    weight[rng.random(weight.shape) < 0.05] = 0
    module, _ = encode_layer(weight)
    assert set(found_library(module)) == set(LIBRARY)


def test_a_given_library_is_kept_in_its_order() -> None:
    weight = pattern_weight(np.random.default_rng(0), 8, 8, 1.0, LIBRARY[:2])
    module, state = encode_layer(weight, options=PatternEncode(library=LIBRARY))
    assert found_library(module) == LIBRARY
    assert state.parameters["layer0.pattern_offsets"].shape == (8, 9)


def test_a_given_library_is_for_3x3_kernels_only() -> None:
    weight = pattern_weight(np.random.default_rng(0), 4, 4, 1.0, (1 << 24 | 1,), (5, 5))
    module, _ = encode_layer(weight, options=PatternEncode(library=LIBRARY))
    assert found_library(module) == (1 << 24 | 1,)


# 1x1 kernels: nine input channels of one filter are one kernel


@pytest.mark.parametrize("channels", [9, 10, 13, 16, 17, 18, 35])
def test_pointwise_groups_are_encoded(channels: int) -> None:
    weight = pointwise_weight(np.random.default_rng(0), 12, channels, 0.9)
    module, state = check_layer(weight, options=PatternEncode(min_sparsity=0.1))
    library = full_library(module)
    assert (library.kernel, library.depth, library.entries) == ((1, 1), 9, 4)
    groups, rest = divmod(channels, 9)
    kept = np.count_nonzero(weight[:, : groups * 9].reshape(12, groups, 9).any(axis=2))
    assert len(state.parameters["layer0.index"]) == kept + 12 * ceil_div(rest, 4)


def test_pointwise_groups_find_the_library_of_3x3_kernels() -> None:
    weight = pointwise_weight(np.random.default_rng(0), 64, 36)
    module, _ = check_layer(weight)
    assert found_library(module) == tuple(sorted(LIBRARY))


def test_the_rest_uses_patterns_that_are_there() -> None:
    four_last, five_last = 0b111100000, 0b111110000
    assert find_rest_patterns(np.array([four_last]), (four_last, 27), 9) == ()
    assert find_rest_patterns(np.array([five_last]), (432, 216), 9) == ()  # 432 has four of them, 216 the other
    assert find_rest_patterns(np.array([five_last]), (27, 54), 9) == (four_last,)  # 27 has the other one
    assert find_rest_patterns(np.array([five_last]), (0b1111,), 9) == (0b011110000, four_last)
    assert find_rest_patterns(np.array([0, 0]), (27, 54), 9) == ()


def test_the_rest_of_a_layer_without_groups_decides_the_number_of_entries() -> None:
    assert find_rest_patterns(np.array([256, 0]), (), 9) == (0b110000000,)
    assert find_rest_patterns(np.array([0b111000000]), (), 9) == (0b111000000,)
    assert [len(mask_taps(mask)) for mask in find_rest_patterns(np.array([0b111111110]), (), 9)] == [6, 6]
    weight = np.zeros((4, 20, 1, 1), np.float32)
    weight[:, 19] = 1
    module, state = check_layer(weight)
    assert found_library(module) == (1,)  # of two entries, one would be a zero
    assert state.parameters["layer0.index"].tolist() == [19] * 4


@given(st.integers(1, 255), st.lists(st.integers(0, 255), max_size=4), st.integers(2, 6), st.data())
@settings(max_examples=60, deadline=None)
def test_the_rest_takes_few_more_patterns(used: int, others: list[int], entries: int, data: st.DataObject) -> None:
    masks = st.sampled_from(all_masks(9, entries))
    library = tuple(data.draw(st.lists(masks, min_size=1, max_size=8, unique=True)))
    rest = np.array([used, *(used & other for other in others)]) << 1
    added = find_rest_patterns(rest, library, 9)
    assert len(added) <= ceil_div(len(mask_taps(used)), entries)
    assert not set(added) & set(library)
    assert {len(mask_taps(mask)) for mask in (*added, *library)} == {entries}


def test_filters_may_have_chance_zeros_in_the_rest() -> None:
    rng = np.random.default_rng(0)
    weight = pointwise_weight(rng, 32, 44, 0.5)
    weight[:, 36:][rng.random((32, 8, 1, 1)) < 0.3] = 0
    module, _ = check_layer(weight)
    assert set(LIBRARY) <= set(found_library(module))
    assert len(found_library(module)) <= len(LIBRARY) + 2


def test_a_given_library_holds_for_pointwise_groups() -> None:
    weight = pointwise_weight(np.random.default_rng(0), 8, 22, 1.0, LIBRARY[:2])
    options = PatternEncode(library=LIBRARY[:4], max_patterns=1)
    module, _ = encode_layer(weight, options=options)
    assert found_library(module) == (*LIBRARY[:4], 0b111100000)
    expected = "stays dense: with 9 input channels to a kernel, 1 of 16 kernels fit none of the 4 given patterns"
    weight[0, :9] = weight_of([58]).reshape(9, 1, 1)
    assert remark(weight, options=options) == expected


@pytest.mark.parametrize(
    ("weight", "options", "reason"),
    [
        (weight_of(all_masks(9, 4)[:17]).reshape(1, -1, 1, 1),
         PatternEncode(), "17 patterns of 4 entries, at most 16 fit; 6% of the kernels fit none of the commonest 16"),
        (pointwise_weight(np.random.default_rng(0), 64, 26, 1.0),
         PatternEncode(max_patterns=8), "9 patterns of 4 entries with those of the rest, at most 8 fit"),
        (pointwise_weight(np.random.default_rng(0), 8, 16, 1.0),
         PatternEncode(), "patterns leave out 25% of the weights, 30% expected"),
    ],
    ids=["patterns", "patterns of the rest", "sparsity"],
)  # fmt: skip
def test_pointwise_layers_that_do_not_fit_stay_dense(weight: np.ndarray, options: PatternEncode, reason: str) -> None:
    assert remark(weight, options=options) == f"stays dense: with 9 input channels to a kernel, {reason}"


def test_a_pointwise_layer_of_zeros_stays_dense() -> None:
    assert remark(np.zeros((4, 20, 1, 1))) == "stays dense: all weights are zero"


# Depthwise kernels


def test_depthwise_layers_are_encoded() -> None:
    weight = pattern_weight(np.random.default_rng(0), 16, 1, 0.7)
    _, state = check_layer(weight, groups=16)
    assert state.parameters["layer0.index"].tolist() == np.flatnonzero(weight.any(axis=(1, 2, 3))).tolist()


def test_depthwise_layers_with_two_filters_a_channel_are_encoded() -> None:
    _, state = check_layer(pattern_weight(np.random.default_rng(0), 8, 1, 1.0), groups=4)
    assert state.parameters["layer0.index"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


# Layers that stay dense


def test_dense_kernels_stay_dense() -> None:
    assert remark(np.ones((4, 4, 3, 3))) == "stays dense: kernels keep up to 9 of 9 weights"
    assert remark(np.ones((4, 4, 7, 7))) == "stays dense: kernels keep up to 49 of 49 weights"


def test_too_many_patterns_stay_dense() -> None:
    masks = all_masks(9, 4)[:41]
    assert remark(weight_of(masks)) == (
        "stays dense: 41 patterns of 4 entries, at most 16 fit; 61% of the kernels fit none of the commonest 16"
    )
    module, _ = encode_layer(weight_of(masks), options=PatternEncode(max_patterns=41))
    assert set(found_library(module)) == set(masks)


def test_too_many_patterns_after_merging_stay_dense() -> None:
    masks = [0b111111, *all_masks(9, 5)]
    expected = "stays dense: more patterns of 6 entries than the 16 that fit"
    assert remark(weight_of(masks)) == expected


def test_layers_of_zeros_stay_dense() -> None:
    assert remark(np.zeros((4, 4, 3, 3))) == "stays dense: all weights are zero"
    options = PatternEncode(library=LIBRARY)
    assert remark(np.zeros((4, 4, 3, 3)), options=options) == "stays dense: all weights are zero"


def test_a_filter_of_zeros_has_no_kernels() -> None:
    weight = pattern_weight(np.random.default_rng(0), 4, 4, 1.0)
    weight[1] = 0
    _, state = encode_layer(weight)
    assert state.parameters["layer0.offset"].tolist() == [0, 4, 4, 8, 12]


def test_kernels_outside_a_given_library_stay_dense() -> None:
    weight = weight_of([27, 54, 58, 0])
    expected = "stays dense: 1 of 3 kernels fit none of the 2 given patterns"
    assert remark(weight, options=PatternEncode(library=(27, 54))) == expected


def test_layers_that_leave_out_too_little_stay_dense() -> None:
    weight = pattern_weight(np.random.default_rng(0), 8, 8, 1.0)
    expected = "stays dense: patterns leave out 56% of the weights, 60% expected"
    assert remark(weight, options=PatternEncode(min_sparsity=0.6)) == expected
    encode_layer(weight, options=PatternEncode(min_sparsity=0.5))


def test_patterns_of_six_entries_are_worth_it_by_default() -> None:
    weight = pattern_weight(np.random.default_rng(0), 8, 8, 1.0, all_masks(9, 6)[:8])
    module, _ = encode_layer(weight)
    assert len(found_library(module)) == 8


def checkerboard(rows: int, columns: int) -> np.ndarray:
    return np.indices((rows, columns)).sum(0) % 2


def test_kinds_without_patterns_say_why_they_stay_dense_when_they_are_sparse() -> None:
    few = "stays dense: 1x1 kernels have patterns over 9 input channels, the layer has 8"
    assert remark(checkerboard(8, 8).reshape(8, 8, 1, 1)) == few
    grouped = "stays dense: 1x1 kernels of a grouped convolution have no patterns"
    assert remark(checkerboard(18, 9).reshape(18, 9, 1, 1), groups=2) == grouped
    assert remark(np.zeros((2, 2, 8, 8))) == "stays dense: 8x8 kernels have more than 63 taps"


def test_dense_pointwise_and_depthwise_layers_stay_dense_in_silence() -> None:
    for weight, groups in ((np.ones((4, 4, 1, 1)), 1), (np.ones((4, 20, 1, 1)), 1), (np.ones((4, 1, 3, 3)), 4)):
        _, state = encode_layer(weight, groups)
        assert not state.diagnostics


# Zeros of any kind, and of whole kernels


@pytest.mark.parametrize(
    ("kernel", "groups"), [((3, 3), 1), ((1, 1), 1), ((5, 5), 1), ((1, 9), 1), ((3, 3), 4), ((1, 1), 2)]
)
def test_weights_without_patterns_are_stored_one_by_one(kernel: tuple[int, int], groups: int) -> None:
    rng = np.random.default_rng(0)
    weight = rng.integers(1, 9, (24, 20, *kernel)) * (rng.random((24, 20, *kernel)) < 0.15)
    module, state = check_layer(weight, groups=groups)
    assert full_library(module) == Library(kernel, tuple(1 << tap for tap in range(math.prod(kernel))))
    assert state.parameters["layer0.values"].shape == (np.count_nonzero(weight), 1)


def test_filters_and_channels_of_zeros_are_left_out() -> None:
    weight = np.random.default_rng(0).integers(1, 9, (8, 16, 3, 3))
    weight[::2], weight[:, 3:9] = 0, 0
    module, state = check_layer(weight)
    assert found_library(module) == (511,)
    assert len(state.parameters["layer0.index"]) == 40


# Options


@pytest.mark.parametrize("library", [(27, 27), (27, 58 | 1), (1,)])
def test_illegal_libraries_are_refused(library: tuple[int, ...]) -> None:
    with pytest.raises(PatcError, match="'library' to be distinct masks with equally many entries, 2 or more"):
        PatternEncode(library=library)


@pytest.mark.parametrize(
    "text", ["max-patterns=0", "min-sparsity=1.5", "min-sparsity=-0.1", "library=512", "library=0"]
)
def test_options_out_of_range_are_refused(text: str) -> None:
    with pytest.raises(PatcError, match=f"expected option '{text.split('=')[0]}' to be"):
        PatternEncode.from_text(text)
