"""What a net on a GPU consists of: SPIR-V modules, and the dispatches that run it on two buffers.

The same description, as JSON, is the manifest that `patc compile --emit spirv` writes beside the modules.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from patc.capabilities import CAPABILITIES
from patc.runtime.json_values import JsonValue, read_json
from patc.runtime.spirv_module import add_statement, check_module, read_statement

BUFFERS = ("arena", "weights")  # by binding, all in set 0
MAGIC = b"PATCSPV4"
_CAPABILITIES = ("Shader", *CAPABILITIES)
_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")
_MOST = 1 << 16  # kernels, dispatches and tensors
_MOST_THREADS, _MOST_SHARED_BYTES, _MOST_PUSH_BYTES = 1 << 12, 1 << 20, 1 << 12
WINDOW_ALIGNMENT = 256  # the largest that a device may ask for
LARGEST_BUFFER = _LARGEST = (1 << 31) - 1  # kernels count in 32 bits with a sign


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
        layer: number of the layer that it is a part of.
        window: number of the window of the weights that it sees.
    """

    kernel: str
    groups: tuple[int, int, int]
    push_constants: tuple[int, ...]
    layer: int
    window: int


@dataclass(frozen=True)
class GpuCode:
    """A net.

    Attributes:
        kernels: each once.
        dispatches: in order; those of each layer, and behind them what copies constant results, as layers of their own.
        inputs, outputs: byte offsets of the packed tensors in the arena.
        windows: first byte and bytes of each part of the weights that a dispatch sees: devices need not bind more than
            128 MB at once. They may overlap.
        modules: SPIR-V by kernel.
    """

    kernels: tuple[GpuKernel, ...]
    dispatches: tuple[Dispatch, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    windows: tuple[tuple[int, int], ...]
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
            "windows": [list(window) for window in self.windows],
        }

    def to_bytes(self) -> bytes:
        """Return the code in one piece; equal code gives equal bytes."""
        sizes = [len(self.modules[kernel.name]) for kernel in self.kernels]
        text = _to_text({**self.describe(), "sizes": sizes})
        modules = (self.modules[kernel.name] for kernel in self.kernels)
        return b"".join([MAGIC, len(text).to_bytes(8, "little"), text, *modules])

    def stating(self, interface: bytes) -> GpuCode:
        """Return code that says what it was compiled for: `interface` and its own description."""
        first = self.kernels[0].name
        statement = self._statement(interface)
        return replace(self, modules={**self.modules, first: add_statement(self.modules[first], statement)})

    def states(self, interface: bytes) -> bool:
        """Return whether the code says that it was compiled for `interface` and its own description."""
        return read_statement(self.modules[self.kernels[0].name]) == self._statement(interface)

    def _statement(self, interface: bytes) -> str:
        return hashlib.sha256(interface + _to_text(self.describe())).hexdigest()

    @staticmethod
    def from_bytes(data: bytes) -> GpuCode:
        """Return the code that `to_bytes` made; every field is checked, the modules as `check_module` says.

        Raises:
            ValueError: the bytes are something else: what was expected, and where.
        """
        start = len(MAGIC) + 8
        if data[: len(MAGIC)] != MAGIC:
            raise ValueError("no code for a GPU")
        end = start + int.from_bytes(data[len(MAGIC) : start], "little")
        keys = ("kernels", "dispatches", "inputs", "outputs", "windows", "sizes")
        kernels, dispatches, inputs, outputs, windows, sizes = JsonValue(read_json(data[start:end]), "code").fields(
            *keys
        )
        known = {kernel.name: kernel for kernel in map(_parse_kernel, kernels.items(1, _MOST))}
        lengths = sizes.integers(len(known), len(known), 4, _LARGEST)
        if end + sum(lengths) != len(data):
            raise ValueError(f"code.sizes: expected modules of {len(data) - end} bytes, found {sum(lengths)}")
        modules = {}
        for kernel, length in zip(known.values(), lengths, strict=True):
            modules[kernel.name], end = data[end : end + length], end + length
            check_module(modules[kernel.name], kernel.name, kernel.threads, kernel.capabilities, kernel.extensions)
        seen = tuple(map(_parse_window, windows.items(1, _MOST)))
        code = GpuCode(
            tuple(known.values()),
            _parse_dispatches(dispatches, known, len(seen)),
            inputs.integers(0, _MOST, 0, _LARGEST),
            outputs.integers(1, _MOST, 0, _LARGEST),
            seen,
            modules,
        )
        if code.to_bytes() != data:
            raise ValueError("expected code as patc writes it")
        return code


def _to_text(values: dict[str, Any]) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode()


def _parse_kernel(value: JsonValue) -> GpuKernel:
    fields = value.fields("name", "threads", "shared_bytes", "push_bytes", "capabilities", "extensions")
    name, threads, shared_bytes, push_bytes, capabilities, extensions = fields
    if not _NAME.fullmatch(name.text(256)):
        name.refuse("the name of a kernel")
    if push_bytes.integer(0, _MOST_PUSH_BYTES) % 4:
        push_bytes.refuse("a multiple of 4")
    for item in capabilities.items(0, len(_CAPABILITIES)):
        if item.text() not in _CAPABILITIES:
            item.refuse(f"one of {', '.join(_CAPABILITIES)}")
    return GpuKernel(
        name.text(),
        threads.integer(1, _MOST_THREADS),
        shared_bytes.integer(0, _MOST_SHARED_BYTES),
        push_bytes.value,
        tuple(item.text() for item in capabilities.items(0, len(_CAPABILITIES))),
        tuple(item.text(256) for item in extensions.items(0, 16)),
    )


def _parse_window(value: JsonValue) -> tuple[int, int]:
    start, size = value.integers(2, 2, 0, _LARGEST)
    if start % WINDOW_ALIGNMENT or not size:
        value.refuse(f"a window that starts on a multiple of {WINDOW_ALIGNMENT} bytes")
    return start, size


def _parse_dispatches(value: JsonValue, kernels: Mapping[str, GpuKernel], windows: int) -> tuple[Dispatch, ...]:
    found = tuple(_parse_dispatch(item, kernels, windows) for item in value.items(1, _MOST))
    layers = [-1, *(dispatch.layer for dispatch in found)]
    if any(after - before not in (0, 1) for before, after in itertools.pairwise(layers)) or layers[1]:
        value.refuse("layers in order")
    return found


def _parse_dispatch(value: JsonValue, kernels: Mapping[str, GpuKernel], windows: int) -> Dispatch:
    fields = value.fields("kernel", "groups", "push_constants", "layer", "window")
    kernel, groups, push_constants, layer, window = fields
    if kernel.text() not in kernels:
        kernel.refuse("the name of a kernel that there is")
    x, y, z = groups.integers(3, 3, 1, _LARGEST)
    count = kernels[kernel.text()].push_bytes // 4
    numbers = push_constants.integers(count, count, -_LARGEST - 1, _LARGEST)
    return Dispatch(kernel.text(), (x, y, z), numbers, layer.integer(0, _MOST), window.integer(0, windows - 1))
