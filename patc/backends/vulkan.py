"""SPIR-V kernels for GPUs, run through Vulkan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from patc.backends.base import Backend
from patc.diagnostics import Diagnostic

if TYPE_CHECKING:
    from patc.runtime.program import Program
    from patc.runtime.vulkan_model import VulkanModel


class VulkanBackend(Backend):
    """Kernels, and the list of their dispatches; devices are opened when a model runs."""

    name = "vulkan"

    def model_class(self) -> type[VulkanModel]:
        from patc.runtime.vulkan_model import VulkanModel

        return VulkanModel

    def load(
        self, program: Program, diagnostics: Sequence[Diagnostic] = (), device: int | str | None = None
    ) -> VulkanModel:
        return self.model_class()(program, diagnostics, device)
