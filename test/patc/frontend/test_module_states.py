"""Modules in all states that people bring them in: right, or one line; `docs/torch.md` lists them."""

from __future__ import annotations

import warnings
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.utils import _pytree as pytree

import patc

X = torch.linspace(-1, 1, 108).reshape(1, 3, 6, 6)
Pair = namedtuple("Pair", "a b")


def net(change: Callable[[nn.Sequential], Any] = lambda net: None) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
        return (change(model) or model).eval()


class Function(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, y: Tensor | None = None, *, mask: Tensor | None = None) -> Any:
        return self.function(x, y, mask)


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return x * self.count


def hooked(model: nn.Sequential) -> None:
    model[0].register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1,))
    model[0].register_forward_hook(lambda module, inputs, output: output * 2)


def tied(model: nn.Sequential) -> None:
    model[0], model[2] = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)
    model[2].weight = model[0].weight


def masked(model: nn.Sequential) -> None:
    prune.l1_unstructured(model[0], "weight", 0.5)
    prune.random_structured(model[2], "weight", amount=0.5, dim=0)


RIGHT: dict[str, Callable[[nn.Sequential], Any]] = {
    "hooks": hooked,
    "weight norm": lambda model: nn.utils.weight_norm(model[0]) and None,
    "weight norm, parametrised": lambda model: parametrizations.weight_norm(model[0]) and None,
    "spectral norm": lambda model: nn.utils.spectral_norm(model[0]) and None,
    "spectral norm, parametrised": lambda model: parametrizations.spectral_norm(model[0]) and None,
    "masks": masked,
    "tied": tied,
    "channels last": lambda model: model.to(memory_format=torch.channels_last),
    "DataParallel": nn.DataParallel,
}


def require_same(model: nn.Module, inputs: Any, options: dict[str, Tensor] | None = None) -> None:
    compiled = patc.compile(model, {**inputs} if isinstance(inputs, dict) else inputs, threads=1)
    positional, named = ((), inputs) if isinstance(inputs, dict) else (inputs, {})
    with torch.no_grad():
        found, expected = compiled(*positional, **named), model(*positional, **named)
    leaves = zip(pytree.tree_leaves(found), pytree.tree_leaves(expected), strict=True)
    torch.testing.assert_close(*map(list, zip(*leaves, strict=True)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", RIGHT)
def test_states_that_are_right(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # weight_norm is deprecated, and in use
        model = net(RIGHT[name])
    require_same(model, (X,))


def test_inputs_that_are_not_contiguous() -> None:
    require_same(net(), (X.transpose(2, 3),))


@pytest.mark.parametrize(
    ("function", "inputs"),
    [
        (lambda x, y, mask: (x + y, [x * 2, {"k": y * 3}], None, Pair(x - y, 3)), (X, X + 1)),
        (lambda x, y, mask: OrderedDict(a=x * 2, b=None), (X,)),
        (lambda x, y, mask: x.masked_fill(mask, 0), {"x": X, "mask": X > 0}),
        (lambda x, y, mask: x * y, {"y": X, "x": X + 1}),
        (lambda x, y, mask: x * 2, (X, X)),  # nothing needs y
    ],
)
def test_inputs_and_outputs(function: Callable[..., Any], inputs: Any) -> None:
    require_same(Function(function).eval(), inputs)


def test_inputs_by_name() -> None:
    compiled = patc.compile(Function(lambda x, y, mask: x - y).eval(), (X, X + 1), threads=1)
    torch.testing.assert_close(compiled(X, y=2 * X), compiled(X, 2 * X))
    with pytest.raises(patc.PatcError, match="got 1 by place and z by name"):
        compiled(X, z=X)


LINEAR = nn.Sequential(nn.Flatten(), nn.Linear(108, 4)).eval()


@pytest.mark.parametrize(
    ("model", "inputs", "expected"),
    [
        (lambda: net().train(), (X,), "expected a model in eval mode, found training mode; call model.eval()"),
        (lambda: net().to("meta"), (X,), "expected parameter '0.weight' to have values, found a tensor on the meta"),
        (lambda: Counter().eval(), (X,), "found one that updates buffer 'count'"),
        (net, (X[:0],), "expected tensors with elements, got 'input' of shape [0, 3, 6, 6] float32"),
        (lambda: torch.ao.quantization.quantize_dynamic(LINEAR, {nn.Linear}), (X,), "found quantized layer '1'"),
        (net, (None,), "to be a tensor, found NoneType; leave it out, and give the others by name"),
        (net, ({"x": X},), "found dict; compile a module whose forward takes the tensors one by one"),
        (net, (2,), "found int; compile a module whose forward has it as a constant"),
        (net, {"z": X}, "torch cannot export the model: "),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*(torch.ao.quantization|quantize_per_tensor)")
def test_states_that_are_refused(model: Callable[[], nn.Module], inputs: Any, expected: str) -> None:
    with pytest.raises(patc.PatcError) as caught:
        patc.compile(model(), inputs)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_programs(tmp_path: Path) -> None:
    torch.jit.script(net()).save(tmp_path / "script.pt")
    torch.save(net(), tmp_path / "pickled.pth")
    for name, found in (("script.pt", "a TorchScript archive: export"), ("pickled.pth", "a pickled 'torch.nn.")):
        with pytest.raises(patc.PatcError, match=f"found {found}.*with torch.export.export and torch.export.save"):
            patc.compile(tmp_path / name)


@pytest.mark.parametrize("kind", ["raw", "torch", "linalg-on-tensors"])
def test_files_of_torch_mlir(kind: str, tmp_path: Path) -> None:
    from torch_mlir import fx

    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Flatten(), nn.Linear(64, 5)).eval()
    text = str(fx.export_and_import(model, X, output_type=kind))
    path = tmp_path / "net.mlir"
    path.write_text(text)
    with torch.no_grad():
        torch.testing.assert_close(patc.compile(path, threads=1)(X), model(X), rtol=1e-4, atol=1e-5)
    path.write_text(text.partition("{-#")[0])
    with pytest.raises(
        patc.PatcError, match=r"net.mlir:\d+:\d+: expected the values of dense_resource<.*> in the text, found none"
    ):
        patc.compile(path)
