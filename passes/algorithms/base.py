"""What an algorithm is: a name that schedules carry, the candidates that it offers, and what writes its loops."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from typing import Any, ClassVar, Generic, TypeVar

from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.targets import Target

Site = TypeVar("Site")


class Algorithm(abc.ABC, Generic[Site]):
    """One way to compute layers on one sort of machine; it has no state.

    Attributes:
        name: as schedules carry it, as in "pattern-direct".
    """

    name: ClassVar[str]

    @abc.abstractmethod
    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        """Yield the register tiles that are worth a thought, always in the same order; none where it does not apply.

        Args:
            threads: that the layer will be divided among.
        """

    @abc.abstractmethod
    def emit(self, site: Site) -> None:
        """Write the layer's loops, and the call of them, at a site.

        Raises:
            PatcError: the layer's schedule or layouts are none that the algorithm can compute.
        """
