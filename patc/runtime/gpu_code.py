"""What a net on a GPU consists of: SPIR-V modules, and the dispatches that run it on two buffers.

The same description, as JSON, is the manifest that `patc compile --emit spirv` writes beside the modules.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

BUFFERS = ("arena", "weights")  # by binding, all in set 0
MAGIC = b"PATCSPV1"
# What Vulkan calls the features behind the capabilities that kernels of f16 need.
HALF_FEATURES = {"Float16": "shaderFloat16", "StorageBuffer16BitAccess": "storageBuffer16BitAccess"}


@dataclass(frozen=True)
class GpuKernel:
    """A SPIR-V module with one entry point of its own name.

    Attributes:
        threads: of a workgroup, along x.
        shared_bytes: of workgroup memory.
        push_bytes: of push constants: i32 numbers.
        capabilities, extensions: of SPIR-V, that the device has to have.
    """

    name: str
    threads: int
    shared_bytes: int
    push_bytes: int
    capabilities: tuple[str, ...]
    extensions: tuple[str, ...]


@dataclass(frozen=True)
class Dispatch:
    """One launch. All that it reads was written by dispatches before it, so a barrier comes between any two.

    Attributes:
        kernel: name.
        groups: workgroups along x, y and z.
        push_constants: one number for each push constant.
    """

    kernel: str
    groups: tuple[int, int, int]
    push_constants: tuple[int, ...]


@dataclass(frozen=True)
class GpuCode:
    """A net.

    Attributes:
        kernels: each once.
        dispatches: in order; as many as the net has layers, and what copies constant results behind them.
        inputs, outputs: byte offsets of the packed float32 tensors in the arena.
        modules: SPIR-V by kernel.
    """

    kernels: tuple[GpuKernel, ...]
    dispatches: tuple[Dispatch, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    modules: Mapping[str, bytes]

    @property
    def capabilities(self) -> frozenset[str]:
        """What any kernel needs."""
        return frozenset(name for kernel in self.kernels for name in kernel.capabilities)

    def describe(self) -> dict[str, Any]:
        """Return all but the modules as JSON values."""
        return {
            "kernels": [asdict(kernel) for kernel in self.kernels],
            "dispatches": [asdict(dispatch) for dispatch in self.dispatches],
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
        }

    def to_bytes(self) -> bytes:
        """Return the code in one piece; equal code gives equal bytes."""
        sizes = {name: len(data) for name, data in self.modules.items()}
        text = json.dumps({**self.describe(), "sizes": sizes}).encode()
        return b"".join([MAGIC, len(text).to_bytes(8, "little"), text, *self.modules.values()])

    @staticmethod
    def from_bytes(data: bytes) -> GpuCode:
        """Return the code that `to_bytes` made.

        Raises:
            ValueError: the bytes are something else.
        """
        start = len(MAGIC) + 8
        if data[: len(MAGIC)] != MAGIC:
            raise ValueError("no code for a GPU")
        end = start + int.from_bytes(data[len(MAGIC) : start], "little")
        values = json.loads(data[start:end])
        modules = {}
        for name, size in values["sizes"].items():
            modules[name], end = data[end : end + size], end + size
        lists = ("capabilities", "extensions")
        return GpuCode(
            tuple(GpuKernel(**{**row, **{key: tuple(row[key]) for key in lists}}) for row in values["kernels"]),
            tuple(
                Dispatch(row["kernel"], tuple(row["groups"]), tuple(row["push_constants"]))
                for row in values["dispatches"]
            ),
            tuple(values["inputs"]),
            tuple(values["outputs"]),
            modules,
        )
