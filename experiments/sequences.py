"""Nets on sequences, dense and with a part of their weights in blocks, as functions that `patc bench` and
`experiments/rivals.py` take.

Zeros are of the smallest weights, without training: what they cost in accuracy is not asked here.
"""

from __future__ import annotations

from functools import partial

import torch
from minilm import UNITS as WIDTH
from minilm import MiniLM, load_minilm, load_tokenizer
from torch import Tensor, nn

from patc.pruning import Block, Plan, prune_

# How many times fewer weights the pruned ones keep of those that are in blocks.
RATES = {"lstm_step": 8.0, "lstm": 8.0, "gru_step": 8.0, "gru": 8.0, "minilm": 4.0}
UNITS, STEPS = 512, 100
TOKENS = 128
TEXT = (
    "A compiler reads the zeros of a network's weights and writes code that neither loads nor multiplies them. Which "
    "weights are zero is decided while the network is trained: in blocks, so that the lanes of a vector go through "
    "the same inputs and every weight that is left has a place in a register. What is removed from a matrix is removed "
    "from memory as well, and a step of a recurrent layer, which does little else than wait for its weights, gains as "
    "much as there is less to read."
)

Inputs = tuple[Tensor, ...]


class Step(nn.Module):
    """A recurrent layer of one sequence: x (T, 1, 512) and states -> outputs and states."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        y, after = self.layer(x, states if len(states) > 1 else states[0])
        return (y, *after) if isinstance(after, tuple) else (y, after)


def _recurrent(kind: type[nn.RNNBase], steps: int, rate: float) -> tuple[nn.Module, Inputs]:
    net = Step(kind(UNITS, UNITS))
    if rate > 1:
        prune_(net, Plan([("*", Block(16), rate)]))
    x, states = torch.randn(steps, 1, UNITS), [torch.randn(1, 1, UNITS) for _ in range(2 if kind is nn.LSTM else 1)]
    return net, (x, *states)


class Attention(nn.Module):
    """`nn.MultiheadAttention` of one tensor in products and a softmax, as exporters of DeepSparse's time knew it."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.heads = attention.num_heads
        self.enter = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.leave = attention.out_proj
        weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
        for layer, weight, bias in zip(self.enter, weights, biases, strict=True):
            layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: Tensor, unseen: Tensor) -> Tensor:
        parts = [layer(x).reshape(*x.shape[:2], self.heads, -1).transpose(1, 2) for layer in self.enter]
        query, key, value = parts
        scores = query @ key.transpose(2, 3) * query.shape[3] ** -0.5 + unseen
        return self.leave((scores.softmax(3) @ value).transpose(1, 2).reshape(x.shape))


class PlainMiniLM(nn.Module):
    """A `MiniLM` whose layers are of plain operations."""

    def __init__(self, net: MiniLM) -> None:
        super().__init__()
        self.net, layers = net, [layer.self_attn for layer in net.encoder.layers]
        self.attentions = nn.ModuleList(map(Attention, layers))

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        x = self.net.norm(self.net.words(tokens) + self.net.positions.weight[: tokens.shape[1]] + self.net.kind)
        unseen = (1.0 - mask[:, None, None].to(x.dtype)) * -1e9
        for layer, attention in zip(self.net.encoder.layers, self.attentions, strict=True):
            x = layer.norm1(x + attention(x, unseen))
            x = layer.norm2(x + layer.linear2(nn.functional.gelu(layer.linear1(x))))
        return x


def _minilm(rate: float, is_plain: bool = False) -> tuple[nn.Module, Inputs]:
    net: nn.Module = load_minilm()
    if rate > 1:
        prune_(net, Plan([("encoder.layers.*", Block(32), rate)]))
    net = PlainMiniLM(net) if is_plain else net
    read = load_tokenizer(TOKENS).encode(TEXT)
    return net, (torch.tensor([read.ids]), torch.tensor([read.attention_mask]))


lstm, pruned_lstm = (partial(_recurrent, nn.LSTM, STEPS, rate) for rate in (1.0, RATES["lstm"]))
gru, pruned_gru = (partial(_recurrent, nn.GRU, STEPS, rate) for rate in (1.0, RATES["gru"]))
lstm_step, pruned_lstm_step = (partial(_recurrent, nn.LSTM, 1, rate) for rate in (1.0, RATES["lstm_step"]))
gru_step, pruned_gru_step = (partial(_recurrent, nn.GRU, 1, rate) for rate in (1.0, RATES["gru_step"]))
plain_minilm, plain_pruned_minilm = (partial(_minilm, rate, True) for rate in (1.0, RATES["minilm"]))
minilm, pruned_minilm = (partial(_minilm, rate) for rate in (1.0, RATES["minilm"]))
