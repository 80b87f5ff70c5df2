"""Numbers of layers on quantised activations."""

from __future__ import annotations

import numpy as np
import pytest

from patc.dialects.quantised import Quantisation
from patc.passes.ir.quantised import IntegerWeights

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
