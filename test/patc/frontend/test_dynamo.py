"""`torch.compile(backend="patc")`: weights that change in any way, and graphs that patc cannot compile."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from patc import compiler
from patc.frontend import dynamo

Change = Callable[[nn.Sequential], object]


@pytest.fixture(autouse=True)
def fresh_dynamo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(dynamo, "_SAID", set())
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The modules that were given to patc.compile."""
    modules: list[nn.Module] = []
    compile_model = compiler.compile_model

    def noted(model: nn.Module, *args: Any, **options: Any) -> Any:
        modules.append(model)
        return compile_model(model, *args, **options)

    monkeypatch.setattr(compiler, "compile_model", noted)
    return modules


@contextlib.contextmanager
def said() -> Iterator[list[str]]:
    """Collect what patc says about what torch runs."""
    reasons: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield reasons
    reasons += [str(warning.message) for warning in caught if issubclass(warning.category, dynamo.EagerWarning)]


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


def test_equal_weights_are_not_compiled_again(compilations: list[nn.Module]) -> None:
    net, x = make_net(), random_input()
    compiled = torch.compile(net, backend="patc", options={"threads": 1})
    with torch.no_grad():
        compiled(x)
        net[0].weight.mul_(1.0)  # another version, the same numbers
        compiled(x)
    assert len(compilations) == 1


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
def test_torch_runs_what_patc_cannot_and_says_so_once(dynamic: bool, compilations: list[nn.Module]) -> None:
    net = Unsupported().eval()
    with said() as reasons:
        compiled = torch.compile(net, backend="patc", dynamic=dynamic, options={"threads": 1})
        for batch in (2, 2, 3, 2):
            require_equal(compiled, net, random_input(batch))
    assert len(reasons) == 1
    assert "aten.fft_fft.default (complex64 result) x1 (test_dynamo.py:" in reasons[0]
    # What is before it is compiled for each shape; the first attempt and what came to nothing count too.
    assert {name for module in compilations[1:] for name, _ in module.named_parameters()} == {
        "conv.weight",
        "conv.bias",
    }


def test_gradients_are_torchs() -> None:
    net, x = make_net(), random_input()
    expected = torch.autograd.grad(net(x).square().sum(), list(net.parameters()))
    compiled = torch.compile(net, backend="patc", options={"threads": 1})
    with said() as reasons:
        for _ in range(2):
            found = torch.autograd.grad(compiled(x).square().sum(), list(net.parameters()))
            torch.testing.assert_close(found, expected)
    assert len(reasons) == 1
    assert reasons[0].endswith("gradients are wanted; call it under torch.no_grad()")
    require_equal(compiled, net, x)


def test_training_mode_is_torchs() -> None:
    net, x = make_net().train(), random_input(4)
    twin = copy.deepcopy(net)
    compiled = torch.compile(net, backend="patc")
    with said() as reasons, torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(compiled(x), twin(x))
        torch.testing.assert_close(net[1].running_mean, twin[1].running_mean)
    assert len(reasons) == 1
    assert "updates buffer" in reasons[0]
    net.eval()
    require_equal(compiled, net, x)


def test_each_shape_up_to_torchs_limit_is_compiled(compilations: list[nn.Module]) -> None:
    net = make_net()
    compiled = torch.compile(net, backend="patc", dynamic=True, options={"threads": 1})
    with torch._dynamo.config.patch(recompile_limit=2), said() as reasons:
        for batch in (2, 3, 4, 5, 2):
            require_equal(compiled, net, random_input(batch))
    assert len(compilations) == 2
    assert [reason.rpartition(": ")[2] for reason in reasons] == [
        "more than 2 shapes, which is torch._dynamo.config.recompile_limit"
    ]


class Detector(nn.Module):
    """Control flow on values, `item`, keywords, several inputs, and outputs of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True))
        self.blocks = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
        self.head = nn.Linear(8, 4)

    def forward(
        self, x: Tensor, scale: Tensor, *, threshold: float = 0.5, mask: Tensor | None = None
    ) -> dict[str, Any]:
        y = self.stem(x) * scale
        for block in self.blocks:
            y = y + torch.relu(block(y))
        scores = self.head(y.mean((2, 3))).sigmoid()
        if mask is not None:
            scores = scores.masked_fill(mask, 0)
        largest = scores.max().item()
        if largest > threshold:
            scores = scores / largest
        keep = (scores > threshold).nonzero()
        return {"scores": scores, "keep": keep, "largest": largest, "none": None, "pair": (y, y.flatten(1))}


def test_a_net_of_real_life() -> None:
    net, x = Detector().eval(), random_input(2)
    compiled = torch.compile(net, backend="patc", options={"threads": 1})
    mask = torch.tensor([[True, False, False, False], [False, False, True, False]])
    with said(), torch.no_grad():
        for options in ({}, {"threshold": 0.9}, {"mask": mask}, {"mask": mask, "threshold": 0.25}, {}):
            found, expected = compiled(x, torch.tensor(1.5), **options), net(x, torch.tensor(1.5), **options)
            assert found["none"] is None
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
            shared, flat = found["pair"]
            shared.zero_()
            assert not flat.any()  # the same memory, as torch has it


def test_views_of_inputs_and_writes_to_them() -> None:
    class Views(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            first = x[0]
            x.mul_(2)
            return self.conv(x), first

    net = Views().eval()
    compiled = torch.compile(net, backend="patc", options={"threads": 1})
    x, twin = random_input(), random_input()
    with said(), torch.no_grad():
        found, expected = compiled(x), net(twin)
    torch.testing.assert_close((x, *found), (twin, *expected))
    assert found[1].data_ptr() == x.data_ptr()


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
