"""What a pass is: a frozen dataclass whose fields are its options, and one method that rewrites a module."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch_mlir import ir

from patc.diagnostics import Diagnostic, PatcError
from patc.parameters import ParameterStore


@dataclass
class PassState:
    """What passes share beside the IR.

    Attributes:
        parameters: the arrays behind `pattern.parameter` ops.
        diagnostics: warnings and remarks so far, in the order of emission.
    """

    parameters: ParameterStore = field(default_factory=ParameterStore)
    diagnostics: list[Diagnostic] = field(default_factory=list)

    def remark(self, op: Any, message: str) -> None:
        """Record something the user may want to know about one op."""
        self.diagnostics.append(Diagnostic("remark", message, op.location))


@dataclass(frozen=True)
class Pass:
    """A transformation of a module.

    A subclass is a frozen dataclass: its fields are the options of the pass (`max_patterns: int = 8` is written
    `max-patterns=8`), its docstring is what `--list-passes` prints.
    """

    name: ClassVar[str]

    def run(self, module: ir.Module, state: PassState) -> None:
        """Rewrite `module` in place.

        Raises:
            PatcError: the module is not what the pass requires; the location is that of the op.
        """
        raise NotImplementedError


def fail(op: Any, expected: str, got: Any) -> PatcError:
    """Return the error `'<op>' op expected <rule>, got <value>` at the op's place."""
    return PatcError(f"'{op.operation.name}' op expected {expected}, got {got}", op.location)
