"""Recurrent layers of pruned weights: each gate goes through columns of its own, or through packs of single ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from emulated import compile_emulated, needs_arm
from helpers import assert_close, raised_model, torch_results
from torch import nn

import patc
from patc.dialects.schedules import Schedule
from patc.passes.algorithms.host.recurrent import Recurrent
from patc.passes.ir.constants import read_constant
from patc.passes.ir.functions import walk_ops
from patc.passes.kernels.host.recurrent_weights import Layer
from patc.pruning import Block, Plan, Unstructured, prune_
from patc.targets import get_target


class Net(nn.Module):
    """A recurrent layer, of whose results all are results."""

    def __init__(
        self, kind: type[nn.RNNBase], units: int, rate: float = 6.0, single: bool = False, **options: Any
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = kind(12, units, **options)
        schemes = (Block(8), Unstructured() if single else Block(8), Unstructured() if single else Block(4))
        names = ("layer.weight_ih*", "layer.weight_hh*", "layer.weight_hr*")
        prune_(self, Plan(zip(names, schemes, (3.0, rate, rate if single else 3.0), strict=True)))

    def forward(self, x: torch.Tensor) -> Any:
        return self.layer(x)


NETS: dict[str, tuple[type[nn.RNNBase], int, dict[str, Any]]] = {
    "lstm": (nn.LSTM, 48, {}),
    "lstm of two directions": (nn.LSTM, 24, {"bidirectional": True}),
    "lstm with a projection": (nn.LSTM, 32, {"proj_size": 20}),
    "gru": (nn.GRU, 40, {"num_layers": 2}),
    "rnn": (nn.RNN, 56, {"bias": False}),
}


@pytest.mark.parametrize("single", [False, True], ids=["blocks", "single weights"])
@pytest.mark.parametrize("name", NETS)
def test_results_are_those_of_pytorch(name: str, single: bool) -> None:
    kind, units, options = NETS[name]
    net, x = Net(kind, units + 10 * single, 12.0 if single else 6.0, single, **options).eval(), torch.randn(6, 1, 12)
    wanted = torch_results(net, (x,))
    results = []
    for threads in (1, 2):
        compiled = patc.compile(net, (x,), threads=threads)
        results.append([leaf.numpy() for leaf in torch.utils._pytree.tree_leaves(compiled(x))])
        assert_close(results[-1], wanted)
    for one, other in zip(*results, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize(("kind", "target"), [(nn.LSTM, "x86-64-v3"), (nn.GRU, "host")])
def test_several_sequences(kind: type[nn.RNNBase], target: str) -> None:
    net, x = Net(kind, 40).eval(), torch.randn(4, 5, 12)
    compiled = patc.compile(net, (x,), target=target, threads=1)
    assert_close([leaf.numpy() for leaf in torch.utils._pytree.tree_leaves(compiled(x))], torch_results(net, (x,)))


@pytest.mark.parametrize(("target", "batch"), [("x86-64-v3", 1), ("x86-64-v3", 5), ("host", 7)])
def test_packs_of_several_sequences(target: str, batch: int) -> None:
    net, x = Net(nn.LSTM, 40, 12.0, single=True).eval(), torch.randn(4, batch, 12)
    compiled = patc.compile(net, (x,), target=target, threads=1)
    assert_close([leaf.numpy() for leaf in torch.utils._pytree.tree_leaves(compiled(x))], torch_results(net, (x,)))


@needs_arm
@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_aarch64(kind: type[nn.RNNBase], single: bool) -> None:
    net, x = Net(kind, 40, 12.0, single).eval(), torch.randn(4, 1, 12)
    module, state = raised_model(net, (x,))
    assert_close(compile_emulated(module, state.parameters)(x.numpy()), torch_results(net, (x,)))


def test_columns_are_those_with_a_weight() -> None:
    net = Net(nn.LSTM, 48)
    module, state = raised_model(net, (torch.randn(2, 1, 12),))
    (op,) = [op for op in walk_ops(module) if op.OPERATION_NAME == "pattern.recurrent"]
    matrix = read_constant(op.weight, state)
    assert matrix is not None
    panels = Layer.of(op, 16, 1).panels["weight"]
    values, index, offset = panels.pack_columns(matrix)
    kept = panels.columns(matrix)
    assert kept.shape == (1, 3, 4, 48) and len(index) == kept.sum() == offset[-1] and values.size == 16 * len(index)
    whole = np.zeros((12, 48, 16), np.float32)
    owner = np.repeat(np.arange(12), np.diff(offset))
    whole[owner, index] = values.reshape(-1, 16)
    gates = matrix.reshape(4, 3, 16, 48).transpose(1, 0, 3, 2).reshape(12, 48, 16)
    assert np.array_equal(whole, gates)


@pytest.mark.parametrize(
    ("units", "rate", "has_packs"),
    [(64, 12.0, True), (64, 3.0, False), (24, 5.0, False)],
    ids=["packs", "too many weights", "too few units for a tile"],
)
def test_where_there_are_packs(units: int, rate: float, has_packs: bool) -> None:
    net, target = Net(nn.GRU, units, rate, single=True), get_target("x86-64-v3")
    module, state = raised_model(net, (torch.randn(2, 1, 12),))
    (op,) = [op for op in walk_ops(module) if op.OPERATION_NAME == "pattern.recurrent"]
    said = Recurrent().unused_zeros(op, Schedule("recurrent", 1, 1, 8), target, state)
    assert has_packs == (not said) and ("of the columns of 8 units have a weight" in said) != has_packs


def test_few_zeros_change_nothing() -> None:
    net, x = Net(nn.GRU, 32, rate=1.2).eval(), torch.randn(3, 2, 12)
    compiled = patc.compile(net, (x,), threads=1)
    assert_close([leaf.numpy() for leaf in torch.utils._pytree.tree_leaves(compiled(x))], torch_results(net, (x,)))
