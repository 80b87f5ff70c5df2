"""Compile `pattern` nets for Vulkan and call them on a device, with memory that was never written full of NaN.

Tests that need a device are marked `needs_device`: without one they are skipped, and say why.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import pytest
from interpreter import interpret
from native import BOUNDS, Net, Retile, change_schedules
from networks import Network, Value
from torch_mlir import ir

from patc.diagnostics import PatcError
from patc.execution import compile_module
from patc.parameters import ParameterStore
from patc.passes.base import PassState
from patc.pipeline import Pipeline
from patc.runtime import vulkan_device
from patc.runtime.gpu_code import GpuCode
from patc.runtime.vulkan import find_device
from patc.runtime.vulkan_model import VulkanModel
from patc.targets import SPIRV_VULKAN

# The driver keeps what it compiled: in the tests' own folder, not in the user's.
os.environ.setdefault("MESA_SHADER_CACHE_DIR", str(Path(tempfile.gettempdir()) / "patc-test-shaders"))
NAN_BYTE = 0xFF


def _why_not() -> str:
    try:
        find_device()
    except PatcError as error:
        return str(error)
    return ""


WHY_NOT = _why_not()
needs_device = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
needs_validator = pytest.mark.skipif(which("spirv-val") is None, reason="spirv-val (spirv-tools) is not installed")


def compile_for_gpu(
    module: ir.Module, parameters: ParameterStore, retile: Retile | None = None, dtype: str = "f32"
) -> VulkanModel:
    """Run `pattern-demote` and what follows it on a module, up to the schedules in place, and return the model."""
    state = PassState(parameters)
    pipeline = Pipeline.named("spirv", target=SPIRV_VULKAN, dtype=dtype)
    pipeline.until("schedule").after("reorder").run(module, state)
    if retile is not None:
        change_schedules(module, retile)
    return VulkanModel(compile_module(module, state.parameters, target=SPIRV_VULKAN, stage="schedule"))


def check(
    net: Network, results: Sequence[Value], seed: int = 0, dtype: str = "f32", retile: Retile | None = None
) -> VulkanModel:
    """Require the net to compute on the device what the interpreter does, for normally distributed inputs; the bounds
    are those of `native.check`. The arena is full of NaN before the call."""
    rng = np.random.default_rng(seed)
    inputs = net.inputs if isinstance(net, Net) else [net.input]
    arrays = [rng.standard_normal(value.shape, np.float32) for value in inputs]
    module, parameters = net.build(*results), net.copy_parameters()
    if dtype == "f16":
        arrays = [array.astype(np.float16).astype(np.float32) for array in arrays]
    reference = net.build(*results)
    reference_parameters = net.copy_parameters()
    Pipeline().add("pattern-demote", dtype=dtype).run(reference, PassState(reference_parameters))
    wanted = interpret(reference, reference_parameters, arrays)
    model = compile_for_gpu(module, parameters, retile, dtype)
    fill_arena(model, NAN_BYTE)
    for _ in range(2):  # what a call leaves in the arena does not matter to the next one
        for one, other in zip(model(*arrays), wanted, strict=True):
            assert one.shape == other.shape
            scale = max(1.0, np.abs(other).max())
            assert np.abs(one - other).max() <= BOUNDS[dtype] * scale, "results differ"
    return model


def fill_arena(model: VulkanModel, byte: int) -> None:
    """Write one value to every byte of a model's arena."""
    with model._opened() as session:
        device, arena = session.device, session._arena
        source = device.allocate(arena.size, vulkan_device.FROM, on_host=True)
        ctypes.memset(source.address, byte, arena.size)
        commands = device.record(lambda handle: session._copy(handle, source, arena, [(0, 0, arena.size)]))
        device.submit(commands, session._fence)
        device.discard(commands)
        device.free(source)


def require_valid(code: GpuCode) -> None:
    """Require spirv-val to accept every module for Vulkan 1.1."""
    assert set(code.modules) == {kernel.name for kernel in code.kernels}
    for name, module in code.modules.items():
        command = ["spirv-val", "--target-env", "vulkan1.1", "-"]
        found: Any = subprocess.run(command, input=module, capture_output=True)
        assert found.returncode == 0, f"{name}: {found.stderr.decode() or found.stdout.decode()}"
