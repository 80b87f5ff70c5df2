"""What the algorithms of CPUs have in common."""

from __future__ import annotations

from typing import Any, ClassVar

from patc.passes.algorithms.base import Algorithm
from patc.passes.algorithms.host.images import Reach
from patc.passes.algorithms.host.site import HostSite


class HostAlgorithm(Algorithm[HostSite]):
    """One way to compute layers on CPUs.

    Attributes:
        reaches: how many images of layers it goes through, where a call of a dynamic batch has fewer than all.
    """

    reaches: ClassVar[Reach] = Reach.OWN

    def reach(self, op: Any, most: int) -> Reach:
        """Return how many images of a layer it goes through where a call of a dynamic batch has fewer than all.

        Args:
            most: all images.
        """
        return self.reaches
