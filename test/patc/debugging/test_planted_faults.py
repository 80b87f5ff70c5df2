"""Faults are planted in passes, one a pass and target: `patc debug` has to name the pass and the layer, and what it
writes has to show the fault alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import command
import numpy as np
import pytest
import torch
from emulated import needs_arm
from gpu import needs_device
from torch import nn
from torch_mlir import ir
from torch_mlir.dialects import math, scf

from patc.backends.aarch64 import AArch64Backend
from patc.backends.base import Options
from patc.context import make_context
from patc.debugging import folders
from patc.debugging.numbers import Fault, Right, debug
from patc.options import make_options
from patc.passes import pattern_parallelize, pattern_plan_memory
from patc.passes.base import Pass
from patc.passes.formats.fkw_format import FkwFormat
from patc.passes.ir.functions import walk_ops
from patc.passes.layers.base import Permutation
from patc.passes.layers.convolution import SparseConv2d
from patc.passes.registry import find_pass
from patc.pruning import PatternSpec, prune_
from patc.runtime.inputs import random_arrays
from patc.sources import Source, import_source

MOST_TRIES = 14
Plant = Callable[[pytest.MonkeyPatch], None]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.c, self.scores = nn.Conv2d(8, 6, 1), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.sin(self.c(torch.relu(self.b(torch.relu(self.a(x))))))
        return self.scores(y.mean((2, 3)))


@pytest.fixture(scope="module")
def source() -> Source:
    torch.manual_seed(0)
    net = Net().eval()
    prune_(net, PatternSpec(connectivity=1.5))
    return import_source(net, (torch.zeros(1, 3, 5, 17),), make_context())


def options_for(target: str) -> Options:
    return make_options(target, 2 if target == "host" else None)


def after(monkeypatch: pytest.MonkeyPatch, name: str, change: Callable[[ir.Module], None]) -> None:
    """Let a pass change the module once more."""
    kind: type[Pass] = find_pass(name)
    run = kind.run

    def planted(self: Any, module: ir.Module, state: Any) -> None:
        run(self, module, state)
        with module.context, ir.Location.unknown():
            change(module)

    monkeypatch.setattr(kind, "run", planted)


def ops(module: ir.Module, name: str) -> list[Any]:
    return [op for op in walk_ops(module) if op.operation.name == name]


def forget_activation(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(module: ir.Module) -> None:
        for op in ops(module, "pattern.conv2d"):
            if "8x8x3x3" in str(op.weight.type) or op.weight.type.shape[0] < 8:
                op.attributes["activation"] = ir.StringAttr.get("none")

    after(monkeypatch, "pattern-raise", change)


def other_function(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(module: ir.Module) -> None:
        for op in ops(module, "math.sin"):
            with ir.InsertionPoint(op):
                op.results[0].replace_all_uses_with(math.cos(op.operands[0]))
            op.operation.erase()

    after(monkeypatch, "pattern-outline", change)


def lose_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = FkwFormat.encode.__func__  # type: ignore[attr-defined]

    def planted(cls: Any, weight: np.ndarray, groups: int, options: Any) -> Any:
        found = encode(cls, weight, groups, options)
        if found is None:
            return None
        kind, (values, *rest) = found
        return kind, (np.concatenate([values[:-1], 0 * values[-1:]]), *rest)

    monkeypatch.setattr(FkwFormat, "encode", classmethod(planted))


def forget_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    permute = SparseConv2d.permute

    def planted(self: Any, op: Any, permutation: Permutation, state: Any) -> None:
        permute(
            self,
            op,
            Permutation(lambda value: None if value == op.input else permutation.of(value), permutation.filters),
            state,
        )

    monkeypatch.setattr(SparseConv2d, "permute", planted)


def swap_factors(module: ir.Module, name: str = "math.fma") -> None:
    for op in ops(module, name)[:1]:
        first, _, last = list(op.operands)
        op.operands[0], op.operands[2] = last, first


def swap_factors_after(pass_name: str, op_name: str = "math.fma") -> Plant:
    return lambda monkeypatch: after(monkeypatch, pass_name, lambda module: swap_factors(module, op_name))


def swap_factors_in_code(monkeypatch: pytest.MonkeyPatch) -> None:
    emit = AArch64Backend.emit

    def planted(self: AArch64Backend, module: ir.Module, target: Any) -> bytes:
        swap_factors(module)
        return emit(self, module, target)

    monkeypatch.setattr(AArch64Backend, "emit", planted)


def share_all_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    place = pattern_plan_memory.place
    monkeypatch.setattr(pattern_plan_memory, "place", lambda buffers: ([0] * len(buffers), place(buffers)[1]))


def skip_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    loops = SimpleNamespace(**{**vars(scf), "ForOp": lambda _, stop, step: scf.ForOp(step, stop, step)})
    monkeypatch.setattr(pattern_parallelize, "scf", loops)


@dataclass(frozen=True)
class Planted:
    """Where a fault is, and what has to be found.

    Attributes:
        layers: of which one is named.
        names: the steps that are named; those of GPUs cannot be told apart, since only a device runs them.
    """

    plant: Plant
    layers: set[str]
    names: tuple[str, ...]
    target: str = "host"


FILE = Path(__file__).name
GPU_STEPS = ("pattern-map-to-gpu", "pattern-to-spirv", "code generation")
PLANTS = {
    "raise": Planted(forget_activation, {FILE}, ("pattern-raise",)),
    "outline": Planted(other_function, {FILE}, ("pattern-outline",)),
    "encode": Planted(lose_weight, {"a"}, ("pattern-encode",)),
    "reorder": Planted(forget_inputs, {"b", "c"}, ("pattern-reorder",)),
    "vectorize": Planted(swap_factors_after("pattern-vectorize"), {"a"}, ("pattern-vectorize",)),
    "plan-memory": Planted(share_all_memory, {"a", "b"}, ("pattern-plan-memory",)),
    "parallelize": Planted(skip_turns, {"a"}, ("pattern-parallelize",)),
    "aarch64-encode": Planted(lose_weight, {"a"}, ("pattern-encode",), "aarch64-linux"),
    "aarch64-vectorize": Planted(
        swap_factors_after("pattern-vectorize"), {"a"}, ("pattern-vectorize",), "aarch64-linux"
    ),
    "aarch64-code": Planted(swap_factors_in_code, {"a"}, ("code generation",), "aarch64-linux"),
    "vulkan-reorder": Planted(forget_inputs, {"b", "c"}, ("pattern-reorder",), "spirv-vulkan"),
    "vulkan-map-to-gpu": Planted(swap_factors_after("pattern-map-to-gpu"), {"a"}, GPU_STEPS, "spirv-vulkan"),
    "vulkan-to-spirv": Planted(
        swap_factors_after("pattern-to-spirv", "spirv.GL.Fma"), {"a"}, GPU_STEPS, "spirv-vulkan"
    ),
}
MARKS = {"aarch64-linux": [needs_arm], "spirv-vulkan": [needs_device]}
CASES = [pytest.param(name, marks=MARKS.get(planted.target, ())) for name, planted in PLANTS.items()]


def show_alone(name: str, folder: str) -> tuple[int, str]:
    """Run `patc debug` on a reproducer in a process of its own, in which the fault is planted, too."""
    code = f"""\
import sys
import pytest, test_planted_faults
from patc.tools.patc import main
test_planted_faults.PLANTS[{name!r}].plant(pytest.MonkeyPatch())
sys.exit(main(["debug", {folder!r}]))
"""
    places = [str(Path(__file__).parent), *sys.path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places)}
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    return run.returncode, run.stdout + run.stderr


@pytest.mark.parametrize("name", CASES)
def test_the_pass_and_the_layer_are_found_and_shown_alone(
    name: str, source: Source, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wanted = PLANTS[name]
    options = options_for(wanted.target)
    inputs = random_arrays(source.inputs, 0)
    folder = str(tmp_path / "case")
    with monkeypatch.context() as planted:
        wanted.plant(planted)
        fault = debug(source, options, inputs, None, lambda step: None, MOST_TRIES)
        assert isinstance(fault, Fault)
        folders.write(folder, fault.what, fault.suspect, fault.trial, fault.inputs)
        assert folders.replay(folder).error > 1e-4
    if name != "parallelize":  # what turns do not write may be right where memory is new
        status, printed = show_alone(name, folder)
        assert status == 1 and re.search(r"^ *off: 1e-0\d is allowed$", printed, re.MULTILINE), printed
    assert fault.suspect.names == wanted.names
    assert any(layer in str(fault.layer) for layer in wanted.layers), fault.layer
    assert fault.layers <= 2
    is_layers = fault.suspect.base.step == "pattern-outline"  # whose sizes can shrink
    assert not is_layers or sum(array.size for array in fault.inputs) < inputs[0].size
    assert folders.is_reproducer(folder) and folders.replay(folder).error <= 1e-4  # without the fault


@pytest.mark.parametrize("target", ["host", *(pytest.param(target, marks=marks) for target, marks in MARKS.items())])
def test_right_numbers_are_said_to_be_right(target: str, source: Source) -> None:
    found = debug(source, options_for(target), random_arrays(source.inputs, 0), None, lambda step: None)
    assert isinstance(found, Right) and found.error <= 1e-5
    assert max(error for _, error in found.layers) <= 1e-5 and {"a", "b", "c"} <= {name for name, _ in found.layers}


_INTEGERS = """\
!grid = tensor<1x4x6x6x!pattern.quantised<si8, 0.05 : f32, -4 : i64>>
!numbers = tensor<1x4x6x6xf32>
func.func @main(%x: !numbers) -> !numbers {
  %w = arith.constant dense<0.2371> : tensor<4x4x3x3xf32>
  %x0 = "pattern.relayout"(%x) : (!numbers) -> !grid
  %x1 = "pattern.relayout"(%x0) : (!grid) -> !numbers
  %y = "pattern.conv2d"(%x1, %w) {activation = "relu", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>}
    : (!numbers, tensor<4x4x3x3xf32>) -> !numbers
  %y0 = "pattern.relayout"(%y) : (!numbers) -> !grid
  %y1 = "pattern.relayout"(%y0) : (!grid) -> !numbers
  return %y1 : !numbers
}
"""


def test_layers_on_integers_are_compared_where_they_are_numbers(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "net.mlir").write_text(_INTEGERS)
    text = command.run(capsys, "debug", tmp_path / "net.mlir")
    assert "nothing is off" in text, text
    errors = [line.split()[-1] for line in text.splitlines() if line.split() and "e-0" in line.split()[-1]]
    assert all(float(error) < 1e-5 for error in errors), text
