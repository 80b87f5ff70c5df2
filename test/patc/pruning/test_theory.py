"""Where the designed libraries come from, and which masks there are."""

from __future__ import annotations

import math

import numpy as np
import pytest

from patc.diagnostics import PatcError
from patc.pruning import ELOG, GAUSSIAN, LIBRARIES_5X5, PHASE2, candidates, draw, library, pattern, taps, theory


def test_phase2_comes_out_of_the_two_filters() -> None:
    gaussian, elog = theory.derive(theory.gaussian()), theory.derive(theory.elog())
    assert (gaussian, elog) == (tuple(sorted(GAUSSIAN)), tuple(sorted(ELOG)))
    assert {*gaussian, *elog} == {*PHASE2} and len(PHASE2) == 8
    assert theory.sum_of_patterns(gaussian).tolist() == theory.gaussian().tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    assert (theory.sum_of_patterns(elog) == 4 * theory.elog()).all()


def test_the_drawings_are_blocks_and_tees() -> None:
    assert [draw(mask) for mask in theory.derive(theory.gaussian())] == [
        "xx./xx./...", ".xx/.xx/...", ".../xx./xx.", ".../.xx/.xx",
    ]  # fmt: skip
    assert [draw(mask) for mask in theory.derive(theory.elog())] == [
        ".x./xxx/...", ".x./xx./.x.", ".x./.xx/.x.", ".../xxx/.x.",
    ]  # fmt: skip


def test_interpolated_elog_is_a_centre_of_ten_neighbours() -> None:
    cross = theory.elog(n=theory.ELOG_N)
    assert cross[1, 1] == 1 and cross[0, 0] == 0
    assert cross[0, 1] == theory.ELOG_P**theory.ELOG_N == pytest.approx(0.1, abs=2e-4)


def test_filters_of_5x5_are_those_of_3x3_convolved_with_themselves() -> None:
    assert theory.gaussian(5)[0].tolist() == [1, 4, 6, 4, 1]
    assert theory.elog(5).max() == theory.elog(5)[2, 2] == 1
    by_hand = np.zeros((5, 5))
    for (y, x), value in np.ndenumerate(theory.elog()):
        by_hand[y : y + 3, x : x + 3] += value * theory.elog()
    assert np.allclose(theory.elog(5), by_hand / by_hand.max())


@pytest.mark.parametrize("name", ["gaussian", "elog"])
def test_5x5_libraries_come_out_of_the_filters(name: str) -> None:
    target = {"gaussian": theory.gaussian, "elog": theory.elog}[name](5)
    assert theory.derive(target, entries=6) == LIBRARIES_5X5[name]


def test_5x5_library_has_eight_patterns_of_six() -> None:
    masks = library("phase2", 5)
    assert len(set(masks)) == 8 and {len(taps(mask)) for mask in masks} == {6}
    assert draw(masks[0], 5) == "...../.xxx./.xxx./...../....."
    assert pattern(*draw(masks[5], 5).split("/")) == masks[5]


def test_candidates_are_all_patterns() -> None:
    every, centred = candidates(), candidates(centred=True)
    assert (len(every), len(centred)) == (126, 56) == (math.comb(9, 4), math.comb(8, 3))
    assert all(len(taps(mask)) == 4 for mask in every) and len(set(every)) == 126
    assert {mask for mask in every if mask & 16} == set(centred)


@pytest.mark.parametrize("entries", [0, 10])
def test_candidates_need_entries_that_fit(entries: int) -> None:
    with pytest.raises(PatcError, match=f"patterns of 1 to 9 entries in a 3x3 kernel, found {entries}"):
        candidates(entries)


def test_bad_5x5_library_is_named() -> None:
    with pytest.raises(PatcError, match=r"expected a 5x5 pattern library out of phase2, .*found 'phase1'"):
        library("phase1", 5)
    with pytest.raises(PatcError, match="5x5 pattern mask from 1 to 33554431, found 33554432"):
        library([1 << 25], 5)
