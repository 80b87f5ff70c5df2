"""Levels: weights that are whole multiples of a scale, one scale a filter.

With b bits a filter's weights are q * scale, q from -(2^(b-1) - 1) to 2^(b-1) - 1; with one bit q is -1 or 1. The scale
is the one of least squares: of all scales and all q, those that are nearest to the filter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Up to so many bits, or numbers of columns times levels, all roundings of a row are looked at; else some starts.
_EXACT_BITS, _EXACT_NUMBERS = 4, 1 << 15
_STARTS, _TURNS = 48, 2
_AT_ONCE = 1 << 22  # numbers that a search holds


@dataclass(frozen=True)
class Grid:
    """The levels of a weight.

    Attributes:
        bits: 1 to 8.
        axis: of the filters in the weight.
    """

    bits: int
    axis: int = 0

    @property
    def most(self) -> int:
        """The largest q."""
        return max(1, (1 << (self.bits - 1)) - 1)

    def fit(self, weight: Tensor, mask: Tensor) -> Tensor:
        """Return the scales of the nearest levels: (filters,) of the weight's type, above 0.

        Up to 4 bits nothing is nearer, nor with more bits where filters are short. Else it is the best of 48 starts,
        whose squared error is above the least by 1e-5 of the squared weights at most, of random ones as tested. A
        filter without weights has the scale 1.

        Args:
            mask: which weights there are (bool): the others are 0 whatever the levels.
        """
        sizes, kept = (self._rows(tensor) for tensor in (weight.detach().double().abs(), mask))
        sizes = torch.where(kept, sizes, 0.0)
        if self.bits == 1:
            scales = sizes.sum(1) / kept.sum(1).clamp_min(1)
        else:
            numbers = sizes.shape[1] * self.most
            is_exact = self.bits <= _EXACT_BITS or numbers <= _EXACT_NUMBERS
            rows = max(1, _AT_ONCE // (numbers if is_exact else sizes.shape[1]))
            search = _fit_all if is_exact else _fit_starts
            scales = torch.cat([search(part, self.most) for part in sizes.split(rows)])
        scales = scales.to(weight.dtype)
        return torch.where(scales > 0, scales, 1.0)

    def refit(self, weight: Tensor, mask: Tensor, scales: Tensor) -> Tensor:
        """Return the scales of least squares for the q that `scales` give, of which a filter without any keeps its
        own: what follows weights that move little."""
        shape = self._shape(weight)
        steps = self.round(weight, mask, scales) / scales.reshape(shape)
        dims = [dim for dim in range(weight.ndim) if dim != self.axis]
        squares = steps.square().sum(dims)
        found = (weight * steps).sum(dims) / squares.clamp_min(1.0)
        return torch.where(found > 0, found, scales)

    def round(self, weight: Tensor, mask: Tensor, scales: Tensor) -> Tensor:
        """Return the levels that are nearest for these scales, 0 outside of the mask. Gradients pass to the weights
        straight; with two bits or more not to those beyond the last level."""
        levels = _Round.apply(weight, scales.reshape(self._shape(weight)), self.most, self.bits == 1)
        return torch.where(mask, levels, 0.0)

    def find(self, weight: Tensor) -> Tensor:
        """Return the largest scale of each filter whose multiples its weights are: (filters,) float64; 1 of a filter of
        zeros, 0 where there is none."""
        sizes = self._rows(weight.detach().double().abs())
        largest = sizes.amax(1)
        scales = torch.where(largest == 0, 1.0, 0.0)
        for steps in range(1, self.most + 1):
            multiples = sizes * (steps / largest.clamp_min(1e-300))[:, None]
            fits = ((multiples - multiples.round()).abs() <= 1e-4).all(1)
            scales = torch.where(fits & (scales == 0), largest / steps, scales)
        return scales

    def _rows(self, tensor: Tensor) -> Tensor:
        return tensor.movedim(self.axis, 0).flatten(1)

    def _shape(self, weight: Tensor) -> list[int]:
        return [-1 if dim == self.axis else 1 for dim in range(weight.ndim)]


class _Round(torch.autograd.Function):
    """The nearest whole multiples of scales up to `most` times each; of signs without zeros, -scale or scale.

    torch.fake_quantize_per_channel_affine is the same for float32, but for the levels of one bit.
    """

    @staticmethod
    def forward(weight: Tensor, scales: Tensor, most: int, is_sign: bool) -> Tensor:
        if is_sign:
            return torch.where(weight >= 0, scales, -scales)
        # Adding 0 makes +0 of -0.
        return (weight / scales).round_().clamp_(-most, most).add_(0.0) * scales

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int, bool], output: Tensor) -> None:
        weight, scales, most, is_sign = inputs
        ctx.save_for_backward(None if is_sign else weight.abs() <= (most + 0.5) * scales)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (inside,) = ctx.saved_tensors
        return grad if inside is None else torch.where(inside, grad, 0.0), None, None, None


def _fit_all(sizes: Tensor, most: int) -> Tensor:
    """Return the best scale of each row (rows, columns) of magnitudes.

    As a scale falls from infinity, one q after the other grows by one: at magnitude / (q + 1/2). Between two of these
    the q are fixed and the best scale is <w, q> / <q, q>, which leaves |w|^2 - <w, q>^2 / <q, q>.
    """
    steps = torch.arange(most, dtype=sizes.dtype, device=sizes.device)
    grows = (sizes[:, :, None] / (steps + 0.5)).flatten(1)
    order = torch.sort(grows, dim=1, descending=True, stable=True).indices
    products = sizes.gather(1, order // most).cumsum(1)
    squares = (2 * steps + 1)[order % most].cumsum(1)
    best = (products.square() / squares).argmax(1, keepdim=True)
    return (products / squares).gather(1, best)[:, 0]


def _fit_starts(sizes: Tensor, most: int) -> Tensor:
    """Return a good scale of each row of magnitudes: by turns from scales of which the last levels cut off more and
    more."""
    best, least = torch.zeros_like(sizes[:, 0]), torch.full_like(sizes[:, 0], torch.inf)
    for start in range(_STARTS):
        scales = sizes.amax(1, keepdim=True) / most * (1.04 - 0.8 * start / _STARTS)
        for _ in range(_TURNS):
            steps = (sizes / scales.clamp_min(1e-300)).round_().clamp_(max=most)
            products, squares = (sizes * steps).sum(1, keepdim=True), steps.square().sum(1, keepdim=True)
            scales = products / squares.clamp_min(1.0)
        error = -(products.square() / squares.clamp_min(1.0))[:, 0]
        better = error < least
        best, least = torch.where(better, scales[:, 0], best), torch.where(better, error, least)
    return best
