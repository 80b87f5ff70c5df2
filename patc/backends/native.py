"""What the backends for CPUs share: the passes, and a program whose code is an object file."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

from patc.backends.base import Backend, Options
from patc.diagnostics import PatcError
from patc.locks import loading
from patc.numerics import NUMERICS, Numerics
from patc.targets import Target

if TYPE_CHECKING:
    from torch_mlir import ir

    from patc.passes.base import PassState
    from patc.pipeline import Pipeline
    from patc.runtime.native_model import NativeModel
    from patc.runtime.program import Program


class NativeBackend(Backend):
    """A way to machine code for CPUs."""

    emits = ("so", "obj", "asm", "llvm")

    def check(self, options: Options) -> None:
        from patc.codegen.cpus import require_known

        super().check(options)
        require_known(options.target)
        target, numerics = options.target, NUMERICS[options.dtype]
        if not target.computes_in(numerics):
            expected = f"expected a CPU with {' or '.join(numerics.features)} for dtype {numerics.name}"
            raise PatcError(f"{expected}, got {self.describe_lacking(target, numerics)}")

    @abc.abstractmethod
    def describe_lacking(self, target: Target, numerics: Numerics) -> str:
        """Return in words which CPU cannot compute in some numerics, and what to choose instead."""

    def pipeline(self, options: Options) -> Pipeline:
        from patc.pipeline import Pipeline

        return Pipeline.named("host", target=options.target, threads=options.threads, dtype=options.dtype)

    def complete(self, module: ir.Module, state: PassState, program: Program) -> Program:
        from patc.codegen.program import complete_program

        return complete_program(module, state, program)

    def generate(self, module: ir.Module, stated: bytes, target: Target) -> bytes:
        from patc.codegen.program import state_interface

        state_interface(module, stated)
        return self.emit(module, target)

    @abc.abstractmethod
    def emit(self, module: ir.Module, target: Target) -> bytes:
        """Return an object file with `main` for a module of loops and memory, which is lowered in place."""

    def model_class(self) -> type[NativeModel]:
        with loading():
            from patc.runtime.native_model import NativeModel

        return NativeModel
