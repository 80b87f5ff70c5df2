"""Pruning of a model while it trains.

    pruner = Pruner(model, Plan([("*", Block(8), 4.0)]), Admm())
    pruner.prepare()                              # before the optimizer, DistributedDataParallel and torch.compile
    for epoch in range(10):
        for x, y in batches:
            loss = criterion(model(x), y) + pruner.penalty()
            ...                                   # any optimizer, with or without AMP
        pruner.step()                             # once an iteration: projection, dual update, new factors
    pruner.harden()                               # weights outside of the masks become zero and stay zero
    ...                                           # retrain the others; step() renews scales of levels
    report = pruner.finalize()                    # plain weights again

`PatternPruner(model, spec, schedule)` is the same with the patterns of a `PatternSpec` and ADMM.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from patc.diagnostics import PatcError
from patc.pruning.constraints.base import Constraint
from patc.pruning.methods.admm import Admm, AdmmSchedule
from patc.pruning.methods.base import Method
from patc.pruning.plan import Plan
from patc.pruning.prune import report_of
from patc.pruning.ranks import hide_buffers, share
from patc.pruning.rates import kept_units, solve_compression
from patc.pruning.report import PruneReport
from patc.pruning.sites import check_finite, check_weight
from patc.pruning.spec import PatternSpec
from patc.pruning.state import Masked, attach, check_alone, detach, find_state


class Pruner:
    """Prunes a model while it trains. See the module for the order of calls.

    Between `prepare` and `finalize` the weights of the pruned layers are parametrized, so that state dicts name them
    `<layer>.parametrizations.weight.original`. To go on from a checkpoint: build the model, prepare a pruner of the
    same target and method, then load the state dict; what follows is bit-equal to an uninterrupted run.

    With DistributedDataParallel every rank makes a pruner, prepares it before it wraps the model, and calls `step`,
    `harden` and `finalize` at the same places; the first rank's projections are what all of them get. The model is on
    its device before that.

    Args:
        model: pruned in place.
        target: what to prune to.
        method: how weights are driven there; `Admm()` by default.
        within: masks by the names of weights, those of another pruner: what is outside of them stays zero. To go on
            from a checkpoint of a pruner that had some, an empty one will do.

    Raises:
        PatcError: as for `prune_`.
    """

    def __init__(
        self,
        model: nn.Module,
        target: Plan | PatternSpec,
        method: Method | None = None,
        within: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.model, self.target, self.within = model, target, within
        self.method = method or Admm()
        self._constraints, budget = target.constrain(model)
        self.budget = solve_compression(self._constraints, budget)
        self._pruned = [constraint for constraint in self._constraints if constraint.units]
        self.masks: dict[str, Tensor] = {}  # of weights by name, once it is finalized

    @property
    def iteration(self) -> int:
        """Calls of `step` so far, those before a checkpoint included."""
        return self._state(0).iteration

    @property
    def hardened(self) -> bool:
        """Whether the masks are in force for good."""
        return self._state(0).hardened

    @property
    def has_levels(self) -> bool:
        """Whether weights get levels, beside zeros or without."""
        return any(constraint.grid is not None for constraint in self._pruned)

    @property
    def rho(self) -> float | None:
        """The penalty's factor at present; None of a method that has none."""
        return self.method.rho(self.iteration)

    def prepare(self) -> None:
        """Parametrize the weights and find the first projection; a model that is prepared already stays as it is.

        Raises:
            PatcError: a weight is not finite, not a plain parameter or shared, or the model is prepared for another
                target; the model is then unchanged.
        """
        number = _number(self.target)
        states = [find_state(constraint.site) for constraint in self._pruned]
        if all(state is not None for state in states):
            for constraint, state in zip(self._pruned, states, strict=True):
                if state is not None and state.spec != number:
                    raise PatcError(
                        "expected a model to prepare for this spec, found one prepared for another", constraint.name
                    )
            return
        owners: dict[int, str] = {}
        for constraint in self._pruned:
            check_weight(constraint.site)
            owner = owners.setdefault(id(constraint.weight), constraint.name)
            if owner != constraint.name:
                raise PatcError(f"expected a weight of its own, found that of '{owner}'", constraint.name)
        kept = kept_units(self._constraints, self.budget)
        keep = torch.tensor([kept[each.name] for each in self._pruned], device=self._pruned[0].weight.device)
        share(keep)  # a global budget depends on the weights
        for constraint, units in zip(self._pruned, keep.tolist(), strict=True):
            weight = constraint.weight
            buffers = self.method.buffers(weight)
            state = Masked(weight, units, number, buffers, constraint.grid, self._allowed(constraint))
            attach(constraint.site, state)
            with torch.no_grad():
                self.method.update(constraint, state)
        hide_buffers(self.model, Masked)

    def penalty(self) -> Tensor:
        """Return what the method adds to the loss, over all pruned layers; 0 after `harden`."""
        states = [self._state(place) for place in range(len(self._pruned))]
        terms = [
            term
            for constraint, state in zip(self._pruned, states, strict=True)
            if not state.hardened and (term := self.method.penalty(constraint, state)) is not None
        ]
        if not terms:
            return torch.zeros((), device=self._pruned[0].weight.device)
        return torch.stack(terms).sum()

    @torch.no_grad()
    def step(self) -> None:
        """End an iteration: what the method remembers is found anew from the weights.

        After `harden` the scales of levels are, and nothing else.

        Raises:
            PatcError: a weight is not finite.
        """
        self._check()
        for place, constraint in enumerate(self._pruned):
            state = self._state(place)
            if state.hardened:
                state.fit_scales(constraint.weight)
                continue
            state.iteration += 1
            self.method.update(constraint, state)

    @torch.no_grad()
    def harden(self) -> None:
        """Choose for good what stays: the other weights become +0 and stay so, and those that stay are computed with as
        the levels next to them, if there are levels. A second call does nothing.

        Raises:
            PatcError: a weight is not finite; nothing is changed then.
        """
        self._check()
        for place, constraint in enumerate(self._pruned):
            state = self._state(place)
            if state.hardened:
                continue
            state.set_mask(constraint.mask(constraint.weight, state.keep))
            state.hardened = True
            constraint.weight.masked_fill_(~state.mask, 0.0)
            state.fit_scales(constraint.weight)

    @torch.no_grad()
    def finalize(self) -> PruneReport:
        """Harden if that was not done, make plain parameters of the weights again, and return what was kept.

        The parameters stay the same objects, so that optimizers keep working; but nothing masks them any more.

        Raises:
            PatcError: a weight is not finite, or something else computes it too.
        """
        self.harden()
        for constraint in self._pruned:
            check_alone(constraint.site)
        self.masks = {constraint.name: self._state(place).mask for place, constraint in enumerate(self._pruned)}
        kept = {constraint.name: self._state(place).keep for place, constraint in enumerate(self._pruned)}
        for constraint in self._pruned:
            detach(constraint.site)
        hide_buffers(self.model, Masked)
        return report_of(self.target, self.budget, self._constraints, kept)

    @torch.no_grad()
    def distance(self) -> float:
        """Return `|W - Z| / |W|` over all pruned layers: how far weights, masked as the model computes with them, are
        from what they will be pruned to; once that is in force, how far those behind it are."""
        apart, whole = 0.0, 0.0
        for place, constraint in enumerate(self._pruned):
            state, weight = self._state(place), constraint.weight
            target = state(weight)
            if not state.hardened:
                weight, target = target, self.method.nearest(constraint, state)
            apart += float((weight - target).double().square().sum())
            whole += float(weight.double().square().sum())
        return math.sqrt(apart / whole) if whole else 0.0

    def check_state(self, state: Mapping[str, Tensor], iteration: int, hardened: bool) -> None:
        """Refuse a state dict of a prepared model whose layers are not where the training is.

        Args:
            state: tensors of the shapes of the model's.
            iteration: calls of `step` before it was saved.
            hardened: whether `harden` was called before.

        Raises:
            PatcError: a layer was prepared for another target, is elsewhere, or keeps none or too many of its units.
        """
        number = _number(self.target)
        for constraint in self._pruned:
            site = constraint.site
            module = site.name if site.parameter == "weight" else site.name.removesuffix(site.parameter).rstrip(".")
            chain = f"parametrizations.{site.parameter}.0._extra_state"
            name = ".".join(part for part in (module, chain) if part)
            found, keep, steps, masked = state[name].tolist()
            if (found, steps, masked) != (number, iteration, int(hardened)) or not 0 < keep <= constraint.units:
                wanted = [number, f"1 to {constraint.units}", iteration, int(hardened)]
                raise PatcError(f"expected '{name}' to be {wanted}, found {[found, keep, steps, masked]}")

    def _allowed(self, constraint: Constraint) -> Tensor | None:
        if self.within is None:
            return None
        mask = self.within.get(constraint.name)
        return torch.ones_like(constraint.weight, dtype=torch.bool) if mask is None else mask

    def _check(self) -> None:
        for constraint in self._pruned:
            check_finite(constraint.site)

    def _state(self, place: int) -> Masked:
        constraint = self._pruned[place]
        state = find_state(constraint.site)
        if state is None:
            raise PatcError("expected a prepared model, found a plain weight: call prepare() first", constraint.name)
        return state


class PatternPruner(Pruner):
    """A `Pruner` to the patterns of a spec, by ADMM.

    Args:
        model: pruned in place.
        spec: what to prune to.
        schedule: penalty and ramp.

    Raises:
        PatcError: as for `prune_`.
    """

    def __init__(self, model: nn.Module, spec: PatternSpec, schedule: AdmmSchedule | None = None) -> None:
        self.schedule = schedule or AdmmSchedule()
        super().__init__(model, spec, Admm(self.schedule))
        self.spec = replace(spec, connectivity=self.budget.rate, compression=None)


def _number(target: Plan | PatternSpec) -> int:
    """Return a number that tells targets apart which prune differently."""
    return zlib.crc32(target.text.encode())
