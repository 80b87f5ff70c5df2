"""How two activations are combined: what adds a residual, and its like."""

from dataclasses import dataclass
from typing import Any

from torch_mlir import ir

FUNCTIONS = ("add", "subtract", "subtract_from", "multiply", "divide")


@dataclass(frozen=True)
class Join:
    """How a residual joins what a layer computes: y = activation(value + residual), or activation(value) + residual.

    Attributes:
        function: one of `FUNCTIONS`, in place of the addition; "subtract" takes the residual from the value,
            "subtract_from" the value from the residual.
        is_last: whether the residual joins what the activation gives.
    """

    function: str = "add"
    is_last: bool = False

    @staticmethod
    def of(op: Any) -> "Join":
        """Return how operands of an op are combined: as its class says, or its attributes."""
        if hasattr(op, "JOIN"):
            return Join(op.JOIN)
        function = op.attributes["join"].value if "join" in op.attributes else "add"
        return Join(function, "joins_last" in op.attributes)

    def put(self, op: Any) -> None:
        """Give a layer with a residual the attributes; addition before the activation needs none."""
        if self.function != "add":
            op.attributes["join"] = ir.StringAttr.get(self.function)
        if self.is_last:
            op.attributes["joins_last"] = ir.UnitAttr.get()
