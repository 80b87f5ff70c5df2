"""Patterns of kernels that are not 3x3: by design, selected, extracted, by ADMM."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from torch import nn

from patc.diagnostics import PatcError
from patc.pruning import (
    PHASE2,
    AdmmSchedule,
    LibraryExtractor,
    PatternPruner,
    PatternSpec,
    Window,
    prune_,
    select_libraries,
)
from patc.pruning.constraints.base import Constraint
from patc.pruning.constraints.patterns import PatternConstraint
from patc.pruning.kernels import find_layers
from patc.pruning.libraries import taps

SPEC = PatternSpec(kernels="all", connectivity=2, depthwise="pattern", pointwise="groups")


def maps() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 7, stride=2, padding=3),
        nn.PReLU(16),
        nn.Conv2d(16, 12, 5, padding=2),
        nn.Conv2d(12, 12, 5, padding=2, groups=12),
        nn.Conv2d(12, 12, (1, 7), padding=(0, 3)),
        nn.ConvTranspose2d(12, 16, 4, stride=2, padding=1),
        nn.ConvTranspose2d(16, 8, 3, stride=2, padding=1),
        nn.ConvTranspose2d(8, 8, 2, stride=2),
        nn.Conv2d(8, 4, 3),
    )


def lines() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(4, 18, 9, padding=4),
        nn.Conv1d(18, 18, 5, padding=4, dilation=2),
        nn.Conv1d(18, 18, 7, padding=3, groups=18),
        nn.Conv1d(18, 18, 1),
        nn.ConvTranspose1d(18, 6, 4, stride=2, padding=1),
        nn.Conv1d(6, 4, 3),
    )


NETS = {"maps": (maps, (2, 3, 20, 20)), "lines": (lines, (2, 4, 30))}


def check_masks(layers: list[Constraint], connectivity: float) -> None:
    """Require that every kernel fits its library, and that as many are kept as the rate says."""
    for layer in layers:
        assert isinstance(layer, PatternConstraint)
        kernels = layer.units_of(layer.weight.detach()).reshape(-1, layer.taps)
        kept = kernels.abs().sum(1) > 0
        fits = ~((kernels[:, None] != 0) & ~layer.bits).any(2)
        assert fits.any(1).all()
        wanted = layer.units_at(connectivity) if layer.has_rate else layer.units
        assert int(kept.sum()) == wanted


def test_the_library_of_3x3_kernels_is_phase_2() -> None:
    assert Window((3, 3)).library() == PHASE2


@pytest.mark.parametrize(
    ("name", "kept", "patterns"),
    [("5x5", (11,), 8), ("7x7", (22,), 8), ("2x2", (2,), 8), ("1x3", (1,), 3), ("1x9", (4,), 6), ("1x31", (14,), 8),
     ("4x4/2x2", (2, 2, 2, 2), 8), ("3x3/2x2", (2, 1, 1, 1), 7), ("2x2/2x2", (1, 1, 1, 1), 1), ("1x4/1x2", (1, 1), 3)],
)  # fmt: skip
def test_patterns_keep_the_share_of_3x3_kernels(name: str, kept: tuple[int, ...], patterns: int) -> None:
    window = Window.parse(name)
    assert (window.name, window.kept()) == (name, kept)
    library = window.library()
    assert len(set(library)) == len(library) == patterns or name == "2x2"
    for mask in library:
        assert tuple(sum(tap in part for tap in taps(mask)) for part in window.parts) == kept


@pytest.mark.parametrize("name", ["", "5", "0x3", "8x8", "5x5/0x1", "3x3x3", "5x5 "])
def test_other_names_of_windows_are_refused(name: str) -> None:
    with pytest.raises(PatcError, match="expected a kernel of at most 63 taps, as 5x5, 1x9 or 4x4/2x2; found"):
        Window.parse(name)


@pytest.mark.parametrize("net", NETS)
def test_one_shot(net: str) -> None:
    model = NETS[net][0]()
    report = prune_(model, SPEC)
    layers = find_layers(model, SPEC)
    assert all(layer.kind != "dense" for layer in layers)
    check_masks(layers, 2)
    stored = sum(int((layer.weight != 0).sum()) for layer in layers)
    assert 0 <= report.kept_weights - stored <= 2  # weights that were zero anyway
    assert str(report).count("\n") == len(layers) + 2


def test_other_kernels_stay_as_they_are_by_default() -> None:
    model = maps()
    before = copy.deepcopy(model.state_dict())
    report = prune_(model, PatternSpec(connectivity=1))
    assert [layer.name for layer in report.layers if layer.kind != "dense"] == ["8"]
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert changed == ["8.weight"]


def test_selected_patterns_keep_more_than_designed_ones() -> None:
    model = maps()
    libraries = select_libraries(model, SPEC)
    assert libraries == select_libraries(model, SPEC)
    assert set(libraries) == {"7x7", "5x5", "1x7", "4x4/2x2", "3x3/2x2", "2x2/2x2"}
    designed, selected = copy.deepcopy(model), copy.deepcopy(model)
    prune_(designed, PatternSpec(kernels="all", connectivity=1))
    prune_(selected, PatternSpec(kernels="all", connectivity=1, libraries=libraries))
    for number in (0, 2, 4, 5):
        assert selected[number].weight.norm() >= designed[number].weight.norm()


@pytest.mark.parametrize("net", NETS)
def test_admm_drives_weights_into_the_masks_and_keeps_them_there(net: str) -> None:
    build, shape = NETS[net]
    model, x = build(), torch.randn(shape)
    pruner = PatternPruner(model, SPEC, AdmmSchedule(iterations=3, rho=1.0, growth=2.0, most_rho=8.0))
    pruner.prepare()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    distances = []
    for iteration in range(6):
        for _ in range(8):
            optimizer.zero_grad()
            (1e-3 * model(x).square().mean() + pruner.penalty()).backward()
            optimizer.step()
        pruner.step()
        distances.append(pruner.distance())
        if iteration == 3:
            pruner.harden()
    assert distances[3] < distances[0]
    report = pruner.finalize()
    check_masks(find_layers(model, SPEC), 2)
    assert report.kept_kernels < report.kernels


@pytest.mark.parametrize(("net", "window"), [("maps", "5x5"), ("maps", "4x4/2x2"), ("lines", "1x9")])
def test_a_library_is_extracted_for_a_window(net: str, window: str) -> None:
    build, shape = NETS[net]
    model, x = build(), torch.randn(shape)
    before = model(x)
    extractor = LibraryExtractor(model, sizes=(6, 4), spec=SPEC, window=window)
    extractor.prepare()
    torch.testing.assert_close(model(x).isfinite().all(), torch.tensor(True))
    while not extractor.finished:
        optimizer = torch.optim.SGD(extractor.parameter_groups(), lr=0.01)
        (model(x) - before.detach()).square().mean().add(extractor.penalty()).backward()
        optimizer.step()
        extractor.step()
        extractor.reduce()
    library = extractor.finalize()
    assert len(library) == 4
    prune_(model, PatternSpec(kernels="all", libraries={window: library}))


def test_bad_values_are_named() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"kernels": "5x5"}, "expected kernels to be one of '3x3', 'all'; found '5x5'"),
        ({"kernels": "all", "share": 0}, "expected share to be above 0 and at most 1, found 0"),
        ({"kernels": "all", "libraries": {"7": (1,)}}, "as 5x5, 1x9 or 4x4/2x2; found '7'"),
        ({"kernels": "all", "libraries": {"1x3": (8,)}}, "expected a 1x3 pattern mask from 1 to 7, found 8"),
        ({"libraries": {"1x3": (1,)}}, "expected kernels to be 'all' together with libraries, found '3x3'"),
    ]
    for how, message in cases:
        with pytest.raises(PatcError, match=re.escape(message)):
            PatternSpec(**how)
    with pytest.raises(PatcError, match="expected a model with 9x7 kernels, found 7x7, 5x5"):
        LibraryExtractor(maps(), spec=SPEC, window="9x7")
