"""Machine code for this machine's architecture, by the LLVM of the torch-mlir wheel."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from patc.backends.base import Options
from patc.backends.native import NativeBackend
from patc.diagnostics import PatcError
from patc.numerics import Numerics
from patc.targets import AARCH64_SYSTEMS, Target, host

if TYPE_CHECKING:
    from torch_mlir import ir

    from patc.pipeline import Pipeline


class HostBackend(NativeBackend):
    """Code that this machine runs if its CPU has the target's features."""

    name = "host"

    def check(self, options: Options) -> None:
        target, own = options.target, host()
        if target.architecture != own.architecture:
            expected = f"a triple of this machine's architecture for backend '{self.name}'"
            raise PatcError(f"target '{target.name}' expected {expected}, got '{target.triple}'")
        if not target.cpu and target.features != own.features:
            expected = "a CPU that has these features alone"
            raise PatcError(f"target '{target.name}' expected {expected}, got '', which is this machine")
        super().check(options)

    def pipeline(self, options: Options) -> Pipeline:
        from patc.pipeline import Pipeline

        chosen = {"target": options.target, "threads": options.threads, "dtype": options.dtype}
        return Pipeline.named("host", **chosen)

    def default_threads(self) -> int:
        return available_threads()

    def can_measure(self, target: Target) -> bool:
        return not target.cpu

    def describe_lacking(self, target: Target, numerics: Numerics) -> str:
        others = ", ".join(AARCH64_SYSTEMS)
        return f"target '{target.name}', which lacks it: choose dtype f32, or a target of {others}"

    def emit(self, module: ir.Module, target: Target) -> bytes:
        from patc.codegen import host

        host.lower_to_llvm(module, target)
        return host.compile_object(module)


def available_threads() -> int:
    """Return the number of cores that this process may use."""
    return len(available_cores())


def available_cores() -> list[int]:
    """Return the numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
