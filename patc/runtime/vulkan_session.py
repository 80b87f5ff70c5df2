"""A net on a Vulkan device: its buffers and pipelines, and one command buffer that is recorded once."""

from __future__ import annotations

import ctypes
import itertools
import os
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from patc.diagnostics import PatcError
from patc.integers import ceil_div
from patc.runtime import vulkan_structures as vk
from patc.runtime.gpu_code import BUFFERS, Dispatch, GpuCode
from patc.runtime.program import Program, TensorInfo
from patc.runtime.vulkan import PhysicalDevice
from patc.runtime.vulkan_device import COMPUTE, FROM, STORAGE, TO, Buffer, Device, open_device

_ALIGNMENT = 64
_TRANSFER, _SHADER, _HOST = 0x1000, 0x800, 0x4000  # stages
_SHADER_READ, _SHADER_WRITE, _COPY_READ, _COPY_WRITE, _HOST_READ = 0x20, 0x40, 0x800, 0x1000, 0x2000
_BOTTOM = 0x2000  # the stage behind all others
_STAMPS = 2  # a kind of query
_WAIT_64_BIT = 3  # results of queries
_OVERHEAD_DISPATCHES = 100  # enough to tell one from the noise of a submit


@dataclass(frozen=True)
class Overhead:
    """What a device takes beside computing, in seconds: for each submit, and for each dispatch with its barrier."""

    submit: float
    dispatch: float


class Session:
    """The buffers, pipelines and commands of one model on one device.

    Attributes:
        device: that holds them.
        process: that made them; a fork of it must leave them alone.
        lost: whether a call did not come to its end, so that nothing more can be run.
    """

    def __init__(self, program: Program, code: GpuCode, physical: PhysicalDevice) -> None:
        _check_limits(program, code, physical)
        self.process = os.getpid()
        self.device = open_device(physical, code.capabilities)
        self.lost = False
        self._code = code
        self._inputs = _Transfers(code.inputs, program.inputs, 0)
        self._outputs = _Transfers(code.outputs, program.outputs, self._inputs.end)
        self._undo: list[Callable[[], None]] = []
        # Objects are given back in reverse order, also those made before an error.
        self._finalizer = weakref.finalize(self, _release, self._undo, self.device, self.process)
        size = program.arena_bytes + program.weights.nbytes
        with self.device.lock, self.device.reporting(f"while it takes a net of {size / 1e6:.0f} MB"):
            self._prepare(program)

    def _prepare(self, program: Program) -> None:
        device, code = self.device, self._code
        self._staging = self._allocate(max(self._outputs.end, _ALIGNMENT), FROM | TO, on_host=True)
        self._arena = self._allocate(program.arena_bytes, STORAGE | FROM | TO)
        self._weights = self._allocate(program.weights.nbytes, STORAGE | TO)
        self._fence = self._create("vkCreateFence", vk.FenceCreateInfo(), "vkDestroyFence")
        self._upload(program.weights)
        layout = device.descriptor_layout(len(BUFFERS))
        self._later("vkDestroyDescriptorSetLayout", layout)
        push_bytes = max([4, *(kernel.push_bytes for kernel in code.kernels)])
        self._layout = device.pipeline_layout(layout, push_bytes)
        self._later("vkDestroyPipelineLayout", self._layout)
        self._pipelines = {}
        for kernel in code.kernels:
            self._pipelines[kernel.name] = device.pipeline(code.modules[kernel.name], kernel.name, self._layout)
            self._later("vkDestroyPipeline", self._pipelines[kernel.name])
        pool = device.descriptor_pool(len(BUFFERS), len(code.windows))
        self._later("vkDestroyDescriptorPool", pool)
        arena = (self._arena, 0, self._arena.size)
        self._sets = [device.bind(pool, layout, [arena, (self._weights, *window)]) for window in code.windows]
        self._commands = self._record(self._write_call)
        self._stamped: int | None = None

    # Objects and their ends ---------------------------------------------------------------------------

    def _create(self, function: str, info: ctypes.Structure, destroy: str) -> int:
        handle = self.device.create(function, info)
        self._later(destroy, handle)
        return handle

    def _later(self, destroy: str, handle: int) -> None:
        device = self.device
        self._undo.append(lambda: getattr(device.api, destroy)(device.handle, handle, None))

    def _allocate(self, size: int, usage: int, on_host: bool = False) -> Buffer:
        device = self.device
        buffer = device.allocate(size, usage, on_host)
        self._undo.append(lambda: device.free(buffer))
        return buffer

    def _record(self, write: Callable[[int], None]) -> int:
        device = self.device
        commands = device.record(write)
        self._undo.append(lambda: device.discard(commands))
        return commands

    # Commands -----------------------------------------------------------------------------------------

    def _upload(self, weights: np.ndarray) -> None:
        """Copy the weights to the device, through memory that is given back."""
        device = self.device
        source = device.allocate(weights.nbytes, FROM, on_host=True)
        try:
            ctypes.memmove(source.address, weights.ctypes.data, weights.nbytes)
            whole = [(0, 0, weights.nbytes)]
            commands = device.record(lambda handle: self._copy(handle, source, self._weights, whole))
            try:
                device.submit(commands, self._fence)
            finally:
                device.discard(commands)
        finally:
            device.free(source)

    def _write_call(self, commands: int) -> None:
        """Write the commands of a call: inputs to the arena, the layers, outputs from the arena."""
        self._write_inputs(commands)
        for dispatch in self._code.dispatches:
            self._write_dispatch(commands, dispatch)
        self._barrier(commands, _SHADER, _SHADER_WRITE, _TRANSFER, _COPY_READ)
        copies = [(start, place, size) for place, start, size in self._outputs.copies]
        self._copy(commands, self._arena, self._staging, copies)
        self._barrier(commands, _TRANSFER, _COPY_WRITE, _HOST, _HOST_READ)

    def _write_inputs(self, commands: int) -> None:
        self._bound: int | None = None
        self._copy(commands, self._staging, self._arena, self._inputs.copies)
        # The call before this one may still write what this one reads, as far as the device knows.
        self._barrier(commands, _TRANSFER | _SHADER, _COPY_WRITE | _SHADER_WRITE, _SHADER, _SHADER_READ | _SHADER_WRITE)

    def _write_dispatch(self, commands: int, dispatch: Dispatch) -> None:
        api = self.device.api
        numbers = dispatch.push_constants
        if dispatch.window != self._bound:
            self._bound, sets = dispatch.window, vk.Handle(self._sets[dispatch.window])
            api.vkCmdBindDescriptorSets(commands, 1, self._layout, 0, 1, ctypes.byref(sets), 0, None)
        api.vkCmdBindPipeline(commands, 1, self._pipelines[dispatch.kernel])
        if numbers:
            data = (ctypes.c_int32 * len(numbers))(*numbers)
            api.vkCmdPushConstants(commands, self._layout, COMPUTE, 0, 4 * len(numbers), data)
        api.vkCmdDispatch(commands, *dispatch.groups)
        self._barrier(commands, _SHADER, _SHADER_WRITE, _SHADER, _SHADER_READ | _SHADER_WRITE)

    def _barrier(self, commands: int, stage: int, access: int, next_stage: int, next_access: int) -> None:
        barrier = vk.MemoryBarrier(srcAccessMask=access, dstAccessMask=next_access)
        self.device.api.vkCmdPipelineBarrier(commands, stage, next_stage, 0, 1, ctypes.byref(barrier), 0, None, 0, None)

    def _copy(self, commands: int, source: Buffer, target: Buffer, parts: Sequence[tuple[int, int, int]]) -> None:
        """Copy parts: (place in the source, place in the target, bytes)."""
        if parts:
            regions = (vk.BufferCopy * len(parts))(*parts)
            self.device.api.vkCmdCopyBuffer(commands, source.handle, target.handle, len(parts), regions)

    # Calls --------------------------------------------------------------------------------------------

    def run(self, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        """Run the net on inputs and outputs at some addresses."""
        for address, (place, _, size) in zip(inputs, self._inputs.copies, strict=True):
            ctypes.memmove(self._staging.address + place, address, size)
        self._submit(self._commands)
        for address, (place, _, size) in zip(outputs, self._outputs.copies, strict=True):
            ctypes.memmove(address, self._staging.address + place, size)

    def run_stamped(self) -> np.ndarray:
        """Run the net on the inputs of the last call and return the seconds of each dispatch.

        Raises:
            PatcError: the device has no time stamps.
        """
        device = self.device
        bits, count = device.physical.stamp_bits, len(self._code.dispatches) + 1
        if not bits:
            raise PatcError(f"expected a Vulkan device with time stamps, got '{device.physical.name}' without")
        if self._stamped is None:
            with device.lock, device.reporting("while it prepares a profile"):
                info = vk.QueryPoolCreateInfo(queryType=_STAMPS, queryCount=count)
                self._queries = self._create("vkCreateQueryPool", info, "vkDestroyQueryPool")
                self._stamped = self._record(self._write_stamped)
        self._submit(self._stamped)
        ticks = (ctypes.c_uint64 * count)()
        device.api.vkGetQueryPoolResults(
            device.handle, self._queries, 0, count, ctypes.c_size_t(8 * count), ticks, 8, _WAIT_64_BIT
        )
        mask = (1 << bits) - 1
        spent = [(after - before) & mask for before, after in itertools.pairwise(ticks)]
        return np.array(spent) * device.physical.limits.nanoseconds * 1e-9

    def _write_stamped(self, commands: int) -> None:
        api = self.device.api
        api.vkCmdResetQueryPool(commands, self._queries, 0, len(self._code.dispatches) + 1)
        self._write_inputs(commands)
        api.vkCmdWriteTimestamp(commands, _BOTTOM, self._queries, 0)
        for number, dispatch in enumerate(self._code.dispatches, start=1):
            self._write_dispatch(commands, dispatch)
            api.vkCmdWriteTimestamp(commands, _BOTTOM, self._queries, number)

    def measure_overhead(self, repetitions: int) -> Overhead:
        """Return the time of a submit, and of each dispatch in it: see `VulkanModel.overhead`."""
        small = replace(self._code.dispatches[0], groups=(1, 1, 1))
        seconds = []
        for count in (1, 1 + _OVERHEAD_DISPATCHES):

            def write(commands: int, count: int = count) -> None:
                self._write_inputs(commands)
                for _ in range(count):
                    self._write_dispatch(commands, small)

            commands = self.device.record(write)
            try:
                seconds.append(np.median([self._time(commands) for _ in range(repetitions + 1)][1:]))
            finally:
                self.device.discard(commands)
        dispatch = max(0.0, (seconds[1] - seconds[0]) / _OVERHEAD_DISPATCHES)
        return Overhead(max(0.0, float(seconds[0] - dispatch)), float(dispatch))

    def _time(self, commands: int) -> float:
        start = time.perf_counter()
        self._submit(commands)
        return time.perf_counter() - start

    def _submit(self, commands: int) -> None:
        device = self.device
        try:
            with device.lock, device.reporting("during a call"):
                device.submit(commands, self._fence)
        except PatcError:
            # A net that did not come to its end left the fence and the commands in an unknown state.
            self.lost = True
            raise


class _Transfers:
    """Where inputs or outputs are in the staging buffer and in the arena.

    Attributes:
        copies: (place in the staging buffer, place in the arena, bytes) of each.
        end: of the last one in the staging buffer.
    """

    def __init__(self, starts: Sequence[int], infos: Sequence[TensorInfo], first: int) -> None:
        self.copies = []
        for start, info in zip(starts, infos, strict=True):
            self.copies.append((first, start, info.nbytes))
            first = ceil_div(first + info.nbytes, _ALIGNMENT) * _ALIGNMENT
        self.end = first


def _release(undo: list[Callable[[], None]], device: Device, process: int) -> None:
    """Give back what a session made, the last first."""
    if process != os.getpid():
        return  # it belongs to the process that this one is a fork of
    with device.lock:
        while undo:
            undo.pop()()


def _check_limits(program: Program, code: GpuCode, physical: PhysicalDevice) -> None:
    """Refuse a net that needs more than a device allows.

    Raises:
        PatcError: in one line: what is needed, and what the device has.
    """
    limits = physical.limits
    groups = [max((item.groups[axis] for item in code.dispatches), default=0) for axis in range(3)]
    needs = [
        ("storage buffers for a stage", len(BUFFERS), limits.storage_buffers),
        ("bytes in a storage buffer, for activations", program.arena_bytes, limits.storage_range),
        ("bytes in a storage buffer, for weights", max(size for _, size in code.windows), limits.storage_range),
        ("bytes of push constants", max((item.push_bytes for item in code.kernels), default=0), limits.push_bytes),
        (
            "bytes of workgroup memory",
            max((item.shared_bytes for item in code.kernels), default=0),
            limits.shared_bytes,
        ),
        ("threads in a workgroup", max((item.threads for item in code.kernels), default=0), limits.group_threads),
        *((f"workgroups along {axis}", groups[i], limits.group_counts[i]) for i, axis in enumerate("xyz")),
    ]
    for what, needed, allowed in needs:
        if needed > allowed:
            raise PatcError(f"expected a Vulkan device with {needed} {what}, got '{physical.name}' with {allowed}")
