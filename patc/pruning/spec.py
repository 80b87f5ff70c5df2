"""What to prune a model to: the pattern library, the connectivity rate and which layers take part."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from patc.diagnostics import PatcError
from patc.pruning.libraries import Library, library

Pointwise = Literal["dense", "groups"]
Depthwise = Literal["dense", "pattern"]
FirstLayer = Literal["pattern", "prune", "dense"]
Allocation = Literal["uniform", "global"]


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
        first_layer: what happens to the first convolution when it is 3x3: "pattern" gives it patterns
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

    @property
    def layer_rates(self) -> dict[str, float]:
        """`rates` as a dictionary."""
        return dict(self.rates)


def _as_masks(patterns: object, size: int) -> Library:
    if not isinstance(patterns, Iterable):
        raise PatcError(f"expected a library name or pattern masks, found {patterns!r}")
    return library(patterns, size)


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
