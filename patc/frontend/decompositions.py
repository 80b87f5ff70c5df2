"""Decompositions of torch operations beside torch-mlir's own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from patc.integers import ceil_div

aten = torch.ops.aten


def _adaptive_avg_pool2d(x: torch.Tensor, sizes: Sequence[int]) -> Any:
    windows = _equal_windows(x, sizes)
    return NotImplemented if windows is None else aten.avg_pool2d.default(x, *windows)


def _adaptive_max_pool2d(x: torch.Tensor, sizes: Sequence[int]) -> Any:
    windows = _equal_windows(x, sizes)
    return NotImplemented if windows is None else aten.max_pool2d_with_indices.default(x, *windows)


def _equal_windows(x: torch.Tensor, sizes: Sequence[int]) -> tuple[list[int], list[int]] | None:
    """Return kernel and strides of the pool that an adaptive one is, or None where its windows differ in size."""
    axes = [_equal_window(size, count) for size, count in zip(x.shape[-2:], sizes, strict=True)]
    found = [axis for axis in axes if axis is not None]
    return None if len(found) < 2 else ([kernel for kernel, _ in found], [stride for _, stride in found])


def _equal_window(size: Any, count: Any) -> tuple[int, int] | None:
    """Return kernel and stride of `count` windows over `size` elements, window i from floor(i * size / count) to
    ceil((i + 1) * size / count), or None."""
    if not isinstance(size, int) or not 0 < count <= size:
        return None
    starts = [i * size // count for i in range(count)]
    kernels = {ceil_div((i + 1) * size, count) - starts[i] for i in range(count)}
    strides = {after - before for before, after in itertools.pairwise(starts)} or {*kernels}
    return (kernels.pop(), strides.pop()) if len(kernels) == len(strides) == 1 else None


# Adaptive pools whose windows all have one size are ordinary ones; others stay, and are reported by their sizes.
DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten._adaptive_avg_pool2d.default: _adaptive_avg_pool2d,
    aten.adaptive_max_pool2d.default: _adaptive_max_pool2d,
}
