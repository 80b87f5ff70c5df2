"""`patc.compile(streaming=True)`: parts of a sequence, one after the other, give what it gives whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import torch_results
from torch import Tensor, nn

import patc
from patc import PatcError
from patc.pruning import Block, Plan, prune_


class Stack(nn.Module):
    """Recurrent layers of each sort between others."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 16)
        self.coder = nn.ModuleDict({"lstm": nn.LSTM(16, 16, 2, batch_first=True)})
        self.gru = nn.GRU(16, 16, batch_first=True)
        self.rnn = nn.RNN(16, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x, _ = self.coder["lstm"](torch.relu(self.first(x)))
        return self.rnn(self.gru(x)[0])[0]


@pytest.fixture(scope="module")
def net() -> Stack:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Stack().eval()
    prune_(net, Plan([("gru.*", Block(16), 4.0)]))
    return net


@pytest.mark.parametrize("threads", [1, 2])
def test_steps_and_parts_are_those_of_the_whole(net: Stack, threads: int, tmp_path: Path) -> None:
    sequence = torch.randn(2, 9, 8, generator=torch.Generator().manual_seed(1))
    wanted = torch_results(net, [sequence])[0]
    model = patc.compile(net, (sequence[:, :1],), streaming=True, shapes=[{"x": (2, 4, 8)}], threads=threads)
    model.save(tmp_path / "net.patc")
    stream = patc.Stream(patc.load(tmp_path / "net.patc"))
    for _ in range(2):
        found = [stream(sequence[:, :1]), stream(x=sequence[:, 1:5]), *(stream(x) for x in sequence[:, 5:].split(1, 1))]
        assert np.abs(torch.cat(found, 1).numpy() - wanted).max() < 1e-5
        stream.reset()
    # Without a stream the caller keeps the states; two of them do not disturb each other.
    states = {info.name: np.zeros(info.shape, np.float32) for info in model.program.inputs[1:]}
    y, after = model(sequence[:, :1], **states)
    assert list(after) == list(states) == ["coder_lstm_hidden", "coder_lstm_cell", "gru_hidden", "rnn_hidden"]
    assert np.abs(y.numpy() - wanted[:, :1]).max() < 1e-5


class Outer(nn.Module):
    def __init__(self, layer: nn.Module, calls: int = 1) -> None:
        super().__init__()
        self.layer, self.calls = layer, calls

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.calls):
            x = self.layer(x, torch.zeros(1, 1, 4))[0] if self.calls == 1 else self.layer(x)[0]
        return x


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Linear(4, 4), "expected a model with an nn.LSTM, nn.GRU or nn.RNN together with streaming, found none"),
        (nn.GRU(4, 4, bidirectional=True), "layers of one direction together with streaming, got GRU of both"),
        (Outer(nn.GRU(4, 4)), "expected layer 'layer' to begin with no state of the model's together with streaming"),
        (Outer(nn.GRU(4, 4), 2), "expected layer 'layer' to be called once together with streaming, found twice"),
        ("net.pt2", "expected a torch.nn.Module together with streaming, got str"),
    ],
)
def test_what_is_no_stream(model: Any, message: str) -> None:
    model = model if isinstance(model, str) else model.eval()
    with pytest.raises(PatcError, match=message):
        patc.compile(model, (torch.zeros(1, 1, 4),), streaming=True)


def test_a_model_without_states() -> None:
    compiled = patc.compile(nn.Linear(4, 4).eval(), (torch.zeros(1, 4),))
    with pytest.raises(PatcError, match="expected a model compiled with streaming=True, got one that takes no states"):
        patc.Stream(compiled)
