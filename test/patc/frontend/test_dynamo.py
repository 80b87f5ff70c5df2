"""`torch.compile(backend="patc")`: weights that change in any way, and graphs that patc cannot compile."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from patc.diagnostics import PatcError

Change = Callable[[nn.Sequential], object]


@pytest.fixture(autouse=True)
def fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def make_net() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()


def random_input(batch: int = 1) -> torch.Tensor:
    return torch.randn((batch, 3, 6, 6), generator=torch.Generator().manual_seed(1))


def require_equal(compiled: nn.Module, net: nn.Module, x: torch.Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), net(x), rtol=1e-4, atol=1e-5)


def train_statistics(net: nn.Sequential) -> None:
    net.train()
    with torch.no_grad():
        net(random_input(4) * 3 + 1)
    net.eval()


def step(net: nn.Sequential, **how: bool) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5, **how)
    net(random_input(4)).square().mean().backward()
    optimizer.step()


def replace_data(net: nn.Sequential) -> None:
    net[0].weight.data = net[0].weight.detach().roll(1)


def swap_layer(net: nn.Sequential) -> None:
    net[0] = nn.Conv2d(3, 4, 3).eval()


CHANGES: dict[str, Change] = {
    "data-mul": lambda net: net[0].weight.data.mul_(-1.5),
    "data-copy": lambda net: net[0].bias.data.copy_(torch.ones(4)),
    "data": replace_data,
    "numpy": lambda net: net[0].weight.detach().numpy().__imul__(2),
    "statistics": train_statistics,
    "buffer": lambda net: net[1].running_var.data.mul_(4),
    "foreach": lambda net: torch._foreach_mul_([p.data for p in net.parameters()], 0.5),
    "optimizer-foreach": lambda net: step(net, foreach=True),
    "optimizer-fused": lambda net: step(net, fused=True),
    "load": lambda net: net.load_state_dict({k: v * 2 for k, v in net.state_dict().items()}),
    "vector": lambda net: nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(net.parameters()) * 2, net.parameters()),
    "swap": swap_layer,
}  # fmt: skip


def test_changed_weights_count_whatever_changed_them() -> None:
    net, x = make_net(), random_input()
    compiled = torch.compile(net, backend="patc", options={"threads": 1})
    require_equal(compiled, net, x)
    for name, change in CHANGES.items():
        with torch.no_grad():
            before = net(x)
        change(net)
        with torch.no_grad():
            assert not torch.allclose(net(x), before), name
        require_equal(compiled, net, x)


def test_equal_weights_are_not_compiled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from patc import compiler

    count, compile_model = [0], compiler.compile_model

    def counted(*args: object, **options: object) -> object:
        count[0] += 1
        return compile_model(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(compiler, "compile_model", counted)
    net, x = make_net(), random_input()
    compiled = torch.compile(net, backend="patc", options={"threads": 1})
    with torch.no_grad():
        compiled(x)
        net[0].weight.mul_(1.0)  # another version, the same numbers
        compiled(x)
    assert count == [1]


def test_frozen_weights_are_taken_once() -> None:
    net, x = make_net(), random_input()
    compiled = torch.compile(net, backend="patc", options={"threads": 1, "freeze": True})
    with torch.no_grad():
        before = compiled(x)
        net[0].weight.data.mul_(2)
        assert torch.equal(compiled(x), before)


def test_freeze_is_a_switch() -> None:
    with pytest.raises(torch._dynamo.exc.BackendCompilerFailed, match="freeze to be True or False, got 'yes'"):
        torch.compile(make_net(), backend="patc", options={"freeze": "yes"})(random_input())


class Unsupported(nn.Module):
    """patc has no complex numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fft.fft(self.conv(x)).real


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_graph_that_patc_cannot_compile_is_an_error(dynamic: bool) -> None:
    kinds = (torch._dynamo.exc.BackendCompilerFailed, PatcError)
    with torch.no_grad(), pytest.raises(kinds, match="fft_fft"):
        torch.compile(Unsupported().eval(), backend="patc", dynamic=dynamic)(random_input())


@pytest.mark.parametrize("dynamic", [False, True])
def test_with_suppressed_errors_torch_runs_it(dynamic: bool) -> None:
    net = Unsupported().eval()
    with torch._dynamo.config.patch(suppress_errors=True), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compiled = torch.compile(net, backend="patc", dynamic=dynamic)
        for batch in (2, 2, 2):
            require_equal(compiled, net, random_input(batch))
        compiled(random_input(2)).sum().backward()  # as the graph itself
    said = [str(warning.message) for warning in caught if "patc cannot compile" in str(warning.message)]
    # Once for each graph, with gradients and without; torch logs it itself where it calls the backend.
    assert len(said) == 2 * dynamic
    assert all("fft_fft" in text for text in said)
    assert net.conv.weight.grad is not None


def test_dynamic_shapes_compile_for_each() -> None:
    net = make_net()
    compiled = torch.compile(net, backend="patc", dynamic=True, options={"threads": 1})
    for batch in (2, 3, 2):
        require_equal(compiled, net, random_input(batch))


def test_compiled_modules_copy() -> None:
    net, x = make_net(), random_input()
    compiled = torch.compile(net, backend="patc", options={"threads": 1})
    require_equal(compiled, net, x)
    twin = copy.deepcopy(compiled)
    net[0].weight.data.zero_()
    require_equal(compiled, net, x)
    with torch.no_grad():
        torch.testing.assert_close(twin(x), make_net()(x), rtol=1e-4, atol=1e-5)
