"""Pattern libraries for kernels of any size, selected from trained weights.

The kernels of a window are many points, and a library of M patterns is a way to keep the most of their squared norms
with M masks: k-means, whose centres are masks. By turns each kernel takes the pattern that keeps the most of it, and
each pattern becomes the taps of which its kernels hold the most; no turn keeps less than the one before. From 5x5 on
there are too many patterns to start an extraction with all of them (4,457,400 of 11 taps of 25): it starts from these.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from patc.diagnostics import PatcError
from patc.pruning.constraints.patterns import PatternConstraint, best_patterns
from patc.pruning.kernels import find_layers
from patc.pruning.libraries import Library
from patc.pruning.ranks import share
from patc.pruning.spec import PatternSpec
from patc.pruning.windows import Window

_TURNS = 30


@torch.no_grad()
def select_libraries(model: nn.Module, spec: PatternSpec, patterns: int = 8) -> dict[str, Library]:
    """Return a library for each size of kernels that `spec` prunes and the paper has none for, by the window's name.

    `PatternSpec(kernels="all", libraries=...)` takes what is returned.

    Args:
        spec: which layers take part, and the share of the taps that patterns keep.
        patterns: of each library at most, from 1.

    Raises:
        PatcError: no layer is prunable, or `patterns` is less than 1.
    """
    if patterns < 1:
        raise PatcError(f"expected patterns to be 1 or more, found {patterns}")
    kernels: dict[Window, list[Tensor]] = {}
    for layer in find_layers(model, spec):
        if isinstance(layer, PatternConstraint) and layer.window != Window((3, 3)):
            squares = layer.squares_of(layer.weight)
            # Kernels count alike: layers of small weights are as important as others.
            kernels.setdefault(layer.window, []).append(squares / squares.sum(1, keepdim=True).clamp_min(1e-300))
    return {
        window.name: _select(torch.cat(squares), window, window.kept(spec.share), patterns)
        for window, squares in kernels.items()
    }


def _select(squares: Tensor, window: Window, kept: tuple[int, ...], most: int) -> Library:
    """Return at most so many patterns for squared weights (kernels, taps), ascending."""
    own = _largest(squares, window, kept)
    found, counts = torch.unique(own, return_counts=True)
    masks = found[torch.sort(counts, descending=True, stable=True).indices[:most]]
    for _ in range(_TURNS):
        chosen = best_patterns(squares, tuple(masks.tolist()))[1]
        sums = torch.zeros(len(masks), squares.shape[1], dtype=squares.dtype, device=squares.device)
        sums.index_add_(0, chosen, squares)
        moved = torch.unique(_largest(sums[torch.bincount(chosen, minlength=len(masks)) > 0], window, kept))
        if torch.equal(moved, masks):
            break
        masks = moved
    masks = masks.clone()
    share(masks)
    return tuple(sorted(masks.tolist()))


def _largest(squares: Tensor, window: Window, kept: tuple[int, ...]) -> Tensor:
    """Return the mask of the largest of each row (rows,) int64: as many of each part of the window as are kept."""
    masks = torch.zeros(len(squares), dtype=torch.int64, device=squares.device)
    for part, count in zip(window.parts, kept, strict=True):
        taps = torch.tensor(part, device=squares.device)
        order = torch.sort(squares[:, taps], dim=1, descending=True, stable=True).indices[:, :count]
        masks += (1 << taps[order]).sum(1)
    return masks
