"""Bands: what is stored of block-pruned linear layers, which weights take the format, and what is computed with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from emulated import compile_emulated, needs_arm
from gpu import needs_device
from helpers import assert_close, raised_model, torch_results
from torch import nn

import patc
from patc.passes.formats.bands import BandsFormat
from patc.passes.formats.base import EncodeOptions, StaysDense
from patc.passes.pattern_encode import PatternEncode
from patc.pruning import Block, Plan, Unstructured, prune_


def banded(filters: int, inputs: int, rows: int, keep: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((filters, inputs)).astype(np.float32)
    kept = rng.random((filters // rows, inputs)) < keep
    kept[0], kept[-1, 0] = False, True  # a band of nothing
    return weight * np.repeat(kept, rows, 0)


def encode(weight: np.ndarray) -> tuple[BandsFormat, Any]:
    found = BandsFormat.encode(weight, 1, EncodeOptions())
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("filters", "inputs", "rows"), [(64, 40, 16), (24, 33, 8), (12, 5, 4), (128, 20, 64), (32, 40000, 16)]
)
def test_bands_hold_the_weights(filters: int, inputs: int, rows: int) -> None:
    weight = banded(filters, inputs, rows, 0.3)
    stored, arrays = encode(weight)
    values, index, offset = arrays
    assert stored.rows == rows and offset[1] == 0 and offset[-1] == len(index)
    assert np.array_equal(stored.decode(arrays, inputs)[:, :, 0, 0], weight)
    assert stored.kept_weights([array.shape for array in arrays]) == values.size
    assert index.dtype == (np.int16 if inputs < 32768 else np.int32)
    assert stored.find_violation(arrays, inputs) is None
    order = np.random.default_rng(1).permutation(inputs)
    moved = stored.permute_channels(arrays, order)
    assert stored.find_violation(moved, inputs) is None
    again = stored.decode(moved, inputs)[:, :, 0, 0]
    assert np.array_equal(again[:, order], weight)


def test_a_band_takes_as_many_rows_as_cost_nothing() -> None:
    weight = banded(64, 50, 32, 0.4)
    assert encode(weight)[0].rows == 32
    weight[:, 7] = 1.0  # a column that all filters have
    assert encode(weight)[0].rows == 32


@pytest.mark.parametrize(
    "weight",
    [np.ones((16, 8), np.float32), banded(128, 32, 8, 0.9), banded(18, 9, 3, 0.3), np.ones((16, 8, 1, 1), np.float32),
     np.random.default_rng(0).random((64, 64)).astype(np.float32) * (np.random.default_rng(1).random((64, 64)) < 0.5)],
    ids=["full", "nearly full", "no rows divide", "a convolution", "single weights"],
)  # fmt: skip
def test_other_weights_stay_as_they_are(weight: np.ndarray) -> None:
    assert BandsFormat.encode(weight, 1, EncodeOptions()) is None


def test_no_weights_stay_dense() -> None:
    with pytest.raises(StaysDense, match="all weights are zero"):
        BandsFormat.encode(np.zeros((16, 8), np.float32), 1, EncodeOptions())


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda values, index, offset: (values, index, offset[::-1].copy()), "offset to ascend from 0 to 9"),
        (lambda values, index, offset: (values, index + 30, offset), "index below 33, the inputs"),
        (lambda values, index, offset: (values, index - 33, offset), "index below 33, the inputs"),
        (lambda values, index, offset: (values, index[::-1].copy(), offset), "index to ascend in each band"),
    ],
)
def test_damaged_arrays_are_found(change: Any, rule: str) -> None:
    stored, arrays = encode(banded(16, 33, 8, 0.3))
    violation = stored.find_violation(change(*arrays), 33)
    assert violation is not None and violation[0].startswith(rule.replace("9", str(len(arrays[1]))))


class Net(nn.Module):
    """Linear layers with all that an epilogue may have, one behind a convolution whose channels may change places."""

    def __init__(self, rows: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 12, 3)
        self.first, self.second = nn.Linear(12 * 16, 64), nn.Linear(64, 64, bias=False)
        self.third, self.slope = nn.Linear(64, 40), nn.PReLU(40, 0.3)
        with torch.no_grad():
            self.slope.weight.uniform_(0.1, 0.5)
            self.conv.weight[:, :, 1:] = 0
        prune_(self, Plan([("first", Block(rows), 4.0), ("second", Block(rows), 3.0), ("third", Block(8), 8.0)]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(torch.relu(self.conv(x)).flatten(1)))
        x = nn.functional.gelu(self.second(x) + x)
        return self.slope(self.third(x))


@pytest.mark.parametrize("target", ["host", "x86-64-v3"])
@pytest.mark.parametrize(("images", "rows"), [(1, 16), (2, 8), (13, 32)])
def test_results_are_those_of_pytorch(target: str, images: int, rows: int) -> None:
    net, x = Net(rows).eval(), torch.randn(images, 3, 6, 6)
    wanted = torch_results(net, (x,))
    results = []
    for threads in (1, 2):
        compiled = patc.compile(net, (x,), target=target, threads=threads)
        used = [layer.schedule.algorithm for layer in compiled.layers if layer.op == "sparse_linear" and layer.schedule]
        assert used == ["band-vector"] * 3
        results.append(compiled(x))
        assert_close([results[-1].numpy()], wanted)
    assert torch.equal(*results)


@needs_arm
@pytest.mark.parametrize("images", [1, 5])
def test_aarch64(images: int) -> None:
    net, x = Net().eval(), torch.randn(images, 3, 6, 6)
    module, state = raised_model(net, (x,))
    PatternEncode().run(module, state)
    emulated = compile_emulated(module, state.parameters)
    assert_close(emulated(x.numpy()), torch_results(net, (x,)))


@needs_device
def test_vulkan() -> None:
    net, x = Net().eval(), torch.randn(2, 3, 6, 6)
    assert_close([patc.compile(net, (x,), target="spirv-vulkan")(x).numpy()], torch_results(net, (x,)))


def test_single_weights_are_computed_dense() -> None:
    net = nn.Linear(64, 64)
    prune_(net, Plan([("*", Unstructured(), 2.0)]))
    x = torch.randn(3, 64)
    compiled = patc.compile(net.eval(), (x,), threads=1)
    assert [layer.op for layer in compiled.layers] == ["linear"]
    assert_close([compiled(x).numpy()], torch_results(net, (x,)))
