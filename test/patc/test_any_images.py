"""Calls with any number of images of one artefact: what each layer computes of a block that has fewer images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import patc
from patc.pruning import PatternSpec, prune_

MOST = 3  # images of a block
SIZES = (1, 2, 3, 4, 5, 7)


class Function(nn.Module):
    """A function of layers, which are as random as those of any run."""

    def __init__(self, function: Callable[..., Any], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self.layers, *inputs)


def net(function: Callable[..., Any], *layers: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Function(function, *(layer() for layer in layers)).eval()


def images(count: int, *shape: int) -> Tensor:
    return torch.randn((count, *shape), generator=torch.Generator().manual_seed(0))


def conv(*sizes: int, **how: Any) -> Callable[[], nn.Module]:
    return lambda: nn.Conv2d(*sizes, **how)


def pruned(model: nn.Module) -> nn.Module:
    prune_(model, PatternSpec(connectivity=2.0))
    return model


# Name -> net, shapes of its inputs without the batch.
NETS: dict[str, tuple[Callable[[], nn.Module], Sequence[tuple[int, ...]]]] = {
    "winograd": (
        lambda: net(lambda m, x: m[1](F.relu(m[0](x))), conv(32, 40, 3, padding=1), conv(40, 64, 3, padding=1)),
        [(32, 7, 7)],
    ),
    "winograd of several strips": (
        lambda: net(lambda m, x: F.relu(m[0](x)) + x, conv(32, 32, 3, padding=1)),
        [(32, 26, 18)],
    ),
    "convolutions": (
        lambda: net(
            lambda m, x: m[3](F.relu(m[2](F.relu6(m[1](F.relu(m[0](x))))))),
            conv(3, 16, 7, stride=2, padding=3),
            conv(16, 16, 3, padding=1, groups=16),
            conv(16, 72, 1),
            conv(72, 40, 3, stride=2, padding=1),
        ),
        [(3, 29, 29)],
    ),
    "patterns": (
        lambda: pruned(
            net(
                lambda m, x: m[2](F.relu(m[1](F.relu(m[0](x))))),
                conv(4, 16, 3, padding=1),
                conv(16, 24, 3, padding=1),
                conv(24, 16, 3, stride=2, padding=1),
            )
        ),
        [(4, 20, 20)],
    ),
    "planes": (
        lambda: net(
            lambda m, x: torch.cat(
                [F.max_pool2d(x, 3, 2, 1), F.avg_pool2d(x, 2), F.interpolate(F.max_pool2d(x, 4), scale_factor=2.0)], 1
            )
        ),
        [(5, 16, 16)],
    ),
    "a mean": (lambda: net(lambda m, x: m[0](F.relu(x).mean((2, 3))), lambda: nn.Linear(12, 7)), [(12, 5, 5)]),
    "linear": (
        lambda: net(lambda m, x: m[1](F.relu(m[0](x))), lambda: nn.Linear(40, 33), lambda: nn.Linear(33, 5)),
        [(40,)],
    ),
    "rows": (
        lambda: net(lambda m, x: F.relu(m[0](x.reshape(-1, 24))).reshape(-1, 6, 9), lambda: nn.Linear(24, 9)),
        [(6, 24)],
    ),
    "a softmax behind": (
        lambda: net(
            lambda m, x: torch.softmax(m[1](F.relu(m[0](x)).mean((2, 3))), 1),
            conv(8, 64, 5, padding=2),
            lambda: nn.Linear(64, 11),
        ),
        [(8, 40, 40)],
    ),
    "several inputs and outputs": (
        lambda: net(lambda m, x, y: {"sum": F.relu(m[0](x)) + y, "input": m[0](x)}, conv(4, 4, 3, padding=1)),
        [(4, 6, 6), (4, 6, 6)],
    ),
}


@pytest.fixture(params=NETS)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, list[Tensor]]:
    make, shapes = NETS[request.param]
    return make(), [images(max(SIZES), *shape) for shape in shapes]


def leaves(value: Any) -> list[Tensor]:
    return list(value.values()) if isinstance(value, dict) else [value]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_images_are_what_they_are_in_any_batch(case: tuple[nn.Module, list[Tensor]], threads: int) -> None:
    model, inputs = case
    compiled = patc.compile(model, tuple(x[:MOST] for x in inputs), threads=threads, dynamic_batch=True)
    assert [entry.counts_images for entry in compiled.program.entries] == [True, False]
    with torch.no_grad():
        expected = leaves(model(*inputs))
    whole = leaves(compiled(*inputs))
    for count in SIZES:
        for found, other, wanted in zip(leaves(compiled(*(x[:count] for x in inputs))), whole, expected, strict=True):
            torch.testing.assert_close(found, wanted[:count], rtol=1e-4, atol=1e-5)
            if count > 1:  # one alone has code of its own
                assert torch.equal(found, other[:count])


def test_nothing_but_the_images_of_a_call_is_written() -> None:
    model = net(lambda m, x: m[0](x), lambda: nn.Linear(16, 3))
    compiled = patc.compile(model, (images(8, 16),), threads=1, dynamic_batch=True)
    assert compiled.layers[0].schedule.rows > 2  # it computes more rows than there are
    x, y = images(2, 16).numpy(), np.full((9, 3), 7.0, np.float32)
    compiled._run([x.ctypes.data], [y.ctypes.data], 2)
    np.testing.assert_allclose(y[:2], model(torch.from_numpy(x)).detach().numpy(), rtol=1e-4, atol=1e-5)
    assert (y[2:] == 7.0).all()


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda m, x: torch.softmax(x, 2) @ x.transpose(1, 2), "aten.softmax.int"),
        (lambda m, x: m[0](x)[0], "aten.gru.input"),
        (lambda m, x: F.relu(x.transpose(0, 1)).transpose(0, 1), "aten.relu.default"),
    ],
)
def test_layers_that_compute_whole_blocks(function: Callable[..., Any], why: str) -> None:
    model = net(function, lambda: nn.GRU(4, 4, batch_first=True))
    x = images(5, 6, 4)
    compiled = patc.compile(model, (x[:MOST],), threads=1, dynamic_batch=True)
    remark = f"images are computed in blocks of {MOST}, whatever their number: "
    (found,) = [str(item) for item in compiled.diagnostics if remark in str(item)]
    assert why in found and found.endswith("has no loop over them")
    for count in (1, 2, 5):
        with torch.no_grad():
            torch.testing.assert_close(compiled(x[:count]), model(x[:count]), rtol=1e-4, atol=1e-5)
