"""The simplex projection, the proximal step, and libraries that are found again in the weights they were planted in."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from patc.diagnostics import PatcError
from patc.pruning import PHASE1, PHASE2, LibraryExtractor, PatternSpec, candidates, prune_
from patc.pruning.extraction import selection_bytes
from patc.pruning.simplex import project_simplex

pytestmark = pytest.mark.usefixtures("one_thread")

# The simplex


def nearest_by_enumeration(d: np.ndarray) -> np.ndarray:
    """Solve min |u - d|^2, sum u = 1, u >= 0 by the KKT conditions of every possible support."""
    best, distance = d, np.inf
    for size in range(1, len(d) + 1):
        for support in itertools.combinations(range(len(d)), size):
            u = np.zeros_like(d)
            u[list(support)] = d[list(support)] - (d[list(support)].sum() - 1) / size
            if u.min() >= 0 and np.square(u - d).sum() < distance:
                best, distance = u, np.square(u - d).sum()
    return best


@settings(max_examples=150, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=8))
def test_simplex_projection_is_the_solution_of_the_quadratic_program(values: list[float]) -> None:
    d = np.array(values)
    u = project_simplex(torch.tensor(values, dtype=torch.float64)[None])[0].numpy()
    assert np.allclose(u, nearest_by_enumeration(d), atol=1e-12)


def test_simplex_projection_of_126_patterns_meets_the_optimality_conditions() -> None:
    d = torch.randn(500, 126, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    u = project_simplex(d)
    assert torch.allclose(u.sum(1), torch.ones(500, dtype=torch.float64), atol=1e-12) and (u >= 0).all()
    nu = torch.where(u > 0, d - u, -torch.inf).amax(1, keepdim=True)
    assert torch.allclose(torch.where(u > 0, d - u - nu, 0.0), torch.zeros(()).double(), atol=1e-12)
    assert (d <= nu + 1e-12)[u == 0].all()
    assert torch.allclose(project_simplex(u), u, atol=1e-12)


# The selection variables


def make_net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 4, 1)
    )


def planted_net(masks: tuple[int, ...], noise: float, seed: int = 0) -> nn.Sequential:
    """A net whose kernels are large under a random one of `masks`, and small elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(),
        nn.Conv2d(24, 16, 3, padding=1),
    )  # fmt: skip
    bits = torch.tensor([[mask >> tap & 1 for tap in range(9)] for mask in masks]).float()
    for conv in net[::2]:
        shape = conv.weight.shape
        count = shape[0] * shape[1]
        chosen = bits[torch.randint(len(masks), (count,), generator=generator)]
        size = 0.5 + torch.rand(count, 9, generator=generator)
        sign = torch.randn(count, 9, generator=generator).sign()
        small = torch.randn(count, 9, generator=generator) * noise
        conv.weight.data = 0.2 * (chosen * size * sign + small).reshape(shape)
    return net


def extract(model: nn.Module, extractor: LibraryExtractor, iterations: int = 2, steps: int = 3) -> tuple[int, ...]:
    """Train the model to compute what it computed at first, and extract."""
    teacher = copy.deepcopy(model).eval()
    generator = torch.Generator().manual_seed(1)
    extractor.prepare()
    while not extractor.finished:
        optimizer = torch.optim.SGD(extractor.parameter_groups(weight_decay=5e-4), lr=0.05, momentum=0.9)
        for _ in range(iterations):
            for _ in range(steps):
                x = torch.randn(8, 3, 8, 8, generator=generator)
                optimizer.zero_grad()
                loss = (model(x) - teacher(x)).square().mean() + extractor.penalty()
                loss.backward()
                optimizer.step()
            extractor.step()
        extractor.reduce()
    return extractor.finalize()


@pytest.mark.parametrize(
    ("masks", "start", "sizes", "noise"),
    [
        (PHASE2, "all", (32, 12, 8), 0.3),
        (PHASE1, "centred", (32, 12), 0.3),
        ((15, 120, 240, 480), "all", (32, 12, 8, 4), 0.2),  # rows and tails: nothing like the designed ones
    ],
)
def test_planted_libraries_are_found(masks: tuple[int, ...], start: Any, sizes: tuple[int, ...], noise: float) -> None:
    extractor = LibraryExtractor(planted := planted_net(masks, noise), start, sizes)
    assert extract(planted, extractor) == tuple(sorted(masks))
    before = [126 if start == "all" else 56, *sizes]
    assert [len(histogram) for histogram in extractor.histograms] == before[:-1]
    kernels = 3 * 16 + 16 * 24 + 24 * 16
    assert all(sum(histogram.values()) == kernels for histogram in extractor.histograms)
    report = prune_(planted, PatternSpec(extractor.library, connectivity=1))
    assert report.compression == 2.25


def test_preparing_keeps_what_the_model_computes() -> None:
    model, x = make_net(), torch.randn(2, 3, 8, 8)
    before = model(x)
    extractor = LibraryExtractor(model, sizes=(8,), lean=0)
    extractor.prepare()
    assert torch.allclose(model(x), before, atol=1e-5)
    assert extractor.finalize() == candidates()
    assert torch.allclose(model(x), before, atol=1e-5)
    assert not any("parametrizations" in name for name, _ in model.named_parameters())


def test_steps_follow_the_equations_of_the_paper() -> None:
    """Against u, mu and a written out, which the extractor does not store."""
    model = make_net()
    extractor = LibraryExtractor(model, PHASE1, sizes=(8,), rho=0.7)
    extractor.prepare()
    selection = model[2].parametrizations.weight[0]
    u, mu = selection.selection.detach().clone(), torch.zeros_like(selection.selection)
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        with torch.no_grad():
            selection.selection += 0.2 * torch.randn(selection.selection.shape, generator=generator)
        z = selection.selection.detach().clone()
        a = u - mu / 0.7
        selection.selection.grad = None
        extractor.penalty().backward()
        assert torch.allclose(selection.selection.grad, 0.7 * (z - a), atol=1e-5)
        extractor.step()
        u = project_simplex(z + mu / 0.7)
        mu = mu + 0.7 * (z - u)
        assert torch.allclose((selection.d - selection.nu).clamp_min(0), u, atol=1e-6)
        assert torch.equal(selection.selected(), u.argmax(1))
    other = model[0].parametrizations.weight[0]
    whole = 0.35 * sum(
        float(torch.dist(s.selection, (s.d - s.nu).abs() - s.nu).detach()) ** 2 for s in (selection, other)
    )
    assert float(extractor.penalty().detach()) == pytest.approx(whole, rel=1e-4)


def test_gradients_of_the_selection_are_those_of_the_mean_pattern() -> None:
    conv = nn.Conv2d(2, 3, 3)
    extractor = LibraryExtractor(conv, PHASE2, sizes=(4,), spec=PatternSpec(first_layer="prune"))
    extractor.prepare()
    x = torch.randn(1, 2, 5, 5)
    conv(x).square().sum().backward()
    state = conv.parametrizations.weight
    bits = torch.tensor([[mask >> tap & 1 for tap in range(9)] for mask in PHASE2]).float()

    def loss(z: Tensor) -> Tensor:
        weight = state.original.detach() * (z @ bits).reshape(3, 2, 3, 3)
        return nn.functional.conv2d(x, weight, conv.bias).square().sum()

    z = state[0].selection.detach().requires_grad_()
    loss(z).backward()
    assert torch.allclose(z.grad, state[0].selection.grad, rtol=1e-4, atol=1e-5)


def test_penalty_has_second_derivatives() -> None:
    conv = nn.Conv2d(2, 3, 3)
    extractor = LibraryExtractor(conv, PHASE2, sizes=(4,), rho=0.25, spec=PatternSpec(first_layer="prune"))
    extractor.prepare()
    selection = conv.parametrizations.weight[0].selection
    (grad,) = torch.autograd.grad(extractor.penalty(), selection, create_graph=True)
    direction = torch.randn_like(selection)
    (product,) = torch.autograd.grad((grad * direction).sum(), selection)
    assert torch.allclose(product, 0.25 * direction)


def test_pointwise_groups_leave_the_last_channels_alone() -> None:
    conv = nn.Conv2d(20, 4, 1)
    before = conv.weight.detach().clone()
    extractor = LibraryExtractor(conv, sizes=(8,), spec=PatternSpec(pointwise="groups", first_layer="prune"))
    extractor.prepare()
    assert torch.equal(conv.weight[:, 18:], before[:, 18:])
    assert sum(extractor.histogram().values()) == 8


def test_kernels_of_zeros_select_nothing() -> None:
    model = planted_net(PHASE2, 0.1)
    with torch.no_grad():
        model[2].weight[:4] = 0
    extractor = LibraryExtractor(model, sizes=(8,))
    extractor.prepare()
    assert sum(extractor.histogram().values()) == 3 * 16 + 16 * 20 + 24 * 16
    assert torch.isfinite(model(torch.randn(1, 3, 8, 8))).all()


def test_a_resumed_extraction_gives_equal_bits() -> None:
    def train(model: nn.Module, extractor: LibraryExtractor, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.SGD(extractor.parameter_groups(), lr=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            (model(torch.randn(4, 3, 8, 8, generator=generator)).square().mean() + extractor.penalty()).backward()
            optimizer.step()
        extractor.step()

    first = make_net()
    extractor = LibraryExtractor(first, sizes=(32, 8))
    extractor.prepare()
    train(first, extractor, 1)
    extractor.reduce()
    train(first, extractor, 2)
    saved = copy.deepcopy((first.state_dict(), extractor.state_dict()))
    second = make_net(seed=5)
    other = LibraryExtractor(second, sizes=(32, 8))
    other.load_state_dict(saved[1])
    second.load_state_dict(saved[0])
    for model, some in ((first, extractor), (second, other)):
        train(model, some, 3)
        some.reduce()
    assert extractor.finalize() == other.finalize() and extractor.histograms == other.histograms
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_memory_is_as_the_formula_says() -> None:
    model = make_net()
    extractor = LibraryExtractor(model, sizes=(8,))
    extractor.prepare()
    optimizer = torch.optim.SGD(extractor.parameter_groups(), lr=0.01, momentum=0.9)
    (model(torch.randn(1, 3, 8, 8)).mean() + extractor.penalty()).backward()
    optimizer.step()
    taken = 0
    for conv in (model[0], model[2]):
        state = conv.parametrizations.weight[0]
        momentum = optimizer.state[state.selection]["momentum_buffer"]
        taken += sum(t.nbytes for t in (state.selection, state.selection.grad, momentum, state.d, state.nu))
    assert taken == selection_bytes(kernels=3 * 12 + 12 * 16, patterns=126)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"start": "some"}, "start from 'all' or 'centred' patterns or from masks, found 'some'"),
        ({"start": [27, 27]}, "found 27 twice"),
        ({"sizes": ()}, "sizes of at least one step of extraction, found none"),
        ({"sizes": (126,)}, "fewer than 126 patterns, found 126"),
        ({"sizes": (12, 32)}, "fewer than 12 patterns, found 32"),
        ({"rho": 0.0}, "rho to be above 0, found 0.0"),
        ({"lean": -1.0}, "lean to be at least 0, found -1.0"),
    ],
)
def test_bad_extraction_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(PatcError, match=message):
        LibraryExtractor(make_net(), **fields)


def test_extraction_ends_and_refuses_what_is_not_finite() -> None:
    with pytest.raises(PatcError, match="found none among 0 convolutions"):
        LibraryExtractor(nn.Linear(2, 2))
    model = make_net()
    extractor = LibraryExtractor(model, sizes=(8,))
    extractor.prepare()
    with torch.no_grad():
        model[2].parametrizations.weight[0].selection[0, 0] = float("nan")
    with pytest.raises(PatcError, match=r"^2: expected finite selection variables, found NaN"):
        extractor.step()
    with torch.no_grad():
        model[2].parametrizations.weight[0].selection[0, 0] = 0
    extractor.reduce()
    with pytest.raises(PatcError, match="at most 1 steps of extraction, found one more"):
        extractor.reduce()
