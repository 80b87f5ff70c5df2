"""Machine code for AArch64 on any machine, by llvmlite's LLVM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from patc.backends.native import NativeBackend
from patc.numerics import Numerics
from patc.targets import AARCH64_CPUS, Target, host_features

if TYPE_CHECKING:
    import numpy as np
    from torch_mlir import ir

    from patc.runtime.program import Program


class AArch64Backend(NativeBackend):
    """Code for a CPU that may be somewhere else, which runs here only where this one is like it."""

    name = "aarch64"
    default_format = "so"

    def describe_lacking(self, target: Target, numerics: Numerics) -> str:
        able = ", ".join(cpu for cpu, known in AARCH64_CPUS.items() if known.computes_in(numerics))
        return f"{target.cpu}, which lacks it: choose one of {able}"

    def emit(self, module: ir.Module, target: Target) -> bytes:
        from patc.codegen import llvm_objects as objects

        return objects.emit_object(objects.optimize(objects.lower_to_llvm_ir(module, target), target), target)

    def run(self, program: Program, inputs: Sequence[np.ndarray], device: int | str | None = None) -> list[np.ndarray]:
        if host_features().issuperset(program.features):
            return super().run(program, inputs, device)
        from patc.bench.emulator import run_program

        return run_program(program, inputs)
