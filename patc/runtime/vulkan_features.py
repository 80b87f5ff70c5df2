"""The features that shaders use, in the structures in which Vulkan tells and takes them."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import Any

from patc.capabilities import Capability
from patc.runtime import vulkan_structures as vk


class DeviceFeatures:
    """A chain of structures with room for the features behind some capabilities, none of them set.

    Attributes:
        first: of the chain, for Vulkan to write to or to read from.
    """

    def __init__(self, capabilities: Iterable[Capability]) -> None:
        self.first = last = vk.PhysicalDeviceFeatures2()
        self._structures: dict[str, Any] = {}
        for item in capabilities:
            if isinstance(item.place, str) and item.place not in self._structures:
                self._structures[item.place] = made = getattr(vk, item.place)()
                last.pNext = ctypes.addressof(made)
                last = made

    def has(self, item: Capability) -> bool:
        """Return whether the feature behind one of the capabilities is set."""
        if isinstance(item.place, int):
            return bool(self.first.features[item.place])
        return bool(getattr(self._structures[item.place], item.feature))

    def enable(self, item: Capability) -> None:
        """Set the feature behind one of the capabilities."""
        if isinstance(item.place, int):
            self.first.features[item.place] = 1
        else:
            setattr(self._structures[item.place], item.feature, 1)

    def keep_to_buffers(self) -> None:
        """Set robustBufferAccess."""
        self.first.features[vk.ROBUST_BUFFER_ACCESS] = 1
