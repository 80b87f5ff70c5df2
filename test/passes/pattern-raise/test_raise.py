"""`pattern-raise` computes what PyTorch computes, and finds the layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from helpers import assert_close, layer_ops, raised_model, torch_results
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from patc.codegen.reference import execute
from patc.diagnostics import layer_name
from patc.dialects.pattern import Conv2dOp
from patc.passes.pattern_raise import PatternRaise

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": functional.relu,
    "relu6": functional.relu6,
    "hardtanh": lambda x: functional.hardtanh(x, -0.5, 0.25),
    "at least": lambda x: x.clamp(min=-0.1),
    "at most": lambda x: x.clamp(max=0.3),
    "relu, then clamp": lambda x: functional.relu(x).clamp(0.1, 0.7),
}

POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "max": lambda x: functional.max_pool2d(x, 3, 2, 1),
    "max, rounding up": lambda x: functional.max_pool2d(x, 2, 2, ceil_mode=True),
    "max, dilated": lambda x: functional.max_pool2d(x, 2, 1, 1, dilation=2),
    "mean with pads": lambda x: functional.avg_pool2d(x, 3, 2, 1),
    "mean without pads": lambda x: functional.avg_pool2d(x, 3, (2, 1), 1, count_include_pad=False),
    "mean, rounding up": lambda x: functional.avg_pool2d(x, 2, 2, ceil_mode=True),
    "global mean": lambda x: functional.adaptive_avg_pool2d(x, 1),
}


@dataclass(frozen=True)
class ConvSpec:
    """A convolution; `pads` is left, right, top, bottom, and `skip` says what is added to its result."""

    filters: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilations: tuple[int, int]
    groups: str
    bias: bool
    batch_norm: bool
    activation: str
    skip: str


class RandomNet(nn.Module):
    """Convolutions with everything that may surround them, a pool, and perhaps a linear layer."""

    def __init__(self, channels: int, specs: list[ConvSpec], pool: str, classify: bool) -> None:
        super().__init__()
        self.specs, self.pool = specs, pool
        self.layers, self.branches = nn.ModuleList(), nn.ModuleList()
        for spec in specs:
            self.layers.append(self._layer(channels, spec))
            self.branches.append(self._layer(channels, spec))
            channels = spec.filters
        self.classifier = nn.Linear(channels, 3) if classify else None

    def _layer(self, channels: int, spec: ConvSpec) -> nn.Module:
        groups = {"one": 1, "two": 2, "all": channels}[spec.groups]
        filters = spec.filters // groups * groups or groups
        conv = nn.Conv2d(channels, filters, spec.kernel, spec.strides, 0, spec.dilations, groups, bias=spec.bias)
        norm = nn.BatchNorm2d(filters)
        nn.init.uniform_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
        return nn.Sequential(conv, norm) if spec.batch_norm else conv

    def forward(self, x: Tensor) -> Tensor:
        for spec, layer, branch in zip(self.specs, self.layers, self.branches, strict=True):
            padded = functional.pad(x, spec.pads)
            y = layer(padded)
            if spec.skip == "branch":
                y = y + branch(padded)
            elif spec.skip == "twice":
                y = y + y
            elif spec.skip == "input" and y.shape == x.shape:
                y = x + y
            x = ACTIVATIONS[spec.activation](y)
        x = POOLS[self.pool](x)
        return x if self.classifier is None else self.classifier(x.mean((2, 3)))


def pair(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


CONVS = st.builds(
    ConvSpec,
    filters=st.sampled_from([4, 8]),
    kernel=pair(1, 3),
    strides=pair(1, 2),
    pads=st.tuples(*[st.integers(0, 2)] * 4) | st.just((1, 1, 1, 1)),
    dilations=pair(1, 2),
    groups=st.sampled_from(["one", "two", "all"]),
    bias=st.booleans(),
    batch_norm=st.booleans(),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    skip=st.sampled_from(["none", "branch", "twice", "input"]),
)
SAME_SIZE = st.builds(
    ConvSpec,
    filters=st.just(4),
    kernel=st.just((3, 3)),
    strides=st.just((1, 1)),
    pads=st.just((1, 1, 1, 1)),
    dilations=st.just((1, 1)),
    groups=st.sampled_from(["one", "all"]),
    bias=st.booleans(),
    batch_norm=st.booleans(),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    skip=st.just("input"),
)


@settings(max_examples=12, deadline=None, phases=[Phase.explicit, Phase.generate])  # shrinking takes minutes
@given(
    batch=st.integers(1, 3),
    size=pair(9, 12),
    specs=st.lists(SAME_SIZE, max_size=1).flatmap(
        lambda first: st.lists(CONVS, min_size=1, max_size=2).map(lambda rest: first + rest)
    ),
    pool=st.sampled_from(sorted(POOLS)),
    classify=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_computes_what_torch_computes(
    batch: int, size: tuple[int, int], specs: list[ConvSpec], pool: str, classify: bool, seed: int
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = RandomNet(4, specs, pool, classify).eval()
        x = torch.randn(batch, 4, *size)
    try:
        wanted = torch_results(model, [x])
    except RuntimeError:  # two strides have left less than a window
        return
    module, state = raised_model(model, [x])
    assert_close(execute(module, state.parameters, [x.numpy()]), wanted)
    text = str(module)
    PatternRaise().run(module, state)
    assert str(module) == text


class Apply(nn.Module):
    """A function of layers and inputs as a model."""

    def __init__(self, function: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*self.layers, *inputs)


# name: model, input shapes, the ops that it becomes
CASES: dict[str, tuple[nn.Module, list[tuple[int, ...]], list[str]]] = {
    "depthwise": (nn.Conv2d(4, 4, 3, 2, 1, groups=4), [(2, 4, 7, 7)], ["conv2d"]),
    "two filters a channel": (nn.Conv2d(4, 8, 3, groups=4), [(1, 4, 7, 7)], ["conv2d"]),
    "one filter": (nn.Conv2d(4, 1, 1), [(1, 4, 5, 5)], ["conv2d"]),
    "same padding, even kernel": (nn.Conv2d(2, 2, 4, padding="same"), [(1, 2, 6, 6)], ["conv2d"]),
    "residual before relu": (
        Apply(lambda conv, x: functional.relu(conv(x) + x), nn.Conv2d(2, 2, 3, 1, 1)),
        [(1, 2, 5, 5)],
        ["conv2d"],
    ),
    "residual after relu": (
        Apply(lambda conv, x: functional.relu(conv(x)) + x, nn.Conv2d(2, 2, 3, 1, 1)),
        [(1, 2, 5, 5)],
        ["conv2d"],
    ),
    "projection": (
        Apply(lambda a, b, x: functional.relu(a(x) + b(x)), nn.Conv2d(2, 4, 3, 2, 1), nn.Conv2d(2, 4, 1, 2)),
        [(1, 2, 6, 6)],
        ["conv2d", "conv2d"],
    ),
    "three summands": (
        Apply(lambda conv, x: x + (conv(x) + x), nn.Conv2d(2, 2, 1)),
        [(1, 2, 5, 5)],
        ["conv2d", "add"],
    ),
    "sum of inputs": (Apply(lambda x, y: functional.relu(x + y)), [(1, 2, 3, 3)] * 2, ["add"]),
    "relu of an input": (nn.ReLU(), [(1, 2, 3, 3)], ["activate"]),
    "relu of a pool": (
        Apply(lambda x: functional.relu(functional.max_pool2d(x, 2))),
        [(1, 2, 4, 4)],
        ["max_pool2d"],
    ),
    "classifier": (
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3), nn.ReLU()),
        [(2, 4, 5, 6)],
        ["avg_pool2d", "collapse_shape", "linear"],
    ),
    "one output": (nn.Linear(8, 1), [(2, 8)], ["linear"]),
    "no bias, one row": (nn.Linear(8, 3, bias=False), [(1, 8)], ["linear"]),
    "untransposed weight": (
        Apply(lambda linear, x: x @ linear.weight, nn.Linear(3, 8)),
        [(2, 8)],
        ["linear"],
    ),
    "pool to its own size": (nn.AdaptiveAvgPool2d(5), [(1, 2, 5, 5)], []),
    "pool of one element": (nn.AdaptiveAvgPool2d(1), [(1, 4, 1, 1)], []),
    "pool to a part of its size": (nn.AdaptiveAvgPool2d(3), [(1, 2, 9, 6)], ["avg_pool2d"]),
    "squeezed": (
        Apply(lambda x: functional.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1)),
        [(2, 4, 3, 3)],
        ["avg_pool2d", "collapse_shape"],
    ),
    "view": (Apply(lambda x: x.view(2, -1)), [(2, 4, 3, 3)], ["collapse_shape"]),
    "identity": (Apply(lambda x: x * 1.0), [(2, 4, 3, 3)], []),
}


@pytest.mark.parametrize("name", CASES)
def test_finds_the_layers(name: str) -> None:
    model, shapes, ops = CASES[name]
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(shape, generator=generator) for shape in shapes]
    module, state = raised_model(model.eval(), inputs)
    assert [op.operation.name.partition(".")[2] for op in layer_ops(module)] == ops
    found = execute(module, state.parameters, [x.numpy() for x in inputs])
    assert_close(found, torch_results(model, inputs))


def test_layers_keep_their_names() -> None:
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3))
    module, _ = raised_model(model, [torch.zeros(1, 2, 4, 4)])
    assert [layer_name(op.location) for op in layer_ops(module)] == ["0", "2", "3", "4"]


def test_grouped_weights_keep_their_parameters() -> None:
    """Reshapes of weights are looked through: no second array comes into the store."""
    module, state = raised_model(nn.Conv2d(4, 8, 3, groups=2), [torch.zeros(1, 4, 5, 5)])
    (conv,) = layer_ops(module)
    assert isinstance(conv, Conv2dOp) and conv.groups.value == 2
    assert set(state.parameters) == {"weight", "bias"}
