"""What a backend is: all that depends on the kind of machine, from the passes to the model that runs."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from patc.diagnostics import Diagnostic, PatcError
from patc.targets import Target

if TYPE_CHECKING:  # loading a compiled file must load neither torch nor MLIR
    import numpy as np
    from torch_mlir import ir

    from patc.passes.base import PassState
    from patc.pipeline import Pipeline
    from patc.runtime.model import CompiledModel
    from patc.runtime.program import Program


@dataclass(frozen=True)
class Options:
    """What to compile for; `patc.options.make_options` makes checked ones.

    Attributes:
        target: the machine.
        threads: among which each layer is divided.
        dtype: a key of `patc.numerics.NUMERICS`.
        tune: how schedules are chosen, one of `patc.options.TUNE_MODES`.
    """

    target: Target
    threads: int = 1
    dtype: str = "f32"
    tune: str = "cost"


class Backend(abc.ABC):
    """A way to compile for a kind of target and to run what was compiled.

    Attributes:
        name: what `Target.backend` and compiled files call it.
        emits: what `patc compile --emit` writes beside compiled files and MLIR.
        default_format: what it writes where neither --emit nor the name of the file says: "patc", or one of `emits`.
    """

    name: ClassVar[str]
    emits: ClassVar[tuple[str, ...]] = ()
    default_format: ClassVar[str] = "patc"

    def default_threads(self) -> int:
        """Return how many threads share each layer where the user does not say."""
        return 1

    def can_measure(self, target: Target) -> bool:
        """Return whether this machine can time schedules for a target."""
        return False

    def check(self, options: Options) -> None:
        """Refuse options that do not go with the target.

        Raises:
            PatcError: what was expected, in one line.
        """
        if options.tune == "measure" and not self.can_measure(options.target):
            raise PatcError(f"expected target 'host' together with tune 'measure', got '{options.target.name}'")

    @abc.abstractmethod
    def pipeline(self, options: Options) -> Pipeline:
        """Return the passes between import and code generation."""

    @abc.abstractmethod
    def complete(self, module: ir.Module, state: PassState, program: Program) -> Program:
        """Return a program with its weights and the size of its arena, and with layers where it has none.

        Args:
            module: what the last pass left.
            state: holds the weights.
            program: all else that is known before there is code.
        """

    @abc.abstractmethod
    def generate(self, module: ir.Module, stated: bytes, target: Target) -> bytes:
        """Return code.

        Args:
            module: what the last pass left, which is lowered in place.
            stated: what the code has to state, see `patc.runtime.description.interface`.
        """

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

    def run(self, program: Program, inputs: Sequence[np.ndarray], device: int | str | None = None) -> list[np.ndarray]:
        """Return the outputs of a program whose outputs are a list. Raises what `load` and calls of models raise."""
        outputs: list[np.ndarray] = self.load(program, device=device)(*inputs)
        return outputs
