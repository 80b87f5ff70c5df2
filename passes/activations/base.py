"""What an activation is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from patc.passes.activations.formulas import Formulas

Guess = Callable[[Callable[[float], np.ndarray]], tuple[Any, ...] | None]


def no_constants(function: Callable[[float], np.ndarray]) -> tuple[Any, ...]:
    """Guess the constants of an activation that has none."""
    return ()


@dataclass(frozen=True)
class ActivationKind:
    """A function of one number, with constants; any of these may be one number a channel.

    Attributes:
        name: as `#pattern.activation` has it.
        formula: computes it, from the functions that it may use, the number and its constants.
        guess: returns the constants that a function has if it is this one; what it returns is tried out.
        tolerance: of a function that is taken for this one, on numbers about 1.
        is_non_negative: whether results are never below 0, given the constants.
        is_long: whether many operations compute it: CPUs then call one function for all vectors.
    """

    name: str
    formula: Callable[..., Any]
    guess: Guess = no_constants
    tolerance: float = 1e-6
    is_non_negative: Callable[..., bool] = lambda *constants: False
    is_long: bool = False

    def compute(self, formulas: Formulas, x: Any, constants: tuple[Any, ...]) -> Any:
        """Return the activation of an array or a term."""
        return self.formula(formulas, x, *constants)
