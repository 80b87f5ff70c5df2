"""Folding batch norm changes no numbers: against PyTorch in float64, and against torch's own fusion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import patc
from patc import models
from patc.codegen.reference import execute
from patc.context import make_context
from patc.diagnostics import PatcError
from patc.frontend import import_model
from patc.frontend.torch import ImportedModel
from patc.passes.base import PassState
from patc.passes.pattern_fold_batch_norm import PatternFoldBatchNorm

BOUND = 1e-5


class Model(nn.Module):
    """A model that is a function of its input and layers."""

    def __init__(self, forward: Callable[..., Any], *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.function = forward

    def forward(self, x: Tensor) -> Any:
        return self.function(x, *self.layers)


def randomise(model: nn.Module, seed: int) -> nn.Module:
    """Give batch norms statistics of both signs and several sizes; prune half of the convolution weights."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(generator=random)
                module.running_var.uniform_(0.1, 4.0, generator=random)
                if module.affine:
                    module.weight.normal_(generator=random)
                    module.bias.normal_(generator=random)
            elif isinstance(module, nn.Conv2d):
                module.weight.normal_(generator=random)
                module.weight *= torch.rand(module.weight.shape, generator=random) < 0.5
    return model.eval()


def fold(model: nn.Module, x: Tensor) -> tuple[ImportedModel, PassState]:
    imported = import_model(model, (x,), make_context())
    state = PassState(imported.parameters)
    PatternFoldBatchNorm().run(imported.module, state)
    assert imported.module.operation.verify()
    return imported, state


def names_of_ops(imported: ImportedModel) -> list[str]:
    return [op.operation.name for op in imported.module.body.operations[0].entry_block.operations]


def assert_folds(model: nn.Module, x: Tensor) -> ImportedModel:
    """Fold a model; require that nothing is left of its batch norms and that it computes the same."""
    imported, state = fold(model, x)
    assert "linalg.generic" not in names_of_ops(imported)
    assert state.diagnostics == []
    assert_same_numbers(imported, model, x)
    text = str(imported.module)
    PatternFoldBatchNorm().run(imported.module, state)
    assert str(imported.module) == text
    return imported


def assert_same_numbers(imported: ImportedModel, model: nn.Module, x: Tensor) -> None:
    found = execute(imported.module, imported.parameters, [x.numpy()])[0]
    with torch.no_grad():
        expected = model.double()(x.double()).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=BOUND * np.abs(expected).max())


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_random_convolutions(data: st.DataObject) -> None:
    def draw(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    groups = draw(1, 4)
    depthwise = data.draw(st.booleans())
    channels = groups * (1 if depthwise else draw(1, 3))
    filters = groups * draw(1, 3)
    kernel, stride, padding, dilation = (draw(1, 3), draw(1, 3)), draw(1, 2), draw(0, 2), draw(1, 2)
    bias, affine = data.draw(st.booleans()), data.draw(st.booleans())
    layers = [
        nn.Conv2d(channels, filters, kernel, stride, padding, dilation, groups, bias),
        nn.BatchNorm2d(filters, eps=data.draw(st.sampled_from([1e-5, 1e-3])), affine=affine),
    ]
    x = torch.randn(draw(1, 2), channels, draw(5, 9), draw(5, 9))
    assert_folds(randomise(nn.Sequential(*layers), seed=draw(0, 99)), x)


@pytest.mark.parametrize(
    ("function", "layers"),
    [
        (lambda x, c, n: n(n(c(x))), [nn.Conv2d(4, 3, 1), nn.BatchNorm2d(3)]),
        (lambda x, c: c(x) + torch.arange(1.0, 4.0).reshape(3, 1, 1), [nn.Conv2d(4, 3, 1)]),
        (lambda x, c, n: 3 - n(c(x)) * torch.tensor([[[[1.0]], [[2.0]], [[3.0]]]]) / 2, None),
        (lambda x, c: 0.25 - c(x).mul(-0.5), [nn.Conv2d(4, 3, 1)]),
    ],
    ids=["twice", "bias", "scales", "numbers"],
)
def test_per_channel_arithmetic(function: Callable[..., Any], layers: list[nn.Module] | None) -> None:
    layers = layers or [nn.Conv2d(4, 3, 1), nn.BatchNorm2d(3)]
    x = torch.randn(2, 4, 5, 6)
    assert_folds(randomise(Model(function, *layers), seed=1), x)


COLUMN = torch.tensor([1.0, -2.0, 3.0, 0.5]).reshape(4, 1, 1)


@pytest.mark.parametrize(
    ("function", "layers", "kinds"),
    [
        (lambda x, c, n: (lambda y: (y, n(y)))(c(x)), [nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)], ["conv", "depthwise"]),
        (
            lambda x, c, n, m: (lambda y: n(y).relu() + m(y))(c(x)),
            [nn.Conv2d(4, 8, 3, groups=2), nn.BatchNorm2d(8), nn.BatchNorm2d(8)],
            ["conv", "depthwise", "depthwise"],
        ),
        (lambda x, n, c: c(n(x)), [nn.BatchNorm2d(4), nn.Conv2d(4, 3, 3, padding=1)], ["depthwise", "conv"]),
        (lambda x, c: c((x - COLUMN) / 0.25), [nn.Conv2d(4, 3, 3, padding=1)], ["depthwise", "conv"]),
        (lambda x, n, c: x + c(n(x).relu()), [nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)], ["depthwise", "conv"]),
        (lambda x, n: n(functional.max_pool2d(x, 2)), [nn.BatchNorm2d(4)], ["depthwise"]),
        (lambda x: functional.avg_pool2d(x, 2) * COLUMN + 1, [], ["depthwise"]),
        (lambda x, n: n(x + x.relu()), [nn.BatchNorm2d(4)], ["depthwise"]),
        (lambda x: 1 - x, [], ["depthwise"]),
    ],
    ids=["returned too", "shared", "first", "input", "before relu", "after a pool", "after a mean", "sum", "number"],
)
def test_what_follows_no_convolution_is_one(
    function: Callable[..., Any], layers: list[nn.Module], kinds: list[str]
) -> None:
    """Channels are scaled and shifted by a depthwise 1x1 convolution where there is none that could do it alone."""
    model, x = randomise(Model(function, *layers), seed=6).eval(), torch.randn(2, 4, 6, 7)
    imported, state = fold(model, x)
    found = [name for name in names_of_ops(imported) if "conv" in name]
    assert ["depthwise" if "depthwise" in name else "conv" for name in found] == kinds
    assert all("not folded into" in item.message for item in state.diagnostics)
    results = execute(imported.module, imported.parameters, [x.numpy()])
    compiled = patc.compile(model, (x,))(x)
    compiled = compiled if isinstance(compiled, tuple) else (compiled,)
    with torch.no_grad():
        wanted = model.double()(x.double())
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    for one, other, expected in zip(results, compiled, wanted, strict=True):
        bound = BOUND * expected.abs().max().item()
        np.testing.assert_allclose(one, expected.numpy(), rtol=0, atol=bound)
        np.testing.assert_allclose(other.numpy(), expected.numpy(), rtol=0, atol=bound)


def test_a_batch_norm_that_nothing_trained() -> None:
    """It subtracts zero, which is no step of its own."""
    model, x = Model(lambda x, n: n(x.relu()) * 1.0, nn.BatchNorm2d(4)).eval(), torch.randn(2, 4, 5, 5)
    with torch.no_grad():
        np.testing.assert_allclose(patc.compile(model, (x,))(x).numpy(), model(x).numpy(), rtol=0, atol=1e-5)


def test_factors_that_are_not_finite_are_an_error() -> None:
    model = Model(lambda x: x / torch.tensor([1.0, 0.0, 2.0]).reshape(3, 1, 1)).eval()
    with pytest.raises(PatcError, match="op expected finite factors and terms, got inf in channel 1"):
        fold(model, torch.randn(1, 3, 4, 4))


def test_weights_are_those_of_torchs_own_fusion() -> None:
    model = randomise(nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)), seed=2)
    _, state = fold(model, torch.randn(1, 4, 5, 5))
    double = model.double()
    fused = torch.nn.utils.fusion.fuse_conv_bn_eval(double[0], double[1])
    for name in ("weight", "bias"):
        expected = getattr(fused, name).detach().numpy()
        # Rounded to float32 once, from constants computed in float64.
        np.testing.assert_allclose(state.parameters[f"0.{name}.folded"], expected, rtol=1e-7, atol=1e-7)


def test_pruned_weights_stay_zero() -> None:
    model = randomise(nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)), seed=3)
    before = model[0].weight.detach().numpy()
    _, state = fold(model, torch.randn(1, 4, 5, 5))
    after = state.parameters["0.weight.folded"]
    np.testing.assert_array_equal(after == 0, before == 0)
    assert not np.signbit(after[after == 0]).any()


def test_residual_network_computes_the_same() -> None:
    layers = [
        nn.Conv2d(4, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.BatchNorm2d(4),
    ]
    model = Model(lambda x, a, b, c, d: torch.relu(d(c(torch.relu(b(a(x))))) + x), *layers)
    x = torch.randn(1, 4, 6, 6)
    imported, _ = fold(randomise(model, seed=4), x)
    assert names_of_ops(imported).count("linalg.generic") == 3  # two relus and the sum
    assert_same_numbers(imported, model, x)


def test_parameters_are_named_after_those_they_come_from() -> None:
    imported, state = fold(models.vgg16_cifar(), torch.zeros(1, 3, 32, 32))
    used = [
        op.operation.attributes["name"].value
        for op in imported.module.body.operations[0].entry_block.operations
        if op.operation.name == "pattern.parameter"
    ]
    convolutions = [name for name in used if name.startswith("features")]
    assert len(convolutions) == 2 * 13
    assert {"features.0.weight.folded", "features.0.bias.folded"} <= set(convolutions)
    assert all(name.endswith((".weight.folded", ".bias.folded")) for name in convolutions)
    assert all(state.parameters[name].dtype == np.float32 for name in used)


def test_a_weight_of_two_layers_is_folded_for_each() -> None:
    model = Model(
        lambda x, c, a, b: b(c(torch.relu(a(c(x))))), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    )
    x = torch.randn(1, 3, 4, 4)
    imported, state = fold(randomise(model, seed=5), x)
    assert {"layers.0.weight", "layers.0.weight.folded", "layers.0.weight.folded.1"} <= set(state.parameters)
    assert_same_numbers(imported, model, x)


def test_negative_variance_is_an_error_of_the_layer() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()
    model[1].running_var[2] = -1.0
    with pytest.raises(PatcError) as caught:
        fold(model, torch.randn(1, 3, 4, 4))
    expected = "expected finite weights after folding batch norm, got nan in channel 2"
    assert str(caught.value) == f"0: 'linalg.conv_2d_nchw_fchw' op {expected}"


def test_network_computes_the_same() -> None:
    model, x = models.resnet18_cifar(), torch.randn(1, 3, 16, 16)
    imported, state = fold(model, x)
    assert state.diagnostics == []
    assert_same_numbers(imported, model, x)
