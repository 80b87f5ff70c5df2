"""pattern-shrink: nets that lost filters are smaller, and compute the same."""

from __future__ import annotations

import pytest
import torch
from helpers import assert_close, torch_results
from torch import Tensor, nn
from torch.nn import functional as F

import patc
from patc.pruning import Filters, Plan, prune_


class Chains(nn.Module):
    """What channels go through: padded and other convolutions, batch norms, depthwise ones, a residual, a
    concatenation, pools, activations that are not 0 at 0, one number a channel, flattening, linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.wide, self.wide_norm = nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
        self.narrow = nn.Conv2d(32, 16, 1)
        self.depthwise, self.depthwise_norm = nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16)
        self.left, self.right = nn.Conv2d(16, 24, 1), nn.Conv2d(16, 16, 3, padding=1)
        self.joined, self.slopes = nn.Conv2d(40, 32, 3), nn.PReLU(32)
        self.hidden, self.classes = nn.Linear(32 * 4, 64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem_norm(self.stem(x)))
        y = F.max_pool2d(F.silu(self.wide_norm(self.wide(x))), 2, 2)
        x = F.relu(self.narrow(y) + F.avg_pool2d(x, 3, 2, 1))
        x = F.hardswish(self.depthwise_norm(self.depthwise(x)))
        x = torch.cat([F.elu(self.left(x)), self.right(x)], 1)
        x = F.adaptive_avg_pool2d(self.slopes(self.joined(x)), 2).flatten(1)
        return self.classes(F.gelu(self.hidden(x)))


def pruned() -> Chains:
    """Return the net at half of its filters, with numbers in the channels that these leave."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Chains().eval()
        for norm in (net.stem_norm, net.wide_norm, net.depthwise_norm):
            for values in (norm.weight.data, norm.bias.data, norm.running_mean):
                values.normal_()
    names = ("stem", "wide", "left", "right", "joined", "hidden")
    prune_(net, Plan([(name, Filters(), 2.0) for name in names]))
    net.narrow.weight.data[~net.stem.weight.flatten(1).any(1)] = 0
    return net


@pytest.mark.parametrize("threads", [1, 2])
def test_a_net_without_half_of_its_filters(threads: int) -> None:
    net, x = pruned(), torch.randn(2, 3, 14, 14, generator=torch.Generator().manual_seed(1))
    compiled = patc.compile(net, (x,), threads=threads)
    assert_close([compiled(x).numpy()], torch_results(net, [x]))
    shapes = {layer.name: layer.shape[1] for layer in compiled.layers}
    # The padded convolution reads one channel for all those of SiLU's numbers, so does what ELU and no activation feed.
    assert {name: shapes[name] for name in ("wide", "left", "right", "joined", "hidden")} == {
        "wide": 16,
        "left": 12,
        "right": 8,
        "joined": 16,
        "hidden": 32,
    }
    said = {item.message for item in compiled.diagnostics if "shrinks" in item.message}
    assert "shrinks to 32 of 64 inputs: the others are constant or not read" in said
