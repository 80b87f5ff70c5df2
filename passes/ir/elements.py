"""Element types of tensors and memrefs, see `patc.numerics`.

Quantised planes lie in memory as words of four bytes, the same place of four channels: an element in memory is such a
word, and planes are those of words. Rows of quantised numbers (of a linear layer) are words of neighbours.
"""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes  # noqa: F401  numpy knows bfloat16 by it
import numpy as np
from torch_mlir import ir

from patc.dialects.quantised import Quantisation
from patc.integers import ceil_div
from patc.numerics import ELEMENT_TYPES, FLOAT32, INT32, MLIR_TYPES, NUMERICS, ElementType, Numerics
from patc.targets import Target

WORD = 4  # quantised numbers of an element in memory


def element_bytes(type_: ir.Type) -> int:
    """Return the bytes of one element in memory; `type_` is an element type, or a tensor, vector or memref of it."""
    return ceil_div(memory_type(type_).width, 8)


def memory_type(type_: ir.Type) -> Any:
    """Return the type of elements in memory, `type_` as in `element_bytes`: i32 for words of quantised numbers."""
    return _element(type_) if Quantisation.of(type_) is None else ir.IntegerType.get_signless(8 * WORD, type_.context)


def memory_shape(type_: ir.RankedTensorType) -> tuple[int, ...]:
    """Return the shape of a tensor in elements in memory: of quantised ones, four channels make one."""
    if Quantisation.of(type_) is None:
        return tuple(type_.shape)
    images, *others = type_.shape
    return images, ceil_div(others[0], WORD), *others[1:]


def _element(type_: ir.Type) -> Any:
    return type_.element_type if isinstance(type_, ir.ShapedType) else type_


def mlir_type(element: ElementType | np.dtype) -> ir.Type:
    """Return the MLIR type of an element type, or of the elements of an array."""
    known = element if isinstance(element, ElementType) else ELEMENT_TYPES[element.name]
    return ir.Type.parse(known.mlir)


def numpy_type(type_: ir.Type) -> np.dtype | None:
    """Return what an array of such elements has, `type_` as in `element_bytes`; None where there is no such array."""
    known = MLIR_TYPES.get(str(_element(type_)))
    return None if known is None else np.dtype(known.dtype)


def with_element(type_: ir.RankedTensorType, element: ir.Type) -> ir.RankedTensorType:
    """Return the type of a tensor of other elements, with the same shape and layout."""
    return ir.RankedTensorType.get(list(type_.shape), element, type_.encoding)


def compute_type(type_: ir.Type) -> ir.Type:
    """Return what elements are loaded as, `type_` as in `element_bytes`: themselves where patc has no kernels. What
    words stand for is computed in f32."""
    known = NUMERICS[FLOAT32.mlir] if Quantisation.of(type_) is not None else numerics_of(type_)
    return _element(type_) if known is None or known.compute == known.storage else mlir_type(known.compute)


def round_to(array: np.ndarray, type_: ir.Type) -> tuple[np.ndarray, np.ndarray]:
    """Return floats as an array of elements of a floating-point type, rounded to nearest, and where finite ones became
    infinite."""
    with np.errstate(over="ignore"):
        rounded = array.astype(numpy_type(type_))
    return rounded, np.isinf(rounded) & np.isfinite(array)


def largest(type_: ir.Type) -> float:
    """Return the largest finite element, `type_` as in `element_bytes`."""
    return float(np.finfo(numpy_type(type_)).max)


def accumulator_type(type_: ir.Type) -> ir.Type:
    """Return what sums of elements are made in, `type_` as in `element_bytes`: themselves where patc has no kernels."""
    known = numerics_of(type_)
    if Quantisation.of(type_) is not None:
        return mlir_type(INT32)
    return _element(type_) if known is None else mlir_type(known.accumulator)


def stored_bytes(type_: ir.RankedTensorType) -> int:
    """Return the bytes of a tensor without halo or gaps."""
    return element_bytes(type_) * math.prod(memory_shape(type_))


def numerics_of(type_: ir.Type) -> Numerics | None:
    """Return how nets compute that store such elements, `type_` as in `element_bytes`; None where patc has no
    kernels."""
    return NUMERICS.get(str(_element(type_)))


def vector_lanes(type_: ir.Type, target: Target) -> int:
    """Return how many elements one vector register of the target holds; `type_` as in `element_bytes`."""
    return target.lanes * 4 // element_bytes(type_)
