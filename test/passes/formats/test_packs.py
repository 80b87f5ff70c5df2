"""Packs: what is stored of layers with single zeros, which weights take the format, and what is computed."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from emulated import MISSING, compile_emulated, needs_arm
from gpu import WHY_NOT, needs_device
from helpers import assert_close, check_convolutions, raised_model, torch_results
from networks import pattern_weight
from torch import nn

import patc
from patc.bench.emulator import run_program
from patc.compiler import compile_model
from patc.passes.formats.base import EncodeOptions
from patc.passes.formats.packs import PacksFormat
from patc.passes.pattern_encode import PatternEncode
from patc.passes.pattern_reorder import PatternReorder
from patc.pruning import Block, GatherScatter, Pattern, Plan, Unstructured, prune_


def sparse(filters: int, inputs: int, keep: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((filters, inputs)).astype(np.float32)
    return weight * (rng.random((filters, inputs)) < keep)


def scattered(filters: int = 64, inputs: int = 64) -> np.ndarray:
    """Return weights of filters that are far from those with as many weights: every second one is nearly empty."""
    weight = sparse(filters, inputs, 0.3)
    weight[::2] *= np.random.default_rng(1).random((filters // 2, inputs)) < 0.1
    return weight


def balanced(filters: int, inputs: int, *kernel: int, seed: int = 0) -> np.ndarray:
    """Return weights of a convolution of which 16 filters have equally many each in 32 channels of a tap, up to 4."""
    rng = np.random.default_rng(seed)
    weight = np.zeros((filters, *kernel, inputs), np.float32)
    counts = rng.integers(0, 5, (-(-filters // 16), *kernel, -(-inputs // 32)))
    for (bundle, *tap, tile), count in np.ndenumerate(counts):
        own = range(32 * tile, min(32 * tile + 32, inputs))
        for filter_ in range(16 * bundle, min(16 * bundle + 16, filters)):
            places = rng.choice(own, min(count, len(own)), replace=False)
            weight[(filter_, *tap)][places] = rng.standard_normal(len(places))
    return np.moveaxis(weight, -1, 1)


def encode(weight: np.ndarray) -> tuple[PacksFormat, Any]:
    found = PacksFormat.encode(weight, 1, EncodeOptions())
    assert found is not None
    return found


@pytest.mark.parametrize(
    "weight",
    [sparse(64, 64, 0.1), sparse(16, 32, 0.1), sparse(37, 75, 0.1), sparse(50, 33, 0.05), scattered(),
     balanced(64, 64, 3, 3), balanced(37, 75, 1, 1), balanced(48, 12, 2, 5)],
    ids=["whole", "one", "ends", "a column more", "far apart", "3x3", "1x1", "narrow"],
)  # fmt: skip
def test_packs_hold_the_weights(weight: np.ndarray) -> None:
    stored, arrays = encode(weight)
    values, index, counts, reorder = arrays
    filters, inputs, *kernel = weight.shape
    assert values.shape == index.shape == (counts.sum(), 16)
    assert counts.shape == (-(-filters // 16), math.prod(kernel) * -(-inputs // 32))
    assert index.dtype == counts.dtype == np.int8
    assert stored.find_violation(arrays, inputs) is None
    assert np.array_equal(stored.decode(arrays, inputs).reshape(weight.shape), weight)
    assert stored.kept_weights([array.shape for array in arrays]) == values.size
    assert stored.reads_neighbours and stored.permute_channels(arrays, np.arange(inputs)) is arrays
    rows = np.random.default_rng(2).permutation(filters)
    turned = stored.permute_filters(arrays, np.arange(filters), rows)
    assert np.array_equal(stored.decode(turned, inputs)[rows].reshape(weight.shape), weight)
    assert np.array_equal(stored.output_channels(arrays), reorder)


def test_convolutions_store_no_more_than_they_have() -> None:
    """Other weights would need a tenth more, or have patterns."""
    for weight in (balanced(64, 64, 3, 3), balanced(64, 64, 1, 1)):
        assert encode(weight)[1][0].size == np.count_nonzero(weight)
        weight[0, :20, 0, 0] = 1.0
        assert PacksFormat.encode(weight, 1, EncodeOptions()) is None
    assert PacksFormat.encode(balanced(64, 64, 3, 3), 2, EncodeOptions()) is None
    assert PacksFormat.encode(pattern_weight(np.random.default_rng(0), 32, 32), 1, EncodeOptions()) is None


def test_tiles_have_as_many_packs_as_their_fullest_filter() -> None:
    weight = np.zeros((16, 96), np.float32)
    weight[3, [1, 5, 31]] = weight[9, [32, 33]] = weight[5, 60] = 1.0
    assert encode(weight)[1][2].tolist() == [[3, 2, 0]]


def test_filters_change_places_where_that_saves_packs() -> None:
    weight = np.tile(np.eye(32, dtype=np.float32) + np.eye(32, k=1, dtype=np.float32), (2, 2))
    assert (encode(weight)[1][3] == np.arange(64)).all()
    reorder = encode(scattered())[1][3]
    assert set(reorder[:32] % 2) == {1} and sorted(reorder) == list(range(64))


@pytest.mark.parametrize("layer", [nn.Linear(256, 256), nn.Conv2d(64, 128, 3), nn.Conv2d(256, 64, 1)], ids=str)
@pytest.mark.parametrize("rate", [4.0, 10.0])
def test_pruned_rows_are_found_again(rate: float, layer: nn.Module) -> None:
    torch.manual_seed(0)
    layer.reset_parameters()
    prune_(layer, Plan([("*", GatherScatter(), rate)]))
    weight = layer.weight.detach().numpy()
    assert encode(weight)[1][0].size <= 1.01 * weight.size / rate


@pytest.mark.parametrize(
    "weight",
    [sparse(64, 64, 1.0), sparse(64, 64, 0.45), np.zeros((32, 64), np.float32), sparse(64, 31, 0.1), sparse(15, 64, 0.1),
     sparse(64, 64, 0.1).reshape(64, 64, 1, 1)],
    ids=["full", "many", "none", "narrow", "few", "convolution"],
)  # fmt: skip
def test_other_weights_stay_as_they_are(weight: np.ndarray) -> None:
    assert PacksFormat.encode(weight, 1, EncodeOptions()) is None


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda values, index, counts, reorder: (values, index, counts - 1, reorder), "counts that add up to 14 packs"),
        (lambda values, index, counts, reorder: (values, index + 30, counts, reorder), "index below 32, the inputs of a"),
        (lambda values, index, counts, reorder: (values, index - 32, counts, reorder), "index below 32, the inputs of a"),
        (lambda values, index, counts, reorder: (values, index, counts, reorder // 2), "reorder to name every output"),
        (lambda values, index, counts, reorder: (values + 1, index, counts, reorder), "zeros in the last 12 slots"),
    ],
)  # fmt: skip
def test_damaged_arrays_are_found(change: Any, rule: str) -> None:
    stored, arrays = encode(sparse(20, 40, 0.1))
    violation = stored.find_violation(change(*arrays), 40)
    assert violation is not None and violation[0].startswith(rule.replace("14", str(len(arrays[0]))))


class Net(nn.Module):
    """Linear layers with all that an epilogue may have, one behind a convolution whose channels may change places."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 12, 3)
        self.first, self.second = nn.Linear(12 * 16, 64), nn.Linear(64, 64, bias=False)
        self.third, self.slope = nn.Linear(64, 41), nn.PReLU(41, 0.3)
        with torch.no_grad():
            self.slope.weight.uniform_(0.1, 0.5)
            self.conv.weight[:, :, 1:] = 0
            self.second.weight.mul_(torch.where(torch.arange(64) % 2 == 0, 4.0, 0.2)[:, None])
        prune_(self, Plan([("first", GatherScatter(permute_rows=False), 6.0), ("second", GatherScatter(), 8.0),
                           ("third", Unstructured(), 10.0)]))  # fmt: skip

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        first = torch.relu(self.first(torch.relu(self.conv(x)).flatten(1)))
        second = nn.functional.gelu(self.second(first) + first)
        return self.slope(self.third(second)), second


@pytest.mark.parametrize("target", ["host", "x86-64-v3"])
@pytest.mark.parametrize("images", [1, 2, 13])
def test_results_are_those_of_pytorch(target: str, images: int) -> None:
    net, x = Net().eval(), torch.randn(images, 3, 6, 6)
    results = []
    for threads in (1, 2):
        compiled = patc.compile(net, (x,), target=target, threads=threads)
        used = [layer.schedule.algorithm for layer in compiled.layers if layer.op == "sparse_linear" and layer.schedule]
        assert len(used) == 3 and (images > 1 or used == ["pack-permute"] * 3)
        results.append(compiled(x))
        assert_close([y.numpy() for y in results[-1]], torch_results(net, (x,)))
    assert all(map(torch.equal, *results))


def test_any_batch() -> None:
    net, x = Net().eval(), torch.randn(7, 3, 6, 6)
    compiled = patc.compile(net, (x[:5],), dynamic_batch=True, threads=1)
    for images in (1, 4, 5, 7):
        assert_close([y.numpy() for y in compiled(x[:images])], torch_results(net, (x[:images],)))


def test_the_reference_decodes() -> None:
    """Through linalg, as any module may be computed."""
    net, x = Net().eval(), torch.randn(2, 3, 6, 6)
    module, state = raised_model(net, (x,))
    PatternEncode().run(module, state)
    assert str(module).count("#pattern.packs") == 3
    found = patc.run_module(module, state.parameters, (x.numpy(),))
    assert_close(list(found), torch_results(net, (x,)))


@needs_arm
@pytest.mark.parametrize("images", [1, 5])
def test_aarch64(images: int) -> None:
    net, x = Net().eval(), torch.randn(images, 3, 6, 6)
    module, state = raised_model(net, (x,))
    PatternEncode().run(module, state)
    assert_close(compile_emulated(module, state.parameters)(x.numpy()), torch_results(net, (x,)))


@needs_device
def test_vulkan() -> None:
    net, x = Net().eval(), torch.randn(2, 3, 6, 6)
    found = patc.compile(net, (x,), target="spirv-vulkan")(x)
    assert_close([y.numpy() for y in found], torch_results(net, (x,)))


FILE = """
func.func @main(%x: tensor<2x20xf32>) -> tensor<2x3xf32> {
  %values = arith.constant dense<[[1.0, 2.0, 3.0, 0.0], [4.0, 5.0, 6.0, 0.0]]> : tensor<2x4xf32>
  %index = arith.constant dense<[[1, 2, 7, 0], [0, 3, 5, 0]]> : tensor<2x4xi8>
  %counts = arith.constant dense<[[1, 0, 1]]> : tensor<1x3xi8>
  %reorder = arith.constant dense<[2, 0, 1]> : tensor<3xi16>
  %y = "pattern.sparse_linear"(%x, %values, %index, %counts, %reorder) {activation = "relu",
    format = #pattern.packs<8 : i64, array<i64: 1, 1>>, operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 0, 0, 0, 0>}
    : (tensor<2x20xf32>, tensor<2x4xf32>, tensor<2x4xi8>, tensor<1x3xi8>, tensor<3xi16>) -> tensor<2x3xf32>
  return %y : tensor<2x3xf32>
}
"""


def test_files_may_have_packs_of_any_sizes(tmp_path: Path) -> None:
    """No kernel takes these, of four slots, eight inputs and less filters than a vector has lanes."""
    (tmp_path / "packs.mlir").write_text(FILE)
    weight = np.zeros((3, 20), np.float32)
    weight[2, [1, 12]] = 1, 4
    weight[0, [2, 15]] = 2, 5
    weight[1, [7, 17]] = 3, 6
    x = np.random.default_rng(0).standard_normal((2, 20)).astype(np.float32)
    assert_close(patc.compile(tmp_path / "packs.mlir", threads=1)(x), np.maximum(x @ weight.T, 0))


class Convolutions(nn.Module):
    """Convolutions of packs, of all that a window may be and of odd numbers of channels, around those with groups; the
    channels of most are tied by residuals."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.point, self.wide = nn.Conv2d(64, 64, 1), nn.Conv2d(64, 64, 5, padding=2, bias=False)
        self.groups, self.slope = nn.Conv2d(64, 64, 3, padding=1, groups=2), nn.PReLU(64, 0.3)
        self.apart, self.odd = nn.Conv2d(64, 45, 3, dilation=2, padding=(0, 1)), nn.Conv2d(45, 37, 1)
        self.last = nn.Conv1d(37, 16, 5, stride=2)
        plan = [(name, GatherScatter(), 6.0) for name in ("second", "point", "wide", "groups")]
        prune_(self, Plan(plan))
        with torch.no_grad():
            self.slope.weight.uniform_(0.1, 0.5)
            for layer in (self.apart, self.odd, self.last):
                weight = balanced(*layer.weight.shape)
                layer.weight.copy_(torch.from_numpy(weight))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x))))
        x = self.slope(self.point(x) + self.wide(x))
        x = nn.functional.gelu(self.groups(x) + x)
        return self.last(self.odd(self.apart(x)).flatten(2))


PACKED = ("second", "point", "wide", "apart", "odd")


@pytest.mark.parametrize("target", ["host", "x86-64-v3"])
def test_convolutions(target: str) -> None:
    net, x = Convolutions().eval(), torch.randn(2, 3, 27, 29)
    check_convolutions(net, x, target, "pack-direct", 5)


def test_convolutions_of_any_batch() -> None:
    net, x = Convolutions().eval(), torch.randn(5, 3, 15, 17)
    compiled = patc.compile(net, (x[:4],), dynamic_batch=True, threads=2)
    for images in (1, 3, 4, 5):
        assert_close([compiled(x[:images]).numpy()], torch_results(net, (x[:images],)))


def test_convolutions_elsewhere() -> None:
    net, x = Convolutions().eval(), torch.randn(1, 3, 15, 17)
    module, state = raised_model(net, (x,))
    for each in (PatternEncode(), PatternReorder()):
        each.run(module, state)
    assert str(module).count("#pattern.packs") == len(PACKED)
    wanted = torch_results(net, (x,))
    assert_close(list(patc.run_module(module, state.parameters, (x.numpy(),))), wanted)
    if not MISSING:
        assert_close(compile_emulated(module, state.parameters)(x.numpy()), wanted)
    if not WHY_NOT:
        compiled = patc.compile(net, (x,), target="spirv-vulkan")
        used = [layer.schedule.algorithm for layer in compiled.layers if layer.op == "sparse_conv2d" and layer.schedule]
        assert "pattern-direct" in used
        assert_close([compiled(x).numpy()], wanted)


@needs_arm
def test_parts_of_channels_in_half_precision() -> None:
    """Sums wait in memory between them."""
    layer, x = nn.Conv2d(320, 32, 3, padding=1).eval(), torch.randn(1, 320, 14, 14)
    prune_(layer, Plan([("*", GatherScatter(), 10.0)]))
    compiled = compile_model(layer, (x,), target="aarch64-linux", threads=1, dtype="f16")
    schedules = [each.schedule for each in compiled.layers if each.op == "sparse_conv2d" and each.schedule]
    assert [each.algorithm for each in schedules] == ["pack-direct"] and schedules[0].sums > 1
    assert_close(run_program(compiled.program, [x.numpy()]), torch_results(layer, [x]), bound=2e-2)


def test_a_dense_way_is_weighed_against_packs() -> None:
    """By modelled cycles, whichever are fewer."""
    layer, x = nn.Conv2d(64, 64, 3, padding=1).eval(), torch.randn(1, 64, 28, 28)
    prune_(layer, Plan([("*", GatherScatter(), 10.0)]))
    (found,) = [each for each in patc.compile(layer, (x,), threads=1).layers if each.op == "sparse_conv2d"]
    assert found.explanation is not None
    cycles = {each.schedule.algorithm: each.cycles for each in found.explanation.alternatives}
    assert min(cycles, key=lambda name: cycles[name]) == "pack-direct" and {"dense-direct", "winograd"} <= set(cycles)


CONVOLUTION = """
func.func @main(%x: tensor<2x11x5x9xf32>) -> tensor<2x3x4x9xf32> {
  %values = arith.constant dense<[[1.0, 2.0, 3.0, 0.0], [4.0, 5.0, 6.0, 0.0]]> : tensor<2x4xf32>
  %index = arith.constant dense<[[1, 2, 7, 0], [0, 3, 5, 0]]> : tensor<2x4xi8>
  %counts = arith.constant dense<[[1, 0, 0, 1]]> : tensor<1x4xi8>
  %reorder = arith.constant dense<[2, 0, 1]> : tensor<3xi16>
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %counts, %reorder) {activation = "relu",
    strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>,
    format = #pattern.packs<8 : i64, array<i64: 2, 1>>, operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 0, 0, 0, 0>}
    : (tensor<2x11x5x9xf32>, tensor<2x4xf32>, tensor<2x4xi8>, tensor<1x4xi8>, tensor<3xi16>) -> tensor<2x3x4x9xf32>
  return %y : tensor<2x3x4x9xf32>
}
"""


def test_convolutions_of_files_may_have_packs_of_any_sizes(tmp_path: Path) -> None:
    """The second tile begins with channel 3 of 11."""
    (tmp_path / "packs.mlir").write_text(CONVOLUTION)
    weight = np.zeros((3, 11, 2, 1), np.float32)
    for filter_, above, below in ((2, (1, 1), (3, 4)), (0, (2, 2), (6, 5)), (1, (7, 3), (8, 6))):
        for row, (channel, value) in enumerate((above, below)):
            weight[filter_, channel, row] = value
    x = torch.randn(2, 11, 5, 9)
    wanted = torch.relu(nn.functional.conv2d(x.double(), torch.from_numpy(weight).double())).numpy()
    assert_close(patc.compile(tmp_path / "packs.mlir", threads=1)(x.numpy()), wanted)


@pytest.mark.parametrize("target", ["host", pytest.param("spirv-vulkan", marks=needs_device)])
def test_packs_of_zeros(target: str, tmp_path: Path) -> None:
    text = re.sub(r"dense<.*> : tensor<2x4xf32>", "dense<0.0> : tensor<2x4xf32>", CONVOLUTION)
    (tmp_path / "packs.mlir").write_text(text)
    found = patc.compile(tmp_path / "packs.mlir", target=target)(np.ones((2, 11, 5, 9), np.float32))
    assert found.shape == (2, 3, 4, 9) and not found.any()


def test_blocks_are_bands_and_single_weights_packs() -> None:
    formats = {}
    for scheme in (Block(16), Block(8), Unstructured(), GatherScatter()):
        torch.manual_seed(0)
        layer = nn.Linear(64, 64).eval()
        prune_(layer, Plan([("*", scheme, 10.0)]))
        module, state = raised_model(layer, (torch.randn(1, 64),))
        PatternEncode().run(module, state)
        formats[type(scheme).__name__ + str(getattr(scheme, "rows", ""))] = (
            "packs" if "packs" in str(module) else "bands"
        )
    assert formats == {"Block16": "bands", "Block8": "bands", "Unstructured": "packs", "GatherScatter": "packs"}


def test_single_weights_of_convolutions_are_packs_where_they_are_balanced() -> None:
    formats = {}
    for scheme in (Block(16), Pattern(), Unstructured(), GatherScatter()):
        torch.manual_seed(0)
        layer = nn.Conv2d(64, 64, 3).eval()
        prune_(layer, Plan([("*", scheme, 10.0)]))
        module, state = raised_model(layer, (torch.randn(1, 64, 5, 5),))
        PatternEncode().run(module, state)
        formats[type(scheme).__name__] = re.findall(r"#pattern\.(\w+)<", str(module))[0]
    assert formats == {"Block": "bands", "Pattern": "fkw", "Unstructured": "fkw", "GatherScatter": "packs"}
