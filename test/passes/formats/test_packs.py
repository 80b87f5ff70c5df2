"""Packs: what is stored of linear layers with single zeros, which weights take the format, and what is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from emulated import compile_emulated, needs_arm
from gpu import needs_device
from helpers import assert_close, raised_model, torch_results
from torch import nn

import patc
from patc.passes.formats.base import EncodeOptions
from patc.passes.formats.packs import PacksFormat
from patc.passes.pattern_encode import PatternEncode
from patc.pruning import Block, GatherScatter, Plan, Unstructured, prune_


def sparse(filters: int, inputs: int, keep: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((filters, inputs)).astype(np.float32)
    return weight * (rng.random((filters, inputs)) < keep)


def scattered(filters: int = 64, inputs: int = 64) -> np.ndarray:
    """Return weights of filters that are far from those with as many weights: every second one is nearly empty."""
    weight = sparse(filters, inputs, 0.3)
    weight[::2] *= np.random.default_rng(1).random((filters // 2, inputs)) < 0.1
    return weight


def encode(weight: np.ndarray) -> tuple[PacksFormat, Any]:
    found = PacksFormat.encode(weight, 1, EncodeOptions())
    assert found is not None
    return found


@pytest.mark.parametrize(
    "weight",
    [sparse(64, 64, 0.1), sparse(16, 32, 0.1), sparse(37, 75, 0.1), sparse(50, 33, 0.05), scattered()],
    ids=["whole", "one", "ends", "a column more", "far apart"],
)
def test_packs_hold_the_weights(weight: np.ndarray) -> None:
    stored, arrays = encode(weight)
    values, index, counts, reorder = arrays
    filters, inputs = weight.shape
    assert values.shape == index.shape == (counts.sum(), 16)
    assert counts.shape == (-(-filters // 16), -(-inputs // 32)) and index.dtype == counts.dtype == np.int8
    assert stored.find_violation(arrays, inputs) is None
    assert np.array_equal(stored.decode(arrays, inputs)[:, :, 0, 0], weight)
    assert stored.kept_weights([array.shape for array in arrays]) == values.size
    order = np.random.default_rng(1).permutation(inputs)
    moved = stored.permute_channels(arrays, order)
    assert stored.find_violation(moved, inputs) is None
    assert np.array_equal(stored.decode(moved, inputs)[:, order, 0, 0], weight)
    rows = np.random.default_rng(2).permutation(filters)
    turned = stored.permute_filters(arrays, np.arange(filters), rows)
    assert np.array_equal(stored.decode(turned, inputs)[rows, :, 0, 0], weight)
    assert np.array_equal(stored.output_channels(arrays), reorder)


def test_tiles_have_as_many_packs_as_their_fullest_filter() -> None:
    weight = np.zeros((16, 96), np.float32)
    weight[3, [1, 5, 31]] = weight[9, [32, 33]] = weight[5, 60] = 1.0
    assert encode(weight)[1][2].tolist() == [[3, 2, 0]]


def test_filters_change_places_where_that_saves_packs() -> None:
    weight = np.tile(np.eye(32, dtype=np.float32) + np.eye(32, k=1, dtype=np.float32), (2, 2))
    assert (encode(weight)[1][3] == np.arange(64)).all()
    reorder = encode(scattered())[1][3]
    assert set(reorder[:32] % 2) == {1} and sorted(reorder) == list(range(64))


@pytest.mark.parametrize("rate", [4.0, 10.0])
def test_pruned_rows_are_found_again(rate: float) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(256, 256)
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
    format = #pattern.packs<8 : i64>, operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 0, 0, 0, 0>}
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
