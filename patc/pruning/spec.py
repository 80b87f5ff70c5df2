"""What to prune a model to: the pattern library, the connectivity rate and which layers take part."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from patc.diagnostics import PatcError
from patc.pruning.budget import Budget
from patc.pruning.libraries import Library, library, own_library
from patc.pruning.windows import SHARE, Window

if TYPE_CHECKING:
    from torch import nn

    from patc.pruning.constraints.base import Constraint

Pointwise = Literal["dense", "groups"]
Depthwise = Literal["dense", "pattern"]
FirstLayer = Literal["pattern", "prune", "dense"]
Allocation = Literal["uniform", "global"]
Kernels = Literal["3x3", "all"]


@dataclass(frozen=True)
class PatternSpec:
    """A sparsity target. It says nothing about one model yet: `prune_` or a `PatternPruner` applies it.

    Attributes:
        library: name of a pattern library, or its masks (see `library.library`). The one mask 511 prunes connectivity
            alone; a connectivity of 1 prunes patterns alone.
        connectivity: all kernels / kept kernels of each prunable layer, at least 1 (paper, section 6.1).
        compression: when given, `connectivity` is not used: it is solved for each model such that all
            convolution weights / kept convolution weights come to this. See `for_compression`.
        pointwise: "groups" views nine consecutive input channels of a filter of a 1x1 convolution as one
            3x3 kernel and prunes that view (paper, section 3); channels beyond the last nine stay dense.
            "dense" leaves 1x1 convolutions alone.
        depthwise: "pattern" gives the kernels of depthwise 3x3 (and with `library_5x5` 5x5) convolutions patterns. None
            of them is removed, since a channel would go with it. "dense" leaves these layers alone.
        library_5x5: library of 5x5 kernels, a name or masks; None leaves 5x5 convolutions alone.
        filter_group: N makes the filters N*i to N*i + N - 1 share pattern and connectivity on each input
            channel, so that one load of the input serves them all; a layer whose number of filters N does not divide
            has every filter on its own. 1 chooses for each filter.
        balanced: whether all filters of a layer keep equally many kernels, up to one, so that work divides evenly.
        allocation: "uniform" gives each layer the same connectivity. "global" spends the same number of weights where
            the scores are: kernels of all layers compete by squared norm over the layer's mean, and each layer keeps at
            least a quarter of what it would have kept.
        rates: connectivity of single layers, by name; these layers are left out of `allocation` and `compression`.
        kernels: "all" gives patterns to the kernels of all 1-D and 2-D convolutions of up to 63 taps, transposed ones
            too; "3x3" leaves those of other sizes dense, but for what `pointwise` and `library_5x5` say.
        share: of its taps, that a pattern of a kernel that is not 3x3 keeps; above 0, at most 1. See `Window.library`.
        libraries: masks for kernels of other sizes in place of those, by the name of the `Window`: "7x7", "1x9" of a
            1-D convolution, "4x4/2x2" of a transposed one of stride 2.
        first_layer: what happens to the first convolution when its kernels have patterns: "pattern" gives it patterns
            and no connectivity sparsity (paper, section 6.1), "prune" treats it like the others,
            "dense" leaves it alone.

    Raises:
        PatcError: a value is outside of its range.
    """

    library: str | Library = "phase2"
    connectivity: float = 3.56
    pointwise: Pointwise = "dense"
    filter_group: int = 1
    first_layer: FirstLayer = "pattern"
    compression: float | None = None
    depthwise: Depthwise = "dense"
    library_5x5: str | Library | None = None
    balanced: bool = False
    allocation: Allocation = "uniform"
    rates: Mapping[str, float] | tuple[tuple[str, float], ...] = ()
    # Not part of the text, by which training checkpoints tell specs apart; see `text`.
    kernels: Kernels = field(default="3x3", repr=False)
    share: float = field(default=SHARE, repr=False)
    libraries: Mapping[str, Iterable[int]] | tuple[tuple[str, Library], ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.library, str):
            object.__setattr__(self, "library", _as_masks(self.library, 3))
        library(self.library)
        if self.library_5x5 is not None:
            if not isinstance(self.library_5x5, str):
                object.__setattr__(self, "library_5x5", _as_masks(self.library_5x5, 5))
            library(self.library_5x5, 5)
        _check_rate("connectivity", self.connectivity)
        if self.compression is not None:
            _check_rate("compression", self.compression)
        _check_choice("pointwise", self.pointwise, ("dense", "groups"))
        _check_choice("depthwise", self.depthwise, ("dense", "pattern"))
        _check_choice("filter_group", self.filter_group, (1, 2, 4, 8))
        _check_choice("balanced", self.balanced, (False, True))
        _check_choice("allocation", self.allocation, ("uniform", "global"))
        _check_choice("first_layer", self.first_layer, ("pattern", "prune", "dense"))
        _check_choice("kernels", self.kernels, ("3x3", "all"))
        _check_share(self.share)
        object.__setattr__(self, "share", float(self.share))
        object.__setattr__(self, "libraries", _as_libraries(self.libraries))
        if self.libraries and self.kernels == "3x3":
            raise PatcError("expected kernels to be 'all' together with libraries, found '3x3'")
        pairs = self.rates.items() if isinstance(self.rates, Mapping) else self.rates
        for name, rate in pairs:
            _check_rate(f"the connectivity of '{name}'", rate)
        # Plain numbers, of whatever came: checkpoints hold them.
        object.__setattr__(self, "connectivity", float(self.connectivity))
        if self.compression is not None:
            object.__setattr__(self, "compression", float(self.compression))
        object.__setattr__(self, "rates", tuple((str(name), float(rate)) for name, rate in pairs))

    @classmethod
    def for_compression(cls, rate: float, **fields: Any) -> PatternSpec:
        """Return a spec that removes weights until all convolution weights / kept ones = `rate`.

        All convolutions count, those that stay dense too, as in the paper's table 1: on ResNet-18 a
        rate of 8 puts its 3x3 layers at about 9.05. `fields` are the other attributes of the spec.

        Raises:
            PatcError: the rate is below 1 or not finite. Whether a model can reach it shows when the spec
                is applied.
        """
        return cls(compression=rate, **fields)

    @property
    def masks(self) -> Library:
        """The masks of the library."""
        return library(self.library)

    @property
    def masks_5x5(self) -> Library:
        """The masks of the library of 5x5 kernels; none where these stay dense."""
        return () if self.library_5x5 is None else library(self.library_5x5, 5)

    def masks_of(self, window: Window) -> Library:
        """The masks of kernels that are neither 3x3 nor 1x1; none where these stay dense."""
        if window == Window((5, 5)) and self.library_5x5 is not None:
            return self.masks_5x5
        if self.kernels == "3x3":
            return ()
        own = dict(self.libraries).get(window.name)
        return window.library(self.share) if own is None else tuple(own)

    @property
    def text(self) -> str:
        """What tells specs apart that prune differently."""
        plain = replace(self, library=self.masks, library_5x5=self.masks_5x5 or None)
        return repr(plain) if self.kernels == "3x3" else f"{plain} {self.share} {self.libraries}"

    @property
    def layer_rates(self) -> dict[str, float]:
        """`rates` as a dictionary."""
        return dict(self.rates)

    @property
    def budget(self) -> Budget:
        """What the kernels may keep."""
        hint = " (1x1 convolutions stay dense unless pointwise is 'groups')" if self.pointwise == "dense" else ""
        return Budget(self.connectivity, self.compression, self.allocation, self.layer_rates, hint)

    def with_rates(self, rates: Mapping[str, float], rate: float) -> PatternSpec:
        """Return the spec with the connectivity of single layers and one of all others."""
        own = tuple(rates.items())
        return replace(self, connectivity=rate, compression=None, allocation="uniform", rates=own)

    def constrain(self, model: nn.Module) -> tuple[list[Constraint], Budget]:
        """Return what is asked of each convolution, and what they may keep.

        Raises:
            PatcError: none of them is prunable, or `rates` names one that is not.
        """
        from patc.pruning.kernels import find_layers

        return find_layers(model, self), self.budget


def _as_masks(patterns: object, size: int) -> Library:
    if not isinstance(patterns, Iterable):
        raise PatcError(f"expected a library name or pattern masks, found {patterns!r}")
    return library(patterns, size)


def _as_libraries(libraries: Mapping[str, Any] | tuple[tuple[str, Any], ...]) -> tuple[tuple[str, Library], ...]:
    pairs = libraries.items() if isinstance(libraries, Mapping) else libraries
    windows = [(Window.parse(name), masks) for name, masks in pairs]
    return tuple((window.name, own_library(masks, window.kernel)) for window, masks in windows)


def _check_share(share: object) -> None:
    if isinstance(share, bool) or not isinstance(share, numbers.Real) or not 0 < float(share) <= 1:
        raise PatcError(f"expected share to be above 0 and at most 1, found {share!r}")


def _check_rate(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 1 <= float(value) < math.inf:
        raise PatcError(f"expected {name} to be a finite rate of at least 1, found {value!r}")


def _check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    try:
        known = value in choices
    except (RuntimeError, TypeError, ValueError):  # an array, which is neither true nor false
        known = False
    if not known:
        raise PatcError(f"expected {name} to be one of {', '.join(map(repr, choices))}; found {value!r}")
