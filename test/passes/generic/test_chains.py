"""Attentions and norms, whose steps go through blocks of rows together, compute what PyTorch computes in float64."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from emulated import needs_arm
from torch import Tensor, nn
from torch.nn import functional

import patc
from patc.bench.emulator import run_program

SHAPES = ((2, 3, 5, 5, 8), (1, 2, 13, 37, 20), (1, 3, 1, 40, 16), (2, 1, 1, 1, 4), (1, 2, 50, 50, 5))


class Attentions(nn.Module):
    """Attentions of the same numbers: batch, heads, queries, keys, depth."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> list[Tensor]:
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        merged = ((scores + mask[:, :, :1]).softmax(-1) @ v).transpose(1, 2).flatten(2)
        plain = functional.scaled_dot_product_attention(q, k, v)
        masked = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        chosen = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask > -0.5)
        return [merged, plain, masked, chosen]


class Norms(nn.Module):
    """Means, sums and maxima along each axis, of as many elements as vectors have and of a few more or less."""

    def __init__(self) -> None:
        super().__init__()
        self.group, self.layer = nn.GroupNorm(3, 33), nn.LayerNorm(17)
        for parameter in self.parameters():
            nn.init.normal_(parameter)

    def forward(self, x: Tensor) -> list[Tensor]:
        along = [x.softmax(axis) for axis in range(4)] + [x.log_softmax(axis) for axis in (1, 3)]
        lengths = [functional.normalize(x, dim=axis) for axis in (1, 3)]
        root_mean_square = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        swapped = x.transpose(1, 3).softmax(1).transpose(1, 3)
        norms = [self.group(x), self.layer(x), functional.instance_norm(x), root_mean_square]
        sums = [x.amax((0, 2)) + x.sum((0, 2)), x.prod(3), (x > 2).any(3).float()]
        return [*along, *lengths, swapped, *norms, *sums]


def attention_inputs(shape: tuple[int, ...]) -> list[Tensor]:
    batch, heads, queries, keys, depth = shape
    sizes = ((heads, queries, depth), (heads, keys, depth), (heads, keys, depth), (1, queries, keys))
    generator = torch.Generator().manual_seed(0)
    q, k, v, mask = (torch.randn(batch, *size, generator=generator) for size in sizes)
    mask[..., 0] = 1.0  # at least one key that each query sees
    return [q, k, v, mask]


def check(net: nn.Module, inputs: list[Tensor], found: Any) -> None:
    wanted = copy.deepcopy(net).double()(*(x.double() for x in inputs))
    for number, (made, right) in enumerate(zip(found, wanted, strict=True)):
        error = (torch.as_tensor(np.asarray(made)) - right).abs().max() / right.abs().max()
        assert error < 1e-5, f"result {number}: {error}"


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_attentions(shape: tuple[int, ...], threads: int) -> None:
    net, inputs = Attentions().eval(), attention_inputs(shape)
    check(net, inputs, patc.compile(net, tuple(inputs), threads=threads)(*inputs))


@pytest.mark.parametrize(("threads", "target"), [(1, "host"), (2, "host"), (1, "x86-64-v3")])
@pytest.mark.parametrize("shape", [(2, 33, 3, 17), (1, 33, 5, 17)], ids=["batch", "image"])
def test_norms(shape: tuple[int, ...], threads: int, target: str) -> None:
    net, x = Norms().eval(), torch.randn(shape, generator=torch.Generator().manual_seed(0))
    check(net, [x], patc.compile(net, (x,), threads=threads, target=target)(x))


@needs_arm
@pytest.mark.parametrize("what", ["attentions", "norms"])
def test_aarch64_computes_the_same(what: str) -> None:
    net = Attentions() if what == "attentions" else Norms()
    inputs = attention_inputs(SHAPES[1]) if what == "attentions" else [torch.randn(2, 33, 3, 17)]
    program = patc.compile(net.eval(), tuple(inputs), target="aarch64-linux").program
    check(net, inputs, run_program(program, [x.numpy() for x in inputs]))


def test_scores_of_an_attention_are_not_in_memory() -> None:
    heads, tokens = 4, 256
    q = torch.randn(1, heads, tokens, 16)

    class Attention(nn.Module):
        def forward(self, q: Tensor) -> Tensor:
            return (q @ q.transpose(-1, -2)).softmax(-1) @ q

    model = patc.compile(Attention().eval(), (q,), threads=1)
    assert model.program.arena_bytes < heads * tokens * tokens * 4
