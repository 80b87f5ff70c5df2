"""A net as files that any Vulkan program can drive: SPIR-V modules, the weights, and a manifest that says how.

    out/manifest.json  buffers, inputs and outputs, kernels, and every dispatch in order
    out/weights.bin    the weights, of which each dispatch sees a window as binding 1
    out/<kernel>.spv   one entry point each, named like its kernel

Windows are parts of the weights of at most 128 MB, which any device binds, where no layer needs more; they may overlap.

To run it: put the inputs into the arena at their offsets, dispatch in order with a barrier (shader write to shader read
and write) after each, and read the outputs from the arena. The arena needs no content but the inputs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from patc.capabilities import CAPABILITIES
from patc.files import write_folder
from patc.runtime.gpu_code import BUFFERS, Dispatch, GpuCode, GpuKernel
from patc.runtime.program import Program, TensorInfo

FORMAT = 2
MANIFEST = "manifest.json"
WEIGHTS = "weights.bin"


def write_spirv(program: Program, folder: str | os.PathLike[str]) -> list[Path]:
    """Write a program for Vulkan to a folder, which is made if it is missing, and return the files.

    Raises:
        PatcError: the folder cannot be made or written to; no file is left behind.
    """
    code = GpuCode.from_bytes(program.code)
    files: dict[str, bytes | str] = {f"{name}.spv": module for name, module in code.modules.items()}
    files[WEIGHTS] = program.weights.tobytes()
    files[MANIFEST] = _text(manifest(program, code))
    return write_folder(folder, files)


def _text(values: dict[str, Any]) -> str:
    """Return JSON with one buffer, tensor, kernel or dispatch on each line."""
    parts = []
    for key, value in values.items():
        text = json.dumps(value)
        if isinstance(value, list) and any(isinstance(item, dict) for item in value):
            lines = ",\n".join(f"  {json.dumps(item)}" for item in value)
            text = f"[\n{lines}\n ]"
        parts.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def manifest(program: Program, code: GpuCode) -> dict[str, Any]:
    """Return what the manifest says, as JSON values; sizes and offsets are in bytes."""
    groups = [max((item.groups[axis] for item in code.dispatches), default=1) for axis in range(3)]
    sizes = {"arena": program.arena_bytes, "weights": program.weights.nbytes}
    return {
        "format": FORMAT,
        "vulkan": "1.1",
        "features": sorted({CAPABILITIES[name].feature for name in code.capabilities if name in CAPABILITIES}),
        "limits": {
            "maxStorageBufferRange": max(program.arena_bytes, *(size for _, size in code.windows)),
            "maxPerStageDescriptorStorageBuffers": len(BUFFERS),
            "maxPushConstantsSize": max((item.push_bytes for item in code.kernels), default=0),
            "maxComputeSharedMemorySize": max((item.shared_bytes for item in code.kernels), default=0),
            "maxComputeWorkGroupInvocations": max((item.threads for item in code.kernels), default=1),
            "maxComputeWorkGroupCount": groups,
        },
        "buffers": [
            {
                "name": name,
                "set": 0,
                "binding": number,
                "bytes": sizes[name],
                **({"file": WEIGHTS} if name == "weights" else {}),
            }
            for number, name in enumerate(BUFFERS)
        ],
        "windows": [{"offset": start, "bytes": size} for start, size in code.windows],
        "inputs": _tensors(program.inputs, code.inputs),
        "outputs": _tensors(program.outputs, code.outputs),
        "kernels": [_kernel(item) for item in code.kernels],
        "dispatches": [_dispatch(item, program) for item in code.dispatches],
    }


def _tensors(infos: Sequence[TensorInfo], starts: Sequence[int]) -> list[dict[str, Any]]:
    """Describe packed (row-major) tensors in the arena."""
    return [
        {
            "name": info.name,
            "shape": list(info.shape),
            "type": info.dtype,
            "buffer": "arena",
            "offset": start,
            "bytes": info.nbytes,
        }
        for info, start in zip(infos, starts, strict=True)
    ]


def _kernel(kernel: GpuKernel) -> dict[str, Any]:
    return {
        "name": kernel.name,
        "file": f"{kernel.name}.spv",
        "entry_point": kernel.name,
        "workgroup_size": [kernel.threads, 1, 1],
        "workgroup_bytes": kernel.shared_bytes,
        "push_constant_bytes": kernel.push_bytes,
        "capabilities": list(kernel.capabilities),
        "extensions": list(kernel.extensions),
    }


def _dispatch(dispatch: Dispatch, program: Program) -> dict[str, Any]:
    layer = program.layers[dispatch.layer].name if dispatch.layer < len(program.layers) else ""
    return {
        "layer": layer,
        "kernel": dispatch.kernel,
        "window": dispatch.window,
        "workgroups": list(dispatch.groups),
        "push_constants": list(dispatch.push_constants),
    }
