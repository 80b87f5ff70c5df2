"""Recurrent nets, transformers and linear layers over lengths from 1 to 512, dense and pruned, beside float64 PyTorch.

PATC_LARGE_TESTS=1 takes 512 units, more lengths, and both numbers of threads for each net.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from helpers import assert_close
from large import LARGE
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils._pytree import tree_leaves

import patc
from patc import PatcError
from patc.pruning import Block, Plan, prune_

BOUND = 1e-4
UNITS, ROWS = (512, 16) if LARGE else (24, 8)
LENGTHS = (7, 1, 2, 3, 16, 33, 64, 100, 128, 257, 512) if LARGE else (7, 1, 512)
CASES = [(rate, threads) for rate in (1.0, 8.0) for threads in (1, 2)] if LARGE else [(1.0, 1), (4.0, 2)]
WORDS = 50


class Recurrent(nn.Module):
    """Two layers from padded sequences and their lengths: outputs, zeros behind each end, and the last one before it."""

    def __init__(self, kind: type[nn.RNNBase], units: int) -> None:
        super().__init__()
        self.layers = kind(units, units, 2, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        y = self.layers(x)[0]
        there = torch.arange(x.shape[1]) < lengths[:, None]
        last = (lengths - 1)[:, None, None].expand(-1, 1, y.shape[2])
        return y * there[..., None], y.gather(1, last)[:, 0]


class Encoder(nn.Module):
    """Words and places to states of two encoder layers; what is behind an end is masked, and what comes later may be."""

    def __init__(self, units: int, is_causal: bool) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, units), nn.Embedding(max(LENGTHS), units)
        layer = nn.TransformerEncoderLayer(units, 4, 2 * units, activation="gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(units), enable_nested_tensor=False)
        self.is_causal = is_causal

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
        steps = words.shape[1]
        x = self.words(words) + self.places.weight[:steps]
        behind = torch.arange(steps) >= lengths[:, None]
        later = torch.ones(steps, steps, dtype=torch.bool).triu(1) if self.is_causal else None
        # Without `is_causal` torch looks at the mask's values, which an export has none of.
        return self.encoder(x, mask=later, src_key_padding_mask=behind, is_causal=self.is_causal)


class Pointwise(nn.Module):
    """Linear layers of each step."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(units, 2 * units), nn.GELU(), nn.Linear(2 * units, units))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


NETS = {
    "lstm": lambda units: Recurrent(nn.LSTM, units),
    "gru": lambda units: Recurrent(nn.GRU, units),
    "rnn": lambda units: Recurrent(nn.RNN, units),
    "encoder": lambda units: Encoder(units, False),
    "causal encoder": lambda units: Encoder(units, True),
    "linear": Pointwise,
}


def make_inputs(net: nn.Module, units: int, steps: int, sequences: int = 2) -> list[Tensor]:
    """Return sequences, of which the first is as long as they may be, and their lengths where the net takes them."""
    generator = torch.Generator().manual_seed(steps)
    if isinstance(net, Encoder):
        x = torch.randint(WORDS, (sequences, steps), generator=generator)
    else:
        x = torch.randn(sequences, steps, units, generator=generator)
    lengths = torch.tensor([steps, *[(steps + 1) // 2] * (sequences - 1)])
    return [x] if isinstance(net, Pointwise) else [x, lengths]


def exact(net: nn.Module, inputs: Sequence[Tensor]) -> list[np.ndarray]:
    with torch.no_grad():
        results = copy.deepcopy(net).double()(*(x.double() if x.is_floating_point() else x for x in inputs))
    return [result.numpy() for result in tree_leaves(results)]


@pytest.mark.parametrize(("rate", "threads"), CASES)
@pytest.mark.parametrize("name", NETS)
def test_all_lengths(name: str, rate: float, threads: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = NETS[name](UNITS).eval()
    if rate > 1:
        prune_(net, Plan([("*layers.*", Block(ROWS), rate)]))
    inputs = [make_inputs(net, UNITS, steps) for steps in LENGTHS]
    shapes = [[tuple(x.shape) for x in given] for given in inputs[1:]]
    compiled = patc.compile(net, tuple(inputs[0]), threads=threads, shapes=shapes)
    for given in inputs:
        found = [result.numpy() for result in tree_leaves(compiled(*given))]
        assert_close(found, exact(net, given), BOUND)


class Packed(nn.Module):
    def __init__(self, lengths: Any) -> None:
        super().__init__()
        self.gru, self.lengths = nn.GRU(4, 4, batch_first=True), None if isinstance(lengths, Tensor) else lengths

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        packed = pack_padded_sequence(
            x, self.lengths if lengths is None else lengths, batch_first=True, enforce_sorted=False
        )
        return pad_packed_sequence(self.gru(packed)[0], batch_first=True)[0]


@pytest.mark.parametrize("lengths", [torch.tensor([5, 3]), [5, 3]])
def test_packed_sequences_are_refused(lengths: Any) -> None:
    inputs = (torch.randn(2, 5, 4), *([lengths] if isinstance(lengths, Tensor) else []))
    with pytest.raises(
        PatcError, match=r"^gru \(.*\): packed sequences cannot be compiled, .* the padded ones, and mask"
    ):
        patc.compile(Packed(lengths).eval(), inputs)
