"""Extraction of a pattern library from a model while it trains (paper, section 5, Algorithm 1).

    extractor = LibraryExtractor(model, sizes=(32, 12, 8))
    extractor.prepare()
    while not extractor.finished:
        optimizer = torch.optim.SGD(extractor.parameter_groups(weight_decay=5e-4), lr=0.05, momentum=0.9)
        for iteration in range(3):
            for x, y in batches:
                loss = criterion(model(x), y) + extractor.penalty()
                ...
            extractor.step()                      # proximal step and dual update
        extractor.reduce()                        # deletes the patterns that the fewest kernels select
    library = extractor.finalize()                # plain weights again; prune to PatternSpec(library)

A kernel W_k is multiplied by the mean sum_j z_kj P_j of the candidate patterns under its selection variables z_k, a
point near the probability simplex that is trained with the weights:

    primal    (W, z) <- argmin f(W, z) + rho/2 |z - a|^2,   a = u - y          (21), by the caller's optimizer
    proximal  u <- [d - nu]_+,   d = z + y,  nu the root of sum_j [d_j - nu]_+ = 1   (25, 26)
    dual      y <- y + z - u                                                    y is the paper's multiplier over rho

Memory. Of u, y and a only d and nu are stored: u = [d - nu]_+, y = min(d, nu) and a = |d - nu| - nu follow. For K
kernels and M candidates z, its gradient and d take 3 * 4 * K * M bytes, and the optimizer's state 4 * K * M (momentum)
or 8 * K * M (Adam): 16 * K * M bytes with SGD and momentum, 3.3 GB for the 1.63 million kernels of VGG-16 and 126
candidates. See `selection_bytes`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from patc.diagnostics import PatcError
from patc.pruning.constraints.patterns import PatternConstraint
from patc.pruning.kernels import find_layers
from patc.pruning.libraries import Library, candidates, library, own_library
from patc.pruning.ranks import hide_buffers, share
from patc.pruning.selection import select_libraries
from patc.pruning.simplex import simplex_threshold
from patc.pruning.sites import check_finite, check_weight
from patc.pruning.spec import PatternSpec
from patc.pruning.windows import Window

# Weights are divided by at least this: what is divided by less grows so large that the selection, whose gradient is
# the weight's times the weight, diverges. A tap that so few of its kernel's patterns hold shrinks instead.
_LEAST_FACTOR = 0.25
_SELECTED = 126  # patterns that the extraction of a window starts with
_ROWS = 1 << 15  # kernels whose selection is projected at once: the sort takes several times their memory


class SelectPattern(nn.Module):
    """The parametrization of a layer's weight: each kernel times the mean of the patterns under its selection.

    Attributes:
        selection: z, K x M, trained.
        d, nu: what the last proximal step projected, K x M, and its threshold, K x 1.
        bits: the patterns, M x taps.
    """

    d: Tensor
    nu: Tensor
    bits: Tensor

    def __init__(self, layer: PatternConstraint, lean: float) -> None:
        super().__init__()
        weight = layer.weight.detach()
        self.layer, self.columns = layer, layer.columns * layer.taps
        self.register_buffer("bits", layer.bits.to(weight))
        start = _start(layer.squares_of(weight), self.bits, lean)
        self.selection = nn.Parameter(start)
        self.register_buffer("d", start.detach().clone())
        self.register_buffer("nu", torch.zeros_like(start[:, :1]))

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.factors(weight)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight / self.factors(weight).clamp_min(_LEAST_FACTOR)

    def factors(self, weight: Tensor) -> Tensor:
        """Return what each weight is multiplied by; 1 for the channels of a 1x1 convolution beyond the last nine."""
        filters = self.layer.filters
        factors = (self.selection @ self.bits).reshape(filters, self.columns)
        rest = weight.numel() // filters - self.columns
        if rest:
            factors = torch.cat([factors, factors.new_ones(filters, rest)], 1)
        return self.layer.restore(factors)

    @torch.no_grad()
    def update(self) -> None:
        """Take the proximal step and update the dual."""
        for first in range(0, len(self.d), _ROWS):
            rows = slice(first, first + _ROWS)
            d = self.selection[rows] + torch.minimum(self.d[rows], self.nu[rows])
            self.d[rows] = d
            self.nu[rows] = simplex_threshold(d)
        share(self.d)
        share(self.nu)

    @torch.no_grad()
    def selected(self) -> Tensor:
        """Return the number of the pattern that each kernel selects, argmax_j u_kj (29)."""
        return self.d.argmax(1)  # u is d less a constant of the row, cut at zero: the largest is the same


class LibraryExtractor:
    """Finds the patterns that the kernels of a model select. See the module for the order of calls.

    The model must be trained already, and prepared before the optimizer is made. Its function hardly changes when it is
    prepared: weights are divided by what they are multiplied by from then on, or by a quarter where that is less.

    `prepare` and `reduce` replace parameters: the optimizer, and a DistributedDataParallel, are made after them. Every
    rank makes its own extractor and calls it at the same places; the first rank's projections are what all of them get.

    Args:
        model: trained and changed in place.
        start: "all" patterns of four entries, those 56 that are "centred", or masks of one number of entries. For a
            `window` masks, or "all" for the 126 that `select_libraries` finds in the weights as they are.
        sizes: how many patterns `reduce` leaves, call by call; each less than the one before.
        rho: penalty of the distance between z and u - y, above 0.
        lean: how much z starts at the patterns that hold the most of a kernel: z_j is proportional to exp(lean *
            share_j), where share_j is the part of the kernel's squared norm under pattern j. 0 starts at 1/M.
        spec: which layers take part; its library and rates are not used.
        window: name of the `Window` whose kernels take part, as "5x5", in place of those with 3x3 patterns; the spec
            has kernels="all" then. Each window has a library of its own, which `PatternSpec.libraries` takes.

    Raises:
        PatcError: a value is out of its range, or no layer is prunable.
    """

    def __init__(
        self,
        model: nn.Module,
        start: Literal["all", "centred"] | Sequence[int] = "all",
        sizes: Sequence[int] = (32, 12, 8, 4),
        rho: float = 0.1,
        lean: float = 4.0,
        spec: PatternSpec | None = None,
        window: str | None = None,
    ) -> None:
        self.spec, self.window = spec or PatternSpec(), window
        self.library: Library = _starting_library(start) if window is None else self._starting_library(model, start)
        _check_sizes(sizes, len(self.library))
        if not rho > 0:
            raise PatcError(f"expected rho to be above 0, found {rho}")
        if not lean >= 0:
            raise PatcError(f"expected lean to be at least 0, found {lean}")
        self.model, self.rho, self.lean = model, rho, lean
        self.sizes = tuple(sizes)
        self.histograms: list[dict[int, int]] = []
        self._layers()

    @property
    def finished(self) -> bool:
        """Whether `reduce` has left the last of `sizes`."""
        return len(self.histograms) == len(self.sizes)

    def prepare(self) -> None:
        """Parametrize the weights; a model that is prepared already stays as it is.

        Raises:
            PatcError: a weight is not finite or not a plain parameter; the model is then unchanged.
        """
        if any(True for _ in self._selections()):
            return
        layers = self._layers()
        for layer in layers:
            check_weight(layer.site)
        for layer in layers:
            selection = SelectPattern(layer, self.lean)
            share(selection.d)
            parametrize.register_parametrization(layer.module, "weight", selection)
        hide_buffers(self.model, SelectPattern)

    def parameter_groups(self, weight_decay: float = 0.0, **selection_options: Any) -> list[dict[str, Any]]:
        """Return the model's parameters for an optimizer: weights with `weight_decay`, selection variables without.

        Weight decay moves the selection to the taps with large weights, as it moves the weights to zero elsewhere.

        Args:
            selection_options: of the selection variables' group, such as `lr`.
        """
        selections = [selection.selection for selection in self._selections()]
        known = {id(parameter) for parameter in selections}
        weights = [parameter for parameter in self.model.parameters() if id(parameter) not in known]
        return [
            {"params": weights, "weight_decay": weight_decay},
            {"params": selections, "weight_decay": 0.0, **selection_options},
        ]

    def penalty(self) -> Tensor:
        """Return `rho/2 |z - u + y|^2` over all layers, to be added to the loss."""
        terms: list[Tensor] = [
            _SelectionPenalty.apply(selection.selection, selection.d, selection.nu, self.rho)
            for selection in self._selections()
        ]
        return torch.stack(terms).sum()

    def step(self) -> None:
        """End an iteration: project the selection variables, and update the dual.

        Raises:
            PatcError: a weight or a selection variable is not finite.
        """
        for layer in self._layers():
            check_finite(layer.site)
            selection = layer.module.parametrizations.weight[0]
            if not bool(torch.isfinite(selection.selection).all()):
                raise PatcError("expected finite selection variables, found NaN or infinity", layer.name)
            selection.update()

    def histogram(self) -> dict[int, int]:
        """Return how many kernels select each pattern, in the order of the library; kernels of zeros do not count."""
        counts = torch.zeros(len(self.library), dtype=torch.int64)
        for layer in self._layers():
            chosen = layer.module.parametrizations.weight[0].selected()
            nonzero = layer.squares_of(layer.weight).sum(1) > 0
            counts += torch.bincount(chosen[nonzero], minlength=len(counts)).cpu()
        return dict(zip(self.library, counts.tolist(), strict=True))

    def reduce(self) -> dict[int, int]:
        """Keep the next size's most selected patterns, and return the histogram from before.

        Equal counts are decided for the smaller mask. The selection starts again from the weights as they are, so the
        optimizer has to be made again too.

        Raises:
            PatcError: the extraction is finished.
        """
        if self.finished:
            raise PatcError(f"expected at most {len(self.sizes)} steps of extraction, found one more")
        counts = self.histogram()
        kept = sorted(self.library, key=lambda mask: (-counts[mask], mask))[: self.sizes[len(self.histograms)]]
        self._remove()
        self.histograms.append(counts)
        self.library = tuple(sorted(kept))
        self.prepare()
        return counts

    def finalize(self) -> Library:
        """Make plain parameters of the weights again, and return the library, ascending.

        Weights keep the values that the model computed with; `PatternSpec(library)` prunes them.
        """
        self._remove()
        return self.library

    def state_dict(self) -> dict[str, Any]:
        """Return what the model's state dict does not hold: the library and the histograms."""
        return {"library": self.library, "histograms": self.histograms}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Prepare the model for the library of `state_dict`; load the model's state dict after that."""
        self._remove()
        self.library, self.histograms = tuple(state["library"]), list(state["histograms"])
        self.prepare()

    def _starting_library(self, model: nn.Module, start: str | Sequence[int]) -> Library:
        window = Window.parse(self.window or "")
        if not isinstance(start, str):
            return own_library(start, window.kernel)
        if start != "all":
            raise PatcError(
                f"expected to start from 'all' patterns of {window.name} kernels or from masks, found '{start}'"
            )
        libraries = select_libraries(model, self.spec, _SELECTED)
        if window.name not in libraries:
            raise PatcError(f"expected a model with {window.name} kernels, found {', '.join(libraries) or 'none'}")
        return libraries[window.name]

    def _layers(self) -> list[PatternConstraint]:
        """Return the layers that take part, with the present library."""
        if self.window is None:
            masks, libraries = self.library, {}
        else:
            masks, libraries = self.spec.masks, {self.window: self.library}
        spec = replace(self.spec, library=masks, library_5x5=None, rates=(), libraries=libraries)
        wanted = Window((3, 3)) if self.window is None else Window.parse(self.window)
        layers = find_layers(self.model, spec)
        return [layer for layer in layers if isinstance(layer, PatternConstraint) and layer.window == wanted]

    def _selections(self) -> Iterator[SelectPattern]:
        return (module for module in self.model.modules() if isinstance(module, SelectPattern))

    @torch.no_grad()
    def _remove(self) -> None:
        if not any(True for _ in self._selections()):
            return
        for layer in self._layers():
            parametrize.remove_parametrizations(layer.module, "weight", leave_parametrized=True)
        hide_buffers(self.model, SelectPattern)


def selection_bytes(kernels: int, patterns: int, optimizer_states: int = 1) -> int:
    """Return the bytes that the selection variables take: z, its gradient, d and the optimizer's states, and nu.

    Args:
        optimizer_states: float32 numbers that the optimizer keeps a parameter: 1 for momentum, 2 for Adam.
    """
    return 4 * kernels * patterns * (3 + optimizer_states) + 4 * kernels


class _SelectionPenalty(torch.autograd.Function):
    """rho/2 |z - a|^2, with a = |d - nu| - nu found anew in each direction instead of stored."""

    @staticmethod
    def forward(z: Tensor, d: Tensor, nu: Tensor, rho: float) -> Tensor:
        return _apart(z, d, nu).square_().sum() * (rho / 2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, float], output: Tensor) -> None:
        *tensors, ctx.rho = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return _apart(*ctx.saved_tensors) * (grad * ctx.rho), None, None, None


def _apart(z: Tensor, d: Tensor, nu: Tensor) -> Tensor:
    return (d - nu).abs_().neg_().add_(nu).add_(z)


@torch.no_grad()
def _start(squares: Tensor, bits: Tensor, lean: float) -> Tensor:
    """Return the first z: the softmax of each pattern's share of the kernels' squared norms, K x M."""
    start = torch.empty(len(squares), len(bits), dtype=bits.dtype, device=bits.device)
    for first in range(0, len(squares), _ROWS):
        rows = squares[first : first + _ROWS]
        shares = (rows / rows.sum(1, keepdim=True).clamp_min(1e-300)).to(bits.dtype) @ bits.T
        start[first : first + _ROWS] = torch.softmax(shares * lean, 1)
    return start


def _starting_library(start: str | Sequence[int]) -> Library:
    if start in ("all", "centred"):
        return candidates(centred=start == "centred")
    if isinstance(start, str):
        raise PatcError(f"expected to start from 'all' or 'centred' patterns or from masks, found '{start}'")
    return library(start)


def _check_sizes(sizes: Sequence[int], before: int) -> None:
    if not sizes:
        raise PatcError("expected sizes of at least one step of extraction, found none")
    for size in sizes:
        if not 1 <= size < before:
            raise PatcError(f"expected sizes that fall from fewer than {before} patterns, found {size}")
        before = size
