"""How a model is quantised: what its integers are found from, and what stays in f32."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from patc.diagnostics import PatcError, nearest
from patc.passes.base import Calibrate
from patc.passes.ir.stored import CHOICES
from patc.quantisation.calibrate import calibrator, weight_marker
from patc.quantisation.ranges import RANGES
from patc.runtime.program import TensorInfo
from patc.samples import Sample, as_samples, check
from patc.targets import Target


@dataclass(frozen=True)
class Quantised:
    """How a model is quantised.

    Args:
        samples: as the inputs of `patc.quantize`, or a function that returns checked ones for a net's inputs; not asked
            for where weights alone are integers.
        ranges, keep, least_snr, weights_only: as for `patc.quantize`.

    Raises:
        PatcError: one of them is unknown or out of range, or two do not go together.
    """

    samples: Any = None
    ranges: str = RANGES[0]
    keep: tuple[str, ...] = ()
    least_snr: float | None = None
    weights_only: int | None = None

    def __post_init__(self) -> None:
        if self.ranges not in RANGES:
            known = ", ".join(RANGES)
            hint = nearest(self.ranges, RANGES)
            raise PatcError(f"expected ranges to be one of {known}, got '{self.ranges}'{hint}")
        if self.least_snr is not None and not -math.inf < self.least_snr < math.inf:
            raise PatcError(f"expected a finite signal-to-noise in dB, got {self.least_snr}")
        if self.weights_only is None:
            return
        if type(self.weights_only) is not int or self.weights_only not in CHOICES:
            known = " or ".join(map(str, CHOICES))
            raise PatcError(f"expected weights alone of {known} bits, got {self.weights_only!r}")
        if self.ranges != RANGES[0] or self.least_snr is not None:
            raise PatcError("expected ranges or a least signal-to-noise only where activations are integers, too")

    def check(self, target: Target) -> None:
        """Refuse a target without kernels.

        Raises:
            PatcError: it is that of a GPU, and weights alone are integers.
        """
        if target.algorithms == "gpu" and self.weights_only is not None:
            raise PatcError(f"expected the target of a CPU for weights alone as integers, got '{target.name}'")

    def calibrate(self, infos: Sequence[TensorInfo]) -> Calibrate:
        """Return what says of a model with such inputs what becomes integers, see `PassState.calibrate`."""
        if self.weights_only is not None:
            return weight_marker(self.weights_only, self.keep)
        take: Callable[[Sequence[TensorInfo]], Sequence[Sample]] = self.samples
        samples = take(infos) if callable(take) else check(as_samples(take), infos)
        return calibrator(samples, self.ranges, self.keep, self.least_snr)
