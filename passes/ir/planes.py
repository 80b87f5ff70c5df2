"""How layers see planes: as they are, or flat where the rows of a plane may follow each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from patc.dialects.attributes import Layout
from patc.dialects.schedules import Schedule
from patc.integers import ceil_div

_LEAST_ROW = 64  # elements of a row that a flat plane is cut into: those of shorter ones fill vectors badly
_UNEVEN = 1.05  # rows of the part that has most, in those of even shares


def as_planes(shape: Sequence[int]) -> tuple[int, int, int, int]:
    """Return a shape as images, channels, height and width; of another rank, each row is a channel."""
    if len(shape) == 4:
        images, channels, height, width = shape
        return images, channels, height, width
    return 1, math.prod(shape[:-1]), 1, shape[-1] if shape else 1


def is_global_pool(op: Any) -> bool:
    """Whether an average pooling makes one number of each plane."""
    return list(op.kernel) == list(op.input.type.shape[2:]) and not any(op.pads)


def is_flat(op: Any) -> bool:
    """Whether an op is a product of matrices: a 1x1 convolution over planes whose rows follow each other."""
    if not getattr(op, "is_pointwise", False):
        return False
    planes, residual = list(op.result.type.shape[2:]), op.residual
    is_joined = residual is not None and list(residual.type.shape[2:]) == planes
    tensors = [op.input, op.result, residual] if is_joined else [op.input, op.result]
    return all(has_no_gaps(Layout.of(tensor.type), tensor.type.shape[3]) for tensor in tensors)


def kernel_plane(op: Any, parts: int = 1) -> tuple[int, int]:
    """Return height and width of a layer's result as its kernel sees them: a flat plane is a single row, or rows that
    so many parts, which threads have, get nearly equally many of."""
    height, width = op.result.type.shape[2:]
    if not is_flat(op):
        return height, width
    size = height * width
    for rows in range(1 if parts == 1 else parts, size // _LEAST_ROW + 1):
        if size % rows == 0 and ceil_div(rows, parts) * parts <= _UNEVEN * rows:
            return rows, size // rows
    return (1, size) if size % parts else (parts, size // parts)


def row_tiles(op: Any, schedule: Schedule) -> int:
    """Return the row tiles that a schedule cuts all images of a layer's result into."""
    images, _, height, _ = as_planes(op.results[0].type.shape)
    if is_flat(op):
        height, _ = kernel_plane(op, schedule.row_parts)
    return images * ceil_div(height, min(schedule.rows, height))


def has_no_gaps(layout: Layout, width: int) -> bool:
    """Whether the rows of a plane follow each other, without a halo."""
    return layout.row == width and layout.phases == 1 and layout.top == layout.left == 0
