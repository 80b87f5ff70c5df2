"""What the algorithms of CPUs have in common."""

from __future__ import annotations

from typing import Any, ClassVar

from patc.passes.algorithms.base import Algorithm
from patc.passes.algorithms.host.site import HostSite
from patc.passes.base import PassState


class HostAlgorithm(Algorithm[HostSite]):
    """One way to compute layers on CPUs.

    Attributes:
        has_row_tiles: whether threads may divide the rows of planes; else they divide filters.
        has_stages: whether threads that divide filters wait for each other in each row tile, beside the layer's end.
    """

    has_row_tiles: ClassVar[bool] = True
    has_stages: ClassVar[bool] = False

    def objection(self, op: Any, state: PassState) -> str:
        """Return why the layer's weights forbid the algorithm, as reports say it; "" if they do not.

        Asked only of what may be chosen: the answer may take a look at all weights.
        """
        return ""
