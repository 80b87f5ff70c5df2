"""The constant operands of a layer, as the passes read them that turn layers into kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch_mlir import ir

from patc.dialects import pattern
from patc.dialects.attributes import Library
from patc.passes.base import PassState, fail
from patc.passes.formats.fkw import Fkw, decode
from patc.passes.ir.constants import read_constant

FKW_ROLES = ("values", "index", "offset", "stride", "reorder")


def require_array(op: Any, value: ir.Value, role: str, state: PassState) -> np.ndarray:
    """Return the values of a constant operand.

    Raises:
        PatcError: it is none.
    """
    array = read_constant(value, state)
    if array is None:
        raise fail(op, f"a constant {role}", value.type)
    return array


def read_fkw(op: Any, state: PassState) -> Fkw:
    """Return the kept kernels of a sparse convolution."""
    return Fkw(*(require_array(op, getattr(op, role), role, state) for role in FKW_ROLES))


@dataclass(frozen=True)
class DenseWeight:
    """The weights of a convolution, F x C/groups x KH x KW, and the constant that they come from."""

    array: np.ndarray
    origin: ir.Value
    groups: int


def read_dense_weight(op: Any, state: PassState) -> DenseWeight:
    """Return a convolution's weights; those of a sparse one are decoded."""
    if isinstance(op, pattern.Conv2dOp):
        return DenseWeight(require_array(op, op.weight, "weight", state), op.weight, op.groups.value)
    library = Library.from_attr(op.library)
    array = decode(read_fkw(op, state), library.masks, library.kernel, op.input.type.shape[1])
    return DenseWeight(array, op.values, 1)
