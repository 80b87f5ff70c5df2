"""The structures of Vulkan 1.1 that computing needs, for ctypes, under Vulkan's own names.

A structure that has a number of its own (sType) gets it when it is made.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_float, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from typing import Any, ClassVar

FEATURES, ROBUST_BUFFER_ACCESS = 55, 0  # of Vulkan 1.0: how many, and the number of one
PROPERTIES_BYTES = 824  # of VkPhysicalDeviceProperties
Handle = c_uint64  # of any object; those that are pointers are as wide on every machine with 64 bits


class Numbered(ctypes.Structure):
    """A structure that begins with its number and a pointer to the next one; keywords set the members."""

    NUMBER: ClassVar[int]

    def __init__(self, **members: Any) -> None:
        super().__init__(sType=self.NUMBER, **members)


def _numbered(name: str, number: int, members: list[tuple[str, Any]]) -> Any:
    head = [("sType", c_uint32), ("pNext", c_void_p)]
    return type(name, (Numbered,), {"NUMBER": number, "_fields_": [*head, *members]})


def _plain(name: str, members: list[tuple[str, Any]]) -> Any:
    return type(name, (ctypes.Structure,), {"_fields_": members})


ApplicationInfo = _numbered(
    "ApplicationInfo",
    0,
    [
        ("pApplicationName", c_char_p),
        ("applicationVersion", c_uint32),
        ("pEngineName", c_char_p),
        ("engineVersion", c_uint32),
        ("apiVersion", c_uint32),
    ],
)
InstanceCreateInfo = _numbered(
    "InstanceCreateInfo",
    1,
    [
        ("flags", c_uint32),
        ("pApplicationInfo", c_void_p),
        ("enabledLayerCount", c_uint32),
        ("ppEnabledLayerNames", c_void_p),
        ("enabledExtensionCount", c_uint32),
        ("ppEnabledExtensionNames", c_void_p),
    ],
)
DeviceQueueCreateInfo = _numbered(
    "DeviceQueueCreateInfo",
    2,
    [
        ("flags", c_uint32),
        ("queueFamilyIndex", c_uint32),
        ("queueCount", c_uint32),
        ("pQueuePriorities", POINTER(c_float)),
    ],
)
DeviceCreateInfo = _numbered(
    "DeviceCreateInfo",
    3,
    [
        ("flags", c_uint32),
        ("queueCreateInfoCount", c_uint32),
        ("pQueueCreateInfos", c_void_p),
        ("enabledLayerCount", c_uint32),
        ("ppEnabledLayerNames", c_void_p),
        ("enabledExtensionCount", c_uint32),
        ("ppEnabledExtensionNames", c_void_p),
        ("pEnabledFeatures", c_void_p),
    ],
)
SubmitInfo = _numbered(
    "SubmitInfo",
    4,
    [
        ("waitSemaphoreCount", c_uint32),
        ("pWaitSemaphores", c_void_p),
        ("pWaitDstStageMask", c_void_p),
        ("commandBufferCount", c_uint32),
        ("pCommandBuffers", c_void_p),
        ("signalSemaphoreCount", c_uint32),
        ("pSignalSemaphores", c_void_p),
    ],
)
MemoryAllocateInfo = _numbered("MemoryAllocateInfo", 5, [("allocationSize", c_uint64), ("memoryTypeIndex", c_uint32)])
FenceCreateInfo = _numbered("FenceCreateInfo", 8, [("flags", c_uint32)])
QueryPoolCreateInfo = _numbered(
    "QueryPoolCreateInfo",
    11,
    [("flags", c_uint32), ("queryType", c_uint32), ("queryCount", c_uint32), ("pipelineStatistics", c_uint32)],
)
BufferCreateInfo = _numbered(
    "BufferCreateInfo",
    12,
    [
        ("flags", c_uint32),
        ("size", c_uint64),
        ("usage", c_uint32),
        ("sharingMode", c_uint32),
        ("queueFamilyIndexCount", c_uint32),
        ("pQueueFamilyIndices", c_void_p),
    ],
)
ShaderModuleCreateInfo = _numbered(
    "ShaderModuleCreateInfo", 16, [("flags", c_uint32), ("codeSize", c_size_t), ("pCode", c_void_p)]
)
PipelineShaderStageCreateInfo = _numbered(
    "PipelineShaderStageCreateInfo",
    18,
    [
        ("flags", c_uint32),
        ("stage", c_uint32),
        ("module", Handle),
        ("pName", c_char_p),
        ("pSpecializationInfo", c_void_p),
    ],
)
ComputePipelineCreateInfo = _numbered(
    "ComputePipelineCreateInfo",
    29,
    [
        ("flags", c_uint32),
        ("stage", PipelineShaderStageCreateInfo),
        ("layout", Handle),
        ("basePipelineHandle", Handle),
        ("basePipelineIndex", c_int32),
    ],
)
PipelineLayoutCreateInfo = _numbered(
    "PipelineLayoutCreateInfo",
    30,
    [
        ("flags", c_uint32),
        ("setLayoutCount", c_uint32),
        ("pSetLayouts", c_void_p),
        ("pushConstantRangeCount", c_uint32),
        ("pPushConstantRanges", c_void_p),
    ],
)
DescriptorSetLayoutCreateInfo = _numbered(
    "DescriptorSetLayoutCreateInfo", 32, [("flags", c_uint32), ("bindingCount", c_uint32), ("pBindings", c_void_p)]
)
DescriptorPoolCreateInfo = _numbered(
    "DescriptorPoolCreateInfo",
    33,
    [("flags", c_uint32), ("maxSets", c_uint32), ("poolSizeCount", c_uint32), ("pPoolSizes", c_void_p)],
)
DescriptorSetAllocateInfo = _numbered(
    "DescriptorSetAllocateInfo",
    34,
    [("descriptorPool", Handle), ("descriptorSetCount", c_uint32), ("pSetLayouts", c_void_p)],
)
WriteDescriptorSet = _numbered(
    "WriteDescriptorSet",
    35,
    [
        ("dstSet", Handle),
        ("dstBinding", c_uint32),
        ("dstArrayElement", c_uint32),
        ("descriptorCount", c_uint32),
        ("descriptorType", c_uint32),
        ("pImageInfo", c_void_p),
        ("pBufferInfo", c_void_p),
        ("pTexelBufferView", c_void_p),
    ],
)
CommandPoolCreateInfo = _numbered("CommandPoolCreateInfo", 39, [("flags", c_uint32), ("queueFamilyIndex", c_uint32)])
CommandBufferAllocateInfo = _numbered(
    "CommandBufferAllocateInfo",
    40,
    [("commandPool", Handle), ("level", c_uint32), ("commandBufferCount", c_uint32)],
)
CommandBufferBeginInfo = _numbered("CommandBufferBeginInfo", 42, [("flags", c_uint32), ("pInheritanceInfo", c_void_p)])
MemoryBarrier = _numbered("MemoryBarrier", 46, [("srcAccessMask", c_uint32), ("dstAccessMask", c_uint32)])

PhysicalDeviceFeatures2 = _numbered("PhysicalDeviceFeatures2", 1000059000, [("features", c_uint32 * FEATURES)])
PhysicalDeviceProperties2 = _numbered(
    "PhysicalDeviceProperties2", 1000059001, [("properties", c_uint64 * (PROPERTIES_BYTES // 8))]
)
PhysicalDeviceShaderIntegerDotProductFeatures = _numbered(
    "PhysicalDeviceShaderIntegerDotProductFeatures", 1000280000, [("shaderIntegerDotProduct", c_uint32)]
)
PhysicalDeviceFloatControlsProperties = _numbered(
    "PhysicalDeviceFloatControlsProperties",
    1000197000,
    [
        ("denormBehaviorIndependence", c_uint32),
        ("roundingModeIndependence", c_uint32),
        *(
            (f"shader{behaviour}Float{bits}", c_uint32)
            for behaviour in (
                "SignedZeroInfNanPreserve",
                "DenormPreserve",
                "DenormFlushToZero",
                "RoundingModeRTE",
                "RoundingModeRTZ",
            )
            for bits in (16, 32, 64)
        ),
    ],
)
PhysicalDevice16BitStorageFeatures = _numbered(
    "PhysicalDevice16BitStorageFeatures",
    1000083000,
    [
        ("storageBuffer16BitAccess", c_uint32),
        ("uniformAndStorageBuffer16BitAccess", c_uint32),
        ("storagePushConstant16", c_uint32),
        ("storageInputOutput16", c_uint32),
    ],
)
PhysicalDeviceShaderFloat16Int8Features = _numbered(
    "PhysicalDeviceShaderFloat16Int8Features",
    1000082000,
    [("shaderFloat16", c_uint32), ("shaderInt8", c_uint32)],
)

DescriptorSetLayoutBinding = _plain(
    "DescriptorSetLayoutBinding",
    [
        ("binding", c_uint32),
        ("descriptorType", c_uint32),
        ("descriptorCount", c_uint32),
        ("stageFlags", c_uint32),
        ("pImmutableSamplers", c_void_p),
    ],
)
DescriptorPoolSize = _plain("DescriptorPoolSize", [("type", c_uint32), ("descriptorCount", c_uint32)])
DescriptorBufferInfo = _plain("DescriptorBufferInfo", [("buffer", Handle), ("offset", c_uint64), ("range", c_uint64)])
PushConstantRange = _plain("PushConstantRange", [("stageFlags", c_uint32), ("offset", c_uint32), ("size", c_uint32)])
BufferCopy = _plain("BufferCopy", [("srcOffset", c_uint64), ("dstOffset", c_uint64), ("size", c_uint64)])
MemoryRequirements = _plain(
    "MemoryRequirements", [("size", c_uint64), ("alignment", c_uint64), ("memoryTypeBits", c_uint32)]
)
MemoryType = _plain("MemoryType", [("propertyFlags", c_uint32), ("heapIndex", c_uint32)])
MemoryHeap = _plain("MemoryHeap", [("size", c_uint64), ("flags", c_uint32)])
PhysicalDeviceMemoryProperties = _plain(
    "PhysicalDeviceMemoryProperties",
    [
        ("memoryTypeCount", c_uint32),
        ("memoryTypes", MemoryType * 32),
        ("memoryHeapCount", c_uint32),
        ("memoryHeaps", MemoryHeap * 16),
    ],
)
QueueFamilyProperties = _plain(
    "QueueFamilyProperties",
    [
        ("queueFlags", c_uint32),
        ("queueCount", c_uint32),
        ("timestampValidBits", c_uint32),
        ("minImageTransferGranularity", c_uint32 * 3),
    ],
)
ExtensionProperties = _plain("ExtensionProperties", [("extensionName", ctypes.c_char * 256), ("specVersion", c_uint32)])
