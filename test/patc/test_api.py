"""`patc.compile`: numbers against PyTorch in float64, accepted models, and errors. Calls and files: runtime/test_runtime.py."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import warnings
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import assert_close, torch_results
from large import needs_large
from repository import ROOT
from torch import nn

import patc
from patc import compiler, models, pruning
from patc.backends.host import available_threads
from patc.codegen import host
from patc.compiler import host_pipeline, lower_model
from patc.diagnostics import PatcError
from patc.mlir_files import write_module
from patc.runtime.model import CompiledModel
from patc.targets import TARGETS, get_target

# What is promised for float32, relative to the largest output.
ERROR_BOUND = 1e-4
SHAPE = (1, 3, 8, 8)


class Spectrum(nn.Module):
    """What patc cannot compile: complex numbers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fft.fft(x).real


def random_input(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# -- Numbers -----------------------------------------------------------------------------------------


@functools.cache
def network(name: str, compression: float) -> tuple[nn.Module, torch.Tensor, list[np.ndarray]]:
    """Return a network of `patc.models`, an input, and what PyTorch computes in float64."""
    model = models.build(name)
    if compression > 1:
        pointwise = "groups" if name == "mobilenet_v2" else "dense"
        pruning.prune_(model, pruning.PatternSpec.for_compression(compression, pointwise=pointwise))
    x = random_input(models.MODELS[name].input_shape)
    # Two threads of torch wait for each other for most of a minute when another process has one of two cores.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    wanted = torch_results(model, (x,))
    torch.set_num_threads(threads)
    return model, x, wanted


@functools.cache
def compiled_network(name: str, compression: float, threads: int) -> CompiledModel:
    model, x, _ = network(name, compression)
    return patc.compile(model, (x,), threads=threads)


@pytest.mark.parametrize(
    ("name", "compression", "threads"),
    [
        ("resnet18_cifar", 1, 1),
        pytest.param("resnet18_cifar", 8, 1, marks=needs_large),
        ("resnet18_cifar", 8, 2),
        pytest.param("vgg16_cifar", 1, 2, marks=needs_large),
        ("vgg16_cifar", 8, 1),
        ("mobilenet_v2", 8, 2),
        ("resnet18", 8, 2),
    ],
)
def test_networks_compute_what_pytorch_computes(name: str, compression: float, threads: int) -> None:
    _, x, wanted = network(name, compression)
    compiled = compiled_network(name, compression, threads)
    assert_close([compiled(x).numpy()], wanted, ERROR_BOUND)
    sparse = [layer for layer in compiled.layers if layer.op == "sparse_conv2d"]
    assert bool(sparse) == (compression > 1)


@pytest.mark.parametrize("target", sorted(TARGETS))
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_targets_and_threads_compute_the_same(target: str, threads: int) -> None:
    from patc.targets import host_features

    if not host_features().issuperset(TARGETS[target].features):
        pytest.skip(f"this CPU is no {target}")
    model = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 5, 1)).eval()
    x = random_input((2, 3, 9, 9))
    compiled = patc.compile(model, (x,), target=target, threads=threads)
    assert_close([compiled(x).numpy()], torch_results(model, (x,)), ERROR_BOUND)


@pytest.mark.parametrize("name", ["host", *sorted(TARGETS)])
def test_functions_name_the_cpu_that_they_are_for(name: str) -> None:
    """The code generator uses all that the CPU at hand has in functions that do not say otherwise."""
    target = get_target(name)
    module, _ = lower_model(nn.Conv2d(3, 4, 1).eval(), (random_input(),), host_pipeline(target, 1))
    host.lower_to_llvm(module, target)
    functions = [op for op in module.body.operations if op.operation.name == "llvm.func" and op.regions[0].blocks]
    assert len(functions) > 2
    for function in functions:
        assert ("target_cpu" in function.attributes) == ("target_features" in function.attributes) == (name != "host")
        features = str(function.attributes["target_features"]) if name != "host" else ""
        assert all(f'"+{feature}"' in features for feature in target.features if name != "host")
        assert ("avx512f" in features) == (name == "x86-64-v4")


def test_the_model_stays_as_it_is_and_later_changes_do_not_count() -> None:
    model = nn.Conv2d(3, 4, 3).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    x = random_input()
    compiled = patc.compile(model, (x,), threads=1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    y = compiled(x)
    with torch.no_grad():
        model.weight.zero_()
    assert torch.equal(compiled(x), y)


def test_weights_without_patterns_stay_dense_with_a_remark() -> None:
    compiled = patc.compile(nn.Conv2d(3, 4, 3).eval(), (random_input(),), threads=1)
    assert [layer.op for layer in compiled.layers if layer.weights] == ["conv2d"]
    (remark,) = compiled.diagnostics
    assert remark.severity == "remark" and "stays dense" in remark.message


# -- Layers and saved sizes --------------------------------------------------------------------------


def test_layers_say_what_they_are() -> None:
    layers = compiled_network("resnet18", 8, 2).layers
    by_name = {layer.name: layer for layer in layers if layer.weights}
    layer = by_name["layer3.0.conv2"]
    assert (layer.op, layer.shape, layer.kernel, layer.strides) == ("sparse_conv2d", (1, 256, 14, 14), (3, 3), (1, 1))
    assert layer.weights == 256 * 256 * 9 and 8 < layer.weights / layer.kept_weights < 10
    assert layer.flops == 2 * layer.kept_weights * 14 * 14
    assert layer.algorithm == "input-stationary" and layer.explanation and layer.predicted_cycles > 0
    assert Path(layer.source.rpartition(":")[0]).name == "models.py"


def test_saved_files_hold_kept_weights_only(tmp_path: Path) -> None:
    compiled = compiled_network("resnet18", 8, 2)
    compiled.save(tmp_path / "resnet18.patc")
    kept = sum(4 * layer.kept_weights for layer in compiled.layers if layer.op == "sparse_conv2d")
    dense = sum(4 * (layer.kept_weights + layer.shape[1]) for layer in compiled.layers if layer.op != "sparse_conv2d")
    # Values, indices of at most 16 % of the values' bytes, and dense layers, within 10 %.
    assert (tmp_path / "resnet18.patc").stat().st_size < 1.1 * (1.16 * kept + dense)


def test_equal_models_give_equal_files(tmp_path: Path) -> None:
    """In another process too, where sets and dictionaries have other orders."""
    program = """
import torch, patc
from patc import models, pruning
model = torch.nn.Sequential(*list(models.resnet18_cifar().children())[:5]).eval()
pruning.prune_(model, pruning.PatternSpec(connectivity=4))
patc.compile(model, (torch.zeros(1, 3, 16, 16),), threads=2).save(PATH)
"""
    there = program.replace("PATH", repr(str(tmp_path / "there")))
    subprocess.run([sys.executable, "-c", there], check=True, env={**os.environ, "PYTHONHASHSEED": "1"})
    exec(program, {"PATH": tmp_path / "here"})
    assert (tmp_path / "here").read_bytes() == (tmp_path / "there").read_bytes()


def test_files_do_not_depend_on_the_folder_of_the_code(tmp_path: Path) -> None:
    program = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        torch.nn.init.constant_(self.conv.weight, 0.5)
        torch.nn.init.zeros_(self.conv.bias)

    def forward(self, x):
        return self.conv(x)
"""
    found = []
    for folder in ("a", "another"):
        names: dict[str, Any] = {"__name__": "net"}
        exec(compile(program, str(tmp_path / folder / "net.py"), "exec"), names)
        compiled = patc.compile(names["Net"]().eval(), (torch.zeros(1, 3, 8, 8),))
        compiled.save(tmp_path / f"{folder}.patc")
        found.append((tmp_path / f"{folder}.patc").read_bytes())
        assert "net.py:12" in {layer.source for layer in compiled.layers}
    assert found[0] == found[1]


# -- Structure of outputs ----------------------------------------------------------------------------

Scores = namedtuple("Scores", ["first", "second"])


class Structured(nn.Module):
    """A convolution whose result is put into a container."""

    def __init__(self, wrap: Callable[[torch.Tensor, torch.Tensor], Any]) -> None:
        super().__init__()
        self.conv, self.wrap = nn.Conv2d(3, 4, 3), wrap

    def forward(self, x: torch.Tensor) -> Any:
        y = self.conv(x)
        return self.wrap(y, torch.relu(y))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda a, b: a,
        lambda a, b: (a,),
        lambda a, b: (a, b),
        lambda a, b: [b, a],
        lambda a, b: [a, a],
        lambda a, b: {"a": a, 1: [b], None: (a, b)},
        lambda a, b: {"a": a, "count": 3, "text": "x", "nothing": None, "pair": (True, 0.5)},
        lambda a, b: OrderedDict(b=b, a=a),
        lambda a, b: Scores(a, [b]),
        lambda a, b: (a, (), {}),
    ],
)
def test_outputs_have_the_structure_of_the_model(wrap: Any, tmp_path: Path) -> None:
    from torch.utils import _pytree as pytree

    model = Structured(wrap).eval()
    x = random_input()
    compiled = patc.compile(model, (x,), threads=1)
    compiled.save(tmp_path / "model.patc")
    with torch.no_grad():
        wanted = model(x)
    for result in (compiled(x), patc.load(tmp_path / "model.patc")(x)):
        require_equal(result, wanted)
    leaves = pytree.tree_leaves(compiled(x.numpy()))
    assert not any(isinstance(leaf, torch.Tensor) for leaf in leaves)


def require_equal(found: Any, wanted: Any) -> None:
    if isinstance(wanted, torch.Tensor):
        torch.testing.assert_close(found, wanted)
    elif isinstance(wanted, dict):
        assert isinstance(found, dict) and list(found) == list(wanted)
        for key in wanted:
            require_equal(found[key], wanted[key])
    elif isinstance(wanted, (tuple, list)):
        assert isinstance(found, tuple) == isinstance(wanted, tuple) and len(found) == len(wanted)
        assert getattr(found, "_fields", None) == getattr(wanted, "_fields", None)
        for one, other in zip(found, wanted, strict=True):
            require_equal(one, other)
    else:
        assert found == wanted and type(found) is type(wanted)


@dataclass
class Opaque:
    """A container that no saved file can hold."""

    value: Any


def test_refuses_other_containers() -> None:
    from torch.utils import _pytree as pytree

    pytree.register_dataclass(Opaque)
    with pytest.raises(PatcError) as caught:
        patc.compile(Structured(lambda a, b: Opaque(a)).eval(), (random_input(),))
    assert str(caught.value) == "expected a model that returns tensors in tuples, lists and dicts, got Opaque"


class Sum(nn.Module):
    """Two inputs, and a third one that is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return self.conv(a) + b


def test_several_inputs_keep_their_order() -> None:
    model, inputs = Sum().eval(), (random_input(), random_input((1, 4, 8, 8)), random_input((2, 5)))
    compiled = patc.compile(model, inputs, threads=1)
    assert [info.name for info in compiled.program.inputs] == ["a", "b", "c"]
    assert_close([compiled(*inputs).numpy()], torch_results(model, inputs), ERROR_BOUND)


# -- Kinds of models ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
    pruning.prune_(model, pruning.PatternSpec(connectivity=2))
    return model


def test_exported_programs_and_their_files(small: nn.Module, tmp_path: Path) -> None:
    x = random_input()
    program = torch.export.export(small, (x,))
    torch.export.save(program, tmp_path / "small.pt2")
    wanted = patc.compile(small, (x,), threads=1)(x)
    for model in (program, tmp_path / "small.pt2", str(tmp_path / "small.pt2")):
        assert torch.equal(patc.compile(model, threads=1)(x), wanted)
    assert torch.equal(patc.compile(program, (x,), threads=1)(x), wanted)


@pytest.mark.parametrize("stage", ["linalg", "fold-batch-norm", "raise", "encode", "reorder", "layout", "schedule"])
def test_mlir_files_of_every_stage_with_tensors(small: nn.Module, tmp_path: Path, stage: str) -> None:
    x = random_input()
    module, state = lower_model(small, (x,), host_pipeline("host", 1).until(stage))
    write_module(module, state.parameters, tmp_path / "small.mlir")
    compiled = patc.compile(tmp_path / "small.mlir", (x,), threads=1)
    assert_close([compiled(x).numpy()], torch_results(small, (x,)), ERROR_BOUND)
    assert [info.name for info in compiled.program.inputs] == ["arg0"]


def test_mlir_file_with_two_results(tmp_path: Path) -> None:
    path = tmp_path / "two.mlir"
    path.write_text("""
func.func @main(%x: tensor<1x2x4x4xf32>) -> (tensor<1x2x4x4xf32>, tensor<1x2x2x2xf32>) {
  %a = "pattern.activate"(%x) {activation = "relu"} : (tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
  %b = "pattern.max_pool2d"(%x) {kernel = array<i64: 2, 2>, strides = array<i64: 2, 2>,
    pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>} : (tensor<1x2x4x4xf32>) -> tensor<1x2x2x2xf32>
  return %a, %b : tensor<1x2x4x4xf32>, tensor<1x2x2x2xf32>
}
""")
    x = random_input((1, 2, 4, 4))
    relu, pooled = patc.compile(path, threads=1)(x)
    assert torch.equal(relu, x.relu()) and torch.equal(pooled, nn.functional.max_pool2d(x, 2))


def mlir_error(path: Path, text: str, *inputs: torch.Tensor) -> str:
    path.write_text(text)
    with pytest.raises(PatcError) as caught:
        patc.compile(path, inputs or None)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(str(path))
    return message.removeprefix(str(path))


def test_refuses_other_mlir_files(tmp_path: Path) -> None:
    path = tmp_path / "model.mlir"
    found = mlir_error(path, "func.func @f(%x: tensor<4xf32>) -> tensor<4xf32> { return %x : tensor<4xf32> }")
    assert found == ": expected a function @main with a body, got none"
    found = mlir_error(path, "func.func private @main(tensor<4xf32>) -> tensor<4xf32>")
    assert found == ": expected a function @main with a body, got none"
    found = mlir_error(path, "func.func @main(%x: memref<4xf32>) { return }")
    expected = (
        ":1:1: expected @main to take and return tensors of static shape, of f64, f32, f16, bf16, i64, i32, i16, i8, i1"
    )
    assert found == f"{expected}, got memref<4xf32>"
    found = mlir_error(path, "func.func @main(%x: tensor<4xui8>) -> tensor<4xui8> { return %x : tensor<4xui8> }")
    assert found == f"{expected}, got tensor<4xui8>"
    found = mlir_error(path, "func.func @main(%x: tensor<4xf32>) { return }")
    assert found == ":1:1: expected @main to return tensors, got nothing"
    found = mlir_error(path, "func.func @main(")
    assert found.startswith(":1:16: ")


def test_mlir_files_refuse_example_inputs_of_other_shapes(tmp_path: Path) -> None:
    path = tmp_path / "model.mlir"
    path.write_text("func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> { return %x : tensor<4xf32> }")
    with pytest.raises(PatcError) as caught:
        patc.compile(path, (torch.zeros(5),))
    message = "expected example inputs like those of @main ('arg0' of shape [4] float32), got shapes [[5]]"
    assert str(caught.value) == message


# -- Options and errors ------------------------------------------------------------------------------


def test_reports_each_step_once_and_in_order() -> None:
    steps: list[tuple[str, int, int]] = []
    patc.compile(nn.ReLU().eval(), (random_input(),), report=lambda *step: steps.append(step))
    names, numbers, totals = zip(*steps, strict=True)
    assert names[0] == "import" and names[-1] == "codegen" and "pattern-schedule" in names
    assert list(numbers) == list(range(len(steps))) and set(totals) == {len(steps)}


def test_uses_the_cores_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert available_threads() == 3
    assert patc.compile(nn.ReLU().eval(), (random_input(),)).program.threads == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert available_threads() == os.cpu_count()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": 0}, "expected threads of 1 or more, got 0"),
        ({"threads": -1}, "expected threads of 1 or more, got -1"),
        ({"threads": 1.5}, "expected threads of 1 or more, got 1.5"),
        ({"threads": True}, "expected threads of 1 or more, got True"),
        ({"threads": 1025}, "expected at most 1024 threads, got 1025"),
        ({"tune": "fast"}, "expected tune to be one of off, cost, measure, got 'fast'"),
        ({"tune": "measure", "target": "x86-64-v3"}, "expected target 'host' together with tune 'measure', got 'x86-64-v3'"),
        ({"target": "x86-64-v5"}, "expected a target of host, x86-64-v3, x86-64-v4, aarch64-linux, aarch64-android, spirv-vulkan, spirv-vulkan:dotprod, got 'x86-64-v5'; did you mean 'x86-64-v4'?"),
        ({"target": "spirv-vulkan", "threads": 2}, "expected no threads together with target 'spirv-vulkan', got 2"),
        ({"target": "spirv-vulkan", "tune": "measure"}, "expected target 'host' together with tune 'measure', got 'spirv-vulkan'"),
        ({"target": replace(TARGETS["x86-64-v3"], cpu="zen9")}, "target 'x86-64-v3' expected a CPU and features that LLVM knows, got 'zen9'"),
    ],
)  # fmt: skip
def test_refuses_options_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PatcError) as caught:
        patc.compile(nn.ReLU().eval(), (random_input(),), **options)
    assert str(caught.value) == message


def nan_weights() -> nn.Module:
    model = nn.Conv2d(3, 4, 3)
    with torch.no_grad():
        model.weight[0, 0, 0, 0] = float("nan")
    return model


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        (3, (random_input(),), "expected a torch.nn.Module, .*, found int"),
        (nn.Conv2d(3, 4, 3), None, "expected example inputs for a torch.nn.Module, found none"),
        (nn.Conv2d(3, 4, 3), random_input(), "expected a tuple of example inputs, or a dict of them by name, found Tensor"),
        (nn.Conv2d(3, 4, 3), (random_input().double(),), "torch cannot export the model: Input type"),
        (nn.Conv2d(3, 4, 3), (np.zeros(SHAPE, np.float32),), "expected input 'input' to be a tensor, found ndarray"),
        (nn.Conv2d(5, 4, 3), (random_input(),), "torch cannot export the model: .*expected input.* 5 channels"),
        (nn.Conv2d(3, 4, 3), (random_input((0, 3, 8, 8)),), r"expected tensors with elements, got 'input' of shape \[0, "),
        (nan_weights(), (random_input(),), "expected parameter 'weight' to be finite, found 1 NaN or infinite values"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), Spectrum()), (random_input(),), "operations patc cannot compile: aten.fft_fft.default .complex64 result. x1"),
        ("none.onnx", None, "none.onnx: expected an .onnx file, found no such file"),
        ("none.pt2", None, "none.pt2: expected a .pt2 file, found no such file"),
        ("none.mlir", None, "none.mlir: expected an MLIR file, found none"),
    ],
)  # fmt: skip
def test_refuses_models_in_one_line(model: Any, inputs: Any, message: str) -> None:
    if isinstance(model, nn.Module):
        model.eval()
    with pytest.raises(PatcError, match=message) as caught:
        patc.compile(model, inputs)
    assert "\n" not in str(caught.value)


def test_refuses_models_in_training_mode() -> None:
    with pytest.raises(PatcError, match="expected a model in eval mode, found training mode"):
        patc.compile(nn.Conv2d(3, 4, 3), (random_input(),))


# -- torch.compile -----------------------------------------------------------------------------------


@pytest.fixture
def fresh_dynamo() -> Any:
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch._dynamo.reset()


def test_backend_is_registered() -> None:
    assert "patc" in torch.compiler.list_backends()


@pytest.mark.usefixtures("fresh_dynamo")
def test_torch_compile_computes_what_eager_computes() -> None:
    model, x, wanted = network("resnet18_cifar", 8)
    compiled = torch.compile(model, backend="patc", options={"threads": 2})
    with torch.no_grad():
        y = compiled(x)
    assert not y.requires_grad
    assert_close([y.numpy()], wanted, ERROR_BOUND)


class Branches(nn.Module):
    """Two inputs, and outputs in a dict; a buffer takes part."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.norm(self.conv(a))
        return {"sum": torch.relu(y + b), "y": y}


@pytest.mark.usefixtures("fresh_dynamo")
def test_torch_compile_follows_shapes_and_weights() -> None:
    model = Branches().eval()
    compiled = torch.compile(model, backend="patc")

    def require_same(batch: int) -> None:
        a, b = random_input((batch, 3, 8, 8)), random_input((batch, 4, 8, 8))
        with torch.no_grad():
            require_equal(compiled(a, b), model(a, b))

    for batch in (1, 2, 3, 1):
        require_same(batch)
    with torch.no_grad():
        model.conv.weight.mul_(2)
    require_same(1)
    model.norm.running_mean.add_(1)
    require_same(2)
    model.conv.weight = nn.Parameter(model.conv.weight.detach() / 2)
    require_same(3)


@pytest.mark.usefixtures("fresh_dynamo")
def test_torch_compile_names_layers_as_the_model_does(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []
    compile_model = compiler.compile_model

    def spy(*arguments: Any, **options: Any) -> CompiledModel:
        compiled = compile_model(*arguments, **options)
        found.extend(layer.name for layer in compiled.layers if layer.weights)
        return compiled

    monkeypatch.setattr(compiler, "compile_model", spy)
    model = nn.Sequential(
        OrderedDict(head=nn.Conv2d(3, 4, 1), tail=nn.Sequential(nn.ReLU(), nn.Conv2d(4, 2, 1)))
    ).eval()
    torch.compile(model, backend="patc")(random_input())
    assert found == ["head", "tail.1"]


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"options": {"speed": 3}}, "expected options of target, threads, tune, dtype, freeze, got 'speed'"),
        ({"options": {"threads": 0}}, "expected threads of 1 or more, got 0"),
        ({"mode": "max-autotune"}, "expected no mode for backend 'patc', got 'max-autotune'"),
    ],
)
def test_torch_compile_reports_errors(options: dict[str, Any], message: str) -> None:
    model = nn.Conv2d(3, 4, 3).eval()
    with pytest.raises(Exception, match=message):
        torch.compile(model, backend="patc", **options)(random_input())


class _ActivationsOfRank2(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.fc = torch.nn.Linear(8 * 7 * 7, 13)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = torch.relu(self.conv(x).flatten(1))
        return features, torch.nn.functional.relu6(self.fc(features))


@pytest.mark.parametrize(("images", "threads"), [(1, 1), (3, 2)])
def test_activations_of_rank_2(images: int, threads: int) -> None:
    model, x = _ActivationsOfRank2().eval(), torch.randn(images, 3, 7, 7)
    with torch.no_grad():
        expected = model(x)
    for made, wanted in zip(patc.compile(model, (x,), threads=threads)(x), expected, strict=True):
        torch.testing.assert_close(made, wanted, rtol=1e-5, atol=1e-6)


def test_dir_shows_the_interface_before_anything_is_loaded() -> None:
    code = "import patc, sys; print(*dir(patc)); print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert {"compile", "load", "models", "pruning", "run_module"} <= set(found[0].split())
    assert found[1] == "False"


def test_graphs_that_torch_made_are_compiled_without_a_warning() -> None:
    code = """
import torch, patc
net, x = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)).eval(), torch.zeros(1, 3, 8, 8)
patc.compile(torch.export.export(net, (x,)).module(), (x,))
patc.compile(torch.fx.symbolic_trace(net), (x,))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")


def test_documented_modules_are_there_after_one_import() -> None:
    named = set(re.findall(r"auto\w+:: patc\.([a-z]\w+)", (ROOT / "docs" / "reference_python.md").read_text()))
    code = f"import patc; print(*(hasattr(patc, name) for name in {sorted(named)}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {*found} == {"True"} and {"library", "models", "pruning", "robust", "search"} <= named
