"""patc.pruning: the paper's library arithmetic, the projection's properties, compression and errors."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from patc import models
from patc.diagnostics import PatcError
from patc.pruning import (
    ELOG,
    GAUSSIAN,
    LIBRARIES,
    PHASE1,
    PHASE2,
    PHASE3,
    PatternSpec,
    draw,
    library,
    pattern,
    prune_,
    resolve,
    taps,
)


def as_grid(mask: int) -> np.ndarray:
    return np.array([mask >> tap & 1 for tap in range(9)]).reshape(3, 3)


def sum_of(masks: tuple[int, ...]) -> list[list[int]]:
    return sum(as_grid(mask) for mask in masks).tolist()  # type: ignore[union-attr]


# Libraries


def test_gaussian_patterns_sum_to_the_gaussian() -> None:
    assert sum_of(GAUSSIAN) == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    assert (np.outer([1, 2, 1], [1, 2, 1]) == sum_of(GAUSSIAN)).all()


def test_elog_patterns_sum_to_four_times_the_cross_of_three_quarters() -> None:
    assert sum_of(ELOG) == [[0, 3, 0], [3, 4, 3], [0, 3, 0]]
    cross = np.array([[0, 0.75, 0], [0.75, 1, 0.75], [0, 0.75, 0]])
    assert (4 * cross == sum_of(ELOG)).all()


def test_phases_have_twelve_eight_and_four_nested_patterns() -> None:
    assert [len(phase) for phase in (PHASE1, PHASE2, PHASE3)] == [12, 8, 4]
    assert PHASE2 == (27, 54, 216, 432, 58, 154, 178, 184)
    assert set(PHASE3) < set(PHASE2) < set(PHASE1)
    for masks in LIBRARIES.values():
        assert len(set(masks)) == len(masks)
        assert all(len(taps(mask)) == 4 and mask >> 4 & 1 for mask in masks)


def test_patterns_that_phase1_adds_sum_to_the_gaussian_and_are_symmetric() -> None:
    added = PHASE1[8:]
    assert sum_of(added) == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    grids = {as_grid(mask).tobytes() for mask in added}
    assert {np.rot90(as_grid(mask)).tobytes() for mask in added} == grids
    assert {np.fliplr(as_grid(mask)).tobytes() for mask in added} == grids


@given(st.integers(1, 511))
def test_drawing_and_reading_a_pattern_are_inverse(mask: int) -> None:
    assert pattern(*draw(mask).split("/")) == mask
    assert sum(1 << tap for tap in taps(mask)) == mask


def test_taps_are_numbered_row_by_row() -> None:
    assert taps(pattern("...", "x..", ".x.")) == (3, 7)


def test_library_takes_names_and_masks() -> None:
    assert library("phase2") == PHASE2
    assert library([511]) == (511,)
    assert library(np.array([27, 54])) == (27, 54)


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ("phase4", r"out of phase1, phase2, .*; found 'phase4'; did you mean 'phase"),
        ([], "at least one mask, found none"),
        ([27, 54, 27], "different masks, found 27 twice"),
        ([27, 7], "patterns of 4 entries like the first mask 27, found 7 of 3"),
        ([0], "mask from 1 to 511, found 0"),
        ([512], "mask from 1 to 511, found 512"),
        (["x"], "expected a pattern as a bit mask, found 'x'"),
    ],
)
def test_bad_library_is_named(patterns: Any, message: str) -> None:
    with pytest.raises(PatcError, match=message):
        library(patterns)


def test_bad_drawing_is_named() -> None:
    with pytest.raises(PatcError, match="three rows of three"):
        pattern("xx", "xx", "..")


# Specifications


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"library": "phase9"}, "expected a pattern library out of"),
        ({"library": 27}, "expected a library name or pattern masks, found 27"),
        ({"library": [27, 27]}, "found 27 twice"),
        ({"connectivity": 0.5}, "expected connectivity to be a finite rate of at least 1, found 0.5"),
        ({"connectivity": float("nan")}, "finite rate of at least 1, found nan"),
        ({"connectivity": True}, "finite rate of at least 1, found True"),
        ({"compression": float("inf")}, "expected compression to be a finite rate of at least 1, found inf"),
        ({"pointwise": "all"}, "expected pointwise to be one of 'dense', 'groups'; found 'all'"),
        ({"filter_group": 3}, "expected filter_group to be one of 1, 2, 4, 8; found 3"),
        ({"filter_group": torch.ones(0)}, r"expected filter_group to be one of 1, 2, 4, 8; found tensor\(\[\]\)"),
        ({"first_layer": "no"}, "expected first_layer to be one of 'pattern', 'prune', 'dense'; found 'no'"),
    ],
)
def test_bad_spec_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(PatcError, match=message):
        PatternSpec(**fields)


def test_rates_of_numpy_become_plain_numbers() -> None:
    """Checkpoints hold them, and nothing but plain numbers is loaded from these."""
    spec = PatternSpec(connectivity=np.float64(2), compression=np.float32(4), rates={"a": np.int64(3)})
    assert {type(spec.connectivity), type(spec.compression), type(spec.layer_rates["a"])} == {float}


def test_spec_with_own_masks_is_hashable() -> None:
    assert hash(PatternSpec([27, 54])) == hash(PatternSpec((27, 54)))  # type: ignore[arg-type]
    assert PatternSpec((27, 54)).masks == (27, 54)
    assert PatternSpec().masks == PHASE2


# Projection


def make_conv(weight: Tensor) -> nn.Conv2d:
    filters, channels, height, width = weight.shape
    conv = nn.Conv2d(channels, filters, (height, width), bias=False)
    conv.weight.data = weight.clone()
    return conv


def random_weight(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def kept_mask(weight: Tensor) -> np.ndarray:
    """The mask of the non-zero taps of each kernel (kernels,)."""
    bits = (weight.detach().reshape(-1, 9) != 0).numpy()
    return bits @ (1 << np.arange(9))


# Small integers make ties frequent.
INTEGERS = st.integers(-2, 2).map(float)
FLOATS = st.floats(-10, 10, width=32)


@st.composite
def weights(draw_: st.DrawFn) -> Tensor:
    filters, channels = draw_(st.integers(1, 6)), draw_(st.integers(1, 5))
    count = filters * channels * 9
    values = draw_(st.lists(draw_(st.sampled_from([INTEGERS, FLOATS])), min_size=count, max_size=count))
    return torch.tensor(values).reshape(filters, channels, 3, 3)


SPECS = st.builds(
    PatternSpec,
    library=st.sampled_from(["phase1", "phase2", "phase3", (511,), (1, 16), (7, 73, 448)]),
    connectivity=st.floats(1, 40),
    filter_group=st.sampled_from([1, 2]),
    first_layer=st.just("prune"),
)


@settings(max_examples=150, deadline=None)
@given(weights(), SPECS)
def test_every_kept_kernel_is_the_original_under_a_library_pattern(weight: Tensor, spec: PatternSpec) -> None:
    conv = make_conv(weight)
    prune_(conv, spec)
    after = conv.weight.detach()
    assert torch.equal(after, torch.where(after != 0, weight, torch.zeros(())))
    assert not torch.signbit(after[(after == 0) & (weight != 0)]).any()
    for mask in kept_mask(after):
        assert any(mask & ~allowed == 0 for allowed in spec.masks)


@settings(max_examples=150, deadline=None)
@given(weights(), SPECS)
def test_projection_keeps_the_most_and_within_one_kernel_of_the_rate(weight: Tensor, spec: PatternSpec) -> None:
    conv = make_conv(weight)
    layer = prune_(conv, spec).layers[0]
    grouped = spec.filter_group if len(weight) % spec.filter_group == 0 else 1
    # Exhaustive: every pattern of every group of kernels, then the largest of the best ones.
    squares = weight.double().square().numpy().reshape(len(weight) // grouped, grouped, -1, 9).sum(1)
    grids = np.array([as_grid(mask).ravel() for mask in spec.masks])
    best = np.sort((squares.reshape(-1, 9) @ grids.T).max(1))[::-1]
    wanted = layer.kernels / spec.connectivity
    may_keep = max(1, int(np.floor(len(best) / spec.connectivity + 0.5)))
    assert abs(may_keep * grouped - wanted) <= 1 or may_keep == 1
    kept_norm = float(conv.weight.detach().double().square().sum())
    assert kept_norm == pytest.approx(float(best[:may_keep].sum()), rel=1e-9, abs=1e-30)
    assert layer.kept_kernels == grouped * int((best[:may_keep] > 0).sum())
    assert sum(layer.histogram.values()) == layer.kept_kernels


@settings(max_examples=50, deadline=None)
@given(weights(), SPECS)
def test_pruning_twice_changes_nothing(weight: Tensor, spec: PatternSpec) -> None:
    conv = make_conv(weight)
    prune_(conv, spec)
    once = conv.weight.detach().clone()
    prune_(conv, spec)
    assert torch.equal(conv.weight.detach(), once)


@pytest.mark.parametrize("connectivity", [1.0, 1.7, 3.56, 8.0, 100.0])
def test_each_layer_is_within_one_kernel_of_the_rate(connectivity: float) -> None:
    model = models.resnet18_cifar()
    report = prune_(model, PatternSpec(connectivity=connectivity))
    for layer in report.layers:
        if layer.kind == "pattern":
            assert abs(layer.kept_kernels - layer.kernels / connectivity) <= 1
            weight = model.get_submodule(layer.name).weight
            assert np.count_nonzero(kept_mask(weight)) == layer.kept_kernels


def test_ties_go_to_the_earlier_pattern_and_the_earlier_kernel() -> None:
    conv = make_conv(torch.ones(2, 2, 3, 3))
    prune_(conv, PatternSpec(library=(54, 27), connectivity=2, first_layer="prune"))
    assert kept_mask(conv.weight).tolist() == [54, 54, 0, 0]


def test_pair_of_filters_shares_pattern_and_connectivity() -> None:
    conv = make_conv(random_weight(16, 12, 3, 3))
    prune_(conv, PatternSpec(connectivity=3, filter_group=2, first_layer="prune"))
    masks = kept_mask(conv.weight).reshape(8, 2, 12)
    assert (masks[:, 0] == masks[:, 1]).all()
    assert np.count_nonzero(masks) == 16 * 12 / 3


def test_half_precision_is_pruned_by_its_own_magnitudes() -> None:
    tiny = random_weight(8, 8, 3, 3).half() * 1e-4  # whose squares would be 0 in half precision
    conv = make_conv(tiny)
    report = prune_(conv, PatternSpec(connectivity=2, first_layer="prune"))
    assert conv.weight.dtype == torch.float16
    assert report.layers[0].kept_kernels == 32


# Which layers


def test_layers_that_cannot_be_pruned_stay_dense() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.Conv2d(8, 8, 3, groups=2),
        nn.Conv2d(8, 20, 1),
        nn.Conv2d(20, 8, 5),
        nn.ConvTranspose2d(8, 8, 3),
        nn.Conv2d(8, 8, 3, stride=2, dilation=2),
    )
    before = copy.deepcopy(model)
    report = prune_(model, PatternSpec(connectivity=4))
    assert [layer.kind for layer in report.layers] == ["pattern-only", *["dense"] * 5, "pattern"]
    for i in range(1, 6):
        assert torch.equal(model[i].weight, before[i].weight)
    assert all(torch.equal(a.bias, b.bias) for a, b in zip(model, before, strict=True))
    assert report.layers[0].kept_kernels == 24  # patterns, and every kernel stays
    assert report.layers[6].kept_kernels == 16


@pytest.mark.parametrize(("first_layer", "kept"), [("pattern", 64), ("prune", 32), ("dense", 64)])
def test_first_layer_follows_the_spec(first_layer: Any, kept: int) -> None:
    model = nn.Sequential(make_conv(random_weight(8, 8, 3, 3)), make_conv(random_weight(4, 8, 3, 3)))
    first = prune_(model, PatternSpec(connectivity=2, first_layer=first_layer)).layers[0]
    assert first.kept_kernels == kept
    assert first.kept_weights == (576 if first_layer == "dense" else 4 * kept)


def test_pointwise_groups_see_nine_channels_as_a_kernel() -> None:
    weight = random_weight(6, 21, 1, 1)
    model = nn.Sequential(make_conv(random_weight(21, 4, 3, 3)), make_conv(weight))
    layer = prune_(model, PatternSpec(connectivity=2, pointwise="groups")).layers[1]
    after = model[1].weight.detach()
    assert torch.equal(after[:, 18:], weight[:, 18:])  # the last three channels are no group
    masks = kept_mask(after[:, :18])
    assert set(masks) <= {0, *PHASE2}
    assert np.count_nonzero(masks) == layer.kept_kernels == 6
    assert (layer.kind, layer.kernels, layer.kept_weights) == ("pointwise-groups", 12, 6 * 4 + 6 * 3)


def test_pointwise_layer_of_fewer_than_nine_channels_stays_dense() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1))
    assert prune_(model, PatternSpec(pointwise="groups")).layers[1].kind == "dense"


@pytest.mark.parametrize(("pointwise", "kinds"), [("dense", "3x3"), ("groups", "3x3 or 1x1")])
def test_model_without_a_prunable_layer_is_an_error(pointwise: Any, kinds: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 7), nn.Conv2d(8, 8, 3, groups=8), nn.Linear(3, 3))
    with pytest.raises(PatcError, match=rf"\({kinds}, groups=1\), found none among 2 convolutions"):
        prune_(model, PatternSpec(pointwise=pointwise))


def test_weights_that_are_not_finite_are_named_and_nothing_changes() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))
    with torch.no_grad():
        model[1].weight[0, 0, 0, :2] = torch.tensor([float("nan"), float("inf")])
    before = model[0].weight.detach().clone()
    with pytest.raises(PatcError, match=r"^1: expected finite weights, found 2 that are NaN or infinite"):
        prune_(model, PatternSpec())
    assert torch.equal(model[0].weight, before)


def test_computed_weight_is_an_error() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3))
    nn.utils.parametrize.register_parametrization(model[0], "weight", nn.Identity())
    with pytest.raises(PatcError, match="expected 'weight' to be a parameter, found a computed tensor"):
        prune_(model, PatternSpec())


# Compression


def count_kept(model: nn.Module) -> tuple[int, int]:
    """All convolution weights and those that are not zero."""
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    return sum(c.weight.numel() for c in convs), sum(int(c.weight.count_nonzero()) for c in convs)


def test_resnet18_at_eight_times_has_its_3x3_layers_at_nine() -> None:
    model = models.resnet18()
    report = prune_(model, PatternSpec.for_compression(8.0))
    everything, kept = count_kept(model)
    assert (report.weights, report.kept_weights) == (everything, kept)
    assert everything == 11_166_912
    assert report.compression == pytest.approx(8.0, rel=1e-4)
    assert report.connectivity == pytest.approx(4.02, abs=0.005)
    three = [layer for layer in report.layers if layer.kind == "pattern"]
    rate = sum(layer.weights for layer in three) / sum(layer.kept_weights for layer in three)
    assert len(three) == 16 and rate == pytest.approx(9.046, abs=0.005)
    for layer in three:
        assert abs(layer.kept_kernels - layer.kernels / report.connectivity) <= 1
    assert next(layer.name for layer in report.layers if layer.kind == "dense") == "conv1"


def test_vgg16_meets_the_rates_of_the_paper() -> None:
    model = models.vgg16().get_submodule("features")  # without half a gigabyte of linear layers
    for rate in (8.0, 12.0, 19.7):
        pruned = copy.deepcopy(model)
        report = prune_(pruned, PatternSpec.for_compression(rate))
        everything, kept = count_kept(pruned)
        assert everything == 14_710_464
        assert everything / kept == pytest.approx(rate, rel=1e-4) == report.compression
        assert report.layers[0].kind == "pattern-only"


def test_resnet50_needs_pointwise_groups_for_the_rate_of_the_paper() -> None:
    model = models.resnet50()
    with pytest.raises(PatcError, match=r"from 1\.366 to 1\.932.*found 5\.8 \(1x1 .* pointwise is 'groups'"):
        prune_(model, PatternSpec.for_compression(5.8))
    report = prune_(model, PatternSpec.for_compression(5.8, pointwise="groups"))
    everything, kept = count_kept(model)
    assert everything / kept == pytest.approx(5.8, rel=1e-4) == report.compression


@pytest.mark.parametrize("fields", [{"library": (511,)}, {"library": (7, 73)}, {"filter_group": 2}])
def test_compression_counts_the_entries_of_the_library(fields: dict[str, Any]) -> None:
    report = prune_(models.resnet18_cifar(), PatternSpec.for_compression(6.0, **fields))
    assert report.compression == pytest.approx(6.0, rel=1e-3)


def test_compression_reaches_both_ends_of_its_range_and_not_beyond() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))
    lowest, highest = 792 / 352, 792 / (24 * 4 + 4)
    assert resolve(model, PatternSpec.for_compression(lowest)).connectivity == 1.0
    assert prune_(copy.deepcopy(model), PatternSpec.for_compression(highest)).kept_weights == 100
    for rate in (lowest - 0.01, highest + 0.01):
        with pytest.raises(PatcError, match=r"expected a compression from 2\.250 to 7\.920, .*; found "):
            resolve(model, PatternSpec.for_compression(rate))


def test_resolve_leaves_a_given_connectivity_alone() -> None:
    spec = PatternSpec(connectivity=3)
    assert resolve(nn.Conv2d(3, 8, 3), spec) is spec


# Reports


def test_report_table_has_a_line_per_layer() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 7), make_conv(random_weight(8, 8, 3, 3)))
    report = prune_(model, PatternSpec("phase3", connectivity=4))
    lines = str(report).splitlines()
    assert len(lines) == 1 + 2 + 1 + 1
    counts = list(report.layers[1].histogram.values())
    assert lines[0].split()[:3] == ["layer", "shape", "kind"]
    assert lines[1].split() == ["0", "8x3x7x7", "dense", "24", "24", "1176", "1176", "1.00x", "-"]
    expected = ["1", "8x8x3x3", "pattern", "64", "16", "576", "64", "9.00x", *map(str, counts)]
    assert lines[2].split() == expected
    assert lines[3].split()[:8] == ["total", "1", "of", "2", "64", "16", "1752", "1240"]
    assert report.histogram == report.layers[1].histogram
    assert "58 154 178 184" in lines[4]


def test_zero_kernels_are_not_counted_as_kept() -> None:
    conv = make_conv(torch.zeros(4, 4, 3, 3))
    report = prune_(conv, PatternSpec(connectivity=2, first_layer="prune"))
    assert report.layers[0].kept_kernels == report.kept_weights == 0
    assert report.compression == float("inf")
    assert "(the model)" in str(report)


def test_libraries_and_specs_do_not_import_torch() -> None:
    code = "import sys, patc.pruning; patc.pruning.PatternSpec().masks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unknown_name_of_the_package_is_an_attribute_error() -> None:
    import patc.pruning

    with pytest.raises(AttributeError, match="no attribute 'prun'"):
        _ = patc.pruning.prun
