"""How the channels of a layer's result come from those of its operands, as `pattern-shrink` asks it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch_mlir import ir

from patc.dialects.attributes import Activation
from patc.dialects.joins import Join
from patc.passes.activations.formulas import ON_ARRAYS
from patc.passes.activations.registry import kind_of

# The number that each channel of a tensor holds in all places; NaN for one that holds several, or unknown ones.
Known = Callable[[ir.Value], np.ndarray]

_JOINS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "add": np.add,
    "subtract": np.subtract,
    "subtract_from": lambda value, residual: residual - value,
    "multiply": np.multiply,
    "divide": np.divide,
}


@dataclass(frozen=True)
class Flow:
    """What a layer does with channels, of f32 tensors and constant weights.

    Attributes:
        op: its first operand is the input.
        residual: what joins the result channel by channel; None for nothing.
        spread: what joins it with one channel for all; None for nothing.
        is_mixed: whether each channel of the result reads all channels of the input, and not only its own.
        factors: float64, filters x channels x taps, or x 1 x taps; None of a layer without weights.
        bias: of each channel; None for none.
        keeps_numbers: whether one number in all places is one number behind the layer, too, but for what factors make
            of it; else zeros alone are, as where zeros are padded to the input.
    """

    op: Any
    residual: ir.Value | None
    spread: ir.Value | None
    is_mixed: bool = False
    factors: np.ndarray | None = None
    bias: np.ndarray | None = None
    keeps_numbers: bool = True

    @property
    def tied(self) -> tuple[ir.Value, ...]:
        """The result, and the operands of which its channels read their own."""
        joined = () if self.residual is None else (self.residual,)
        return (self.op.result, *joined) if self.is_mixed else (self.op.result, self.op.operands[0], *joined)

    def constants(self, known: Known) -> np.ndarray:
        """Return the number that each channel of the result holds, or NaN."""
        join = Join.of(self.op)

        def joined(value: np.ndarray) -> np.ndarray:
            if self.spread is not None:
                return np.full_like(value, np.nan)
            return value if self.residual is None else _JOINS[join.function](value, known(self.residual))

        with np.errstate(all="ignore"):
            value = self._before_epilogue(known(self.op.operands[0]))
            value = value if self.bias is None else value + self.bias
            if join.is_last:
                return joined(_activate(self.op, value))
            return _activate(self.op, joined(value))

    def _before_epilogue(self, given: np.ndarray) -> np.ndarray:
        usable = given if self.keeps_numbers else np.where(given == 0, 0.0, np.nan)
        if self.factors is None:
            return usable
        if not self.is_mixed:
            return np.where(self.factors.any((1, 2)), usable * self.factors.sum((1, 2)), 0.0)
        reads_others = self.factors[:, np.isnan(usable)].any((1, 2))
        return np.where(reads_others, np.nan, self.factors.sum(2) @ np.nan_to_num(usable))


def _activate(op: Any, value: np.ndarray) -> np.ndarray:
    activation = Activation.of(op)
    if activation.kind == "none":
        return value
    made = kind_of(activation).compute(ON_ARRAYS, value, tuple(map(np.array, activation.constants)))
    return np.where(np.isnan(value), np.nan, made)
