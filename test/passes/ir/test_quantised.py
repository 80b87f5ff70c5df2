"""Numbers of layers on quantised activations."""

from __future__ import annotations

import numpy as np
import pytest

from patc.dialects.quantised import Quantisation
from patc.passes.ir.quantised import IntegerWeights, Known, Reciprocal, first_numbers, multiples

GIVEN = Quantisation(0.05, 128, False)


@pytest.mark.parametrize("size", [100, 33_000, 40_000, 400_000])
@pytest.mark.parametrize("bias", [0.0, 1e6])
def test_sums_of_any_number_of_products_stay_within_i32(size: int, bias: float) -> None:
    weight = np.full((2, size), 0.25, np.float32)
    weight[1] = np.random.default_rng(0).standard_normal(size)
    found = IntegerWeights.of(weight, np.full(2, bias, np.float32), GIVEN)
    assert found.bias is not None
    sums = 255 * np.abs(found.weight.astype(np.int64)).sum(axis=1) + np.abs(found.bias.astype(np.int64))
    assert (sums < 2**31).all()
    steps = np.abs(found.weight * found.scales[:, None].astype(np.float64) - weight) / found.scales[:, None]
    assert steps.max() <= 0.5 + 1e-4
    np.testing.assert_allclose(found.bias * (found.scales * 0.05), bias, rtol=1e-6, atol=found.scales.max() * 0.05)


def test_usual_weights_keep_the_scale_of_the_largest() -> None:
    weight = np.random.default_rng(0).standard_normal((3, 4, 3, 3)).astype(np.float32)
    found = IntegerWeights.of(weight, None, GIVEN)
    assert found.bias is None
    assert np.array_equal(
        found.scales, (np.abs(weight.astype(np.float64)).max(axis=(1, 2, 3)) / 127).astype(np.float32)
    )


@pytest.mark.parametrize("known", [True, False])
def test_multiples_are_found(known: bool) -> None:
    generator = np.random.default_rng(0)
    integers = generator.integers(-127, 128, (40, 4, 3, 3))
    integers[3] = 0
    integers[4:8] //= 9  # filters that have no large ones, as with one scale for all
    scales = (generator.random(40) * 0.01 + 1e-4).astype(np.float32)
    weight = integers.astype(np.float32) * scales[:, None, None, None]
    found = multiples(weight, np.sort(scales) if known else np.zeros(0, np.float32))
    assert found[3] == 0 and (found[np.arange(40) != 3] > 0).all()
    made = IntegerWeights.of(weight, None, GIVEN, Known(found))
    np.testing.assert_allclose(made.weight * made.scales[:, None, None, None], weight, rtol=2**-22)
    if known:
        others = np.arange(40) != 3
        np.testing.assert_array_equal(made.scales[others], scales[others])
        np.testing.assert_array_equal(made.weight, integers)


def test_other_weights_are_no_multiples() -> None:
    weight = np.random.default_rng(0).standard_normal((8, 30)).astype(np.float32)
    weight[1] = np.rint(weight[1] * 40) / 40
    found = multiples(weight, np.zeros(0, np.float32))
    assert np.isnan(found).tolist() == [True, False, *[True] * 6]
    made = IntegerWeights.of(weight, None, GIVEN, Known(found))
    assert np.abs(made.weight[0]).max() == 127 and abs(made.weight[1] * made.scales[1] - weight[1]).max() < 1e-6


def test_first_numbers_are_where_rounded_quotients_become_another_integer() -> None:
    generator = np.random.default_rng(0)
    scales = np.concatenate([np.exp(generator.uniform(-27, 5, 300)), 2.0 ** np.arange(-40, 8)]).astype(np.float32)
    for scale, zero in zip(scales, generator.integers(-128, 128, len(scales)), strict=True):
        found = first_numbers(Quantisation(float(scale), int(zero), True))
        assert len(found) == 257 and found[0] == -np.inf and found[-1] == np.inf
        numbers, integers = found[1:-1], np.arange(1, 256) - 128 - zero
        before = np.nextafter(numbers, np.float32(-np.inf))
        assert (np.rint(numbers / scale) == integers).all() and (np.rint(before / scale) == integers - 1).all()


def test_reciprocals_say_where_they_tell_integers() -> None:
    generator = np.random.default_rng(0)
    for scale in np.exp(generator.uniform(-27, 5, 100)).astype(np.float32):
        given = Quantisation(float(scale), int(generator.integers(0, 256)), False)
        found, starts = Reciprocal.of(given), first_numbers(given)
        assert found is not None and abs(float(found.first) + float(found.second) - 1 / scale) < 2.0**-46 / scale
        assert found.highest == starts[255] and found.lowest == np.nextafter(starts[1], np.float32(-np.inf))


@pytest.mark.parametrize("scale", [2.0**-140, 2.0**126])
def test_scales_without_a_reciprocal(scale: float) -> None:
    assert Reciprocal.of(Quantisation(scale, 3, False)) is None
