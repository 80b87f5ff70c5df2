"""What shaders need of a device to compute with element types beside f32 and i32: one table for SPIR-V and Vulkan.

Nothing but numbers and names is needed here: passes ask for the first, devices for the second.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Capability:
    """A capability of SPIR-V, and the feature of a Vulkan device behind it.

    Attributes:
        name, number: in SPIR-V.
        element: the element type that needs it, as MLIR spells it.
        feature: what Vulkan calls it.
        place: where Vulkan has the feature: its number among those of Vulkan 1.0, or the name of a structure of
            `patc.runtime.vulkan_structures`.
        extension: of SPIR-V, that modules name beside the capability; "" for none.
        device_extension: of Vulkan 1.1, that devices with the feature have; "" for none.
    """

    name: str
    number: int
    element: str
    feature: str
    place: int | str
    extension: str = ""
    device_extension: str = ""


CAPABILITIES = {
    item.name: item
    for item in (
        Capability(
            "Float16",
            9,
            "f16",
            "shaderFloat16",
            "PhysicalDeviceShaderFloat16Int8Features",
            device_extension="VK_KHR_shader_float16_int8",
        ),
        Capability(
            "StorageBuffer16BitAccess",
            4433,
            "f16",
            "storageBuffer16BitAccess",
            "PhysicalDevice16BitStorageFeatures",
            "SPV_KHR_16bit_storage",
        ),
        Capability("Float64", 10, "f64", "shaderFloat64", 39),
        Capability("Int64", 11, "i64", "shaderInt64", 40),
    )
}
ELEMENTS = tuple(dict.fromkeys(item.element for item in CAPABILITIES.values()))


def needed_by(element: str) -> Iterator[Capability]:
    """Yield what an element type needs."""
    return (item for item in CAPABILITIES.values() if item.element == element)
