"""`pattern-schedule`: choose for each layer the algorithm, the register tile and the split over threads.

The choice minimises modelled cycles: multiply-adds (with the columns computed and thrown away), loads, cache lines, the
cost of entering loops, and what threads cannot share evenly or have to fetch from each other. Where the state has
something to measure with, it times the best candidates of the model, and the fastest is chosen.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

from torch_mlir import ir

from patc.diagnostics import PatcError
from patc.dialects.schedules import Alternative, Explanation, Schedule
from patc.integers import ceil_div
from patc.passes.algorithms.base import Algorithm
from patc.passes.base import Pass, PassState
from patc.passes.cost.candidate import Candidate, shortlist
from patc.passes.cost.models import cost_model
from patc.passes.ir.elements import element_bytes
from patc.passes.ir.functions import defined_functions, describe_call, top_level_ops
from patc.passes.ir.planes import is_flat, row_tiles
from patc.passes.ir.records import read_record
from patc.passes.ir.targets import OVERRIDE, target_of
from patc.passes.layers.base import LayerKind
from patc.passes.layers.registry import kind_of
from patc.targets import Target


@dataclass(frozen=True)
class PatternSchedule(Pass):
    """Choose algorithm, register tile and thread split of every layer.

    Requires: pattern ops with layouts (`pattern-layout`).
    Ensures: every pattern op that computes has the attributes `schedule`, `cycles` (modelled, of one thread) and
        `explanation`: how the best tile of each algorithm compares, or with `tune="measure"` of `patc.compile` what
        was measured. A remark names what an outlined function computes, and its share of the modelled cycles.

        "pattern.sparse_conv2d"(...) {...}
      becomes
        "pattern.sparse_conv2d"(...) {cycles = 997811 : i64, explanation = #pattern.explanation<{
          alternatives = [{cycles = 997811 : i64, ratio = 1.0 : f64, schedule = {...}}, ...],
          bound = "multiply-adds", considered = 211 : i64, notes = []}>,
          schedule = #pattern.schedule<{algorithm = "pattern-direct", ...}>}

    Idempotent: an op that has a schedule keeps it.
    """

    name: ClassVar[str] = "pattern-schedule"

    target: str = field(default="", metadata={"help": OVERRIDE})
    threads: int = field(default=1, metadata={"help": "threads to divide each layer among", "minimum": 1})

    def run(self, module: ir.Module, state: PassState) -> None:
        target = target_of(module, self.target)
        ops = [op for function in defined_functions(module) for op in top_level_ops(function)]
        given = [(op, kind) for op in ops if (kind := kind_of(op)) is not None and "schedule" not in op.attributes]
        left = [op for op, kind in given if not _Unscheduled(op, kind, target, state, self.threads).schedule()]
        if left:
            words = ", ".join(dict.fromkeys(word for op in left for word in describe_call(op) or [op.operation.name]))
            raise PatcError(f"target '{target.name}' cannot compute: {words}", left[0].location)
        total = max(1, sum(op.attributes["cycles"].value for op, _ in given))
        for op, _ in given:
            if words := ", ".join(describe_call(op)):
                share = f"{op.attributes['cycles'].value / total:.0%} of the modelled cycles"
                state.remark(op, f"computed as any linalg is, {share}: {words}")


@dataclass(frozen=True)
class _Unscheduled:
    """A layer to be scheduled."""

    op: Any
    kind: LayerKind
    target: Target
    state: PassState
    threads: int

    def schedule(self) -> bool:
        """Choose how it is computed; return whether there was anything to choose."""
        found, notes = self._without_objections(self._candidates(self.threads))
        if not found:
            return False
        alone = found
        if self.threads > 1 and self.state.measure is None:
            if is_flat(self.op):  # cut in another way for several threads
                alone = self._candidates(threads=1)
            found = _same_sums(found, alone)
        chosen, explanation = _choose(self.op, self._divided(found), alone, self.state)
        if self.threads > 1 and self.state.measure is None:
            sharing = chosen.cost / max(min(candidate.cost for candidate in alone), 1e-9)
            explanation = replace(explanation, sharing=sharing)
        set_schedule(self.op, chosen, replace(explanation, notes=notes))
        return True

    @cached_property
    def _algorithms(self) -> dict[str, Algorithm[Any]]:
        """Those that apply, by name."""
        return {each.name: each for each in self.kind.algorithms(self.target) if each.applies(self.op)}

    def _candidates(self, threads: int) -> list[Candidate]:
        """Return the ways to compute the layer, always in the same order."""
        ways = [each.candidates(self.op, self.target, self.state, threads) for each in self._algorithms.values()]
        return list(itertools.chain.from_iterable(ways))

    def _algorithm(self, candidate: Candidate) -> Algorithm[Any]:
        return self._algorithms[candidate.schedule.algorithm]

    def _without_objections(self, found: list[Candidate]) -> tuple[list[Candidate], tuple[str, ...]]:
        """Return the candidates without those of algorithms that the layer's weights forbid, of those that may be
        chosen, and why."""
        notes: list[str] = []
        while found:
            best = min(found, key=lambda candidate: candidate.cost)
            asked = [best] if self.state.measure is None else found
            reasons = {self._algorithm(each): "" for each in asked}
            reasons = {algorithm: algorithm.objection(self.op, self.state) for algorithm in reasons}
            if not any(reasons.values()):
                break
            notes += filter(None, reasons.values())
            found = [each for each in found if not reasons.get(self._algorithm(each))]
        return found, tuple(notes)

    def _divided(self, found: Sequence[Candidate]) -> list[Candidate]:
        """Return the candidates divided by rows and by filters; what threads cannot share evenly, or have to fetch from
        each other's caches, costs more."""
        has_planes = len(self.op.results[0].type.shape) == 4
        ways: list[Candidate] = []
        for each in found:
            algorithm = self._algorithm(each)
            by_rows = has_planes and algorithm.has_row_tiles
            if not algorithm.is_divided:
                ways.append(each)
            elif by_rows and self.threads > 1:
                ways += self._divide(each)
            else:
                ways.append(_split(each, "rows" if by_rows else "filters", self.threads))
        return ways

    def _divide(self, candidate: Candidate) -> list[Candidate]:
        """Return a candidate that has row tiles divided by rows, if there are enough, and by filters."""
        threads = self.threads
        by_rows, by_filters = (_split(candidate, split, threads) for split in ("rows", "filters"))
        tiles = row_tiles(self.op, by_rows.schedule)
        cost = candidate.cost + self._fetched["filters"]
        if self._algorithm(candidate).has_stages and tiles > 1:
            cost *= cost_model(self.target).costs.shared_band
        ways = [replace(by_filters, cost=cost)]
        if tiles >= threads:
            cost = candidate.cost * ceil_div(tiles, threads) * threads / tiles + self._fetched["rows"]
            ways.insert(0, replace(by_rows, cost=cost))
        return ways

    @cached_property
    def _fetched(self) -> dict[str, float]:
        """Cycles in which what other threads wrote comes, by what is divided."""
        bytes_per_cycle = cost_model(self.target).costs.remote_bytes_per_cycle
        return {split: self.threads * self._remote_bytes(split) / bytes_per_cycle for split in ("rows", "filters")}

    def _remote_bytes(self, split: str) -> float:
        """Return the bytes that a thread reads and that another one wrote."""
        total = 0.0
        for operand in self.kind.operands(self.op):
            value = self.op.operands[operand.number]
            if isinstance(value.owner, ir.Block) or "schedule" not in value.owner.attributes:
                continue  # the caller's memory, or a constant
            size = element_bytes(value.type) * math.prod(value.type.shape) * (1.0 - 1.0 / self.threads)
            if operand.is_shared and split == "filters":
                total += size
            elif read_record(value.owner, Schedule).split != split:
                total += size / self.threads
        return total


def _split(candidate: Candidate, split: str, threads: int) -> Candidate:
    """Return a candidate divided among threads, at the cost that it has for one."""
    return replace(candidate, schedule=replace(candidate.schedule, split=split, threads=threads))


def set_schedule(op: Any, chosen: Candidate, explanation: Explanation | None) -> None:
    """Let an op be computed in one way; `explanation` is None where there was no choice."""
    op.attributes["schedule"] = chosen.schedule.to_attr()
    op.attributes["cycles"] = ir.IntegerAttr.get(ir.IntegerType.get_signless(64), round(chosen.cycles))
    if explanation is not None:
        op.attributes["explanation"] = explanation.to_attr()


def _choose(
    op: Any, found: Sequence[Candidate], alone: Sequence[Candidate], state: PassState
) -> tuple[Candidate, Explanation]:
    """Return the fastest candidate, measured where that is possible, and why it was chosen.

    Args:
        alone: the candidates for a single thread, by which algorithms are compared.
    """
    best = min(found, key=lambda candidate: candidate.cost)
    if len(found) == 1 or state.measure is None:
        considered = max(len(found), len(alone))  # those that add up in another order are ranked as well
        return best, Explanation(best.bound, considered, _rank_algorithms(alone))
    measured = shortlist(found)
    seconds = state.measure(op, measured, state)
    ranked = sorted(zip(measured, seconds, strict=True), key=lambda pair: pair[1])
    alternatives = tuple(_alternative(candidate, best, time) for candidate, time in ranked)
    return ranked[0][0], Explanation(best.bound, len(found), alternatives)


def _rank_algorithms(found: Sequence[Candidate]) -> tuple[Alternative, ...]:
    """Return the best tile of each algorithm, by the model."""
    ranked = sorted(found, key=lambda candidate: candidate.cost)
    firsts = {candidate.schedule.algorithm: candidate for candidate in reversed(ranked)}
    order = sorted(firsts.values(), key=lambda candidate: (candidate.cost, candidate.schedule.algorithm))
    return tuple(_alternative(candidate, ranked[0], None) for candidate in order)


def _alternative(candidate: Candidate, best: Candidate, seconds: float | None) -> Alternative:
    kept = None if candidate.kept_cycles is None else round(candidate.kept_cycles)
    return Alternative(candidate.schedule, round(candidate.cycles), candidate.cost / best.cost, seconds, kept)


def _same_sums(found: Sequence[Candidate], alone: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates that add up in the order of the best one for a single thread: results then have the same
    bits for any number of threads."""
    best = min(alone, key=lambda candidate: candidate.cost).schedule
    order = best.algorithm, best.sums
    return [candidate for candidate in found if (candidate.schedule.algorithm, candidate.schedule.sums) == order]
