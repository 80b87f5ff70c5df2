"""`pattern-schedule`: choose for each layer the algorithm, the register tile and the split over threads.

The choice minimises modelled cycles: multiply-adds (with the columns computed and thrown away), loads, cache lines, the
cost of entering loops, and what threads cannot share evenly or have to fetch from each other. Where the state has
something to measure with, it times the best candidates of the model, and the fastest is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from torch_mlir import ir

from patc.costs import CoreCosts
from patc.dialects import pattern
from patc.dialects.attributes import Schedule
from patc.integers import ceil_div
from patc.passes.base import Pass, PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.cost.candidates import candidates, shortlist, without_inaccurate
from patc.passes.cost.models import cost_model
from patc.passes.ir.elements import element_bytes
from patc.passes.ir.functions import defined_functions, top_level_ops
from patc.passes.ir.planes import is_flat, row_tiles
from patc.passes.ir.targets import OVERRIDE, target_of
from patc.passes.layers.registry import kind_of
from patc.targets import Target

CANCELS = "; no winograd: filters cancel where channels are equal, and rounding errors would show"


@dataclass(frozen=True)
class PatternSchedule(Pass):
    """Choose algorithm, register tile and thread split of every layer.

    Requires: pattern ops with layouts (`pattern-layout`).
    Ensures: every pattern op that computes has the attributes `schedule`, `reason` and `cycles` (modelled, of one
        thread).

        "pattern.sparse_conv2d"(...) {...}
      becomes
        "pattern.sparse_conv2d"(...) {cycles = 997811 : i64,
          reason = "best of 211 tiles, bound by multiply-adds; input-stationary 1.02x; winograd 2.31x; ...",
          schedule = #pattern.schedule<{algorithm = "pattern-direct", ...}>}
      or, with `tune="measure"` of `patc.compile`,
        reason = "fastest of 8 measured (pattern-direct 4x56 0.134 ms; next pattern-direct 4x48 0.141 ms)"

    Idempotent: an op that has a schedule keeps it.
    """

    name: ClassVar[str] = "pattern-schedule"

    target: str = field(default="", metadata={"help": OVERRIDE})
    threads: int = field(default=1, metadata={"help": "threads to divide each layer among", "minimum": 1})

    def run(self, module: ir.Module, state: PassState) -> None:
        target = target_of(module, self.target)
        for function in defined_functions(module):
            for op in top_level_ops(function):
                if target.algorithms == "gpu":
                    _schedule_for_gpu(op, target, state)
                    continue
                found = [] if "schedule" in op.attributes else candidates(op, target, state, self.threads)
                if not found:
                    continue
                accurate = without_inaccurate(found, op, state)
                note = CANCELS if len(accurate) < len(found) else ""
                alone = found = accurate
                if self.threads > 1 and state.measure is None:
                    if is_flat(op):  # cut in another way for several threads
                        alone = candidates(op, target, state)
                    found = _same_sums(found, alone)
                costs = cost_model(target).costs
                divided = [way for one in found for way in _divide(one, op, costs, self.threads)]
                chosen, reason = _choose(op, divided, state)
                reason += "" if state.measure else _other_algorithms(alone)
                set_schedule(op, chosen, reason + note)


def _schedule_for_gpu(op: Any, target: Target, state: PassState) -> None:
    """Choose for an op that has no schedule yet; all threads of a GPU share each layer, `threads` does not count."""
    kind = kind_of(op)
    if kind is None or "schedule" in op.attributes:
        return
    found = [way for algorithm in kind.gpu for way in algorithm.candidates(op, target, state, threads=1)]
    if found:
        chosen, reason = _choose(op, found, state)
        set_schedule(op, chosen, reason + _other_algorithms(found))


def set_schedule(op: Any, chosen: Candidate, reason: str) -> None:
    """Let an op be computed in one way."""
    op.attributes["schedule"] = chosen.schedule.to_attr()
    op.attributes["reason"] = ir.StringAttr.get(reason)
    op.attributes["cycles"] = ir.IntegerAttr.get(ir.IntegerType.get_signless(64), round(chosen.cycles))


def _choose(op: Any, found: Sequence[Candidate], state: PassState) -> tuple[Candidate, str]:
    """Return the fastest candidate, measured where that is possible, and why it was chosen."""
    best = min(found, key=lambda candidate: candidate.cost)
    if len(found) == 1:
        return best, f"bound by {best.bound}"
    if state.measure is None:
        return best, f"best of {len(found)} tiles, bound by {best.bound}"
    measured = shortlist(found)
    seconds = state.measure(op, measured, state)
    fastest, next_one, *_ = sorted(zip(measured, seconds, strict=True), key=lambda pair: pair[1])
    return fastest[0], f"fastest of {len(measured)} measured ({_describe(*fastest)}; next {_describe(*next_one)})"


def _other_algorithms(found: Sequence[Candidate]) -> str:
    """Return how the best tile of each other algorithm compares with the best of all, by the model."""
    ranked = sorted(found, key=lambda candidate: candidate.cost)
    firsts = {candidate.schedule.algorithm: candidate.cost for candidate in reversed(ranked)}
    best = ranked[0]
    others = sorted((cost / best.cost, name) for name, cost in firsts.items() if name != best.schedule.algorithm)
    return "".join(f"; {name} {ratio:.2f}x" for ratio, name in others)


def _describe(candidate: Candidate, seconds: float) -> str:
    """Return algorithm, tile and time: rows x columns, x filters if there are several."""
    schedule = candidate.schedule
    filters = f"x{schedule.filters}" if schedule.filters > 1 else ""
    sums = f" with {schedule.sums} sums" if schedule.sums > 1 else ""
    return f"{schedule.algorithm} {schedule.rows}x{schedule.columns}{filters}{sums} {1e3 * seconds:.3g} ms"


def _same_sums(found: Sequence[Candidate], alone: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates that add up in the order of the best one for a single thread: results then have the same
    bits for any number of threads."""
    best = min(alone, key=lambda candidate: candidate.cost).schedule
    order = best.algorithm, best.sums
    return [candidate for candidate in found if (candidate.schedule.algorithm, candidate.schedule.sums) == order]


def _divide(candidate: Candidate, op: Any, costs: CoreCosts, threads: int) -> list[Candidate]:
    """Return the candidate divided by rows and by filters; what threads cannot share evenly, or have to fetch from each
    other's caches, costs more."""
    schedule = replace(candidate.schedule, threads=threads)
    by_filters = replace(candidate, schedule=replace(schedule, split="filters"))
    if len(op.result.type.shape) != 4 or schedule.algorithm == "global-pool":
        return [by_filters]
    tiles = row_tiles(op, schedule)
    if threads == 1:
        return [replace(candidate, schedule=replace(schedule, split="rows"))]
    cost = candidate.cost + threads * _remote_bytes(op, "filters", threads) / costs.remote_bytes_per_cycle
    if schedule.algorithm == "winograd" and tiles > 1:
        cost *= costs.shared_band  # three stages a band, with a barrier after each
    ways = [replace(by_filters, cost=cost)]
    if tiles >= threads:
        cost = candidate.cost * ceil_div(tiles, threads) * threads / tiles
        cost += threads * _remote_bytes(op, "rows", threads) / costs.remote_bytes_per_cycle
        ways.insert(0, replace(candidate, cost=cost, schedule=replace(schedule, split="rows")))
    return ways


def _remote_bytes(op: Any, split: str, threads: int) -> float:
    """Return the bytes that a thread reads and that another one wrote."""
    is_dense = isinstance(op, pattern.Conv2dOp) and op.groups.value == 1
    reads_all = is_dense or isinstance(op, pattern.SparseConv2dOp)
    total = 0.0
    for number, value in enumerate(_activations(op)):
        producer = value.owner.attributes if not isinstance(value.owner, ir.Block) else {}
        if "schedule" not in producer:
            continue  # the caller's memory, or a constant
        size = element_bytes(value.type) * math.prod(value.type.shape) * (1.0 - 1.0 / threads)
        if number == 0 and reads_all and split == "filters":
            total += size
        elif Schedule.from_attr(producer["schedule"]).split != split:
            total += size / threads
    return total


def _activations(op: Any) -> list[ir.Value]:
    """Return the activations that a layer reads."""
    if isinstance(op, pattern.AddOp):
        return [op.lhs, op.rhs]
    residual = getattr(op, "residual", None)
    return [op.input] if residual is None else [op.input, residual]
