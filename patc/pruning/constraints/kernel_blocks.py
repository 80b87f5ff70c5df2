"""Kernels of 3x3 as unions of 2x2 blocks, none to four of them, and of which so many stay in a layer."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from patc.pruning.constraints.base import Constraint, largest
from patc.pruning.constraints.patterns import best_patterns
from patc.pruning.libraries import TAPS, Library
from patc.pruning.report import LayerReport

# The 2x2 blocks of a 3x3 kernel: upper left, upper right, lower left, lower right.
BLOCKS: Library = (27, 54, 216, 432)
_ENTRIES = 4


@functools.cache
def unions(count: int) -> Library:
    """Return the masks of all unions of so many different blocks."""
    return tuple(functools.reduce(int.__or__, chosen, 0) for chosen in itertools.combinations(BLOCKS, count))


@functools.cache
def _fewest() -> tuple[int, ...]:
    """Return the fewest blocks that hold all taps of each mask of a 3x3 kernel."""
    return tuple(
        next(count for count in range(len(BLOCKS) + 1) if any(not mask & ~union for union in unions(count)))
        for mask in range(1 << TAPS)
    )


@dataclass(frozen=True)
class KernelBlockConstraint(Constraint):
    """The kernels of a convolution and their blocks. A unit is a block of 4 weights; blocks share those where they
    overlap.

    The nearest point of so many units is exact. What the best n blocks of a kernel hold grows by less and less with n:
    of two unions of blocks, their union and what both have hold together no more than they do, and of the best n - 1
    and the best n + 1 there are always two of n that have the same blocks together. So the units that add the most can
    be chosen one by one, and a kernel's come in the order of their number.
    """

    @property
    def units(self) -> int:
        return self.site.size // TAPS * len(BLOCKS)

    @property
    def unit_weights(self) -> int:
        return _ENTRIES

    def scores(self, weight: Tensor) -> Tensor:
        """Return what a kernel's first, second, third and fourth block add to the squared norm that it keeps."""
        return self._best(weight)[0].flatten()

    def mask(self, weight: Tensor, keep: int) -> Tensor:
        added, masks = self._best(weight)
        # Of a weight far below its neighbours the norm may say nothing, but a block is needed for it all the same.
        needed = torch.arange(len(BLOCKS), device=weight.device) < self._needed(weight)[:, None]
        scores = torch.where(needed, added, -1.0).flatten()
        counts = (largest(scores, keep) & needed.flatten()).reshape(-1, len(BLOCKS)).sum(1)
        chosen = torch.where(counts > 0, masks.gather(1, (counts - 1).clamp_min(0)[:, None])[:, 0], 0)
        bits = chosen[:, None] >> torch.arange(TAPS, device=weight.device) & 1
        return bits.bool().reshape(self.site.shape)

    def group_squares(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Blocks, which overlap."""
        squares = weight.square().reshape(-1, TAPS)
        bits = torch.tensor([[mask >> tap & 1 for tap in range(TAPS)] for mask in BLOCKS], device=weight.device)
        groups = (squares @ bits.to(weight.dtype).T).flatten()
        return groups, torch.full_like(groups, _ENTRIES, requires_grad=False)

    def count(self, weight: Tensor) -> int:
        return int(self._needed(weight).sum())

    def report(self, keep: int) -> LayerReport:
        stored = min(self.count(self.weight), keep) * _ENTRIES
        return LayerReport(
            self.name, self.site.shape, self.kind, self.units, stored // _ENTRIES, self.site.size, stored, {}
        )

    def _needed(self, weight: Tensor) -> Tensor:
        """Return the fewest blocks that hold each kernel: (kernels,)."""
        places = 1 << torch.arange(TAPS, device=weight.device)
        found = ((weight.detach().reshape(-1, TAPS) != 0) * places).sum(1)
        return torch.tensor(_fewest(), device=weight.device)[found]

    def _best(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return what each more block adds to the norm, and the masks of one to four: (kernels, 4) both."""
        squares = weight.detach().double().square().reshape(-1, TAPS)
        norms, masks = [], []
        for count in range(1, len(BLOCKS) + 1):
            library = unions(count)
            norm, number = best_patterns(squares, library)
            norms.append(norm)
            masks.append(torch.tensor(library, device=weight.device)[number])
        held = torch.stack(norms, 1)
        added = torch.diff(held, dim=1, prepend=torch.zeros_like(held[:, :1]))
        # Rounding may have a later one add a little more.
        return torch.cummin(added, 1).values, torch.stack(masks, 1)
