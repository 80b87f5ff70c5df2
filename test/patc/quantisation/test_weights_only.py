"""Weights of one byte or one bit in memory, of layers that compute in f32: numbers beside PyTorch in float64 with the
same weights, on every CPU; sizes, reports and errors."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compilers import compile_reference
from emulated import compile_emulated, needs_arm
from helpers import assert_close, raised_model, torch_results
from native import NATIVE_TARGETS
from torch import nn

import patc
from patc.passes.ir.stored import integers_of, numbers_of
from patc.passes.kernels.host.weight_vectors import group_of, pack_bits
from patc.passes.pattern_quantize import PatternQuantize
from patc.pruning import Levels, Plan, prune_
from patc.quantisation.calibrate import weight_marker


class Rows(nn.Module):
    """Linear layers with all that may follow one; sizes that fill no block, vector or word."""

    def __init__(self, inputs: int = 77, units: int = 45) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(inputs, units), nn.Linear(units, units, bias=False)
        self.slope = nn.PReLU(units, 0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = torch.relu(self.first(x))
        return self.slope(self.second(first) + first)


class Steps(nn.Module):
    """A recurrent layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> Any:
        return self.layer(x)[0]


NETS = {
    "row": lambda: (Rows(), torch.randn(1, 77)),
    "rows": lambda: (Rows(), torch.randn(23, 77)),
    "small": lambda: (nn.Linear(3, 2), torch.randn(1, 3)),
    "gru": lambda: (Steps(nn.GRU(9, 37)), torch.randn(5, 3, 9)),
    "projected": lambda: (Steps(nn.LSTM(9, 37, proj_size=19, bidirectional=True)), torch.randn(5, 1, 9)),
}


def made(name: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    net, x = NETS[name]()
    return net.eval(), x


def rounded(net: nn.Module, bits: int) -> nn.Module:
    """Return a net with the weights that are computed with."""
    net = copy.deepcopy(net)
    for weight in net.parameters():
        if weight.ndim == 2:
            scales = weight.detach().abs().mean(1, keepdim=True)
            if bits == 8:
                scales = weight.detach().abs().amax(1, keepdim=True) / 127
            levels = (weight / scales).round() if bits == 8 else torch.where(weight >= 0, 1.0, -1.0)
            weight.data = levels.detach() * scales
    return net


@pytest.mark.parametrize("bits", [8, 1])
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("target", [target for target in NATIVE_TARGETS if target != "x86-64-v4"])
def test_results_are_those_of_the_same_weights_in_f32(name: str, bits: int, target: str) -> None:
    net, x = made(name)
    compiled = patc.quantize(net, x, weights_only=bits, target=target, threads=1)
    assert {layer.weight_dtype for layer in compiled.layers if layer.weights} == {"i8" if bits == 8 else "i1"}
    assert_close([compiled(x).numpy()], torch_results(rounded(net, bits), (x,)), 1e-5)


@needs_arm
@pytest.mark.parametrize("bits", [8, 1])
@pytest.mark.parametrize("name", NETS)
def test_aarch64(name: str, bits: int) -> None:
    net, x = made(name)
    module, state = raised_model(net, (x,))
    weight_marker(bits)(module, state)
    PatternQuantize(target="aarch64-linux").run(module, state)
    found = compile_emulated(module, state.parameters)(x.numpy())
    assert_close(found[:1], torch_results(rounded(net, bits), (x,)), 1e-5)


@pytest.mark.parametrize("bits", [8, 1])
@pytest.mark.parametrize("name", ["row", "gru", "projected"])
def test_the_reference(name: str, bits: int) -> None:
    net, x = made(name)
    module, state = raised_model(net, (x,))
    weight_marker(bits)(module, state)
    PatternQuantize().run(module, state)
    found = compile_reference(module, state.parameters)(x.numpy())
    assert_close(found[:1], torch_results(rounded(net, bits), (x,)), 1e-5)


@pytest.mark.parametrize("bits", [8, 1])
@pytest.mark.parametrize("name", ["rows", "projected"])
def test_threads_change_nothing(name: str, bits: int) -> None:
    net, x = made(name)
    alone, shared = (patc.quantize(net, x, weights_only=bits, threads=threads) for threads in (1, 2))
    assert torch.equal(alone(x), shared(x))


def test_files_hold_a_byte_or_a_bit_a_weight(tmp_path: Path) -> None:
    net, x = nn.Linear(512, 256, bias=False).eval(), torch.randn(1, 512)
    for bits, size in ((8, 512 * 256), (1, 512 * 256 // 8)):
        compiled = patc.quantize(net, x, weights_only=bits, threads=1)
        (layer,) = compiled.layers
        assert size <= compiled.program.weights.nbytes <= size + 256 * 4 + 256
        assert layer.moved_bytes == size + 4 * (512 + 256)
        compiled.save(tmp_path / "net.patc")
        loaded = patc.load(tmp_path / "net.patc")
        assert torch.equal(loaded(x), compiled(x)) and loaded.layers == compiled.layers


def test_weights_on_levels_stay_what_they_are() -> None:
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 20)).eval(), torch.randn(1, 40)
    prune_(net, Plan([("0", Levels(1)), ("2", Levels(5))]))
    compiled = patc.quantize(net, x, weights_only=8, threads=1)
    assert [layer.weight_dtype for layer in compiled.layers] == ["i1", "i8"]
    assert [layer.remarks for layer in compiled.layers] == [
        ("its weights take a bit each, exactly",),
        ("its weights take a byte each, exactly",),
    ]
    assert_close([compiled(x).numpy()], torch_results(net, (x,)), 1e-6)


def test_what_stays_in_f32_says_why() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 8), nn.ReLU(), nn.Linear(8, 2))
    compiled = patc.quantize(net.eval(), torch.randn(1, 1, 8, 8), weights_only=8, keep=["2"], threads=1)
    known = {layer.name: layer for layer in compiled.layers if layer.weights}
    assert {name: layer.weight_dtype for name, layer in known.items()} == {"0": "", "2": "", "4": "i8"}
    assert known["0"].remarks[-1] == "its weights stay in f32: there are no kernels for it that expand weights"
    assert known["2"].remarks == ()


def test_any_number_of_rows_and_filters_of_zeros() -> None:
    weight = np.array([[0.0, -0.0, 0.0], [1e-40, -3e-39, 0.0], [3e38, -3e38, 1.0], [0.5, -0.25, 0.125]], np.float32)
    for bits in (8, 1):
        integers, scales = integers_of(weight, bits)
        numbers = numbers_of(integers, scales)
        assert np.isfinite(numbers).all() and (numbers[0] == 0).all()
    integers, scales = integers_of(weight, 8)
    np.testing.assert_allclose(numbers_of(integers, scales), weight, atol=3e38 / 254)


@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_bits_lie_in_words_as_said(lanes: int) -> None:
    generator = np.random.default_rng(0)
    weights = generator.integers(0, 2, (2, 5, 3, lanes)).astype(bool)
    words, group = pack_bits(weights), group_of(lanes)
    for block, position, slot, lane in np.ndindex(*weights.shape):
        after, place = divmod(position, group)
        bit = (int(words[block, after, slot]) & 0xFFFFFFFF) >> (place * lanes + lane) & 1
        assert bit == weights[block, position, slot, lane]


def test_a_file_needs_no_sample(tmp_path: Path) -> None:
    net, x = made("row")
    torch.onnx.export(net, (x,), tmp_path / "net.onnx", dynamo=False)
    compiled = patc.quantize(tmp_path / "net.onnx", weights_only=8, threads=1)
    assert_close([compiled(x.numpy())], torch_results(rounded(net, 8), (x,)), 1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights_only": 4}, "expected weights alone of 8 or 1 bits, got 4"),
        ({"weights_only": True}, "expected weights alone of 8 or 1 bits, got True"),
        ({"weights_only": 8, "ranges": "minmax"}, "only where activations are integers, too"),
        ({"weights_only": 8, "least_snr": 30.0}, "only where activations are integers, too"),
        ({"weights_only": 8, "keep": ["frist"]}, "expected names of layers to keep, got 'frist'; did you mean 'first'"),
        ({"weights_only": 8, "target": "spirv-vulkan"}, "expected the target of a CPU for weights alone as integers"),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str) -> None:
    net, x = made("row")
    with pytest.raises(patc.PatcError, match=message):
        patc.quantize(net, x, **{"threads": 1, **options})
