"""What layers with weights in a format have in common: their arrays, read, described and replaced."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from torch_mlir import ir

from patc.passes.base import PassState, fail
from patc.passes.formats.base import Arrays, WeightFormat
from patc.passes.formats.fkw import invert
from patc.passes.formats.layer_weights import groups_of, read_arrays
from patc.passes.formats.registry import format_of
from patc.passes.ir.constants import read_constant, replace_constant
from patc.passes.layers.base import Access, operand_number


def are_constant(values: Iterable[ir.Value | None], state: PassState) -> bool:
    """Whether all values that there are, are constants."""
    return all(value is None or read_constant(value, state) is not None for value in values)


def read_weights(op: Any, state: PassState) -> tuple[WeightFormat, Arrays]:
    """Return the weights of a sparse layer.

    Raises:
        PatcError: an array is not constant, or not valid.
    """
    stored, arrays = format_of(op), read_arrays(op, state)
    violation = stored.find_violation(arrays, op.input.type.shape[1], groups_of(op))
    if violation is not None:
        raise fail(op, *violation)
    return stored, arrays


def kept_weights(op: Any) -> int:
    """Return how many weights the arrays of a sparse layer hold."""
    return format_of(op).kept_weights([value.type.shape for value in op.arrays])


def array_accesses(op: Any) -> dict[str, Access]:
    """Return how the arrays of a sparse layer are read, by the names of the operands."""
    return {_field(number): _access(value) for number, value in enumerate(op.arrays)}


def replace_arrays(op: Any, arrays: Arrays, state: PassState) -> None:
    """Give a sparse layer other arrays of the same format."""
    for number, array in enumerate(arrays):
        replace_constant(op, operand_number(op, _field(number)), array, state)


def positions(order: np.ndarray | None, count: int) -> np.ndarray:
    """Return the new number of each of `count` channels; entry i of an order is the old number of what becomes i."""
    return np.arange(count) if order is None else invert(order)


def _field(number: int) -> str:
    return f"array{number}"


def _access(value: ir.Value) -> Access:
    return Access.INDICES if isinstance(value.type.element_type, ir.IntegerType) else Access.WEIGHTS
