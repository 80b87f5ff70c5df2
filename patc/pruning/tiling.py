"""How a layer's weights are divided over tiles: inputs in the order of the weight's memory, channel by channel."""

from __future__ import annotations

import torch
from torch import Tensor


def number_parts(count: int, most: int) -> Tensor:
    """Return the number of the part that each of `count` is in: parts of at most `most`, as few as can be, whose sizes
    differ by one at most, larger ones first."""
    parts = -(-count // most)
    small, rest = divmod(count, parts)
    sizes = torch.tensor([small + (place < rest) for place in range(parts)])
    return torch.arange(parts).repeat_interleave(sizes)


def sum_parts(values: Tensor, numbers: Tensor, dim: int) -> Tensor:
    """Return the sums over the parts of a dimension, whose elements have the numbers of theirs (`number_parts`)."""
    shape = list(values.shape)
    shape[dim] = int(numbers.max()) + 1
    return values.new_zeros(shape).index_add(dim, numbers.to(values.device), values)
