"""Machine code for this machine's architecture, by the LLVM of the torch-mlir wheel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patc.backends.base import Backend

if TYPE_CHECKING:
    from patc.runtime.model import CompiledModel


class HostBackend(Backend):
    """Code that this machine may run."""

    name = "host"

    def model_class(self) -> type[CompiledModel]:
        from patc.runtime.native_model import NativeModel

        return NativeModel
