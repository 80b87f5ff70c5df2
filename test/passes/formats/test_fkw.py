"""FKW arrays: encoding, decoding and rearranging are exact for any weights."""

from __future__ import annotations

import dataclasses
import functools
import operator
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import LIBRARY, all_masks, pattern_weight

from patc.integers import ceil_div
from patc.passes.formats.fkr import order_filters
from patc.passes.formats.fkw import (
    DROPPED,
    Fkw,
    choose_patterns,
    cover,
    decode,
    encode,
    find_violation,
    invert,
    kernel_masks,
    mask_taps,
    permute_channels,
    permute_filters,
    rest_masks,
)
from patc.passes.formats.fkw_library import find_rest_patterns

SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def sparse_weights(draw: st.DrawFn) -> tuple[np.ndarray, list[int], int]:
    """Draw F x C/groups x KH x KW weights, a library that covers them, and groups."""
    kernel = draw(st.sampled_from([(3, 3), (3, 3), (5, 5), (1, 3), (2, 2)]))
    entries = draw(st.integers(2, min(6, kernel[0] * kernel[1])))
    masks = all_masks(kernel[0] * kernel[1], entries)
    library = draw(st.lists(st.sampled_from(masks), min_size=1, max_size=12, unique=True))
    groups, rows, channels = draw(st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 6)))
    rng = np.random.default_rng(draw(SEEDS))
    keep = draw(st.sampled_from([0.0, 0.3, 1.0]))
    weight = pattern_weight(rng, groups * rows, channels, keep, library, kernel)
    chance_zeros = rng.random(weight.shape) < draw(st.sampled_from([0.0, 0.2]))
    return np.where(chance_zeros, 0, weight).astype(np.float32), library, groups


@st.composite
def deep_weights(draw: st.DrawFn) -> tuple[np.ndarray, list[int], int, int]:
    """Draw weights whose kernels span several channels, a library that covers them and the rest, groups and depth."""
    depth = draw(st.sampled_from([9, 9, 2, 3]))
    kernel = (1, 1) if depth == 9 else draw(st.sampled_from([(1, 1), (1, 2), (2, 2)]))
    taps = depth * kernel[0] * kernel[1]
    entries = draw(st.integers(1, min(6, taps)))
    library = draw(st.lists(st.sampled_from(all_masks(taps, entries)), min_size=1, max_size=8, unique=True))
    whole, rest = draw(st.integers(1, 3)), draw(st.integers(0, depth - 1))
    groups, rows = draw(st.integers(1, 2)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(SEEDS))
    shape = (groups * rows, whole * depth + rest, *kernel)
    weight = rng.uniform(0.5, 1.5, shape).astype(np.float32)
    weight[:, : whole * depth] = pattern_weight(rng, len(weight), whole, 0.6, library, (1, taps)).reshape(
        len(weight), -1, *kernel
    )
    if rest and draw(st.booleans()):
        weight[rng.random(weight.shape) < 0.3] = 0
    library += find_rest_patterns(rest_masks(weight, depth), tuple(library), taps)
    return weight, library, groups, depth


def block_diagonal(weight: np.ndarray, groups: int) -> np.ndarray:
    filters, channels, *kernel = weight.shape
    dense = np.zeros((filters, channels * groups, *kernel), weight.dtype)
    for group in range(groups):
        rows = slice(group * filters // groups, (group + 1) * filters // groups)
        dense[rows, group * channels : (group + 1) * channels] = weight[rows]
    return dense


@given(sparse_weights())
@settings(max_examples=60, deadline=None)
def test_decoding_undoes_encoding(case: tuple[np.ndarray, list[int], int]) -> None:
    weight, library, groups = case
    fkw = encode(weight, library, groups)
    dense = decode(fkw, library, weight.shape[2:], weight.shape[1] * groups)
    np.testing.assert_array_equal(dense, block_diagonal(weight, groups))
    assert dense.dtype == weight.dtype
    assert fkw.kernels == np.count_nonzero(kernel_masks(weight))


@given(sparse_weights())
@settings(max_examples=40, deadline=None)
def test_encoding_is_valid_and_sorted(case: tuple[np.ndarray, list[int], int]) -> None:
    weight, library, groups = case
    fkw = encode(weight, library, groups)
    assert find_violation(fkw, weight.shape[1] * groups) is None
    owner, pattern = fkw.owners()
    keys = list(zip(owner.tolist(), pattern.tolist(), fkw.index.tolist(), strict=True))
    assert keys == sorted(set(keys))


@given(sparse_weights(), SEEDS)
@settings(max_examples=40, deadline=None)
def test_rearranging_permutes_rows_and_columns(case: tuple[np.ndarray, list[int], int], seed: int) -> None:
    weight, library, groups = case
    fkw, channels = encode(weight, library, groups), weight.shape[1] * groups
    rng = np.random.default_rng(seed)
    order, rows, columns = (rng.permutation(size) for size in (len(weight), len(weight), channels))
    moved = permute_channels(permute_filters(fkw, order, invert(rows)), invert(columns))
    assert find_violation(moved, channels) is None
    assert [array.dtype for array in dataclasses.astuple(moved)] == [array.dtype for array in dataclasses.astuple(fkw)]
    np.testing.assert_array_equal(
        decode(moved, library, weight.shape[2:], channels), block_diagonal(weight, groups)[rows][:, columns]
    )


@given(deep_weights())
@settings(max_examples=60, deadline=None)
def test_decoding_undoes_encoding_of_deep_kernels(case: tuple[np.ndarray, list[int], int, int]) -> None:
    weight, library, groups, depth = case
    fkw, channels = encode(weight, library, groups, depth), weight.shape[1] * groups
    np.testing.assert_array_equal(decode(fkw, library, weight.shape[2:], channels), block_diagonal(weight, groups))
    assert find_violation(fkw, channels, depth) is None
    owner, pattern = fkw.owners()
    keys = list(zip(owner.tolist(), pattern.tolist(), fkw.index.tolist(), strict=True))
    assert keys == sorted(set(keys))


@given(deep_weights())
@settings(max_examples=40, deadline=None)
def test_the_rest_takes_few_kernels(case: tuple[np.ndarray, list[int], int, int]) -> None:
    weight, library, _, depth = case
    fkw = encode(weight, library, 1, depth)
    rest = rest_masks(weight, depth)
    used = len(mask_taps(int(np.bitwise_or.reduce(rest))))
    of_rest = fkw.kernels - np.count_nonzero(kernel_masks(weight, depth))
    assert of_rest <= ceil_div(used, len(mask_taps(library[0]))) * np.count_nonzero(rest)


@given(deep_weights(), SEEDS)
@settings(max_examples=40, deadline=None)
def test_rearranging_deep_kernels_permutes_rows(case: tuple[np.ndarray, list[int], int, int], seed: int) -> None:
    weight, library, groups, depth = case
    fkw, channels = encode(weight, library, groups, depth), weight.shape[1] * groups
    rng = np.random.default_rng(seed)
    order, rows = rng.permutation(len(weight)), rng.permutation(len(weight))
    moved = permute_filters(fkw, order, invert(rows))
    assert find_violation(moved, channels, depth) is None
    np.testing.assert_array_equal(
        decode(moved, library, weight.shape[2:], channels), block_diagonal(weight, groups)[rows]
    )


def test_arrays_of_a_small_pointwise_layer() -> None:
    weight = np.zeros((2, 22, 1, 1), np.float32)
    weight[0, [9, 10, 12, 13], 0, 0] = [1, 2, 3, 4]  # mask 27 of the second group of nine
    weight[0, 18:, 0, 0] = [5, 6, 7, 8]  # the rest, the last four of the channels 13 to 21
    weight[1, [0, 1, 4], 0, 0] = [9, 10, 11]  # part of 27
    weight[1, 20, 0, 0] = 12
    fkw = encode(weight, (27, 0b111100000), depth=9)
    assert fkw.values.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 0, 11], [0, 0, 12, 0]]
    assert fkw.index.tolist() == [9, 13, 0, 13]
    assert fkw.offset.tolist() == [0, 2, 4]
    assert fkw.pattern_offsets.tolist() == [[0, 1, 2], [0, 1, 2]]
    assert [array.dtype for array in dataclasses.astuple(fkw)] == ["f4", "i2", "i4", "i2", "i2"]


def test_kernels_of_the_rest_store_zeros_for_weights_of_other_kernels() -> None:
    weight = np.zeros((1, 11, 1, 1), np.float32)
    weight[0, [0, 2, 5, 7], 0, 0] = [1, 2, 3, 4]
    weight[0, 9:, 0, 0] = [5, 6]
    library = (0b010100101, 0b110000011)  # of the channels 0 to 8; of the channels 2 to 10, for the last two
    fkw = encode(weight, library, depth=9)
    assert fkw.values.tolist() == [[1, 2, 3, 4], [0, 0, 5, 6]]
    assert decode(fkw, library, (1, 1), 11).tolist() == weight.tolist()


@given(st.integers(1, 511), st.lists(st.integers(1, 511), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_covers_are_the_smallest(mask: int, masks: list[int]) -> None:
    sizes = [
        size
        for size in range(len(masks) + 1)
        if any(mask & ~functools.reduce(operator.or_, chosen, 0) == 0 for chosen in combinations(masks, size))
    ]
    found = cover(mask, masks)
    assert (found is not None) == bool(sizes)
    if found is not None:
        assert len(found) == sizes[0]
        assert mask & ~functools.reduce(operator.or_, [masks[pattern] for pattern in found]) == 0


def test_arrays_of_a_small_layer() -> None:
    weight = np.zeros((2, 3, 3, 3), np.float32)
    weight[0, 2].flat[[0, 1, 3, 4]] = [1, 2, 3, 4]  # mask 27
    weight[0, 0].flat[[1, 2, 4, 5]] = [5, 6, 7, 8]  # mask 54
    weight[1, 1].flat[[0, 1, 4]] = [9, 10, 11]  # part of 27
    fkw = encode(weight, (27, 54))
    assert fkw.values.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 0, 11]]
    assert fkw.index.tolist() == [2, 0, 1]
    assert fkw.offset.tolist() == [0, 2, 3]
    assert fkw.pattern_offsets.tolist() == [[0, 1, 2], [0, 1, 1]]
    assert fkw.reorder.tolist() == [0, 1]
    assert [array.dtype for array in dataclasses.astuple(fkw)] == ["f4", "i2", "i4", "i2", "i2"]


def test_layers_of_32768_channels_need_wider_numbers() -> None:
    weight = np.zeros((1, 32768, 1, 2), np.float32)
    assert encode(weight, (3,)).index.dtype == np.int32
    assert encode(weight[:, :-1], (3,)).index.dtype == np.int16
    weight[0, :-1] = 1
    assert encode(weight, (3,)).pattern_offsets.dtype == np.int16
    weight[0, -1] = 1
    assert encode(weight, (3,)).pattern_offsets.dtype == np.int32


def test_decoding_adds_kernels_of_one_channel() -> None:
    fkw = Fkw(
        values=np.array([[1, 2], [10, 20]], np.float32),
        index=np.zeros(2, np.int16),
        offset=np.array([0, 2], np.int32),
        pattern_offsets=np.array([[0, 1, 2]], np.int16),
        reorder=np.zeros(1, np.int16),
    )
    assert decode(fkw, (3, 6), (1, 3), 1).tolist() == [[[[1, 12, 20]]]]


def test_kernels_take_the_first_pattern_that_covers_them() -> None:
    kernels = np.array([0b000, 0b001, 0b010, 0b110, 0b101])
    assert choose_patterns(kernels, (0b011, 0b110)).tolist() == [DROPPED, 0, 0, 1, 2]


def test_encoding_refuses_a_library_that_does_not_cover() -> None:
    with pytest.raises(ValueError, match="covers every kernel"):
        encode(np.ones((1, 1, 3, 3), np.float32), LIBRARY)
    rest = np.zeros((1, 11, 1, 1), np.float32)
    rest[0, -1] = 1
    with pytest.raises(ValueError, match="covers every kernel"):
        encode(rest, (27,), depth=9)


@pytest.mark.parametrize(
    ("changes", "violation"),
    [
        ({"pattern_offsets": [[1, 1, 2], [0, 1, 1]]}, ("pattern_offsets of a filter to ascend from 0", [1, 1, 2])),
        ({"pattern_offsets": [[0, 1, 2], [0, 2, 1]]}, ("pattern_offsets of a filter to ascend from 0", [0, 2, 1])),
        ({"offset": [0, 1, 3]}, ("offset 1 to be 2, as pattern_offsets counts", 1)),
        ({"index": [0, 1]}, ("pattern_offsets to count 2 kernels", 3)),
        ({"index": [0, 3, 1]}, ("index below 3, the input channels", 3)),
        ({"index": [0, -1, 1]}, ("index below 3, the input channels", -1)),
        ({"reorder": [1, 1]}, ("reorder to name every output channel", "none that names 0")),
    ],
)
def test_violations_are_named(changes: dict[str, list[int]], violation: tuple[str, object]) -> None:
    valid = Fkw(
        values=np.ones((3, 4), np.float32),
        index=np.array([0, 2, 1]),
        offset=np.array([0, 2, 3]),
        pattern_offsets=np.array([[0, 1, 2], [0, 1, 1]]),
        reorder=np.array([1, 0]),
    )
    assert find_violation(valid, 3) is None
    arrays = {name: np.array(values) for name, values in changes.items()}
    assert find_violation(dataclasses.replace(valid, **arrays), 3) == violation


def test_deep_kernels_end_at_the_last_channel() -> None:
    fkw = encode(np.ones((1, 11, 1, 1), np.float32), (511,), depth=9)
    assert fkw.index.tolist() == [0, 2]
    assert find_violation(fkw, 11, 9) is None
    assert find_violation(fkw, 10, 9) == ("index below 2, as a kernel spans 9 of 10 input channels", 2)


# FKR


def neighbours(fkw: Fkw, order: np.ndarray) -> list[tuple[int, int]]:
    """Return (difference of lengths, difference of histograms) of each filter and the next."""
    histogram = np.diff(fkw.pattern_offsets.astype(int), axis=1)[order]
    steps = np.diff(histogram, axis=0)
    return list(zip(np.abs(steps.sum(axis=1)).tolist(), np.abs(steps).sum(axis=1).tolist(), strict=True))


@given(sparse_weights())
@settings(max_examples=40, deadline=None)
def test_filters_are_sorted_by_length_and_keep_their_order(case: tuple[np.ndarray, list[int], int]) -> None:
    weight, library, groups = case
    fkw = encode(weight, library, groups)
    order = order_filters(fkw)
    lengths = np.diff(fkw.offset)[order]
    assert sorted(order.tolist()) == list(range(len(weight)))
    assert (np.diff(lengths) <= 0).all()
    channels = np.random.default_rng(0).permutation(weight.shape[1] * groups)
    again = order_filters(permute_channels(permute_filters(fkw, order, np.arange(len(weight))), channels))
    np.testing.assert_array_equal(again, np.arange(len(weight)))


def test_twins_become_neighbours() -> None:
    rng = np.random.default_rng(0)
    weight = pattern_weight(rng, 8, 16, 0.5)
    twins = np.concatenate([weight, weight * 2])[rng.permutation(16)]
    order = order_filters(encode(twins, LIBRARY)).tolist()
    masks = kernel_masks(twins)
    for first, second in zip(order[::2], order[1::2], strict=True):
        np.testing.assert_array_equal(masks[first], masks[second])


def test_similar_histograms_come_before_shared_channels() -> None:
    weight = np.zeros((3, 4, 3, 3), np.float32)
    patterns = np.array([[[mask >> tap & 1 for tap in range(9)] for mask in LIBRARY[:2]]]).reshape(2, 3, 3)
    weight[0, 0], weight[0, 1] = patterns[0], patterns[0]
    weight[1, 0], weight[1, 1] = patterns[1], patterns[1]  # the same channels
    weight[2, 2], weight[2, 3] = patterns[0], patterns[0]  # the same patterns
    assert order_filters(encode(weight, LIBRARY[:2])).tolist() == [0, 2, 1]


def test_ordering_makes_neighbours_more_similar() -> None:
    fkw = encode(pattern_weight(np.random.default_rng(1), 64, 64, 1.0), LIBRARY)
    before = sum(difference for _, difference in neighbours(fkw, np.arange(64)))
    after = sum(difference for _, difference in neighbours(fkw, order_filters(fkw)))
    assert after < 0.7 * before
