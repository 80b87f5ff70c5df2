"""What the algorithms of CPUs have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from patc.dialects.schedules import FILTERS, IMAGES, ROWS, Schedule
from patc.passes.algorithms.base import Algorithm
from patc.passes.algorithms.host.images import Reach
from patc.passes.algorithms.host.site import HostSite
from patc.passes.algorithms.limits import Limit, at_most, one_of, power_of_two
from patc.targets import Target

_MOST_LANES = 128  # no registers hold more
MOST_SUMS = 64


class HostAlgorithm(Algorithm[HostSite]):
    """One way to compute layers on CPUs.

    Attributes:
        reaches: how many images of layers it goes through, where a call of a dynamic batch has fewer than all.
    """

    reaches: ClassVar[Reach] = Reach.OWN

    def machine_limits(self, schedule: Schedule, target: Target) -> Iterator[Limit]:
        yield from super().machine_limits(schedule, target)
        yield one_of("split", schedule.split, (ROWS, FILTERS, IMAGES))
        yield power_of_two("lanes", schedule.lanes, 2, _MOST_LANES)
        yield at_most("sums", schedule.sums, MOST_SUMS)

    def reach(self, op: Any, most: int) -> Reach:
        """Return how many images of a layer it goes through where a call of a dynamic batch has fewer than all.

        Args:
            most: all images.
        """
        return self.reaches
