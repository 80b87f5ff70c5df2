"""Products of matrices, as nets have them, are what PyTorch computes in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from emulated import needs_arm
from gpu import needs_device
from torch import Tensor, nn
from torch.nn import functional

import patc
from patc.bench.emulator import run_program
from patc.passes.kernels.host.panels import Cuts, pack_lines

_Function = Callable[[Tensor, Tensor], Tensor]


def _number(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


MASK = torch.zeros(19, 19).masked_fill(torch.ones(19, 19, dtype=torch.bool).triu(1), float("-inf"))
PRODUCTS: dict[str, _Function] = {
    "batches": lambda a, b: a @ b,  # 2x3x19x33 by 3x33x50: batches are broadcast
    "transposed": lambda a, b: a @ a.transpose(-1, -2),
    "rows_last": lambda a, b: b.transpose(-1, -2) @ a[0].transpose(-1, -2),
    "scaled": lambda a, b: (a * 0.5).tanh() @ b.softmax(-1),
    "heads": lambda a, b: torch.einsum("nhtd,hde->nthe", a, b),
    "row": lambda a, b: a[:, :, :1] @ b,
    "column": lambda a, b: a @ b[..., :1],
    "narrow": lambda a, b: a[..., :1] @ b[:, :1, :3],
    "added": lambda a, b: torch.baddbmm(a[0] @ b, a[1], b),
    "constant": lambda a, b: a @ _number((33, 7), 3).to(a),
    "attention": lambda a, b: functional.scaled_dot_product_attention(a, a.flip(-1), a),
    "masked": lambda a, b: functional.scaled_dot_product_attention(a, a, a, attn_mask=MASK.to(a)),
}


class Products(nn.Module):
    """All of `PRODUCTS`, and layers of many rows."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.one = nn.Linear(33, 70), nn.Linear(70, 1)
        self.heads = nn.MultiheadAttention(33, 3, batch_first=True)

    def forward(self, a: Tensor, b: Tensor) -> list[Tensor]:
        rows = a[:, 0]
        layers = [self.wide(a), self.one(self.wide(rows).relu()), self.heads(rows, rows, rows, need_weights=False)[0]]
        return [*layers, *(function(a, b) for function in PRODUCTS.values())]


class Alone(nn.Module):
    """Attention of a sequence to itself."""

    def __init__(self, heads: nn.MultiheadAttention) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.heads(x, x, x, need_weights=False)[0]
        return made


@pytest.fixture(scope="module")
def net() -> Products:
    torch.manual_seed(0)
    return Products().eval()


def _inputs() -> tuple[Tensor, Tensor]:
    return _number((2, 3, 19, 33), 1).float(), _number((3, 33, 50), 2).float()


def _check(net: Products, results: Any) -> None:
    with torch.no_grad():
        expected = net.double()(*(x.double() for x in _inputs()))
    net.float()
    names = ["linear", "layers", "heads", *PRODUCTS]
    for name, found, wanted in zip(names, results, expected, strict=True):
        error = np.abs(np.asarray(found) - wanted.numpy()).max() / wanted.abs().max()
        assert error < 1e-5, f"{name}: {error:.1e}"


@pytest.mark.parametrize("target", ["host", "x86-64-v3"])
@pytest.mark.parametrize("threads", [1, 2])
def test_computes_what_torch_computes(net: Products, target: str, threads: int) -> None:
    if target != "host" and not target.startswith(patc.targets.host().architecture.replace("_", "-")):
        pytest.skip("code of another architecture")
    _check(net, patc.compile(net, _inputs(), target=target, threads=threads)(*_inputs()))


@needs_arm
def test_aarch64_computes_the_same(net: Products) -> None:
    program = patc.compile(net, _inputs(), target="aarch64-linux").program
    _check(net, run_program(program, [x.numpy() for x in _inputs()]))


@needs_device
def test_gpus_compute_the_same(net: Products) -> None:
    _check(net, patc.compile(net, _inputs(), target="spirv-vulkan")(*_inputs()))


def test_constant_weights_are_packed_when_compiled(net: Products) -> None:
    model = patc.compile(net.wide, (torch.zeros(19, 33),))
    assert model.program.layers[0].schedule.algorithm == "gemm"


def test_weights_of_attention_are_stored_once() -> None:
    """Not once a token, as products of batches read them."""
    heads, x = nn.MultiheadAttention(32, 2, batch_first=True).eval(), torch.randn(1, 24, 32)
    model = patc.compile(Alone(heads).eval(), (x,))
    assert model.program.weights.nbytes < 1.5 * sum(4 * weight.numel() for weight in heads.parameters())
    error = np.abs(np.asarray(model(x)) - heads(x, x, x)[0].detach().numpy()).max()
    assert error < 1e-5


@pytest.mark.parametrize("size", range(1, 40))
def test_panels_cover_all_lines_once(size: int) -> None:
    cuts = Cuts.evenly(size, 4, 3)
    found = [(first, last, units, valid) for first, last, units, valid in cuts.kinds()]
    assert sum((last - first) * valid for first, last, _, valid in found) == size
    assert [first for first, *_ in found] == [0, *(last for _, last, *_ in found)][: len(found)]
    matrix = np.arange(2.0 * size).reshape(size, 2)
    packed = pack_lines(matrix, cuts)
    assert sorted(packed[packed != 0]) == list(range(1, 2 * size))
