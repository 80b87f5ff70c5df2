"""A compiled model on a Vulkan device: one submit a call."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from patc.diagnostics import Diagnostic, PatcError
from patc.runtime.gpu_code import LARGEST_BUFFER, GpuCode
from patc.runtime.model import CompiledModel
from patc.runtime.program import Program
from patc.runtime.vulkan import PhysicalDevice, find_device, instance
from patc.runtime.vulkan_session import Overhead, Session


class VulkanModel(CompiledModel):
    """A compiled model that runs on a Vulkan device, which is opened by the first call.

    Call it as any compiled model. One call copies the inputs, submits one command buffer, waits, and copies the
    outputs; between the layers nothing returns to the host. Several Python threads may call the same model: they take
    turns. A fork of a process that uses Vulkan cannot: processes are spawned, or forked before the first call. A call
    raises `PatcError` where there is no Vulkan device, or one that lacks what the code needs, is out of memory or was
    lost; after a lost device the next call opens it again.

    Args:
        device: index or name; None for the best one, see `patc.runtime.vulkan.Instance.choose`.
    """

    def __init__(
        self, program: Program, diagnostics: Sequence[Diagnostic] = (), device: int | str | None = None
    ) -> None:
        self._wanted = device
        super().__init__(program, diagnostics)
        self.code = GpuCode.from_bytes(program.code)
        self._session: Session | None = None
        self._lock = threading.Lock()

    def __reduce__(self) -> Any:
        restore, arguments = super().__reduce__()
        return restore, (*arguments, self._wanted)

    @classmethod
    def check_program(cls, program: Program, stated: bytes) -> None:
        if program.features or program.threads != 1:
            raise ValueError(f"features: expected none, and one thread, for {program.target}")
        code = GpuCode.from_bytes(program.code)
        if not code.states(stated):
            raise ValueError("its code was compiled for another description, or for other weights")
        if code.dispatches[-1].layer + 1 < len(program.layers) or not 0 < program.arena_bytes <= LARGEST_BUFFER:
            raise ValueError("expected a dispatch for each layer, and an arena for them")
        if not 0 < program.weights.nbytes <= LARGEST_BUFFER:
            raise ValueError(f"expected weights of 1 to {LARGEST_BUFFER} bytes")
        if any(start + size > program.weights.nbytes for start, size in code.windows):
            raise ValueError(f"expected windows of {program.weights.nbytes} bytes of weights")
        for starts, infos in ((code.inputs, program.inputs), (code.outputs, program.outputs)):
            if len(starts) != len(infos):
                raise ValueError(f"expected {len(infos)} places of tensors, found {len(starts)}")
            for start, info in zip(starts, infos, strict=True):
                if start % max(4, info.element.bytes) or start + info.nbytes > program.arena_bytes:
                    raise ValueError(f"expected {info} inside the arena")

    def _make_variant(self, program: Program) -> VulkanModel:
        return VulkanModel(program, device=self._wanted)

    @property
    def device(self) -> PhysicalDevice:
        """The device that the model runs on.

        Raises:
            PatcError: there is no such device.
        """
        return find_device(self._wanted) if self._session is None else self._session.device.physical

    def overhead(self, repetitions: int = 20) -> Overhead:
        """Measure what submits and dispatches cost here, with dispatches of one workgroup each; the median is taken.

        Raises:
            PatcError: as for a call, or less than one repetition.
        """
        if repetitions < 1:
            raise PatcError(f"expected 1 repetition or more, got {repetitions}")
        with self._opened() as session:
            return session.measure_overhead(repetitions)

    def describe_overhead(self) -> str:
        overhead = self.overhead()
        return (
            f"{self.device.name}: {len(self.code.dispatches)} dispatches in one submit; "
            f"overhead {1e3 * overhead.submit:.3f} ms a submit, {1e3 * overhead.dispatch:.4f} ms a dispatch"
        )

    def _run(self, inputs: Sequence[int], outputs: Sequence[int], images: int | None = None) -> None:
        with self._opened() as session:
            session.run(inputs, outputs)

    def _time_layers(
        self, inputs: Sequence[int], outputs: Sequence[int], repetitions: int, images: int | None = None
    ) -> np.ndarray:
        with self._opened() as session:
            session.run(inputs, outputs)
            seconds = np.stack([session.run_stamped() for _ in range(repetitions)])
        # Behind the layers there may be copies of constant results.
        owners = np.array([dispatch.layer for dispatch in self.code.dispatches])
        return np.stack([seconds[:, owners == layer].sum(axis=1) for layer in range(len(self.layers))], axis=1)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Session]:
        """Keep other threads from the session while it is used; it is made by the first use."""
        instance()  # refuses a fork, in which the lock may be another thread's for ever
        with self._lock:
            if self._session is None or self._session.lost:
                self._session = None  # what the device held is gone before it is opened again
                self._session = Session(self.program, self.code, find_device(self._wanted))
            yield self._session
