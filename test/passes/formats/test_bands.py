"""Bands: what is stored of block-pruned linear layers, which weights take the format, and what is computed with it."""

from __future__ import annotations

from dataclasses import replace
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
from patc.passes.algorithms.host.band_vector import BandVector
from patc.passes.formats.bands import BandsFormat
from patc.passes.formats.base import EncodeOptions, StaysDense
from patc.passes.ir.functions import walk_ops
from patc.passes.pattern_encode import PatternEncode
from patc.passes.pattern_reorder import PatternReorder
from patc.pruning import Block, Pattern, Plan, Unstructured, prune_
from patc.targets import get_target


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
    values, index, offset, reorder = arrays
    assert np.array_equal(reorder, np.arange(filters))
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
    rows_order = np.random.default_rng(2).permutation(filters)
    turned = stored.permute_filters(arrays, np.arange(filters), rows_order)
    assert np.array_equal(stored.decode(turned, inputs)[rows_order, :, 0, 0], weight)


def test_a_band_takes_as_many_rows_as_cost_nothing() -> None:
    weight = banded(64, 50, 32, 0.4)
    assert encode(weight)[0].rows == 32
    weight[:, 7] = 1.0  # a column that all filters have
    assert encode(weight)[0].rows == 32


@pytest.mark.parametrize(
    "weight",
    [np.ones((16, 8), np.float32), banded(128, 32, 8, 0.9), banded(18, 9, 3, 0.3), pattern_weight(np.random.default_rng(0), 16, 8, 0.9),
     np.random.default_rng(0).random((64, 64)).astype(np.float32) * (np.random.default_rng(1).random((64, 64)) < 0.5)],
    ids=["full", "nearly full", "no rows divide", "few patterns", "single weights"],
)  # fmt: skip
def test_other_weights_stay_as_they_are(weight: np.ndarray) -> None:
    assert BandsFormat.encode(weight, 1, EncodeOptions()) is None


def test_no_weights_stay_dense() -> None:
    with pytest.raises(StaysDense, match="all weights are zero"):
        BandsFormat.encode(np.zeros((16, 8), np.float32), 1, EncodeOptions())


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (
            lambda values, index, offset, reorder: (values, index, offset[::-1].copy(), reorder),
            "offset to ascend from 0 to 9",
        ),
        (lambda values, index, offset, reorder: (values, index + 30, offset, reorder), "index below 33, the inputs"),
        (lambda values, index, offset, reorder: (values, index - 33, offset, reorder), "index below 33, the inputs"),
        (
            lambda values, index, offset, reorder: (values, index[::-1].copy(), offset, reorder),
            "index to ascend in each band",
        ),
        (lambda values, index, offset, reorder: (values, index, offset, reorder // 2), "reorder to name every output"),
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

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        first = torch.relu(self.first(torch.relu(self.conv(x)).flatten(1)))
        second = nn.functional.gelu(self.second(first) + first)
        return self.slope(self.third(second)), second  # of results all channels stay, read or not


@pytest.mark.parametrize(
    ("target", "images", "rows"),
    [("host", 1, 16), ("host", 2, 8), ("host", 13, 32), ("x86-64-v3", 1, 16), ("x86-64-v3", 13, 32)],
)
def test_results_are_those_of_pytorch(target: str, images: int, rows: int) -> None:
    net, x = Net(rows).eval(), torch.randn(images, 3, 6, 6)
    wanted = torch_results(net, (x,))
    results = []
    # What this machine was measured to cost may make other choices.
    costs = get_target("x86-64-v4" if get_target(target).lanes == 16 else "x86-64-v3").costs
    code = replace(get_target(target), costs=costs)
    for threads in (1, 2):
        compiled = patc.compile(net, (x,), target=code, threads=threads)
        used = [layer.schedule.algorithm for layer in compiled.layers if layer.op == "sparse_linear" and layer.schedule]
        assert used == ["band-vector"] * 3
        results.append(compiled(x))
        assert_close([y.numpy() for y in results[-1]], wanted)
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("target", ["x86-64-v3", "x86-64-v4", "aarch64-linux"])
@pytest.mark.parametrize("band", [8, 16, 32, 64])
def test_tiles_fit_in_registers(target: str, band: int) -> None:
    """The sums of a tile and the weights of a column."""
    layer, cpu = nn.Linear(48, 64).eval(), get_target(target)
    prune_(layer, Plan([("*", Block(band), 4.0)]))
    module, state = raised_model(layer, (torch.randn(128, 48),))
    PatternEncode().run(module, state)
    (op,) = [op for op in walk_ops(module) if op.OPERATION_NAME == "pattern.sparse_linear"]
    schedules = [each.schedule for each in BandVector().candidates(op, cpu, state, 1)]
    rows = max(schedule.rows for schedule in schedules)
    assert {schedule.filters for schedule in schedules} == {band} and (rows > 1 or band > 4 * cpu.lanes)
    assert (rows + 1) * band // cpu.lanes <= max(cpu.registers, 2 * band // cpu.lanes)


class Convolutions(nn.Module):
    """Convolutions of bands, whose channels a residual of another order ties, of all that a window may be."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.point, self.wide = nn.Conv2d(64, 64, 1), nn.Conv2d(64, 64, 5, padding=2)
        self.apart, self.last = nn.Conv2d(64, 24, 3, dilation=2), nn.Conv1d(24, 8, 5, stride=2)
        prune_(self, Plan([("second", Block(8), 8.0), ("point", Block(16), 4.0), ("wide", Pattern(kernels="all"), 6.0),
                           ("apart", Block(4), 6.0), ("last", Block(8), 4.0)]))  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x))))
        x = torch.relu(self.point(x) + self.wide(x))
        return self.last(self.apart(x).flatten(2))


@pytest.mark.parametrize("target", ["host", "x86-64-v3"])
def test_convolutions(target: str) -> None:
    net, x = Convolutions().eval(), torch.randn(2, 3, 27, 29)
    check_convolutions(net, x, target, "band-direct", 3)


def test_convolutions_on_aarch64_and_in_halves() -> None:
    net, x = Convolutions().eval(), torch.randn(1, 3, 15, 17)
    module, state = raised_model(net, (x,))
    for each in (PatternEncode(), PatternReorder()):
        each.run(module, state)
    if not MISSING:
        assert_close(compile_emulated(module, state.parameters)(x.numpy()), torch_results(net, (x,)))
    if not WHY_NOT:
        compiled = patc.compile(net, (x,), target="spirv-vulkan")
        assert_close([compiled(x).numpy()], torch_results(net, (x,)))


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
    found = patc.compile(net, (x,), target="spirv-vulkan")(x)
    assert_close([y.numpy() for y in found], torch_results(net, (x,)))


def test_single_weights_are_computed_dense() -> None:
    net = nn.Linear(64, 64)
    prune_(net, Plan([("*", Unstructured(), 2.0)]))
    x = torch.randn(3, 64)
    compiled = patc.compile(net.eval(), (x,), threads=1)
    assert [layer.op for layer in compiled.layers] == ["linear"]
    assert_close([compiled(x).numpy()], torch_results(net, (x,)))
