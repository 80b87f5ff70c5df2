"""What to prune a model to: the pattern library, the connectivity rate and which layers take part."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from patc.diagnostics import PatcError
from patc.pruning.library import Library, library

Pointwise = Literal["dense", "groups"]
FirstLayer = Literal["pattern", "prune", "dense"]


@dataclass(frozen=True)
class PatternSpec:
    """A sparsity target. It says nothing about one model yet: `prune_` applies it.

    Attributes:
        library: name of a pattern library, or its masks (see `library.library`).
        connectivity: all kernels / kept kernels of each prunable layer, at least 1 (paper, section 6.1).
        compression: when given, `connectivity` is not used: it is solved for each model such that all
            convolution weights / kept convolution weights come to this. See `for_compression`.
        pointwise: "groups" views nine consecutive input channels of a filter of a 1x1 convolution as one
            3x3 kernel and prunes that view (paper, section 3); channels beyond the last nine stay dense.
            "dense" leaves 1x1 convolutions alone.
        filter_group: 2 makes the filters 2i and 2i+1 share pattern and connectivity on each input
            channel, so that one load of the input serves both; a layer of an odd number of filters has
            every filter on its own. 1 chooses for each filter.
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

    def __post_init__(self) -> None:
        if not isinstance(self.library, str):
            object.__setattr__(self, "library", _as_masks(self.library))
        library(self.library)
        _check_rate("connectivity", self.connectivity)
        if self.compression is not None:
            _check_rate("compression", self.compression)
        _check_choice("pointwise", self.pointwise, ("dense", "groups"))
        _check_choice("filter_group", self.filter_group, (1, 2))
        _check_choice("first_layer", self.first_layer, ("pattern", "prune", "dense"))

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


def _as_masks(patterns: object) -> Library:
    if not isinstance(patterns, Iterable):
        raise PatcError(f"expected a library name or pattern masks, found {patterns!r}")
    return library(patterns)


def _check_rate(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 1 <= float(value) < math.inf:
        raise PatcError(f"expected {name} to be a finite rate of at least 1, found {value!r}")


def _check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        raise PatcError(f"expected {name} to be one of {', '.join(map(repr, choices))}; found {value!r}")
