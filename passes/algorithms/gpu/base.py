"""What algorithms of GPUs have in common."""

from __future__ import annotations

from typing import Any, ClassVar

from patc.passes.algorithms.base import Algorithm
from patc.passes.algorithms.gpu.site import GpuSite, Plan


class GpuAlgorithm(Algorithm[GpuSite]):
    """One way to compute layers on a GPU."""

    is_divided: ClassVar[bool] = False

    def plan(self, op: Any) -> Plan:
        """Return what has to be known of a layer before memory is given out.

        Raises:
            PatcError: the layer cannot be computed.
        """
        return Plan()
