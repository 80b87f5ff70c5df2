"""`patc.run_module`: the IR of every stage can be written, read and entered again; and backends from outside."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from emulated import needs_arm
from gpu import needs_device
from helpers import assert_close, torch_results
from torch import nn

import patc
from patc.backends import registry
from patc.backends.host import HostBackend
from patc.compiler import host_pipeline, lower_model
from patc.diagnostics import PatcError
from patc.execution import compile_module
from patc.mlir_files import write_module
from patc.passes.ir.modules import clone_module
from patc.runtime.native_model import NativeModel
from patc.targets import X86_64_V3, host

SHAPE = (1, 3, 6, 8)
CASES = [
    pytest.param("host", 2, id="host"),
    pytest.param("aarch64-linux", 1, id="aarch64", marks=needs_arm),
    pytest.param("spirv-vulkan", None, id="vulkan", marks=needs_device),
]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.scores = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = torch.relu(self.conv(x))
        return self.scores(features.mean((2, 3))), features


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("target", "threads"), CASES)
def test_every_stage_can_be_written_and_entered_again(
    net: Net, x: torch.Tensor, tmp_path: Path, target: str, threads: int | None
) -> None:
    pipeline = host_pipeline(target, threads)
    path = tmp_path / "net.mlir"
    for stage in pipeline.stages:
        module, state = lower_model(net, (x,), pipeline.until(stage))
        write_module(module, state.parameters, path)
        target_of_linalg = target if stage == "linalg" else None  # what no pass has seen names none
        found = patc.run_module(path, inputs=[x.numpy()], target=target_of_linalg, threads=threads)
        assert_close(found, torch_results(net, (x,)))


def test_what_is_edited_is_what_runs(net: Net, x: torch.Tensor) -> None:
    module, state = lower_model(net, (x,), host_pipeline("host", 1).until("schedule"))
    text = str(module)
    assert 'activation = "relu"' in text
    _, features = patc.run_module(text.replace('activation = "relu"', 'activation = "none"'), state.parameters, [x])
    assert_close([features], [net.conv(x).detach().numpy()])


def test_module_and_parameters_stay_as_they_are(net: Net, x: torch.Tensor) -> None:
    module, state = lower_model(net, (x,), host_pipeline("host", 1).until("encode"))
    text, copy, names = str(module), state.clone(), set(state.parameters)
    patc.run_module(module, state.parameters, [x.numpy()], stage="encode")
    assert str(module) == text == str(clone_module(module)) and set(state.parameters) == names == set(copy.parameters)


def test_errors_are_one_line(net: Net, x: torch.Tensor) -> None:
    module, state = lower_model(net, (x,), host_pipeline("host", 1).until("raise"))
    for arguments, wanted in (
        (("func.func @other() { return }",), "expected a function @main with a body, got none"),
        (("no mlir",), "custom op 'no' is unknown"),
        ((module, {}, [x]), "parameter 'conv.weight' is not in the store"),
        ((module, state.parameters, [x[0]]), "expected input 'arg0' of shape"),
        ((module, state.parameters, []), "expected 1 input"),
    ):
        with pytest.raises(PatcError, match=wanted) as caught:
            patc.run_module(*arguments)
        assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(PatcError, match="expected a stage, one of linalg, "):
        patc.run_module(module, state.parameters, [x], stage="lunch")


class ToyBackend(HostBackend):
    name = "toy"


@pytest.mark.parametrize(
    ("target", "old", "new", "words"),
    [
        (
            "host",
            "memref<144xf32>",
            "memref<145xf32>",
            "expected @main to take the memory of 1 inputs and 2 outputs",
        ),
        (
            "host",
            "pattern.signatures = {main = ",
            "pattern.signatures = {main = 1 : i64, other = ",
            "to be types of functions",
        ),
        (
            "host",
            "pattern.signatures = {",
            "pattern.signatures = 3 : i64, pattern.other = {",
            "to be a dictionary, got 3",
        ),
        (
            "spirv-vulkan",
            "pattern.inputs = array<i64: ",
            "pattern.inputs = array<i64: 1000000000, ",
            "to be places of 1 tensors",
        ),
        (
            "spirv-vulkan",
            "pattern.outputs = array<i64: ",
            "pattern.outputs = array<i32: ",
            "pattern.outputs to be an array<i64>",
        ),
        (
            "spirv-vulkan",
            "pattern.inputs = ",
            "pattern.windows = array<i64: 1>, pattern.inputs = ",
            "to be starts and sizes, got [1]",
        ),
        ("spirv-vulkan", "spirv.module @__spv__", "spirv.module @other", "expected spirv.module @__spv__"),
    ],
)
def test_ir_behind_all_passes_is_checked(
    target: str, old: str, new: str, words: str, net: Net, x: torch.Tensor
) -> None:
    """What is edited there goes to no other pass, and what code is called with is not trusted."""
    pipeline = host_pipeline(target, 1)
    module, state = lower_model(net, (x,), pipeline)
    text = str(module)
    assert old in text
    with pytest.raises(PatcError, match=re.escape(words)):
        compile_module(text.replace(old, new), state.parameters, target=target, stage=pipeline.stages[-1])


def test_ir_that_threads_divide_is_for_several(net: Net, x: torch.Tensor) -> None:
    pipeline = host_pipeline("host", 2)
    module, state = lower_model(net, (x,), pipeline)
    with pytest.raises(PatcError, match="expected threads, among which the layers are divided already, got 1"):
        compile_module(str(module), state.parameters, target="host", stage=pipeline.stages[-1], threads=1)


def test_a_backend_of_another_package(
    net: Net, x: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_BACKENDS", dict(registry._BACKENDS))
    registry.register(ToyBackend())
    with pytest.raises(ValueError, match="expected a new name for a backend, got 'toy'"):
        registry.register(ToyBackend())
    compiled = patc.compile(net, (x,), target=replace(host(), name="my-machine", backend="toy"), threads=1)
    compiled.save(tmp_path / "net.patc")
    loaded = patc.load(tmp_path / "net.patc")
    assert isinstance(loaded, NativeModel) and loaded.program.target == "my-machine"
    outputs: Sequence[np.ndarray] = loaded(x.numpy())
    assert_close(outputs, torch_results(net, (x,)))
    del registry._BACKENDS["toy"]
    with pytest.raises(PatcError, match="expected a backend of aarch64, host, vulkan, got 'toy'"):
        patc.load(tmp_path / "net.patc")


def test_a_changed_target_compiles(net: Net, x: torch.Tensor) -> None:
    compiled = patc.compile(net, (x,), target=replace(X86_64_V3, name="few-registers", registers=8), threads=1)
    assert compiled.program.backend == "host" and compiled.program.target == "few-registers"
