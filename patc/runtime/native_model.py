"""A compiled model of machine code for a CPU: one call is one native call."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence

import numpy as np

from patc import targets
from patc.diagnostics import Diagnostic, PatcError
from patc.runtime.memory import aligned_bytes, is_resident
from patc.runtime.model import CompiledModel
from patc.runtime.native import NativeFunction
from patc.runtime.object_code import INTERFACE, read_constant
from patc.runtime.program import ENTRY, Program


class NativeModel(CompiledModel):
    """A compiled model that runs on this machine's CPU.

    Each call in flight has its own arena, so that threads do not wait for each other. A forked process may go on
    calling it. A model for another CPU can be made and saved, but not called.
    """

    def __init__(self, program: Program, diagnostics: Sequence[Diagnostic] = ()) -> None:
        super().__init__(program.with_weights(_resident(program.weights)), diagnostics)
        count = len(program.inputs) + len(program.outputs) + 3 + program.counts_images
        self._missing = _missing_features(program.features)
        # Code for another architecture cannot even be linked here.
        if not self._missing:
            self._function = NativeFunction(program.code, ENTRY, count, program.threads)
        self._weights = self.program.weights.ctypes.data
        # Only appended to and popped from, which needs no lock; a lock could be held when the process forks.
        self._idle: list[_Workspace] = []

    @classmethod
    def check_program(cls, program: Program, stated: bytes) -> None:
        missing = _missing_features(program.features)
        if missing:
            raise PatcError(_describe_missing(missing, program.target))
        if read_constant(program.code, INTERFACE) != stated:
            raise ValueError("its code was compiled for another description, or for other weights")

    def _run(self, inputs: Sequence[int], outputs: Sequence[int], images: int | None = None) -> None:
        workspace = self._acquire()
        try:
            self._function(*self._arguments(inputs, outputs, workspace, images))
        finally:
            self._idle.append(workspace)

    def _arguments(
        self, inputs: Sequence[int], outputs: Sequence[int], workspace: _Workspace, images: int | None
    ) -> tuple[int, ...]:
        if not self.program.counts_images:
            return (*inputs, *outputs, *workspace.addresses, self._weights)
        stamps, arena = workspace.addresses
        count = self.program.inputs[0].shape[0] if images is None else images
        return (*inputs, *outputs, stamps, count, arena, self._weights)

    def _time_layers(
        self, inputs: Sequence[int], outputs: Sequence[int], repetitions: int, images: int | None = None
    ) -> np.ndarray:
        workspace = self._acquire()
        arguments = self._arguments(inputs, outputs, workspace, images)
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
        return np.diff(np.stack(stamps), axis=1) * seconds_per_tick

    def _acquire(self) -> _Workspace:
        if self._missing:
            raise PatcError(_describe_missing(self._missing, self.program.target))
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


def _missing_features(features: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(set(features) - targets.host_features()))


def _describe_missing(missing: Sequence[str], target: str) -> str:
    if "neon" in missing:  # which every AArch64 machine has
        return f"expected an AArch64 machine, as compiled for target '{target}', got {platform.machine()}"
    return f"expected a CPU with {', '.join(missing)}, as compiled for target '{target}', got one without"
