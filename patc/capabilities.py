"""What shaders need of a device for element types beside f32 and i32, and for dot products: one table for SPIR-V and
Vulkan.

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
        user: the element type, or the op, that needs it, as MLIR spells it.
        feature: what Vulkan calls it.
        place: where Vulkan has the feature: its number among those of Vulkan 1.0, or the name of a structure of
            `patc.runtime.vulkan_structures`.
        extension: of SPIR-V, that modules name beside the capability; "" for none.
        device_extension: of Vulkan 1.1, that devices with the feature have; "" for none.
    """

    name: str
    number: int
    user: str
    feature: str
    place: int | str
    extension: str = ""
    device_extension: str = ""


DOT = "spirv.SDot"
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
        *(
            Capability(
                name,
                number,
                DOT,
                "shaderIntegerDotProduct",
                "PhysicalDeviceShaderIntegerDotProductFeatures",
                "SPV_KHR_integer_dot_product",
                "VK_KHR_shader_integer_dot_product",
            )
            for name, number in (("DotProduct", 6019), ("DotProductInput4x8BitPacked", 6018))
        ),
    )
}
USERS = tuple(dict.fromkeys(item.user for item in CAPABILITIES.values()))


def needed_by(user: str) -> Iterator[Capability]:
    """Yield what an element type, or an op, needs."""
    return (item for item in CAPABILITIES.values() if item.user == user)
