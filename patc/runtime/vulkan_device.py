"""An open Vulkan device: its queue, memory and pipelines."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from patc.capabilities import CAPABILITIES, DOT
from patc.diagnostics import PatcError
from patc.numerics import NUMERICS
from patc.runtime import vulkan_structures as vk
from patc.runtime.spirv_module import ask_for
from patc.runtime.vulkan import (
    DEVICE_LOST,
    FLOAT_CONTROLS,
    Api,
    PhysicalDevice,
    VulkanError,
    instance,
)
from patc.runtime.vulkan_features import DeviceFeatures

STORAGE, FROM, TO = 0x20, 0x1, 0x2  # usage of a buffer: by kernels, and as source and target of copies
_DEVICE_LOCAL, _HOST_VISIBLE, _HOST_COHERENT, _HOST_CACHED = 1, 2, 4, 8
_OUT_OF_MEMORY = (-1, -2)
_STORAGE_BUFFER = 7  # a kind of descriptor
COMPUTE = 0x20  # a stage of shaders
_FOREVER = (1 << 64) - 1


@dataclass(frozen=True)
class Buffer:
    """A buffer with memory of its own; `address` is where the host sees it, 0 where it does not."""

    handle: int
    memory: int
    size: int
    address: int


class Device:
    """A device with one queue. Calls may come from any thread, one at a time: hold `lock`.

    Args:
        capabilities: of SPIR-V, that kernels need.

    Raises:
        PatcError: the device lacks a capability, or cannot be opened.
    """

    def __init__(self, physical: PhysicalDevice, capabilities: Collection[str]) -> None:
        missing = sorted(set(capabilities) - {"Shader"} - physical.capabilities)
        if missing:
            names = ", ".join(dict.fromkeys(CAPABILITIES[name].feature for name in missing))
            users = {CAPABILITIES[name].user for name in missing}
            hint = "compile with dtype f32, or " if not users.isdisjoint(NUMERICS) else ""
            hint += "compile for target spirv-vulkan, or " if DOT in users else ""
            raise PatcError(
                f"expected a Vulkan device with {names}, as compiled for, got '{physical.name}' without: "
                f"{hint}choose another device"
            )
        self.physical = physical
        self.api: Api = instance().api
        self.lock = threading.RLock()
        self.handle = self._open(frozenset(capabilities))
        queue = vk.Handle()
        self.api.vkGetDeviceQueue(self.handle, physical.queue_family, 0, ctypes.byref(queue))
        self.queue = queue.value
        memory = vk.PhysicalDeviceMemoryProperties()
        self.api.vkGetPhysicalDeviceMemoryProperties(physical.handle, ctypes.byref(memory))
        self._kinds = [memory.memoryTypes[number].propertyFlags for number in range(memory.memoryTypeCount)]
        info = vk.CommandPoolCreateInfo(queueFamilyIndex=physical.queue_family)
        self.commands = self.create("vkCreateCommandPool", info)

    def _open(self, capabilities: frozenset[str]) -> int:
        physical, needed = self.physical, [CAPABILITIES[name] for name in sorted(capabilities & CAPABILITIES.keys())]
        priority = ctypes.c_float(1.0)
        queue = vk.DeviceQueueCreateInfo(
            queueFamilyIndex=physical.queue_family, queueCount=1, pQueuePriorities=ctypes.pointer(priority)
        )
        features = DeviceFeatures(needed)
        for item in needed:
            features.enable(item)
        if physical.keeps_to_buffers:
            features.keep_to_buffers()  # kernels that were changed cannot leave their buffers
        extensions = sorted({item.device_extension for item in needed} - {""})
        extensions += [FLOAT_CONTROLS] * bool(physical.float_controls)
        names = (ctypes.c_char_p * len(extensions))(*(name.encode() for name in extensions))
        info = vk.DeviceCreateInfo(
            pNext=ctypes.addressof(features.first),
            queueCreateInfoCount=1,
            pQueueCreateInfos=ctypes.addressof(queue),
            enabledExtensionCount=len(extensions),
            ppEnabledExtensionNames=ctypes.addressof(names) if extensions else None,
        )
        return self.api.create("vkCreateDevice", physical.handle, ctypes.byref(info))

    def create(self, function: str, info: ctypes.Structure) -> int:
        """Return the object that `function` makes of `info`."""
        return self.api.create(function, self.handle, ctypes.byref(info))

    @contextmanager
    def reporting(self, what: str) -> Iterator[None]:
        """Say in errors of memory and of a lost device which device it was, and what for."""
        try:
            yield
        except VulkanError as error:
            if error.result == DEVICE_LOST:
                forget(self)
                message = f"Vulkan device '{self.physical.name}' was lost {what}; the next call opens it again"
            elif error.result in _OUT_OF_MEMORY:
                message = f"Vulkan device '{self.physical.name}' is out of memory {what}"
            else:
                message = f"{error.message} on '{self.physical.name}' {what}"
            raise VulkanError(message, error.result) from None

    # Memory -------------------------------------------------------------------------------------------

    def allocate(self, size: int, usage: int, on_host: bool = False) -> Buffer:
        """Return a new buffer, in the memory of the device or where the host sees it.

        Raises:
            VulkanError: out of memory.
        """
        handle = self.create("vkCreateBuffer", vk.BufferCreateInfo(size=size, usage=usage))
        try:
            needs = vk.MemoryRequirements()
            self.api.vkGetBufferMemoryRequirements(self.handle, handle, ctypes.byref(needs))
            kind = self._memory_kind(needs.memoryTypeBits, on_host)
            memory = self.create(
                "vkAllocateMemory", vk.MemoryAllocateInfo(allocationSize=needs.size, memoryTypeIndex=kind)
            )
        except VulkanError:
            self.api.vkDestroyBuffer(self.handle, handle, None)
            raise
        self.api.vkBindBufferMemory(self.handle, handle, memory, 0)
        address = ctypes.c_void_p()
        if on_host:
            self.api.vkMapMemory(self.handle, memory, 0, _FOREVER, 0, ctypes.byref(address))
        return Buffer(handle, memory, size, address.value or 0)

    def _memory_kind(self, allowed: int, on_host: bool) -> int:
        """Return the best kind of memory among the allowed ones; every device has both."""
        needed = _HOST_VISIBLE | _HOST_COHERENT if on_host else 0
        wished = _HOST_CACHED if on_host else _DEVICE_LOCAL
        able = [
            number for number, flags in enumerate(self._kinds) if allowed >> number & 1 and flags & needed == needed
        ]
        return max(able, key=lambda number: (bool(self._kinds[number] & wished), -number))

    def free(self, buffer: Buffer) -> None:
        """Give a buffer back."""
        self.api.vkDestroyBuffer(self.handle, buffer.handle, None)
        self.api.vkFreeMemory(self.handle, buffer.memory, None)

    # Pipelines ----------------------------------------------------------------------------------------

    def descriptor_layout(self, buffers: int) -> int:
        """Return the layout of set 0 with so many storage buffers."""
        bindings = (vk.DescriptorSetLayoutBinding * buffers)(
            *((number, _STORAGE_BUFFER, 1, COMPUTE, None) for number in range(buffers))
        )
        return self.create(
            "vkCreateDescriptorSetLayout",
            vk.DescriptorSetLayoutCreateInfo(bindingCount=buffers, pBindings=ctypes.addressof(bindings)),
        )

    def pipeline_layout(self, descriptors: int, push_bytes: int) -> int:
        """Return the layout of pipelines that bind one set and have so many bytes of push constants."""
        sets = vk.Handle(descriptors)
        constants = vk.PushConstantRange(COMPUTE, 0, push_bytes)
        return self.create(
            "vkCreatePipelineLayout",
            vk.PipelineLayoutCreateInfo(
                setLayoutCount=1,
                pSetLayouts=ctypes.addressof(sets),
                pushConstantRangeCount=1,
                pPushConstantRanges=ctypes.addressof(constants),
            ),
        )

    def pipeline(self, code: bytes, entry: str, layout: int) -> int:
        """Return the pipeline of an entry point of SPIR-V code, which keeps NaN and rounds to nearest where
        the device can promise it."""
        code = ask_for(code, self.physical.float_controls)
        words = ctypes.create_string_buffer(code, len(code))
        module = self.create(
            "vkCreateShaderModule",
            vk.ShaderModuleCreateInfo(codeSize=len(code), pCode=ctypes.addressof(words)),
        )
        stage = vk.PipelineShaderStageCreateInfo(stage=COMPUTE, module=module, pName=entry.encode())
        info = vk.ComputePipelineCreateInfo(stage=stage, layout=layout, basePipelineIndex=-1)
        handle = vk.Handle()
        try:
            self.api.vkCreateComputePipelines(self.handle, 0, 1, ctypes.byref(info), None, ctypes.byref(handle))
        finally:
            self.api.vkDestroyShaderModule(self.handle, module, None)
        return handle.value

    def bind(self, pool: int, layout: int, parts: Sequence[tuple[Buffer, int, int]]) -> int:
        """Return a set of descriptors of parts of buffers: (buffer, first byte, bytes)."""
        layouts, handle = vk.Handle(layout), vk.Handle()
        allocation = vk.DescriptorSetAllocateInfo(
            descriptorPool=pool, descriptorSetCount=1, pSetLayouts=ctypes.addressof(layouts)
        )
        self.api.vkAllocateDescriptorSets(self.handle, ctypes.byref(allocation), ctypes.byref(handle))
        infos = [vk.DescriptorBufferInfo(buffer.handle, start, size) for buffer, start, size in parts]
        writes = (vk.WriteDescriptorSet * len(infos))(
            *(
                vk.WriteDescriptorSet(
                    dstSet=handle.value,
                    dstBinding=number,
                    descriptorCount=1,
                    descriptorType=_STORAGE_BUFFER,
                    pBufferInfo=ctypes.addressof(info),
                )
                for number, info in enumerate(infos)
            )
        )
        self.api.vkUpdateDescriptorSets(self.handle, len(infos), writes, 0, None)
        return handle.value

    def descriptor_pool(self, buffers: int, sets: int) -> int:
        """Return a pool for some sets of so many storage buffers each."""
        size = vk.DescriptorPoolSize(_STORAGE_BUFFER, buffers * sets)
        return self.create(
            "vkCreateDescriptorPool",
            vk.DescriptorPoolCreateInfo(maxSets=sets, poolSizeCount=1, pPoolSizes=ctypes.addressof(size)),
        )

    # Commands -----------------------------------------------------------------------------------------

    def record(self, write: Callable[[int], None]) -> int:
        """Return a command buffer, to be submitted any number of times, that `write` fills."""
        handle = vk.Handle()
        info = vk.CommandBufferAllocateInfo(commandPool=self.commands, level=0, commandBufferCount=1)
        self.api.vkAllocateCommandBuffers(self.handle, ctypes.byref(info), ctypes.byref(handle))
        self.api.vkBeginCommandBuffer(handle.value, ctypes.byref(vk.CommandBufferBeginInfo()))
        write(handle.value)
        self.api.vkEndCommandBuffer(handle.value)
        return handle.value

    def discard(self, commands: int) -> None:
        """Give a command buffer back."""
        handle = vk.Handle(commands)
        self.api.vkFreeCommandBuffers(self.handle, self.commands, 1, ctypes.byref(handle))

    def submit(self, commands: int, fence: int) -> None:
        """Run a command buffer and wait for its end."""
        buffers, fences = vk.Handle(commands), vk.Handle(fence)
        info = vk.SubmitInfo(commandBufferCount=1, pCommandBuffers=ctypes.addressof(buffers))
        self.api.vkQueueSubmit(self.queue, 1, ctypes.byref(info), fence)
        self.api.vkWaitForFences(self.handle, 1, ctypes.byref(fences), 1, _FOREVER)
        self.api.vkResetFences(self.handle, 1, ctypes.byref(fences))


_OPEN: dict[tuple[int, frozenset[str]], Device] = {}
_OPENING = threading.Lock()


def open_device(physical: PhysicalDevice, capabilities: Collection[str]) -> Device:
    """Return a device of this process, opened when it is first asked for.

    Raises:
        PatcError: as `Device`.
    """
    key = (physical.index, frozenset(capabilities) - {"Shader"})
    with _OPENING:
        if key not in _OPEN:
            _OPEN[key] = Device(physical, capabilities)
        return _OPEN[key]


def forget(device: Device) -> None:
    """Open a device anew when it is asked for the next time."""
    with _OPENING:
        for key in [key for key, known in _OPEN.items() if known is device]:
            del _OPEN[key]
