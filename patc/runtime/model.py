"""The compiled model: a callable on torch tensors and numpy arrays."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from patc.diagnostics import Diagnostic, PatcError
from patc.files import atomic_write
from patc.layers import LayerReport
from patc.runtime.native import NativeFunction, aligned_bytes

FORMAT = 1
ENTRY = "main"


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
        weights: the arrays that the kernels read.
        inputs, outputs: in the order of the pointers.
        structure: how outputs nest, see `patc.runtime.structure`.
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

    Call it with torch tensors or numpy arrays, float32 and of the compiled shapes; what comes back has the structure
    that the model returns, of tensors or of arrays. One call is one native call; it allocates the outputs only.
    Several Python threads may call the same model: each call in flight has its own arena.

    Attributes:
        program: code, weights and descriptions.
        diagnostics: what the passes remarked; empty for a loaded model.
    """

    def __init__(self, program: Program, diagnostics: Sequence[Diagnostic] = ()) -> None:
        self.program = program
        self.diagnostics = list(diagnostics)
        count = len(program.inputs) + len(program.outputs) + 3
        self._function = NativeFunction(program.code, ENTRY, count, threaded=program.threads > 1)
        self._weights = aligned_bytes(program.weights.nbytes)
        self._weights[:] = program.weights
        self._idle: list[_Workspace] = []
        self._lock = threading.Lock()

    @property
    def layers(self) -> tuple[LayerReport, ...]:
        """What each layer is, how it is computed and why, in the order in which they run."""
        return self.program.layers

    def __call__(self, *inputs: Any) -> Any:
        """Run the model.

        Raises:
            PatcError: wrong number, shape or element type of inputs.
        """
        arrays, as_torch = self._check(inputs)
        outputs = [np.empty(info.shape, np.float32) for info in self.program.outputs]
        workspace = self._acquire()
        try:
            self._run(arrays, outputs, workspace)
        finally:
            self._release(workspace)
        results: list[Any] = list(outputs)
        if as_torch:
            import torch

            results = [torch.from_numpy(output) for output in outputs]
        return nest(self.program.structure, results)

    def profile(self, *inputs: Any, repetitions: int = 20) -> list[LayerTime]:
        """Return the median time of each layer over `repetitions` calls, after one call to warm up."""
        arrays, _ = self._check(inputs)
        outputs = [np.empty(info.shape, np.float32) for info in self.program.outputs]
        workspace = self._acquire()
        try:
            self._run(arrays, outputs, workspace)
            start, first = time.perf_counter(), int(workspace.ticks[-1])
            stamps = []
            for _ in range(repetitions):
                self._run(arrays, outputs, workspace)
                stamps.append(workspace.ticks.copy())
            seconds_per_tick = (time.perf_counter() - start) / max(1, int(workspace.ticks[-1]) - first)
        finally:
            self._release(workspace)
        medians = np.median(np.diff(np.stack(stamps), axis=1), axis=0) * seconds_per_tick
        return [LayerTime(layer, float(median)) for layer, median in zip(self.layers, medians, strict=True)]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to one file, which `patc.load` reads without torch.

        Raises:
            PatcError: the file cannot be written; nothing is left behind.
        """
        from safetensors.numpy import save

        program = self.program
        metadata = {
            "format": FORMAT,
            "inputs": [[info.name, info.shape] for info in program.inputs],
            "outputs": [[info.name, info.shape] for info in program.outputs],
            "structure": program.structure,
            "arena_bytes": program.arena_bytes,
            "target": program.target,
            "features": program.features,
            "threads": program.threads,
            "layers": [layer.to_json() for layer in program.layers],
        }
        tensors = {"code": np.frombuffer(program.code, np.uint8), "weights": program.weights}
        atomic_write(path, save(tensors, {"patc": json.dumps(metadata)}))

    def _check(self, inputs: Sequence[Any]) -> tuple[list[np.ndarray], bool]:
        """Return the inputs as contiguous arrays, and whether one of them is a torch tensor."""
        expected = self.program.inputs
        if len(inputs) != len(expected):
            wanted = ", ".join(map(str, expected))
            raise PatcError(f"expected {len(expected)} inputs ({wanted}), got {len(inputs)}")
        torch = sys.modules.get("torch")
        arrays, as_torch = [], False
        for info, value in zip(expected, inputs, strict=True):
            if torch is not None and isinstance(value, torch.Tensor):
                as_torch = True
                value = value.detach().numpy() if value.device.type == "cpu" else value
            if not isinstance(value, np.ndarray):
                raise PatcError(f"expected input {info}, got {type(value).__name__}")
            if value.shape != info.shape or value.dtype != np.float32:
                raise PatcError(f"expected input {info}, got shape {list(value.shape)} {value.dtype}")
            arrays.append(np.ascontiguousarray(value))
        return arrays, as_torch

    def _run(self, inputs: list[np.ndarray], outputs: list[np.ndarray], workspace: _Workspace) -> None:
        memories = [*inputs, *outputs, workspace.ticks, workspace.arena, self._weights]
        self._function(*(memory.ctypes.data for memory in memories))

    def _acquire(self) -> _Workspace:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return _Workspace(self.program)

    def _release(self, workspace: _Workspace) -> None:
        with self._lock:
            self._idle.append(workspace)


class _Workspace:
    """The memory of one call in flight."""

    def __init__(self, program: Program) -> None:
        self.arena = aligned_bytes(program.arena_bytes)
        self.ticks = np.zeros(len(program.layers) + 1, np.int64)


def nest(structure: Any, results: Sequence[Any]) -> Any:
    """Return results nested as `structure` says: {"leaf": i}, {"constant": value} or {kind: parts}."""
    ((kind, value),) = structure.items()
    if kind == "leaf":
        return results[value]
    if kind == "constant":
        return value
    if kind == "dict":
        return {key: nest(part, results) for key, part in value.items()}
    parts = [nest(part, results) for part in value]
    return tuple(parts) if kind == "tuple" else parts


def load(path: str | os.PathLike[str]) -> CompiledModel:
    """Return the model that `CompiledModel.save` wrote.

    Raises:
        PatcError: the file is missing, damaged, no saved model, or for a CPU with extensions this one lacks.
    """
    from safetensors import SafetensorError, safe_open

    place = os.fspath(path)
    if not Path(path).is_file():
        raise PatcError("expected a compiled model, found no such file", place)
    try:
        with safe_open(place, framework="numpy") as file:
            text = (file.metadata() or {}).get("patc")
            if text is None:
                raise PatcError("expected a compiled model, found a safetensors file without one", place)
            code, weights = file.get_tensor("code"), file.get_tensor("weights")
    except (SafetensorError, OSError) as error:
        raise PatcError(f"expected a compiled model, found damaged data ({error})", place) from None
    values = json.loads(text)
    if values["format"] != FORMAT:
        raise PatcError(f"expected a compiled model of format {FORMAT}, found format {values['format']}", place)
    _require_features(values["features"], place)
    return CompiledModel(
        Program(
            code=code.tobytes(),
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
    )


def _tensor_infos(rows: list[Any]) -> tuple[TensorInfo, ...]:
    return tuple(TensorInfo(name, tuple(shape)) for name, shape in rows)


def _require_features(features: list[str], place: str) -> None:
    from patc.targets import host_features

    missing = sorted(set(features) - host_features())
    if missing:
        raise PatcError(f"expected a CPU with {', '.join(missing)}, found one without", place)
