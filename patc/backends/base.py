"""What a backend is: all that depends on the kind of machine, from the passes to the model that runs."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from patc.diagnostics import Diagnostic, PatcError

if TYPE_CHECKING:
    from patc.runtime.model import CompiledModel
    from patc.runtime.program import Program


class Backend(abc.ABC):
    """A way to compile for a kind of target and to run what was compiled.

    Attributes:
        name: what `Target.backend` and compiled files call it.
    """

    name: ClassVar[str]

    @abc.abstractmethod
    def model_class(self) -> type[CompiledModel]:
        """Return the class of the models that run this backend's programs; loads neither torch nor MLIR."""

    def load(
        self, program: Program, diagnostics: Sequence[Diagnostic] = (), device: int | str | None = None
    ) -> CompiledModel:
        """Return the model that runs a program.

        Args:
            device: to run it on; None for the best one.

        Raises:
            PatcError: the code cannot be linked here, or a device where there is no choice of one.
        """
        if device is not None:
            raise PatcError(f"expected no device together with a model for target '{program.target}', got {device!r}")
        return self.model_class()(program, diagnostics)
