"""`pattern-schedule`: choose for each layer the algorithm, the register tile and the split over threads.

The choice minimises modelled cycles: multiply-adds (with the columns computed and thrown away), loads, cache lines, the
cost of entering loops, and what threads cannot share evenly or have to fetch from each other. Where the state has
something to measure with, it times the best candidates of the model, and the fastest is chosen. Where rounding errors
would grow too large in the layers behind, the first layers are computed more exactly, as far as that costs little.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

from torch_mlir import ir

from patc.diagnostics import PatcError
from patc.dialects.schedules import FILTERS, IMAGES, ROWS, Alternative, Choice, Explanation, Schedule
from patc.integers import ceil_div
from patc.numerics import Numerics
from patc.passes.algorithms.base import Algorithm
from patc.passes.base import Pass, PassState
from patc.passes.cost.candidate import Candidate, shortlist
from patc.passes.cost.division import Divisible, divide_layers
from patc.passes.cost.models import cost_model
from patc.passes.cost.rounding import Rounding, sum_error, worth_more
from patc.passes.ir.elements import numerics_of
from patc.passes.ir.functions import defined_functions, describe_call, top_level_ops
from patc.passes.ir.modules import most_images
from patc.passes.ir.one_image import OneImage
from patc.passes.ir.planes import is_flat, row_tiles
from patc.passes.ir.quantised import is_quantised
from patc.passes.ir.targets import OVERRIDE, target_of
from patc.passes.layers.amplification import amplifications
from patc.passes.layers.base import LayerKind
from patc.passes.layers.division import Division
from patc.passes.layers.image_runs import find_image_runs
from patc.passes.layers.registry import kind_of
from patc.targets import MOST_THREADS, Target


@dataclass(frozen=True)
class PatternSchedule(Pass):
    """Choose algorithm, register tile and thread split of every layer.

    Requires: pattern ops with layouts (`pattern-layout`).
    Ensures: every pattern op that computes has the attributes `schedule`, `cycles` (modelled, of one thread) and
        `explanation`: how the best tile of each algorithm compares, or with `tune="measure"` of `patc.compile` what
        was measured. A remark names what an outlined function computes, and its share of the modelled cycles; another
        one a layer whose weights have zeros that are multiplied all the same, and why.

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
    threads: int = field(
        default=1, metadata={"help": "threads to divide each layer among", "minimum": 1, "maximum": MOST_THREADS}
    )

    def run(self, module: ir.Module, state: PassState) -> None:
        target, images = target_of(module, self.target), most_images(module)
        layers: list[_Unscheduled] = []
        copies: list[OneImage] = []
        for function in defined_functions(module):
            layers += self._layers(function, target, state, images, copies)
        left = [layer.op for layer in layers if not layer.ways]
        if left:
            words = ", ".join(dict.fromkeys(word for op in left for word in describe_call(op) or [op.operation.name]))
            raise PatcError(f"target '{target.name}' cannot compute: {words}", left[0].location)
        for layer, (split, cycles) in zip(layers, _divide_layers(layers), strict=True):
            layer.schedule(split, cycles)
        for each in reversed(copies):
            each.erase()
        total = max(1, sum(layer.op.attributes["cycles"].value for layer in layers))
        for op in (layer.op for layer in layers):
            if words := ", ".join(describe_call(op)):
                share = f"{op.attributes['cycles'].value / total:.0%} of the modelled cycles"
                state.remark(op, f"computed as any linalg is, {share}: {words}")

    def _layers(
        self, function: Any, target: Target, state: PassState, images: int, copies: list[OneImage]
    ) -> list[_Unscheduled]:
        """Return the layers of a function; what is copied for them is added to the copies."""
        ops = [*top_level_ops(function)]
        alone: dict[Any, Any] = {}
        for run in find_image_runs(function, target):
            copies.append(OneImage(run))
            alone |= zip((op.operation for op in run), copies[-1].ops, strict=True)
        found = []
        for op in ops:
            kind = kind_of(op)
            if kind is not None and "schedule" not in op.attributes:
                found.append(_Unscheduled(op, kind, target, state, self.threads, images, alone.get(op.operation)))
        return _round_less(found, ops)


@dataclass(frozen=True)
class _Unscheduled:
    """A layer to be scheduled.

    Attributes:
        threads: to divide it among.
        images: up to which calls may have any number; 0 where the batch is fixed.
        alone: the same layer on one image, if it computes image by image.
        is_exact: whether the algorithms with larger rounding errors are left out.
    """

    op: Any
    kind: LayerKind
    target: Target
    state: PassState
    threads: int
    images: int
    alone: Any = None
    is_exact: bool = False

    def schedule(self, split: str, cycles: float) -> None:
        """Compute it in the best of the ways that divide it so, which takes so many cycles of all threads."""
        found, undivided, notes = self._found
        if self._measured:
            explanation = self._measured[1]
        else:
            explanation = _explain(self.ways[split], len(found), undivided)
            if self.threads > 1:
                best = min(candidate.cost for candidate in undivided)
                explanation = replace(explanation, sharing=cycles / max(best, 1e-9))
        set_schedule(self.op, self.ways[split], replace(explanation, notes=notes))
        if why := self._unused_zeros(self.ways[split].schedule, explanation):
            self.state.remark(self.op, f"its zeros are not used: {why}")

    def _unused_zeros(self, chosen: Schedule, explanation: Explanation) -> str:
        """Return why the layer is computed dense in spite of its weights' zeros; "" where it is not."""
        algorithm = self._algorithms[chosen.algorithm]
        if "format" not in self.op.attributes or algorithm.skips_zeros:
            return algorithm.unused_zeros(self.op, chosen, self.target, self.state)
        ways = explanation.alternatives
        if not any(self._algorithms[each.schedule.algorithm].skips_zeros for each in ways):
            return f"{self.target.name} has no loops for {self.op.format}, they are decoded"
        return f"dense is faster ({', '.join(f'{each.schedule.algorithm} {_amount(each)}' for each in ways)})"

    @cached_property
    def ways(self) -> dict[str, Candidate]:
        """The best ways to compute it, by what threads divide; none if there is no way."""
        divided = [self._measured[0]] if self._measured else self._all
        if self.alone is not None:
            best = _split(min(divided, key=lambda candidate: candidate.cost), IMAGES, self.threads)
            return {ROWS: best}  # which is how threads exchange what they compute
        ways: dict[str, Candidate] = {}
        for candidate in sorted(divided, key=lambda candidate: candidate.cost):
            ways.setdefault(candidate.schedule.split, candidate)
        return ways

    @cached_property
    def _all(self) -> list[Candidate]:
        """The candidates, divided by rows and by filters; what threads cannot share evenly, or wait for, costs more."""
        found, undivided, _ = self._found
        if self.alone is not None:
            return found
        if (
            found and self.threads > 1 and self.state.measure is None and not is_quantised(self.op)
        ):  # sums of integers are exact
            found, undivided = self._same_sums(found, undivided)
        has_planes = len(self.op.results[0].type.shape) == 4
        ways: list[Candidate] = []
        for each in found:
            algorithm = self._algorithm(each)
            if not algorithm.is_divided:
                ways.append(each)
            elif has_planes and algorithm.has_row_tiles:
                ways += self._by_rows(each)
            else:
                ways.append(_split(each, FILTERS, self.threads))
        if has_planes and self.threads > 1:
            divisible = [each for each in undivided if self._algorithm(each).has_row_tiles]
            ways += [self._by_filters(each) for each in divisible if self._algorithm(each).is_divided]
        return ways

    def _same_sums(
        self, found: Sequence[Candidate], undivided: Sequence[Candidate]
    ) -> tuple[list[Candidate], list[Candidate]]:
        """Return the candidates by rows and those of undivided rows that add up in the order of the best one for a
        single thread: results then have the same bits for any number of threads."""

        best = min(undivided, key=lambda candidate: candidate.cost)
        algorithm = self._algorithm(best)

        def order(candidate: Candidate, threads: int) -> Hashable:
            return algorithm.order(self.op, _split(candidate, ROWS, threads).schedule, self.target)

        def alike(candidates: Sequence[Candidate], threads: int) -> list[Candidate]:
            same = (each for each in candidates if self._algorithm(each) is algorithm)
            return [each for each in same if order(each, threads) == wanted]

        wanted = order(best, 1)
        return alike(found, self.threads), alike(undivided, 1)

    @cached_property
    def _measured(self) -> tuple[Candidate, Explanation] | None:
        """The fastest candidate, where the state measures and there is a choice."""
        if self.state.measure is None or len(self._all) < 2:
            return None
        if self.alone is None:
            return _measure(self.op, self._all, self.state)
        return _measure(self.alone, self._all, self.state, self.op.result.type.shape[0])

    @cached_property
    def _found(self) -> tuple[list[Candidate], list[Candidate], tuple[str, ...]]:
        """The candidates for the threads, those for a single one, and why some are missing."""
        ways = self._candidates(self.op, self.threads) if self.alone is None else self._of_each_image()
        found, notes = self._without_objections(ways)
        if self.is_exact:
            notes = (*notes, "computed more exactly: rounding errors would grow in the layers behind")
        undivided, is_cut = found, len(self.op.results[0].type.shape) != 4 or is_flat(self.op)
        if found and self.alone is None and self.threads > 1 and is_cut:
            # Rows, or blocks of filters, are cut in another way for several threads.
            refused = {self._algorithm(each) for each in ways} - {self._algorithm(each) for each in found}
            undivided = [each for each in self._candidates(self.op, 1) if self._algorithm(each) not in refused]
        return found, undivided, notes

    @cached_property
    def _algorithms(self) -> dict[str, Algorithm[Any]]:
        """Those that apply, by name."""
        found = {each.name: each for each in self.kind.algorithms(self.target, self.op) if each.applies(self.op)}
        return {name: each for name, each in found.items() if not self.is_exact or each.rounding(self.op) <= 1.0}

    def _candidates(self, op: Any, threads: int) -> list[Candidate]:
        """Return the ways to compute the layer, or the same on one image, always in the same order."""
        able = [each for each in self._algorithms.values() if each.applies(op)]
        ways = [each.candidates(op, self.target, self.state, threads) for each in able]
        return list(itertools.chain.from_iterable(ways))

    def _of_each_image(self) -> list[Candidate]:
        """Return the ways to compute the layer image by image."""
        return [each.times(self.op.result.type.shape[0]) for each in self._candidates(self.alone, threads=1)]

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

    @property
    def is_uneven(self) -> bool:
        """Whether there are ways with larger rounding errors than others."""
        return any(each.rounding(self.op) > 1.0 for each in self._algorithms.values())

    @property
    def cost(self) -> float:
        """Cycles of the best way for a single thread."""
        return min((candidate.cost for candidate in self._found[1]), default=0.0)

    def rounding(self, growth: float, numerics: Numerics) -> Rounding:
        """Return the errors of the best way for a single thread, which grow so, and what a more exact way costs."""
        best = min(self._found[1], key=lambda candidate: candidate.cost)
        products = self.kind.work(self.op).flops / 2 / math.prod(self.op.results[0].type.shape)
        error = self._algorithm(best).rounding(self.op) * sum_error(products, numerics) * growth
        exact = [each.cost for each in self._found[1] if self._algorithm(each).rounding(self.op) <= 1.0]
        return Rounding(error, min(exact) - best.cost if exact and error else None)

    def _by_rows(self, candidate: Candidate) -> list[Candidate]:
        """Return a candidate divided by rows, if there are enough."""
        divided = _split(candidate, ROWS, self.threads)
        tiles = row_tiles(self.op, divided.schedule)
        if tiles < self.threads:
            return [] if self.threads > 1 else [divided]
        cost = candidate.cost * self._unevenness_of_rows(tiles) + self.division.overhead
        return [replace(divided, cost=cost)]

    def _unevenness_of_rows(self, tiles: int) -> float:
        """Return the time of the thread that has most row tiles, in that of even shares; of calls with any number of
        images that of all together."""
        counts = [tiles * count // self.images for count in range(2, self.images + 1)] or [tiles]
        return sum(ceil_div(count, self.threads) for count in counts) * self.threads / sum(counts)

    def _by_filters(self, candidate: Candidate) -> Candidate:
        """Return a candidate that has row tiles divided by filters."""
        algorithm, divided = self._algorithm(candidate), _split(candidate, FILTERS, self.threads)
        cost = candidate.cost * _unevenness(algorithm.filter_blocks(self.op, divided.schedule), self.threads)
        if algorithm.has_stages and row_tiles(self.op, divided.schedule) > 1:
            cost *= self.division.costs.shared_band
        return replace(divided, cost=cost)

    @cached_property
    def division(self) -> Division:
        return Division(self.op, self.kind, cost_model(self.target).costs, self.threads)


def ways_of(op: Any, target: Target, state: PassState) -> list[Candidate]:
    """Return the ways in which one thread may compute a layer, of which the model would choose one."""
    kind = kind_of(op)
    assert kind is not None, "others have no candidates"
    return _Unscheduled(op, kind, target, state, threads=1, images=0)._all


def _round_less(layers: Sequence[_Unscheduled], ops: Sequence[Any]) -> list[_Unscheduled]:
    """Let layers of a function whose errors grow too large be computed more exactly, where that costs little."""
    uneven = [number for number, layer in enumerate(layers) if layer.is_uneven]
    if not uneven:
        return [*layers]
    growth, numerics = amplifications(ops), numerics_of(layers[uneven[0]].op.results[0].type.element_type)
    assert numerics is not None, "sums of integers are not rounded"
    errors = [layers[number].rounding(growth[layers[number].op.operation], numerics) for number in uneven]
    exact = {uneven[place] for place in worth_more(errors, sum(layer.cost for layer in layers), numerics)}
    # The others keep the candidates that they have found.
    return [replace(layer, is_exact=True) if number in exact else layer for number, layer in enumerate(layers)]


def _divide_layers(layers: Sequence[_Unscheduled]) -> list[tuple[str, float]]:
    """Return what threads divide of each layer, and the cycles of all threads."""
    numbers = {layer.op.operation: number for number, layer in enumerate(layers)}
    divisible = []
    for layer in layers:
        costs = {split: candidate.cost for split, candidate in layer.ways.items()}
        divisible.append(Divisible(costs, tuple(layer.division.reads(numbers)) if layer.threads > 1 else ()))
    return divide_layers(divisible)


def _unevenness(parts: int, threads: int) -> float:
    """Return the time of the thread that has most of some equal parts, in that of even shares."""
    return ceil_div(parts, threads) * threads / parts


def _split(candidate: Candidate, split: str, threads: int) -> Candidate:
    """Return a candidate divided among threads, at the cost that it has for one."""
    return replace(candidate, schedule=replace(candidate.schedule, split=split, threads=threads))


def set_schedule(op: Any, chosen: Candidate, explanation: Explanation | None) -> None:
    """Let an op be computed in one way; `explanation` is None where there was no choice."""
    op.attributes["schedule"] = chosen.schedule.to_attr()
    op.attributes["cycles"] = ir.IntegerAttr.get(ir.IntegerType.get_signless(64), round(chosen.cycles))
    if explanation is not None:
        op.attributes["explanation"] = Choice.of(explanation, chosen.schedule).to_attr()


def _explain(best: Candidate, considered: int, alone: Sequence[Candidate]) -> Explanation:
    """Return why a candidate was chosen by the model.

    Args:
        alone: the candidates for a single thread, by which algorithms are compared.
    """
    return Explanation(best.bound, considered, _rank_algorithms(alone))


def _measure(op: Any, found: Sequence[Candidate], state: PassState, images: int = 1) -> tuple[Candidate, Explanation]:
    """Return the candidate that is measured to be the fastest, and how others compare.

    Args:
        images: that the layer computes one by one; `op` is on one of them.
    """
    best, measured = min(found, key=lambda candidate: candidate.cost), shortlist(found)
    assert state.measure is not None
    seconds = [images * time for time in state.measure(op, measured, state)]
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
    ratio = candidate.cost / best.cost if best.cost else 1.0  # arrays that are no constants hold no kernels
    return Alternative(candidate.schedule, round(candidate.cycles), ratio, seconds, kept)


def _amount(way: Alternative) -> str:
    return f"{way.cycles:,} cycles" if way.seconds is None else f"{1e6 * way.seconds:.1f} us"
