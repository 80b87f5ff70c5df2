"""Machine code for AArch64 on any machine, by llvmlite's LLVM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patc.backends.base import Backend

if TYPE_CHECKING:
    from patc.runtime.model import CompiledModel


class AArch64Backend(Backend):
    """Code for another machine, which runs here only where this one is like it."""

    name = "aarch64"

    def model_class(self) -> type[CompiledModel]:
        from patc.runtime.native_model import NativeModel

        return NativeModel
