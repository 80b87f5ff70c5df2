"""SPIR-V kernels for GPUs, run through Vulkan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from patc.backends.base import Backend, Options
from patc.diagnostics import Diagnostic, PatcError
from patc.locks import loading
from patc.targets import Target

if TYPE_CHECKING:
    from torch_mlir import ir

    from patc.passes.base import PassState
    from patc.pipeline import Pipeline
    from patc.runtime.program import Program
    from patc.runtime.vulkan_model import VulkanModel


class VulkanBackend(Backend):
    """Kernels, and the list of their dispatches. What a device can do is asked when a model runs."""

    name = "vulkan"
    emits = ("spirv",)

    def check(self, options: Options) -> None:
        super().check(options)
        if options.threads != 1:
            name = options.target.name
            raise PatcError(f"expected no threads together with target '{name}', got {options.threads}")

    def pipeline(self, options: Options) -> Pipeline:
        from patc.pipeline import Pipeline

        return Pipeline.named("spirv", target=options.target, dtype=options.dtype)

    def complete(self, module: ir.Module, state: PassState, program: Program) -> Program:
        from patc.codegen.spirv import complete_gpu_program

        # The code says itself what a device has to have.
        return complete_gpu_program(module, state, replace(program, features=()))

    def generate(self, module: ir.Module, stated: bytes, target: Target) -> bytes:
        from patc.codegen.spirv import generate_code

        return generate_code(module).stating(stated).to_bytes()

    def model_class(self) -> type[VulkanModel]:
        with loading():
            from patc.runtime.vulkan_model import VulkanModel

        return VulkanModel

    def load(
        self, program: Program, diagnostics: Sequence[Diagnostic] = (), device: int | str | None = None
    ) -> VulkanModel:
        return self.model_class()(program, diagnostics, device)
