"""The compiled model: a callable on torch tensors and numpy arrays."""

from __future__ import annotations

import functools
import json
import os
import platform
import sys
import time
import zlib
from collections import namedtuple
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from patc.diagnostics import Diagnostic, PatcError, first_line
from patc.files import atomic_write
from patc.layers import LayerReport
from patc.runtime.native import NativeFunction, aligned_bytes

FORMAT = 2
ENTRY = "main"
SPIRV_VULKAN = "spirv-vulkan"


@dataclass(frozen=True)
class TensorInfo:
    """Name and shape of an input or output; all are float32."""

    name: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"'{self.name}' of shape {list(self.shape)} float32"


@dataclass(frozen=True)
class Program:
    """Everything that a compiled model consists of, as it is saved.

    Attributes:
        code: object file whose `main` takes pointers to the inputs, the outputs, the time stamps, the arena and the
            weights.
        weights: the bytes that the kernels read.
        inputs, outputs: in the order of the pointers.
        structure: how outputs nest, see `nest`.
        arena_bytes: memory for activations.
        target: name of the target.
        features: instruction set extensions that the code needs.
        threads: threads that divide each layer.
        layers: in the order in which they run.
    """

    code: bytes
    weights: np.ndarray
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    structure: Any
    arena_bytes: int
    target: str
    features: tuple[str, ...]
    threads: int
    layers: tuple[LayerReport, ...]


@dataclass(frozen=True)
class LayerTime:
    """A layer and its median time in seconds."""

    layer: LayerReport
    seconds: float


class CompiledModel:
    """A compiled model.

    Call it with torch tensors or numpy arrays, float32 and of the compiled shapes; what comes back is nested as the
    model nests it, and holds tensors if an input was one, else arrays. One call is one native call; it allocates the
    outputs only, and copies inputs that are not contiguous. No gradients are recorded. Several Python threads may call
    the same model: each call in flight has its own arena. A forked process may go on calling it.

    Attributes:
        program: code, weights and descriptions.
        diagnostics: what the passes remarked; empty for a loaded model.
    """

    def __init__(self, program: Program, diagnostics: Sequence[Diagnostic] = ()) -> None:
        weights = aligned_bytes(program.weights.nbytes)
        weights[:] = program.weights
        self.program = replace(program, weights=weights)
        self.diagnostics = list(diagnostics)
        count = len(program.inputs) + len(program.outputs) + 3
        self._missing = _missing_features(program.features)
        # Code for another architecture cannot even be linked here.
        if not self._missing:
            self._function = NativeFunction(program.code, ENTRY, count, threaded=program.threads > 1)
        self._weights = weights.ctypes.data
        # Only appended to and popped from, which needs no lock; a lock could be held when the process forks.
        self._idle: list[_Workspace] = []

    def __repr__(self) -> str:
        program = self.program
        inputs, outputs = (
            ", ".join(f"{info.name} {list(info.shape)}" for info in infos)
            for infos in (program.inputs, program.outputs)
        )
        threads = f"{program.threads} thread{'s' if program.threads > 1 else ''}"
        return f"<CompiledModel {inputs} -> {outputs}; {len(self.layers)} layers, {program.target}, {threads}>"

    @property
    def layers(self) -> tuple[LayerReport, ...]:
        """What each layer is, how it is computed and why, in the order in which they run."""
        return self.program.layers

    def __call__(self, *inputs: Any) -> Any:
        """Run the model.

        Raises:
            PatcError: wrong number, shape, element type or device of inputs, or a CPU that lacks an extension which
                the code was compiled for.
        """
        # `kept` holds what the addresses point into.
        kept, addresses, torch = self._check(inputs)
        outputs, output_addresses = self._make_outputs(torch)
        workspace = self._acquire()
        try:
            self._function(*addresses, *output_addresses, *workspace.addresses, self._weights)
        finally:
            self._idle.append(workspace)
        del kept
        return nest(self.program.structure, outputs)

    def profile(self, *inputs: Any, repetitions: int = 20) -> list[LayerTime]:
        """Return the median time of each layer over `repetitions` calls, after one call to warm up.

        Without inputs the model runs on random ones.

        Raises:
            PatcError: as for a call, or less than one repetition.
        """
        if repetitions < 1:
            raise PatcError(f"expected 1 repetition or more, got {repetitions}")
        kept, addresses, torch = self._check(inputs or self.random_inputs())
        outputs, output_addresses = self._make_outputs(torch)
        workspace = self._acquire()
        arguments = (*addresses, *output_addresses, *workspace.addresses, self._weights)
        try:
            self._function(*arguments)
            start, first = time.perf_counter(), int(workspace.ticks[-1])
            stamps = []
            for _ in range(repetitions):
                self._function(*arguments)
                stamps.append(workspace.ticks.copy())
            seconds_per_tick = (time.perf_counter() - start) / max(1, int(workspace.ticks[-1]) - first)
        finally:
            self._idle.append(workspace)
        del kept, outputs
        medians = np.median(np.diff(np.stack(stamps), axis=1), axis=0) * seconds_per_tick
        return [LayerTime(layer, float(median)) for layer, median in zip(self.layers, medians, strict=True)]

    def random_inputs(self, seed: int = 0) -> tuple[np.ndarray, ...]:
        """Return arrays of the input shapes with normally distributed values."""
        generator = np.random.default_rng(seed)
        return tuple(generator.standard_normal(info.shape, np.float32) for info in self.program.inputs)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to one file, which `patc.load` reads without torch. Equal models give equal files.

        Raises:
            PatcError: the file cannot be written; nothing is left behind.
        """
        from safetensors.numpy import save

        program = self.program
        values = {
            "inputs": [[info.name, info.shape] for info in program.inputs],
            "outputs": [[info.name, info.shape] for info in program.outputs],
            "structure": program.structure,
            "arena_bytes": program.arena_bytes,
            "target": program.target,
            "features": program.features,
            "threads": program.threads,
            "layers": [layer.to_json() for layer in program.layers],
        }
        text = json.dumps(values)
        header = {"format": FORMAT, "checksum": _checksum(text, program.code, program.weights)}
        tensors = {"code": np.frombuffer(program.code, np.uint8), "weights": program.weights}
        # One entry: the order of several would differ from run to run.
        atomic_write(path, save(tensors, {"patc": f"{json.dumps(header)}\n{text}"}))

    def _check(self, inputs: Sequence[Any]) -> tuple[list[Any], list[int], Any]:
        """Return contiguous inputs, their addresses, and the torch module if one of them is a tensor, else None."""
        expected = self.program.inputs
        if self._missing:
            raise PatcError(_describe_missing(self._missing, self.program.target))
        if len(inputs) != len(expected):
            wanted = ", ".join(map(str, expected))
            count = f"{len(expected)} input{'' if len(expected) == 1 else 's'}"
            raise PatcError(f"expected {count} ({wanted}), got {len(inputs)}")
        torch = sys.modules.get("torch")
        kept, addresses, as_torch = [], [], False
        for info, value in zip(expected, inputs, strict=True):
            if torch is not None and isinstance(value, torch.Tensor):
                as_torch = True
                value = _check_tensor(info, value, torch)
                addresses.append(value.data_ptr())
            else:
                value = _check_array(info, value)
                addresses.append(value.ctypes.data)
            kept.append(value)
        return kept, addresses, torch if as_torch else None

    def _make_outputs(self, torch: Any) -> tuple[list[Any], list[int]]:
        """Return uninitialised outputs and their addresses: tensors when torch is given, else arrays."""
        shapes = [info.shape for info in self.program.outputs]
        if torch is None:
            arrays = [np.empty(shape, np.float32) for shape in shapes]
            return arrays, [array.ctypes.data for array in arrays]
        tensors = [torch.empty(shape, dtype=torch.float32, device="cpu") for shape in shapes]
        return tensors, [tensor.data_ptr() for tensor in tensors]

    def _acquire(self) -> _Workspace:
        try:
            return self._idle.pop()
        except IndexError:
            return _Workspace(self.program)


class _Workspace:
    """The memory of one call in flight."""

    def __init__(self, program: Program) -> None:
        self.arena = aligned_bytes(program.arena_bytes)
        self.ticks = np.zeros(len(program.layers) + 1, np.int64)
        self.addresses = (self.ticks.ctypes.data, self.arena.ctypes.data)


def _check_tensor(info: TensorInfo, value: Any, torch: Any) -> Any:
    """Return a torch tensor as a contiguous one."""
    if value.shape != info.shape or value.dtype != torch.float32:
        dtype = str(value.dtype).removeprefix("torch.")
        raise PatcError(f"expected input {info}, got shape {list(value.shape)} {dtype}")
    if value.device.type != "cpu" or value.layout != torch.strided:
        raise PatcError(f"expected input {info} as a dense tensor on the CPU, got {value.layout} on {value.device}")
    return value.detach().contiguous()


def _check_array(info: TensorInfo, value: Any) -> np.ndarray:
    """Return a numpy array as a contiguous one."""
    if not isinstance(value, np.ndarray):
        raise PatcError(f"expected input {info}, got {type(value).__name__}")
    if value.shape != info.shape or value.dtype != np.float32:
        raise PatcError(f"expected input {info}, got shape {list(value.shape)} {value.dtype}")
    return np.ascontiguousarray(value)


def nest(structure: Any, results: Sequence[Any]) -> Any:
    """Return results nested as `structure` says.

    Args:
        structure: {"leaf": i} for result i, {"constant": value}, {"tuple": parts}, {"list": parts},
            {"dict": [[key, part], ...]}, or {"namedtuple": [name, [field, ...], parts]}.
        results: the tensors or arrays.
    """
    ((kind, value),) = structure.items()
    if kind == "leaf":
        return results[value]
    if kind == "constant":
        return value
    if kind == "dict":
        return {key: nest(part, results) for key, part in value}
    if kind == "namedtuple":
        name, fields, parts = value
        return _named_tuple(name, *fields)(*(nest(part, results) for part in parts))
    nested = [nest(part, results) for part in value]
    return tuple(nested) if kind == "tuple" else nested


@functools.cache
def _named_tuple(name: str, *fields: str) -> Any:
    """Return a class with the name and the fields of the model's own, which a loaded model cannot import."""
    return namedtuple(name, fields)


def make_model(
    program: Program, diagnostics: Sequence[Diagnostic] = (), device: int | str | None = None
) -> CompiledModel:
    """Return the model that runs a program, for its kind of target.

    Args:
        device: of a program for Vulkan: index or name; None for the best one.

    Raises:
        PatcError: a device for a program that runs on a CPU.
    """
    if program.target == SPIRV_VULKAN:
        from patc.runtime.vulkan_model import VulkanModel

        return VulkanModel(program, diagnostics, device)
    if device is not None:
        raise PatcError(f"expected a model for {SPIRV_VULKAN} together with a device, got one for '{program.target}'")
    return CompiledModel(program, diagnostics)


def load(path: str | os.PathLike[str], device: int | str | None = None) -> CompiledModel:
    """Return the model that `CompiledModel.save` wrote.

    Args:
        device: of a model for Vulkan: index or name; None for the best one.

    Raises:
        PatcError: the file is missing, damaged, no saved model, of another version, or for another architecture or a
            CPU with extensions that this one lacks.
    """
    place = os.fspath(path)
    text, code, weights = _read(place)
    header, _, body = text.partition("\n")
    try:
        found = json.loads(header)
        if found["format"] != FORMAT:
            message = f"expected a compiled model of format {FORMAT}, found format {found['format']}; compile it again"
            raise PatcError(message, place)
        if found["checksum"] != _checksum(body, code, weights):
            raise PatcError("expected a compiled model, found damaged data (wrong checksum)", place)
        program = _program(json.loads(body), code, weights)
    except (KeyError, TypeError, ValueError) as error:
        found_text = f"{type(error).__name__}: {error}"
        raise PatcError(f"expected a compiled model, found damaged data ({found_text})", place) from None
    missing = _missing_features(program.features)
    if missing:
        raise PatcError(_describe_missing(missing, program.target), place)
    try:
        return make_model(program, device=device)
    except ValueError as error:
        raise PatcError(f"expected a compiled model, found damaged data ({error})", place) from None


def _read(place: str) -> tuple[str, bytes, np.ndarray]:
    """Return the description, the code and the weights of a file."""
    from safetensors import SafetensorError, safe_open

    if not Path(place).is_file():
        found = "a folder" if Path(place).is_dir() else "no such file"
        raise PatcError(f"expected a compiled model, found {found}", place)
    try:
        with safe_open(place, framework="numpy") as file:
            text = (file.metadata() or {}).get("patc")
            if text is None:
                raise PatcError("expected a compiled model, found a safetensors file without one", place)
            return text, file.get_tensor("code").tobytes(), file.get_tensor("weights")
    except (SafetensorError, OSError) as error:
        raise PatcError(
            f"expected a compiled model, found damaged data or another format ({first_line(error)})", place
        ) from None


def _program(values: dict[str, Any], code: bytes, weights: np.ndarray) -> Program:
    return Program(
        code=code,
        weights=weights,
        inputs=_tensor_infos(values["inputs"]),
        outputs=_tensor_infos(values["outputs"]),
        structure=values["structure"],
        arena_bytes=values["arena_bytes"],
        target=values["target"],
        features=tuple(values["features"]),
        threads=values["threads"],
        layers=tuple(LayerReport.from_json(layer) for layer in values["layers"]),
    )


def _tensor_infos(rows: list[Any]) -> tuple[TensorInfo, ...]:
    return tuple(TensorInfo(name, tuple(shape)) for name, shape in rows)


def _checksum(text: str, code: bytes, weights: np.ndarray) -> int:
    """Return a number that a damaged file most likely does not have: damaged code could end the process."""
    value = zlib.crc32(text.encode())
    return zlib.crc32(weights.data, zlib.crc32(code, value))


def _missing_features(features: Sequence[str]) -> tuple[str, ...]:
    from patc.targets import host_features

    return tuple(sorted(set(features) - host_features()))


def _describe_missing(missing: Sequence[str], target: str) -> str:
    if "neon" in missing:  # which every AArch64 machine has
        return f"expected an AArch64 machine, as compiled for target '{target}', got {platform.machine()}"
    return f"expected a CPU with {', '.join(missing)}, as compiled for target '{target}', got one without"
