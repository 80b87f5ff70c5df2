"""What the algorithms of CPUs have in common."""

from __future__ import annotations

from patc.passes.algorithms.base import Algorithm
from patc.passes.algorithms.host.site import HostSite


class HostAlgorithm(Algorithm[HostSite]):
    """One way to compute layers on CPUs."""
