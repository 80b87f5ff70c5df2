"""Kernels sorted by channel: nothing is lost, blocks are even, bounds say where each pattern begins."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from networks import LIBRARY, pattern_weight

from patc.passes.formats.channel_major import by_channel, cut_blocks
from patc.passes.formats.fkw import encode


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 9), st.sampled_from([0.0, 0.2, 0.9]), st.data())
def test_kernels_are_sorted_not_changed(
    seed: int, filters: int, channels: int, keep: float, data: st.DataObject
) -> None:
    fkw = encode(pattern_weight(np.random.default_rng(seed), filters, channels, keep, LIBRARY[:3]), LIBRARY[:3])
    blocks = data.draw(st.integers(1, filters + 1))
    arrays = by_channel(fkw, blocks)
    count = int(arrays.count[0])
    owner, pattern = fkw.owners()
    expected = {
        (int(f), int(c), int(p), v.tobytes()) for f, c, p, v in zip(owner, fkw.index, pattern, fkw.values, strict=True)
    }
    found = set()
    cell = 0
    for block in range(blocks):
        for channel in arrays.channels[:count]:
            for number in range(3):
                for kernel in range(arrays.bounds[cell], arrays.bounds[cell + 1]):
                    filter_ = int(arrays.firsts[block] + arrays.place[kernel])
                    found.add((filter_, int(channel), number, arrays.values[kernel].tobytes()))
                cell += 1
    assert found == expected
    assert arrays.bounds[-1] == fkw.kernels
    assert sum(arrays.kept()) == fkw.kernels
    np.testing.assert_array_equal(arrays.channels[:count], np.unique(fkw.index))


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60), st.integers(1, 9))
def test_blocks_are_even(lengths: list[int], blocks: int) -> None:
    """No block is further from its share than one filter at each end could bring it."""
    cuts = cut_blocks(np.array(lengths), blocks)
    assert cuts[0] == 0
    assert cuts[-1] == len(lengths)
    assert (np.diff(cuts) >= 0).all()
    share = (sum(lengths) + len(lengths)) / blocks
    for first, last in itertools.pairwise(cuts):
        assert abs(sum(lengths[first:last]) + (last - first) - share) <= max(lengths) + 1
