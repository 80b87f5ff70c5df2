"""Vulkan through ctypes: the loader, its errors, and the devices that there are.

A library for it, wgpu 0.32, was tried. It reads SPIR-V with a compiler of its own, which refuses that a kernel sees one
buffer as several types ("bindings conflict") and writes another program for the driver; and its commands can be
submitted once, so that each call would record them anew. What is needed here is small.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import struct
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from patc.capabilities import CAPABILITIES
from patc.diagnostics import PatcError, nearest
from patc.locks import once
from patc.runtime import vulkan_structures as vk
from patc.runtime.spirv_module import FloatControls
from patc.runtime.vulkan_features import DeviceFeatures

API_VERSION = (1 << 22) | (1 << 12)  # 1.1
SELECT = "PATC_VULKAN_DEVICE"  # environment variable: index or name of the device to use
INSTALL = (
    "install a Vulkan loader and a driver (Debian: apt-get install libvulkan1 mesa-vulkan-drivers, which brings a "
    "driver for any CPU; or the driver of the GPU's maker)"
)
_LOADERS = ("libvulkan.so.1", "libvulkan.dylib", "libMoltenVK.dylib", "vulkan-1.dll")
_RESULTS = {
    -1: "out of host memory",
    -2: "out of device memory",
    -3: "initialization failed",
    -4: "device lost",
    -5: "memory cannot be mapped",
    -7: "extension not present",
    -8: "feature not present",
    -9: "incompatible driver",
    -10: "too many objects",
    -1000069000: "out of pool memory",
}
_KINDS = ("other", "integrated GPU", "discrete GPU", "virtual GPU", "CPU")
_PREFERENCE = ("discrete GPU", "integrated GPU", "virtual GPU", "other", "CPU")
DEVICE_LOST = -4
FLOAT_CONTROLS = "VK_KHR_shader_float_controls"  # an extension
_APART = (0, 1)  # ways in which rounding of f32 does not depend on that of other floats


class VulkanError(PatcError):
    """A call of Vulkan that failed; `result` is its VkResult."""

    def __init__(self, message: str, result: int) -> None:
        super().__init__(message)
        self.result = result


class Api:
    """The functions of the loader: `api.vkCreateDevice(...)` raises where that returns an error."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._library, name)
        returns_nothing = name.startswith(("vkCmd", "vkUpdate", "vkDestroy", "vkFree", "vkUnmap")) or (
            name.startswith("vkGet") and name != "vkGetQueryPoolResults"
        )
        function.restype = None if returns_nothing else ctypes.c_int32

        def call(*arguments: Any) -> None:
            result = function(*(ctypes.c_uint64(value) if isinstance(value, int) else value for value in arguments))
            if result is not None and result < 0:
                raise VulkanError(f"Vulkan failed in {name}: {_RESULTS.get(result, f'error {result}')}", result)

        setattr(self, name, call)
        return call

    def create(self, function: str, *arguments: Any) -> int:
        """Return the handle that a function writes behind its other arguments and the allocator."""
        handle = vk.Handle()
        getattr(self, function)(*arguments, None, ctypes.byref(handle))
        return handle.value

    def enumerate(self, function: str, kind: Any, *arguments: Any) -> list[Any]:
        """Return what a function lists that is asked twice: for the number, then for the elements."""
        count = ctypes.c_uint32()
        getattr(self, function)(*arguments, ctypes.byref(count), None)
        elements = (kind * count.value)()
        getattr(self, function)(*arguments, ctypes.byref(count), elements)
        return list(elements)[: count.value]


@dataclass(frozen=True)
class Limits:
    """What a device allows; bytes where nothing else is said.

    Attributes:
        storage_range: of one storage buffer.
        storage_buffers: that a stage may bind.
        group_counts: workgroups of a dispatch along x, y and z.
        group_threads: threads of a workgroup.
        nanoseconds: of one tick of a time stamp.
    """

    storage_range: int
    push_bytes: int
    storage_buffers: int
    shared_bytes: int
    group_counts: tuple[int, int, int]
    group_threads: int
    nanoseconds: float


@dataclass(frozen=True)
class PhysicalDevice:
    """A device that the loader found.

    Attributes:
        index: its place in the loader's list.
        kind: "discrete GPU", "integrated GPU", "virtual GPU", "CPU" or "other".
        version: of Vulkan, as in (1, 3).
        capabilities: of SPIR-V, beside Shader, of those that patc knows.
        queue_family: the one to compute on; None where there is none.
        keeps_to_buffers: whether kernels can be kept from memory outside their buffers (robustBufferAccess).
        float_controls: what kernels can be promised (VK_KHR_shader_float_controls): without, Vulkan lets a driver take
            it that there are no NaN and infinities, and round results either way.
        stamp_bits: that count in a time stamp of that family; 0 where there are none.
    """

    index: int
    handle: int = field(repr=False)
    name: str
    kind: str
    version: tuple[int, int]
    limits: Limits
    capabilities: frozenset[str]
    queue_family: int | None
    keeps_to_buffers: bool
    float_controls: FloatControls
    stamp_bits: int

    @property
    def shortcoming(self) -> str:
        """Why patc cannot use the device; "" where it can."""
        if self.version < (1, 1):
            return f"Vulkan {'.'.join(map(str, self.version))}, and 1.1 is needed"
        return "" if self.queue_family is not None else "no queue for compute"


class Instance:
    """The loader and its devices.

    Raises:
        PatcError: there is no loader, or it finds no driver.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self.api = Api(library)
        self.process = os.getpid()
        application = vk.ApplicationInfo(pApplicationName=b"patc", apiVersion=API_VERSION)
        info = vk.InstanceCreateInfo(pApplicationInfo=ctypes.addressof(application))
        try:
            self._handle = self.api.create("vkCreateInstance", ctypes.byref(info))
            handles = self.api.enumerate("vkEnumeratePhysicalDevices", ctypes.c_uint64, self._handle)
        except VulkanError as error:
            raise PatcError(f"expected a Vulkan device, found none ({error.message}); {INSTALL}") from None
        self.devices = [self._describe(index, handle) for index, handle in enumerate(handles)]

    def _describe(self, index: int, handle: int) -> PhysicalDevice:
        data = ctypes.create_string_buffer(vk.PROPERTIES_BYTES)
        self.api.vkGetPhysicalDeviceProperties(handle, data)
        version, _, _, _, kind = struct.unpack_from("5I", data)
        families = self.api.enumerate("vkGetPhysicalDeviceQueueFamilyProperties", vk.QueueFamilyProperties, handle)
        compute = [number for number, family in enumerate(families) if family.queueFlags & 2]
        family = compute[0] if compute else None
        major_minor = (version >> 22 & 0x7F, version >> 12 & 0x3FF)
        extensions = self._extensions(handle) if major_minor >= (1, 1) else frozenset()
        return PhysicalDevice(
            index,
            handle,
            data.raw[20:276].partition(b"\0")[0].decode(errors="replace"),
            _KINDS[kind] if kind < len(_KINDS) else "other",
            major_minor,
            _limits(data),
            self._capabilities(handle, extensions) if major_minor >= (1, 1) else frozenset(),
            family,
            self._keeps_to_buffers(handle),
            self._float_controls(handle) if FLOAT_CONTROLS in extensions else FloatControls(),
            0 if family is None else families[family].timestampValidBits,
        )

    def _keeps_to_buffers(self, handle: int) -> bool:
        features = (ctypes.c_uint32 * vk.FEATURES)()
        self.api.vkGetPhysicalDeviceFeatures(handle, features)
        return bool(features[0])

    def _float_controls(self, handle: int) -> FloatControls:
        controls = vk.PhysicalDeviceFloatControlsProperties()
        properties = vk.PhysicalDeviceProperties2(pNext=ctypes.addressof(controls))
        self.api.vkGetPhysicalDeviceProperties2(handle, ctypes.byref(properties))
        kept = (bits for bits in (16, 32) if getattr(controls, f"shaderSignedZeroInfNanPreserveFloat{bits}"))
        # Else floats of all sizes would have to be rounded so.
        is_apart = controls.roundingModeIndependence in _APART
        return FloatControls(frozenset(kept), bool(controls.shaderRoundingModeRTEFloat32) and is_apart)

    def _extensions(self, handle: int) -> frozenset[str]:
        found = self.api.enumerate("vkEnumerateDeviceExtensionProperties", vk.ExtensionProperties, handle, None)
        return frozenset(item.extensionName.decode() for item in found)

    def _capabilities(self, handle: int, extensions: Collection[str]) -> frozenset[str]:
        known = [item for item in CAPABILITIES.values() if item.device_extension in ("", *extensions)]
        features = DeviceFeatures(known)
        self.api.vkGetPhysicalDeviceFeatures2(handle, ctypes.byref(features.first))
        return frozenset(item.name for item in known if features.has(item))

    def choose(self, device: int | str | None = None) -> PhysicalDevice:
        """Return a device.

        Args:
            device: index, name or part of a name; None for what the environment variable PATC_VULKAN_DEVICE says, or
                the first one of the best kind: discrete GPUs come before integrated ones, and these before CPUs.

        Raises:
            PatcError: there is no such device, or patc cannot use it.
        """
        wanted = os.environ.get(SELECT) or None if device is None else device
        if wanted is not None:
            chosen = self._find(str(wanted))
            if chosen.shortcoming:
                raise PatcError(f"expected a Vulkan device that computes, got '{chosen.name}': {chosen.shortcoming}")
            return chosen
        able = [item for item in self.devices if not item.shortcoming]
        if not able:
            found = "; ".join(f"'{item.name}' ({item.shortcoming})" for item in self.devices) or "none"
            raise PatcError(f"expected a Vulkan device, found {found}; {INSTALL}")
        return min(able, key=lambda item: _PREFERENCE.index(item.kind))

    def _find(self, text: str) -> PhysicalDevice:
        if text.isdecimal():
            found = [item for item in self.devices if item.index == int(text)]
        else:
            found = [item for item in self.devices if text.lower() == item.name.lower()]
            found = found or [item for item in self.devices if text.lower() in item.name.lower()]
        if not found:
            known = ", ".join(f"{item.index} '{item.name}'" for item in self.devices) or "none"
            hint = nearest(text, [item.name for item in self.devices])
            raise PatcError(f"expected a Vulkan device of {known}, got '{text}'{hint}")
        return found[0]


def _limits(data: Any) -> Limits:
    """Return the limits of VkPhysicalDeviceProperties, by their places in it."""
    base = 296

    def read(kind: str, offset: int) -> Any:
        values = struct.unpack_from(kind, data, base + offset)
        return values if len(values) > 1 else values[0]

    return Limits(
        storage_range=read("I", 28),
        push_bytes=read("I", 32),
        storage_buffers=read("I", 76),
        shared_bytes=read("I", 216),
        group_counts=read("3I", 220),
        group_threads=read("I", 232),
        nanoseconds=read("f", 424),
    )


def instance() -> Instance:
    """Return the instance of this process.

    Raises:
        PatcError: there is no loader, it finds no driver, or this is a fork of a process that uses Vulkan: it has
            neither the drivers' threads nor a device of its own.
    """
    made = _instance()
    if made.process != os.getpid():
        raise PatcError(
            "expected a call in the process that opened Vulkan, got one in a fork of it: "
            "start processes by spawning, or fork before the first call"
        )
    return made


@once
def _instance() -> Instance:
    return Instance(_load(_library_names()))


def _library_names() -> list[str]:
    found = ctypes.util.find_library("vulkan")
    return [*([found] if found else []), *_LOADERS]


def _load(names: Iterable[str]) -> ctypes.CDLL:
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise PatcError(f"expected a Vulkan loader, found none ({_LOADERS[0]}); {INSTALL}")


def find_device(device: int | str | None = None) -> PhysicalDevice:
    """Return a device; see `Instance.choose`."""
    return instance().choose(device)


def devices() -> Sequence[PhysicalDevice]:
    """Return the devices that there are, those that patc cannot use as well.

    Raises:
        PatcError: there is no loader, or it finds no driver.
    """
    return instance().devices
