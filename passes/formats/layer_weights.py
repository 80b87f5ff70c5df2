"""The constant operands of a layer, as the passes read them that turn layers into kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch_mlir import ir

from patc.dialects.attributes import FkwAttr, Library
from patc.passes.base import PassState, fail
from patc.passes.formats.base import Arrays
from patc.passes.formats.fkw import Fkw, encode
from patc.passes.formats.fkw_library import used_taps
from patc.passes.formats.registry import format_of
from patc.passes.ir.constants import read_constant


def require_array(op: Any, value: ir.Value, role: str, state: PassState) -> np.ndarray:
    """Return the values of a constant operand.

    Raises:
        PatcError: it is none.
    """
    array = read_constant(value, state)
    if array is None:
        raise fail(op, f"constant {role}", value.type)
    return array


def read_arrays(op: Any, state: PassState) -> Arrays:
    """Return the arrays of a sparse layer.

    Raises:
        PatcError: one is no constant.
    """
    names = op.format.array_names()
    return tuple(require_array(op, value, name, state) for name, value in zip(names, op.arrays, strict=True))


def read_fkw(op: Any, state: PassState) -> Fkw:
    """Return the kept kernels of a sparse convolution in FKW format."""
    return Fkw(*read_arrays(op, state))


def read_kernels(op: Any, state: PassState) -> tuple[Library, Fkw]:
    """Return the patterns and the kept kernels of a sparse convolution; of packs each weight is a kernel of one tap."""
    if isinstance(op.format, FkwAttr):
        return Library.from_attr(op.format), read_fkw(op, state)
    weight = read_dense_weight(op, state).array
    masks = used_taps(weight) or (1,)  # a library has a pattern, also for zeros alone
    return Library(op.format.kernel_size(), masks), encode(weight, masks)


def groups_of(op: Any) -> int:
    """Return the groups of a layer's weights."""
    return op.attributes["groups"].value if "groups" in op.attributes else 1


@dataclass(frozen=True)
class DenseWeight:
    """The weights of a convolution, F x C/groups x KH x KW, or of a linear layer, F x C; the constant that they come
    from."""

    array: np.ndarray
    origin: ir.Value
    groups: int


def read_dense_weight(op: Any, state: PassState) -> DenseWeight:
    """Return a layer's weights; those of a sparse one are decoded."""
    if "format" not in op.attributes:
        return DenseWeight(require_array(op, op.weight, "weight", state), op.weight, groups_of(op))
    groups = groups_of(op)
    array = format_of(op).decode(read_arrays(op, state), op.input.type.shape[1], groups)
    is_linear = len(op.result.type.shape) == 2
    return DenseWeight(array[:, :, 0, 0] if is_linear else array, op.arrays[0], groups)


def find_dense_weight(op: Any, state: PassState) -> DenseWeight | None:
    """Return what `read_dense_weight` does, or None where weights are not constant."""
    weights = op.arrays if "format" in op.attributes else [op.weight]
    return None if any(read_constant(each, state) is None for each in weights) else read_dense_weight(op, state)


def pattern_counts(op: Any, library: Library, state: PassState) -> list[float]:
    """Return how many kept kernels have each pattern; equally many where that is not known."""
    patterns = len(library.masks)
    pattern_offsets = read_constant(op.array("pattern_offsets"), state)
    if pattern_offsets is None:
        return [op.array("values").type.shape[0] / patterns] * patterns
    return [float(count) for count in np.diff(pattern_offsets.astype(np.int64), axis=1).sum(axis=0)]
