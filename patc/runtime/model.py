"""The compiled model: a callable on torch tensors and numpy arrays."""

from __future__ import annotations

import functools
import os
import platform
import sys
import time
from collections import namedtuple
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from patc.diagnostics import Diagnostic, PatcError
from patc.files import atomic_write, check_regular
from patc.layers import LayerReport
from patc.runtime import artefact
from patc.runtime.artefact import Parts
from patc.runtime.description import describe, interface, parse
from patc.runtime.inputs import take_array, take_tensor
from patc.runtime.json_values import printable
from patc.runtime.memory import aligned_bytes, is_resident
from patc.runtime.native import NativeFunction
from patc.runtime.object_code import HAS_ELF_OBJECTS, INTERFACE, read_constant
from patc.runtime.program import ENTRY, SPIRV_VULKAN, Program, TensorInfo

__all__ = ["ENTRY", "CompiledModel", "LayerTime", "Program", "TensorInfo", "load", "make_model", "nest"]


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
        self.program = replace(program, weights=_resident(program.weights))
        self.diagnostics = [item.plain() for item in diagnostics]
        count = len(program.inputs) + len(program.outputs) + 3
        self._missing = _missing_features(program.features)
        # Code for another architecture cannot even be linked here.
        if not self._missing:
            self._function = NativeFunction(program.code, ENTRY, count, threaded=program.threads > 1)
        self._weights = self.program.weights.ctypes.data
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
        atomic_write(path, self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return what `save` writes.

        Raises:
            PatcError: the program is none that `patc.load` takes.
        """
        parts = Parts(describe(self.program), self.program.code, self.program.weights)
        try:
            parse(parts.description)
        except ValueError as error:
            raise PatcError(f"expected a program that can be saved, got one with {printable(str(error))}") from None
        return artefact.join(parts)

    def __reduce__(self) -> Any:
        return _restore, (self.to_bytes(), self.diagnostics)

    def __copy__(self) -> CompiledModel:
        """Return a model of the same code and weights, which nothing changes."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def __deepcopy__(self, memo: Any) -> CompiledModel:
        return self.__copy__()

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
                value, address = take_tensor(info, value, torch)
            else:
                value, address = take_array(info, value)
            kept.append(value)
            addresses.append(address)
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
            pass
        try:
            return _Workspace(self.program)
        except MemoryError:
            size = f"{self.program.arena_bytes / 2**20:.0f} MiB"
            raise PatcError(f"expected memory of {size} for the activations of a call, found less") from None


class _Workspace:
    """The memory of one call in flight."""

    def __init__(self, program: Program) -> None:
        self.arena = aligned_bytes(program.arena_bytes)
        self.ticks = np.zeros(len(program.layers) + 1, np.int64)
        self.addresses = (self.ticks.ctypes.data, self.arena.ctypes.data)


def _resident(weights: np.ndarray) -> np.ndarray:
    """Return weights that lie where kernels read them best, and that nothing changes."""
    if weights.flags.writeable or not is_resident(weights):
        memory = aligned_bytes(weights.nbytes)
        memory[:] = weights
        memory.flags.writeable = False
        return memory
    return weights


def nest(structure: Any, results: Sequence[Any]) -> Any:
    """Return results nested as `structure` says.

    Args:
        structure: {"leaf": i} for result i, {"constant": value}, {"float": "inf", "-inf" or "nan"}, {"tuple": parts},
            {"list": parts}, {"dict": [[key, part], ...]}, or {"namedtuple": [name, [field, ...], parts]}.
        results: the tensors or arrays.
    """
    ((kind, value),) = structure.items()
    if kind == "leaf":
        return results[value]
    if kind == "constant":
        return value
    if kind == "float":
        return float(value)
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


def load(
    path: str | os.PathLike[str], device: int | str | None = None, key: str | os.PathLike[str] | None = None
) -> CompiledModel:
    """Return the model that `CompiledModel.save` wrote.

    The file holds machine code, which calls of the model run: load what you trust. See docs/security.md for what is
    checked.

    Args:
        device: of a model for Vulkan: index or name; None for the best one.
        key: file with the public key that has to have signed the model; None takes signed and other ones.

    Raises:
        PatcError: the file is missing, damaged, no saved model, of another version, not signed with the key, or for
            another architecture or a CPU with extensions that this one lacks.
    """
    place = os.fspath(path)
    parts = read_parts(place)
    if key is not None:
        from patc.runtime.signature import verify

        verify(parts, key, place)
    try:
        return _make_from_parts(parts, (), device)
    except ValueError as error:
        found = printable(str(error))
        raise PatcError(f"expected a compiled model, found damaged data ({found})", place) from None
    except PatcError as error:
        raise PatcError(error.message, place) from None


def read_parts(place: str) -> Parts:
    """Return the parts of a file.

    Raises:
        PatcError: the file is missing, damaged, no saved model, of another version, or too large for the memory.
    """
    check_regular(place, "a compiled model")
    try:
        with open(place, "rb") as stream:
            return artefact.read(stream)
    except ValueError as error:
        raise PatcError(str(error), place) from None
    except (OSError, MemoryError) as error:
        raise PatcError(f"cannot read the file: {getattr(error, 'strerror', None) or 'out of memory'}", place) from None


def _restore(data: bytes, diagnostics: Sequence[Diagnostic], device: int | str | None = None) -> CompiledModel:
    """Return the model whose `to_bytes` is `data`."""
    try:
        return _make_from_parts(artefact.split(data), diagnostics, device)
    except ValueError as error:
        raise PatcError(f"expected the bytes of a compiled model, found others ({printable(str(error))})") from None


def _make_from_parts(parts: Parts, diagnostics: Sequence[Diagnostic], device: int | str | None) -> CompiledModel:
    """Return the model of a file.

    Raises:
        ValueError: the parts do not go together.
        PatcError: they are for another machine.
    """
    program = replace(parse(parts.description), code=parts.code, weights=parts.weights)
    missing = _missing_features(program.features)
    if missing:
        raise PatcError(_describe_missing(missing, program.target))
    stated = interface(parts.description, parts.weights_digest)
    if program.target == SPIRV_VULKAN:
        from patc.runtime.vulkan_model import check_code

        check_code(program, stated)
    elif HAS_ELF_OBJECTS and read_constant(program.code, INTERFACE) != stated:
        raise ValueError("its code was compiled for another description, or for other weights")
    return make_model(program, diagnostics, device)


def _missing_features(features: Sequence[str]) -> tuple[str, ...]:
    from patc.targets import host_features

    return tuple(sorted(set(features) - host_features()))


def _describe_missing(missing: Sequence[str], target: str) -> str:
    if "neon" in missing:  # which every AArch64 machine has
        return f"expected an AArch64 machine, as compiled for target '{target}', got {platform.machine()}"
    return f"expected a CPU with {', '.join(missing)}, as compiled for target '{target}', got one without"
