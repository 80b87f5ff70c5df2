"""What an algorithm is: a name that schedules carry, the candidates that it offers, and what writes its loops."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from patc.dialects.schedules import Schedule
from patc.passes.base import PassState, fail
from patc.passes.cost.candidate import Candidate
from patc.passes.ir.records import read_record
from patc.targets import MOST_THREADS, Target

Site = TypeVar("Site")
AnyAlgorithm = TypeVar("AnyAlgorithm", bound="Algorithm[Any]")
_MOST_SUMS = 64  # registers hold fewer


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

    @abc.abstractmethod
    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        """Yield the register tiles that are worth a thought, for an op that it applies to, always in the same order.

        Args:
            threads: that the layer's rows will be divided among.
        """

    def filter_blocks(self, op: Any, schedule: Schedule) -> int:
        """Return how many blocks of filters there are, each of which one thread computes."""
        return int(op.results[0].type.shape[1])

    def block_rule(self, op: Any, schedule: Schedule) -> str:
        """Return what the filters of a schedule, which may come from edited IR, have to be; "" where they are that."""
        return ""

    @abc.abstractmethod
    def emit(self, site: Site) -> None:
        """Write the layer's loops, and the call of them, at a site.

        Raises:
            PatcError: the layer's schedule or layouts are none that the algorithm can compute.
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
    is_gpu = "lanes" in fixed
    if not is_gpu and schedule.lanes < 2:
        raise fail(op, "a schedule with lanes of 2 or more", schedule.lanes)
    for name, most in (("threads", MOST_THREADS), *([] if is_gpu else [("sums", _MOST_SUMS)])):
        if (number := getattr(schedule, name)) > most:
            raise fail(op, f"a schedule with {name} of {most} or less", number)
    algorithm = known[schedule.algorithm]
    if rule := algorithm.block_rule(op, schedule):
        raise fail(op, f"a schedule with filters {rule}", schedule.filters)
    return algorithm, schedule


def rule_of_groups(filters: int, groups: int, block: int) -> str:
    """Return the `block_rule` of weights that are packed in blocks: the last one may overlap its neighbour, but blocks
    lie within a group."""
    group = filters // groups
    if groups > 1:
        return "" if group % block == 0 else f"that divide the {group} of a group"
    return "" if block <= group else f"of {group} or less"
