"""The PyTorch front end: what is imported, where it says that ops come from, and what it rejects."""

from __future__ import annotations

import functools
import linecache
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gpu import needs_device
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize, prune
from torch_mlir import ir

import patc
from patc import models
from patc.codegen.reference import execute
from patc.context import make_context
from patc.diagnostics import PatcError, describe_location, layer_name, source_line
from patc.frontend import import_model
from patc.frontend import torch as frontend
from patc.frontend.rewrites import ConstantValues
from patc.frontend.torch import ImportedModel, TensorSpec
from patc.numerics import TORCH_TYPES

IMAGE = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)


class Model(nn.Module):
    """A model that is a function of its layers and inputs."""

    def __init__(self, forward: Callable[..., Any], *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.function = forward

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs, *self.layers)


class Block(nn.Module):
    """A residual block; two of its calls are on known lines."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))  # CONV
        return functional.relu(y + x)  # ADD


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(Block(), nn.MaxPool2d(2))
        self.head = nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.adaptive_avg_pool2d(self.features(x), 1)
        return self.head(x.flatten(1))


def line_of(comment: str) -> int:
    lines = Path(__file__).read_text().splitlines()
    return 1 + next(i for i, line in enumerate(lines) if line.endswith(f"# {comment}"))


def conv() -> nn.Conv2d:
    return nn.Conv2d(3, 4, 3)


def load(model: Any, *inputs: Tensor) -> ImportedModel:
    if isinstance(model, nn.Module):
        model.eval()
    return import_model(model, inputs or (IMAGE,), make_context())


def ops(imported: ImportedModel, *names: str) -> list[Any]:
    block = imported.module.body.operations[0].entry_block
    return [op.operation for op in block.operations if op.operation.name in names]


def error_of(model: Any, *inputs: Any) -> str:
    with pytest.raises(PatcError) as caught:
        load(model, *inputs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_same_numbers(model: nn.Module, *inputs: Tensor) -> ImportedModel:
    """Compare the imported module, run as it is, with the model in float64."""
    inputs = inputs or (IMAGE,)
    imported = load(model, *inputs)
    found = imported.structured(execute(imported.module, imported.parameters, [value.numpy() for value in inputs]))
    with torch.no_grad():
        expected = model.double()(*(value.double() for value in inputs))
    flat_found, structure = torch.utils._pytree.tree_flatten(found)
    flat_expected, expected_structure = torch.utils._pytree.tree_flatten(expected)
    assert structure == expected_structure
    for value, reference in zip(flat_found, flat_expected, strict=True):
        if not isinstance(reference, Tensor):
            assert value == reference
            continue
        scale = reference.abs().max().item()
        np.testing.assert_allclose(value, reference.numpy(), rtol=0, atol=1e-5 * scale)
    return imported


# What is imported.


def test_network_computes_the_same() -> None:
    imported = assert_same_numbers(Net())
    assert imported.inputs == (TensorSpec("x", (2, 3, 8, 8), "float32"),)
    assert [spec.shape for spec in imported.outputs] == [(2, 5)]
    assert set(imported.parameters) == {
        "features.0.conv.weight",
        *(f"features.0.norm.{name}" for name in ("weight", "bias", "running_mean", "running_var")),
        "head.weight",
        "head.bias",
    }


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 6, 3, stride=2, padding=1, dilation=2, groups=3),
        nn.Conv2d(3, 3, 3, groups=3),
        nn.Conv2d(3, 2, (1, 5), padding="same", bias=False),
        nn.Conv2d(3, 1, 1),
        nn.Sequential(nn.ZeroPad2d((1, 2, 0, 3)), conv()),
        nn.Sequential(nn.Dropout(), nn.Identity(), nn.ReLU6()),
        nn.Sequential(conv(), nn.Hardtanh(-0.5, 0.25)),
        nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        nn.AvgPool2d(3, 2, 1),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        nn.AvgPool2d(3, 2, ceil_mode=True),
        nn.BatchNorm2d(3),
        nn.AdaptiveAvgPool2d((4, 2)),
        nn.AdaptiveAvgPool2d(7),
        nn.AdaptiveMaxPool2d((2, 1)),
        nn.AdaptiveAvgPool2d(8),
        nn.Sequential(nn.Flatten(), nn.Linear(192, 4, bias=False), nn.ReLU(), nn.Linear(4, 2)),
    ],
)
def test_layers_compute_the_same(layer: nn.Module) -> None:
    assert_same_numbers(layer)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, layer: layer(x.mean((2, 3))),
        lambda x, layer: layer(x.mean((-1, -2), keepdim=True).squeeze(-1).squeeze(-1)),
        lambda x, layer: layer(functional.adaptive_avg_pool2d(x, 1).view(x.shape[0], -1)),
        lambda x, layer: layer(torch.clamp(x, min=0.25).mean((2, 3))),
    ],
)
def test_ways_to_pool_and_flatten_compute_the_same(function: Callable[..., Any]) -> None:
    assert_same_numbers(Model(function, nn.Linear(3, 4)))


def test_results_have_the_structure_of_the_model() -> None:
    model = Model(lambda x, layer: {"a": layer(x), "b": (x, None, [layer(x)]), "c": 3}, conv())
    imported = assert_same_numbers(model)
    assert imported.structured(["p", "q", "r"]) == {"a": "p", "b": ("q", None, ["r"]), "c": 3}


def test_several_inputs() -> None:
    imported = assert_same_numbers(Model(lambda x, y, layer: layer(x) + y, conv()), IMAGE, torch.ones(2, 4, 6, 6))
    assert [spec.shape for spec in imported.inputs] == [(2, 3, 8, 8), (2, 4, 6, 6)]


def test_parameters_share_the_models_memory() -> None:
    model = nn.Sequential(conv())
    array = load(model).parameters["0.weight"]
    assert array.ctypes.data == model[0].weight.data_ptr()


def test_weights_that_are_not_contiguous_are_copied() -> None:
    assert_same_numbers(conv().to(memory_format=torch.channels_last))


def test_a_scale_without_dimensions_stays_without() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = conv()
            self.register_buffer("scale", torch.tensor(1.5))

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) * self.scale

    imported = assert_same_numbers(Scaled())
    assert imported.parameters["scale"].shape == ()


def test_masks_of_torch_prune_are_applied() -> None:
    model = nn.Sequential(conv(), nn.ReLU())
    prune.l1_unstructured(model[0], "weight", amount=0.5)
    imported = assert_same_numbers(model)
    assert set(imported.parameters) == {"0.weight", "0.bias"}
    assert np.count_nonzero(imported.parameters["0.weight"]) == model[0].weight.numel() // 2


def test_parametrizations_are_evaluated() -> None:
    class Mask(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight * (weight > 0)

    layers = [parametrizations.weight_norm(conv()), nn.Flatten(), nn.Linear(144, 2)]
    parametrize.register_parametrization(layers[2], "weight", Mask())
    imported = assert_same_numbers(nn.Sequential(*layers).eval())
    assert set(imported.parameters) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert [op.attributes["name"].value for op in ops(imported, "pattern.parameter")] == list(imported.parameters)


def test_constants_in_forward_become_parameters_or_numbers() -> None:
    scale = torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(4, 1, 1)
    imported = assert_same_numbers(Model(lambda x, layer: layer(x) * scale.to(x.dtype) + torch.tensor(2), conv()))
    # An importer that knew no better would keep it as a resource of the text.
    assert "dense_resource" not in str(imported.module)
    assert len(imported.parameters) == 3


def test_constants_of_a_mask_are_gone_with_it() -> None:
    mask = torch.tensor([True, False, True, False]).reshape(4, 1, 1, 1)
    model = Model(lambda x, layer: functional.conv2d(x, layer.weight * mask.clone()), conv())
    imported = assert_same_numbers(model)
    assert set(imported.parameters) == {"weight"}
    assert not imported.parameters["weight"][1].any()


def test_an_exported_program_and_its_file_import_alike(tmp_path: Path) -> None:
    model = Net().eval()
    program = torch.export.export(model, (IMAGE,))
    torch.export.save(program, tmp_path / "net.pt2")
    expected = str(load(model).module)
    assert str(import_model(program, None, make_context()).module) == expected
    assert str(load(str(tmp_path / "net.pt2")).module) == expected
    assert list(program.graph_signature.output_specs)  # the caller's program is as it was


@pytest.mark.parametrize("name", ["resnet18_cifar", "vgg16", "mobilenet_v2"])
def test_networks_are_small_text(name: str) -> None:
    info = models.MODELS[name]
    imported = load(info.build(), torch.zeros(info.input_shape))
    text = imported.module.operation.get_asm(enable_debug_info=True)
    assert len(text) < 400_000
    assert "dense_resource" not in text and "torch." not in str(imported.module)


def test_patc_does_not_load_torch() -> None:
    code = "import sys, patc, patc.frontend; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# Locations.


def test_ops_name_their_layer_and_line() -> None:
    imported = load(Net())
    (convolution,) = ops(imported, "linalg.conv_2d_nchw_fchw")
    assert layer_name(convolution.location) == "features.0.conv"
    assert source_line(convolution.location) == f"{__file__}:{line_of('CONV')}"
    assert describe_location(convolution.location) == f"features.0.conv (test_frontend.py:{line_of('CONV')})"
    assert layer_name(ops(imported, "linalg.matmul")[0].location) == "head"
    assert layer_name(ops(imported, "linalg.pooling_nchw_max")[0].location) == "features.1"
    places = {describe_location(op.location) for op in ops(imported, "linalg.generic")}
    assert f"features.0 (test_frontend.py:{line_of('ADD')})" in places
    assert f"features.0.norm (test_frontend.py:{line_of('CONV')})" in places


def test_ops_of_modules_of_torch_alone_name_their_layer() -> None:
    (convolution,) = ops(load(nn.Sequential(conv(), nn.ReLU())), "linalg.conv_2d_nchw_fchw")
    assert describe_location(convolution.location) == "0"
    assert source_line(convolution.location) is None


def test_parameters_are_located_by_name() -> None:
    parameter = ops(load(Net()), "pattern.parameter")[0]
    assert describe_location(parameter.location) == parameter.attributes["name"].value


def test_describing_locations() -> None:
    with ir.Context():
        line = ir.Location.file("/src/net.py", 4, 0)
        text = ir.Location.file("x.mlir", 4, 7)
        layer = ir.Location.name("conv1", line)
        unknown = ir.Location.unknown()
        expected = {
            "": unknown,
            "/src/net.py:4": line,
            "x.mlir:4:7": text,
            "conv1 (net.py:4)": layer,
            "conv1.weight": ir.Location.name("conv1.weight"),
        }
        for words, location in expected.items():
            assert describe_location(location) == words
        for nested in (ir.Location.fused([unknown, text, layer]), ir.Location.callsite(layer, [text])):
            assert (describe_location(nested), layer_name(nested)) == ("conv1 (net.py:4)", "conv1")
            assert source_line(nested) == "/src/net.py:4"
        assert layer_name(text) is None and source_line(unknown) is None
    assert describe_location(None) == "" and describe_location("net.pt2") == "net.pt2"


# What is rejected.


def unsupported(model: nn.Module, *inputs: Tensor) -> str:
    message = error_of(model, *inputs)
    prefix = "model has operations patc cannot compile: "
    assert message.startswith(prefix)
    return message.removeprefix(prefix)


def test_all_unsupported_operations_are_listed() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = conv()

        def forward(self, x: Tensor) -> Any:
            x = self.conv(x)
            x = x + torch.rand_like(x)  # FIRST
            x = x + torch.rand_like(x)  # SECOND
            return torch.fft.fft(x).real  # THIRD

    first, second, third = (f"test_frontend.py:{line_of(name)}" for name in ("FIRST", "SECOND", "THIRD"))
    listed = f"aten.rand_like.default x2 ({first}, {second}), aten.fft_fft.default (complex64 result) x1 ({third})"
    assert unsupported(Mixed()) == listed


def test_operations_that_torch_mlir_does_not_know_are_listed() -> None:
    def medians(x: Tensor) -> Any:
        return x.median(1)[0], x.median(2)[0]

    found = unsupported(Model(medians))
    assert found.startswith("aten.median.dim x2 (")


def test_layers_stand_for_lines_that_are_not_there() -> None:
    assert unsupported(nn.Sequential(conv(), nn.RReLU().train())) == "aten.rrelu.default x1 (layer 1)"


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (Model(lambda x: torch.clamp(x, 0.0, float("nan"))), "aten.clamp.default (a bound that is NaN)"),
        (Model(lambda x: x + torch.rand(2, 3, 8, 8)), "aten.rand.default x1"),
        (
            Model(lambda x: torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y - 1, (x,))),
            "cond x1 (test_frontend.py:",
        ),
    ],
)
def test_unsupported_operations_say_why(model: nn.Module, expected: str) -> None:
    assert expected in unsupported(model)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: x.to(torch.float8_e5m2).float(), "aten.to.dtype (float8_e5m2 result) x1"),
        (lambda x: x * 1j, "aten.mul.Tensor (complex64 result) x1"),
        (lambda x: x[x > 0].sum(), "aten.index.Tensor (a shape that depends on values) x1"),
    ],
)
def test_results_of_other_types_are_named(function: Callable[..., Any], expected: str) -> None:
    assert unsupported(Model(function)).startswith(f"{expected} (test_frontend.py:")


COLUMN = (4, 1, 1)


@pytest.mark.parametrize(
    "constant",
    [
        torch.tensor(np.sqrt(2)),
        torch.tensor(3),
        torch.tensor(True),
        torch.tensor(1.1, dtype=torch.float16),
        torch.tensor(1.1, dtype=torch.bfloat16),
        torch.tensor([1, 2, 3, 5], dtype=torch.uint8).reshape(COLUMN),
        torch.tensor([True, False, True, True]).reshape(COLUMN),
        torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.bfloat16).reshape(COLUMN),
        np.float64(1.5),
        2**24 + 1,
        True,
    ],
    ids=str,
)
def test_constants_of_other_types_are_promoted(constant: Any) -> None:
    assert_same_numbers(Model(lambda x, layer: layer(x) * constant + constant, conv()))


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.int32])
def test_inputs_that_are_not_of_the_weights_element_type(kind: torch.dtype) -> None:
    assert error_of(conv(), IMAGE.to(kind)).startswith("torch cannot export the model: Input type (")


def test_inputs_of_unknown_element_types() -> None:
    expected = f"expected input 'input' to be one of {', '.join(TORCH_TYPES)}, found complex64"
    assert error_of(conv(), IMAGE.to(torch.complex64)) == expected


def test_parameters_of_other_element_types() -> None:
    assert_same_numbers(conv().double(), IMAGE.double())
    scaled = Model(lambda x, layer: layer(x) * layer.scale, conv())
    scaled.layers[0].register_buffer("scale", torch.arange(4).reshape(4, 1, 1))
    assert_same_numbers(scaled)


def test_example_inputs_of_other_kinds() -> None:
    with pytest.raises(PatcError, match="expected a tuple of example inputs, or a dict of them by name, found Tensor"):
        import_model(conv(), IMAGE, make_context())
    with pytest.raises(PatcError, match=r"expected example inputs for a torch\.nn\.Module, found none"):
        import_model(conv(), None, make_context())
    assert error_of(conv(), 3.0).startswith(
        "expected input 'input' to be a tensor, found float; compile a module whose"
    )


@pytest.mark.parametrize("model", [3, {"weight": IMAGE}, nn.Module])
def test_other_kinds_of_models(model: Any) -> None:
    expected = "expected a torch.nn.Module, a torch.export.ExportedProgram or the path of a .pt2 file, found "
    assert error_of(model) == expected + type(model).__name__


def test_training_mode() -> None:
    expected = "expected a model in eval mode, found {}; call model.eval()"
    with pytest.raises(PatcError) as caught:
        import_model(Net().train(), (IMAGE,), make_context())
    assert str(caught.value) == expected.format("training mode")
    net = Net().eval()
    net.features[0].norm.train()
    with pytest.raises(PatcError) as caught:
        import_model(net, (IMAGE,), make_context())
    assert str(caught.value) == expected.format("layer 'features.0.norm' in training mode")


def test_programs_exported_in_training_mode() -> None:
    program = torch.export.export(Net().train(), (IMAGE,))
    expected = "expected a program in eval mode, found one that updates buffer 'features.0.norm.running_mean'"
    assert error_of(program).startswith(expected)


def test_values_that_are_not_finite() -> None:
    model = nn.Sequential(conv())
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] = float("nan")
        model[0].weight[1, 0, 0, 0] = float("-inf")
    assert error_of(model) == "expected parameter '0.weight' to be finite, found 2 NaN or infinite values"


def test_values_that_are_not_there() -> None:
    model = nn.Conv2d(3, 4, 3, device="meta")
    assert error_of(model) == "expected parameter 'weight' to have values, found a tensor on the meta device"


def test_export_errors_name_layer_and_line() -> None:
    message = error_of(Net(), torch.ones(1, 4, 8, 8))
    place = f"features.0.conv (test_frontend.py:{line_of('CONV')})"
    assert message.startswith(f"{place}: torch cannot export the model: Given groups=1, weight of size")


def test_export_errors_of_the_users_code(capfd: pytest.CaptureFixture[str]) -> None:
    class Branch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x  # BRANCH

    expected = f"test_frontend.py:{line_of('BRANCH')}: torch cannot export the model: Could not guard on"
    assert error_of(Branch()).startswith(expected)
    assert error_of(conv(), IMAGE, IMAGE) == "torch cannot export the model: too many positional arguments"
    assert capfd.readouterr() == ("", "")


def test_errors_behind_the_check_of_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frontend, "check_operations", lambda graph, constants: None)
    branch = Model(lambda x: torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y - 1, (x,)))
    assert error_of(branch).startswith("torch-mlir cannot import the model: Higher-order operation 'cond'")


def test_all_operations_that_cannot_be_lowered_are_listed() -> None:
    class Pools(nn.Module):
        def forward(self, x: Tensor) -> Any:
            _, first = functional.max_pool3d(x, 2, return_indices=True)  # SMALL
            _, second = functional.max_pool3d(x, 3, return_indices=True)  # LARGE
            return first, functional.silu(x), second

    found = unsupported(Pools())
    assert found.startswith("aten.max_pool3d_with_indices x2 (")
    assert all(f"test_frontend.py:{line_of(name)}" in found for name in ("SMALL", "LARGE"))


@pytest.mark.parametrize("sizes", [(3, 5), (7, 9)])
def test_adaptive_maxima_of_unequal_windows(sizes: tuple[int, int]) -> None:
    assert_same_numbers(Model(lambda x: functional.adaptive_max_pool2d(x, sizes, return_indices=True)))


@pytest.mark.parametrize("kind", [torch.uint8, torch.int32, torch.bool])
def test_types_that_differ_become_one(kind: torch.dtype) -> None:
    def forward(x: Tensor) -> Any:
        other = (x.abs() * 100).clamp(0, 255).to(kind)
        return torch.cat([x, other], 1), torch.where(x > 0, x, other), torch.where(x > 0, other, 3.5)

    assert_same_numbers(Model(forward))


def test_what_is_not_finite_stays_in_its_windows() -> None:
    x = torch.randn(1, 2, 7, 5)
    x[0, 0, 1, 1] = torch.inf
    pool = nn.AdaptiveAvgPool2d((3, 2)).eval()
    found = patc.compile(pool, (x,), threads=1)(x)
    assert torch.equal(torch.isfinite(found), torch.isfinite(pool(x)))


def test_operations_that_torch_mlir_does_not_know_are_listed_together() -> None:
    message = error_of(Model(lambda x: torch.lgamma(x) + torch.mode(x, 1, keepdim=True)[0]))
    assert message.startswith("model has operations patc cannot compile: aten.lgamma x1 (")
    assert "aten.mode x1 (" in message


def test_errors_of_decomposition(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, table: Any) -> None:
        raise RuntimeError("no\nmore")

    monkeypatch.setattr(torch.export.ExportedProgram, "run_decompositions", fail)
    assert error_of(conv()) == "torch cannot decompose the model: no"


def test_outputs_of_other_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    def decompose(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
        program.graph_signature.output_specs[0].kind = torch.export.graph_signature.OutputKind.TOKEN
        return program

    monkeypatch.setattr(frontend, "_decompose", decompose)
    assert error_of(conv()).startswith("expected outputs to be tensors, found token")


def test_writing_to_an_input() -> None:
    expected = "expected a model that leaves its inputs alone, found one that writes to 'input'"
    assert error_of(nn.ReLU(inplace=True)) == expected


def test_models_without_outputs() -> None:
    expected = "expected a model that returns a tensor, found none among its outputs"
    assert error_of(Model(lambda x, layer: None, conv())).startswith(expected)


@pytest.mark.parametrize("target", ["host", pytest.param("spirv-vulkan", marks=needs_device)])
def test_outputs_that_are_not_computed(target: str) -> None:
    def forward(x: torch.Tensor, layer: nn.Module) -> tuple[torch.Tensor, ...]:
        return layer(x), layer.weight, 2 * layer.bias, torch.arange(3), x, x.flatten(1), layer.weight == layer.weight

    model = Model(forward, conv()).eval()
    torch.testing.assert_close(patc.compile(model, (IMAGE,), target=target)(IMAGE), model(IMAGE), rtol=1e-4, atol=1e-5)


def test_models_without_layers(tmp_path: Path) -> None:
    compiled = patc.compile(nn.Flatten().eval(), (IMAGE,))
    compiled.save(tmp_path / "flat.patc")
    for model in (compiled, patc.load(tmp_path / "flat.patc")):
        assert np.array_equal(model(IMAGE), IMAGE.flatten(1))
    with pytest.raises(patc.PatcError, match="expected a model that computes something, got one without layers"):
        patc.compile(nn.Flatten().eval(), (IMAGE,), target="spirv-vulkan")


def test_weights_of_float64() -> None:
    model, image = conv().double().eval(), IMAGE.double()
    torch.testing.assert_close(patc.compile(model, (image,))(image), model(image))


def test_programs_with_other_inputs() -> None:
    program = torch.export.export(conv().eval(), (IMAGE,))
    expected = "expected input 'input' 2x3x8x8 float32 as exported, found {}"
    assert error_of(program, IMAGE[:1]) == expected.format("1x3x8x8 float32")
    assert error_of(program, IMAGE.double()) == expected.format("2x3x8x8 float64")
    assert error_of(program, IMAGE, IMAGE) == "expected 1 example inputs, found 2"
    assert error_of(program, 3) == "expected input 'input' to be a tensor, found int"
    program = torch.export.export(Model(lambda x, k: x * k).eval(), (IMAGE, 2))
    assert error_of(program, IMAGE) == "expected inputs to be tensors, found a int (2)"


def test_programs_of_dynamic_shape() -> None:
    batch = {0: torch.export.Dim("batch", min=1, max=8)}
    program = torch.export.export(nn.Sequential(conv()).eval(), (IMAGE,), dynamic_shapes=(batch,))
    message = error_of(program)
    assert message.startswith("expected static shapes, found 'input' of shape s")
    assert message.endswith("x3x8x8; export with static shapes")


def test_files_that_are_no_programs(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(conv().eval(), (IMAGE,)), tmp_path / "whole.pt2")
    data = (tmp_path / "whole.pt2").read_bytes()
    (tmp_path / "half.pt2").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty.pt2").touch()
    for name in ("half", "empty"):
        message = error_of(str(tmp_path / f"{name}.pt2"))
        assert message.startswith(f"{tmp_path / name}.pt2: expected a .pt2 file")
        assert message.endswith("found damaged data or another format")


def test_paths_of_other_things(tmp_path: Path) -> None:
    (tmp_path / "net.pth").touch()
    expected = "expected a .pt2 file, found"
    assert error_of(tmp_path / "no.pt2") == f"{tmp_path / 'no.pt2'}: {expected} no such file"
    assert error_of(tmp_path) == f"{tmp_path}: {expected} a folder"
    assert error_of(tmp_path / "net.pth") == f"{tmp_path / 'net.pth'}: {expected} one named '.pth'"


# Tensors and modules of other kinds.


def with_weight(weight: Tensor) -> nn.Module:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)).eval()
    net[0].weight = nn.Parameter(weight, requires_grad=False)
    return net


def with_buffer(buffer: Tensor) -> nn.Module:
    net = Model(lambda x, layer: layer(x) * layer.scale, conv()).eval()
    net.layers[0].register_buffer("scale", buffer)
    return net


COMPLEX = torch.randn(4, 3, 3, 3, dtype=torch.complex64, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    "model",
    [
        with_weight(COMPLEX.conj().imag),
        with_weight(COMPLEX.conj().real),
        with_weight(torch._neg_view(COMPLEX.real.clone())),
        with_weight(COMPLEX.real[:1].expand(4, 3, 3, 3)),
        with_weight(COMPLEX.real.permute(0, 1, 3, 2)),
        with_weight(COMPLEX.real.to(memory_format=torch.channels_last)),
        with_buffer(torch._neg_view(torch.tensor(2.0))),
        with_buffer(torch._neg_view(torch.full((4, 1, 1), 2.0))),
    ],
)
@pytest.mark.parametrize("exported", [False, True])
def test_weights_that_are_views(model: nn.Module, exported: bool) -> None:
    with torch.no_grad():
        expected = model(IMAGE)
    imported = load(torch.export.export(model, (IMAGE,)) if exported else model)
    found = imported.structured(execute(imported.module, imported.parameters, [IMAGE.numpy()]))
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-5)


def test_weights_made_in_inference_mode() -> None:
    with torch.inference_mode():
        net = Net().eval()
        state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    assert next(net.parameters()).is_inference()
    imported = load(net)
    assert next(net.parameters()).is_inference()
    np.testing.assert_array_equal(imported.parameters["head.weight"], state["head.weight"].numpy())
    with torch.inference_mode():
        assert str(load(Net()).module) == str(imported.module)
        program = torch.export.export(Net().eval(), (IMAGE,))
    assert error_of(program).startswith("expected parameter 'features.0.conv.weight' of normal use, found one made in")


def test_modules_of_exported_programs() -> None:
    program = torch.export.export(Net().eval(), (IMAGE,))
    wanted = load(program)
    for model in (program.module(), program.run_decompositions().module()):
        assert model.training  # and it cannot be told otherwise
        found = import_model(model, (IMAGE,), make_context())
        for name in ("features.0.conv.weight", "head.bias"):
            np.testing.assert_array_equal(found.parameters[name], wanted.parameters[name])
    program = torch.export.export(Net().train(), (IMAGE,))
    with pytest.raises(
        PatcError, match=r"found one that updates buffer '.*'; call model\.eval\(\) before torch\.export"
    ):
        import_model(program.module(), (IMAGE,), make_context())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript() -> None:
    expected = "expected a torch.nn.Module that is no TorchScript, found {}; compile the module that it was made of"
    assert error_of(torch.jit.trace(conv().eval(), IMAGE)) == expected.format("one")
    assert error_of(torch.jit.script(conv().eval())) == expected.format("one")
    net = nn.Sequential(conv(), torch.jit.script(nn.ReLU())).eval()
    assert error_of(net) == expected.format("layer '1' to be one")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_weights_that_are_no_numbers_in_memory() -> None:
    expected = "expected parameter '0.weight' to "
    assert error_of(with_weight(COMPLEX.real.to_sparse())).startswith(
        expected + "be dense, found a tensor of layout sparse_coo; call to_dense()"
    )
    assert error_of(with_weight(COMPLEX.real.to("meta"))) == expected + "have values, found a tensor on the meta device"
    with FakeTensorMode():
        fake = with_weight(torch.zeros(4, 3, 3, 3))
    assert error_of(fake) == expected + "have values, found a fake tensor"
    lazy = nn.Sequential(nn.LazyConv2d(4, 3)).eval()
    assert error_of(lazy) == expected + "have a shape, found a lazy one; call the model once"
    quantized = with_buffer(torch.quantize_per_tensor(torch.ones(4, 1, 1), 1.0, 0, torch.qint8))
    assert error_of(quantized) == "expected buffer 'layers.0.scale' to be float32, found qint8; call dequantize()"


def test_programs_whose_weights_were_replaced() -> None:
    program = torch.export.export(nn.Sequential(conv()).eval(), (IMAGE,))
    weight = program.state_dict["0.weight"]
    for other, expected in (
        (torch.zeros(4, 3, 5, 5), "of shape [4, 3, 3, 3] as exported, found one of shape [4, 3, 5, 5]"),
        (weight.detach().to_sparse(), "to be dense, found a tensor of layout sparse_coo; call to_dense()"),
        (None, "in the program, found none"),
    ):
        program.state_dict["0.weight"] = other
        assert error_of(program) == f"expected parameter '0.weight' {expected}"


def test_constants_of_any_size_take_no_memory() -> None:
    net = Model(lambda x, layer: layer(x) * torch.full((1 << 36,), 1.0).sum(), conv()).eval()
    message = error_of(net)
    assert message.startswith("expected at most 1.1 GB of constants, for these weights, found aten.")
    assert message.endswith(" of 274.9 GB more")


def test_constants_take_memory_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patc.frontend.rewrites._LEAST_ROOM", 10_000)
    net = Model(lambda x, layer: layer(x) + sum(torch.full((1 << 10,), float(i)).sum() for i in range(3)), conv())
    assert "GB of constants, for these weights, found aten." in error_of(net.eval())


def test_constants_of_many_steps() -> None:
    """More of them than Python has room for on its stack."""
    program = torch.export.export(conv().eval(), (IMAGE,))
    node = next(iter(program.graph.find_nodes(op="placeholder")))
    with program.graph.inserting_after(node):
        last = functools.reduce(
            lambda value, _: program.graph.call_function(torch.ops.aten.neg.default, (value,)), range(2000), node
        )
    torch.testing.assert_close(ConstantValues(program)[last], program.state_dict["weight"].detach())


def test_example_inputs_without_values() -> None:
    net = conv().eval()
    assert error_of(net, IMAGE.to("meta")) == "expected input 'input' to have values, found a tensor on the meta device"
    assert error_of(net, IMAGE.to_sparse()).startswith("expected input 'input' to be dense, found a tensor of layout")
    assert error_of(net, torch.nested.as_nested_tensor([IMAGE[0]])) == (
        "expected input 'input' to be one tensor, found a nested one"
    )


def test_nothing_of_an_import_is_kept() -> None:
    """torch keeps the text of every graph that it makes."""
    model, inputs = Net().eval(), (IMAGE,)
    import_model(model, inputs, make_context())
    before = set(linecache.cache)
    import_model(model, inputs, make_context())
    assert set(linecache.cache) <= before
