"""Rounding errors: what sums and transforms make of them, as modelled and as simulated, and which layers are worth more."""

from __future__ import annotations

import numpy as np
import pytest

from patc.numerics import NUMERICS
from patc.passes.cost.rounding import PART, Rounding, sum_error, worth_more
from patc.passes.kernels.host.winograd_transforms import POINTS, TILE, amplification, weight_matrix

F32 = NUMERICS["f32"]
CYCLES = 1e6


@pytest.mark.parametrize("products", [64, 576, 2048])
def test_a_sum(products: int) -> None:
    """One after the other in float32, each product exact."""
    terms = np.random.default_rng(0).standard_normal((2, 1000, products)).astype(np.float32).prod(0, dtype=np.float64)
    total = np.zeros(len(terms), np.float32)
    for place in range(products):
        total = (total + terms[:, place]).astype(np.float32)
    exact = terms.sum(1)
    error = np.sqrt(np.square(total - exact).mean() / np.square(exact).mean())
    assert 0.7 < error / sum_error(products, F32) < 1.4


@pytest.mark.parametrize("taps", [3, 4])
def test_errors_of_products_along_an_axis(taps: int) -> None:
    """Independent errors, relative to the products that they are of, of random inputs and kernels."""
    rng, count = np.random.default_rng(0), 20000
    points = [*POINTS[:5], np.inf, *POINTS[5 : taps + 2]]
    finite = [point for point in points if point != np.inf]
    outputs = np.array([[float(row == TILE - 1) if p == np.inf else p**row for p in points] for row in range(TILE)])
    inputs = np.zeros((len(points), len(points)))
    for row, point in enumerate(points):
        roots = np.poly([other for other in finite if other != point])[::-1]
        inputs[row, : len(roots)] = roots
    kernels, given = rng.standard_normal((taps, count)), rng.standard_normal((len(points), count))
    products = (weight_matrix(taps) @ kernels) * (inputs @ given)
    exact = outputs @ products
    np.testing.assert_allclose(exact[0], (kernels * given[:taps]).sum(0), atol=1e-9)
    scale = np.sqrt(np.square(products).mean(1, keepdims=True))  # what sums of many of them have
    errors = outputs @ (scale * rng.standard_normal(products.shape))
    assert np.square(errors).mean() / np.square(exact).mean() == pytest.approx(amplification(taps), rel=0.1)


def test_the_first_layers_are_worth_more() -> None:
    large, small, share = F32.error_bound, F32.error_bound / 100, PART * CYCLES
    assert worth_more([Rounding(large, 0.4 * share)] * 4, CYCLES, F32) == [0, 1]
    assert worth_more([Rounding(small, 0.4 * share), Rounding(large, 0.4 * share)], CYCLES, F32) == [1]
    assert worth_more([Rounding(large, None), Rounding(large, 0.0)], CYCLES, F32) == [1]
    assert worth_more([Rounding(large, 2 * share), Rounding(large, 0.1 * share)], CYCLES, F32) == []
