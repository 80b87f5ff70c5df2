"""What an algorithm is: a name that schedules carry, the candidates that it offers, and what writes its loops."""

from __future__ import annotations

import abc
import itertools
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from patc.dialects.schedules import Schedule
from patc.passes.algorithms.limits import Limit, at_most
from patc.passes.base import PassState, fail
from patc.passes.cost.candidate import Candidate
from patc.passes.ir.records import read_record
from patc.targets import MOST_THREADS, Target

Site = TypeVar("Site")
AnyAlgorithm = TypeVar("AnyAlgorithm", bound="Algorithm[Any]")


class Algorithm(abc.ABC, Generic[Site]):
    """One way to compute layers on one sort of machine; it has no state.

    Attributes:
        name: as schedules carry it, as in "pattern-direct".
        is_divided: whether `pattern-schedule` divides candidates among threads; those for GPUs come divided.
        has_row_tiles: whether threads may divide the rows of planes; else they divide filters.
        has_stages: whether threads that divide filters wait for each other in each row tile, beside the layer's end.
        runs_in_bands: whether one kernel computes any row tiles of the layer, from the rows that their windows read.
        skips_zeros: whether it computes what a weight format stores as it is, and does not decode it to dense.
    """

    name: ClassVar[str]
    is_divided: ClassVar[bool] = True
    has_row_tiles: ClassVar[bool] = True
    has_stages: ClassVar[bool] = False
    runs_in_bands: ClassVar[bool] = False
    skips_zeros: ClassVar[bool] = False

    def applies(self, op: Any) -> bool:
        """Return whether it can compute an op of the kinds that have it."""
        return True

    def objection(self, op: Any, state: PassState) -> str:
        """Return why the layer's weights forbid the algorithm, as reports say it; "" if they do not.

        Asked only of what may be chosen: the answer may take a look at all weights.
        """
        return ""

    def unused_zeros(self, op: Any, schedule: Schedule, target: Target, state: PassState) -> str:
        """Return why it multiplies zeros of weights that no format stores; "" if it does not, or always does."""
        return ""

    def rounding(self, op: Any) -> float:
        """Return the rounding errors of results, in those of sums of all products one after the other."""
        return 1.0

    def order(self, op: Any, schedule: Schedule, target: Target) -> Hashable:
        """Return what decides in which order each output's products are added up: schedules of which it is the same
        give the same bits."""
        return schedule.sums

    @abc.abstractmethod
    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        """Yield the register tiles that are worth a thought, for an op that it applies to, always in the same order.

        Args:
            threads: that the layer's rows will be divided among.
        """

    def filter_blocks(self, op: Any, schedule: Schedule) -> int:
        """Return how many blocks of filters there are, each of which one thread computes."""
        return int(op.results[0].type.shape[1])

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        """Yield what a schedule, which may come from edited IR, may say of an op that the algorithm applies to, beside
        `machine_limits`: within them numbers are right, and code is bounded. Of fields that it does not read it yields
        nothing. Each is asked for only when those before it hold."""
        yield from ()

    def machine_limits(self, schedule: Schedule, target: Target) -> Iterator[Limit]:
        """Yield the limits that all algorithms for a sort of machine have."""
        yield at_most("threads", schedule.threads, MOST_THREADS)

    @abc.abstractmethod
    def emit(self, site: Site) -> None:
        """Write the layer's loops, and the call of them, at a site, of a schedule within the limits.

        Raises:
            PatcError: the layer's layouts are none that the algorithm can compute.
        """


def find_algorithm(op: Any, algorithms: Sequence[AnyAlgorithm], **fixed: Any) -> tuple[AnyAlgorithm, Schedule]:
    """Return the algorithm that the schedule of an op names, and the schedule.

    Args:
        algorithms: of the op's kind.
        fixed: what all schedules for the sort of machine have in these fields.

    Raises:
        PatcError: there is no schedule, or it is not for such an op or not for such a machine.
    """
    if "schedule" not in op.attributes:
        raise fail(op, "a 'schedule' attribute (run pattern-schedule first)", "none")
    schedule = read_record(op, Schedule)
    known = {algorithm.name: algorithm for algorithm in algorithms if algorithm.applies(op)}
    found = {name: getattr(schedule, name) for name in fixed}
    if schedule.algorithm not in known or found != fixed:
        wanted, given = ("".join(f", {name} {part}" for name, part in parts.items()) for parts in (fixed, found))
        expected = f"a schedule with algorithm {' or '.join(known) or 'none'}{wanted}"
        raise fail(op, expected, f"'{schedule.algorithm}'{given}")
    return known[schedule.algorithm], schedule


def require_limits(op: Any, algorithm: Algorithm[Any], schedule: Schedule, target: Target) -> None:
    """Refuse a schedule that an algorithm cannot follow.

    Raises:
        PatcError: it is beyond one of the limits.
    """
    for limit in itertools.chain(algorithm.machine_limits(schedule, target), algorithm.limits(op, schedule, target)):
        if not limit.holds:
            raise fail(op, f"a schedule with {limit.name} of {limit.wanted}", limit.found)
