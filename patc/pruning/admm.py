"""ADMM pruning of a model while it trains (paper, sections 5.1 and 6.1).

    pruner = PatternPruner(model, PatternSpec.for_compression(8.0), AdmmSchedule(iterations=10))
    pruner.prepare()                              # before the optimizer, DistributedDataParallel and torch.compile
    for epoch in range(10):
        for x, y in batches:
            loss = criterion(model(x), y) + pruner.penalty()
            ...                                   # any optimizer, with or without AMP
        pruner.step()                             # once an ADMM iteration: projection and dual update
    pruner.harden()                               # weights outside of the masks become zero and stay zero
    ...                                           # retrain the others
    report = pruner.finalize()                    # plain weights again

The constraint set of a layer is every weight of at most n kernels that each fit a pattern of the library. Training
minimises f(W) + rho/2 |W - Z + U|^2, where Z is the point of the set nearest to W + U, found anew in each iteration,
and U adds up what is left between them (U is the paper's multiplier over rho).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from patc.diagnostics import PatcError
from patc.pruning.kernels import PrunedLayer, check_finite, check_weight, find_layers
from patc.pruning.projection import keep_mask, project
from patc.pruning.ranks import hide_buffers, share
from patc.pruning.rates import kept_units, solve_compression
from patc.pruning.report import PruneReport
from patc.pruning.spec import PatternSpec


@dataclass(frozen=True)
class AdmmSchedule:
    """How strongly and how fast weights are driven to the target.

    Attributes:
        iterations: expected calls of `PatternPruner.step`; the paper takes 9 to 12 (section 5.2). More are fine.
        rho: penalty of the first iteration, above 0. A weight outside of its mask decays by about rho times the
            learning rate a step, over 1 - momentum.
        growth: factor of rho from one iteration to the next, at least 1.
        most_rho: where rho stops to grow.
        ramp: part of the iterations, 0 to 1, in which the kept kernels fall from all of them to the target, fast at
            first (cubic); 0 starts at the target.

    Raises:
        PatcError: a value is out of its range.
    """

    iterations: int = 10
    rho: float = 0.01
    growth: float = 1.5
    most_rho: float = 0.3
    ramp: float = 0.5

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise PatcError(f"expected iterations to be at least 1, found {self.iterations}")
        for name, least in (("rho", 0.0), ("most_rho", 0.0), ("growth", 1.0)):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= least and value > 0):
                raise PatcError(
                    f"expected {name} to be finite and {'above 0' if not least else '1 or more'}, found {value}"
                )
        if not 0 <= self.ramp <= 1:
            raise PatcError(f"expected ramp to be from 0 to 1, found {self.ramp}")

    def rho_at(self, iteration: int) -> float:
        """Return the penalty after `iteration` calls of `step`."""
        # Compared as logarithms: the power of a long run overflows.
        grown = math.log(self.rho) + iteration * math.log(self.growth)
        return self.most_rho if grown >= math.log(self.most_rho) else math.exp(grown)

    def kept_at(self, iteration: int, units: int, target: int) -> int:
        """Return how many of a layer's units may stay after `iteration` calls of `step`."""
        length = round(self.ramp * self.iterations)
        left = max(0.0, 1 - (iteration + 1) / (length + 1)) if length else 0.0
        return target + math.ceil((units - target) * left**3)


class KernelPruning(nn.Module):
    """The parametrization of a pruned layer's weight: the weight where the mask is set, zero elsewhere.

    The mask is all ones until the layer is hardened. Everything that the training needs is in the state dict.

    Attributes:
        anchor: Z - U.
        dual: U.
        mask: bool.
        keep: units that stay in the end.
        spec: a number that tells the pruner's spec from others.
        iteration: calls of `PatternPruner.step` so far.
        hardened: whether the mask is in force and the penalty gone.
    """

    anchor: Tensor
    dual: Tensor
    mask: Tensor

    def __init__(self, weight: Tensor, keep: int, spec: int) -> None:
        super().__init__()
        self.register_buffer("anchor", weight.detach().clone())
        self.register_buffer("dual", torch.zeros_like(weight, requires_grad=False))
        self.register_buffer("mask", torch.ones_like(weight, dtype=torch.bool, requires_grad=False))
        self.keep, self.spec, self.iteration, self.hardened = keep, spec, 0, False

    def forward(self, weight: Tensor) -> Tensor:
        return torch.where(self.mask, weight, 0.0)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight

    def get_extra_state(self) -> Tensor:
        return torch.tensor([self.spec, self.keep, self.iteration, int(self.hardened)])

    def set_extra_state(self, state: Tensor) -> None:
        spec, keep, iteration, hardened = state.tolist()
        if spec != self.spec:
            raise PatcError("expected the state of a model that is pruned to the same spec, found that of another")
        self.keep, self.iteration, self.hardened = keep, iteration, bool(hardened)


class PatternPruner:
    """Prunes a model while it trains. See the module for the order of calls.

    Between `prepare` and `finalize` the weights of the pruned layers are parametrized, so that state dicts name them
    `<layer>.parametrizations.weight.original`. To go on from a checkpoint: build the model, prepare a pruner of the
    same spec and schedule, then load the state dict; what follows is bit-equal to an uninterrupted run.

    With DistributedDataParallel every rank makes a pruner, prepares it before it wraps the model, and calls `step`,
    `harden` and `finalize` at the same places; the first rank's projections are what all of them get. The model is on
    its device before that.

    Args:
        model: pruned in place.
        spec: what to prune to.
        schedule: penalty and ramp.

    Raises:
        PatcError: as for `prune_`.
    """

    def __init__(self, model: nn.Module, spec: PatternSpec, schedule: AdmmSchedule | None = None) -> None:
        self.model = model
        self.schedule = schedule or AdmmSchedule()
        self._all_layers = find_layers(model, spec)
        self._asked = spec
        self.spec = solve_compression(self._all_layers, spec)
        self._layers = [layer for layer in self._all_layers if layer.kind != "dense"]

    @property
    def iteration(self) -> int:
        """Calls of `step` so far, those before a checkpoint included."""
        return self._state(self._layers[0]).iteration

    @property
    def hardened(self) -> bool:
        """Whether the masks are in force."""
        return self._state(self._layers[0]).hardened

    @property
    def rho(self) -> float:
        """The penalty's factor at present."""
        return self.schedule.rho_at(self.iteration)

    def prepare(self) -> None:
        """Parametrize the weights and find the first projection; a model that is prepared already stays as it is.

        Raises:
            PatcError: a weight is not finite, not a plain parameter or shared, or the model is prepared for another
                spec; the model is then unchanged.
        """
        spec = _number(self._asked)
        states = [_find_state(layer) for layer in self._layers]
        if all(state is not None for state in states):
            for layer, state in zip(self._layers, states, strict=True):
                if state is not None and state.spec != spec:
                    raise PatcError(
                        "expected a model to prepare for this spec, found one prepared for another", layer.name
                    )
            return
        owners: dict[int, str] = {}
        for layer in self._layers:
            check_weight(layer)
            owner = owners.setdefault(id(layer.weight), layer.name)
            if owner != layer.name:
                raise PatcError(f"expected a weight of its own, found that of '{owner}'", layer.name)
        kept = kept_units(self._all_layers, self.spec)
        keep = torch.tensor([kept[layer.name] for layer in self._layers], device=self._layers[0].weight.device)
        share(keep)  # a global budget depends on the weights
        for layer, units in zip(self._layers, keep.tolist(), strict=True):
            state = KernelPruning(layer.weight, units, spec)
            parametrize.register_parametrization(layer.module, "weight", state)
            self._update(layer, state)
        hide_buffers(self.model, KernelPruning)

    def penalty(self) -> Tensor:
        """Return `rho/2 |W - Z + U|^2` over all pruned layers, to be added to the loss; 0 after `harden`."""
        states = [(layer, self._state(layer)) for layer in self._layers]
        terms: list[Tensor] = [
            _Penalty.apply(layer.weight, state.anchor, self.schedule.rho_at(state.iteration))
            for layer, state in states
            if not state.hardened
        ]
        if not terms:
            return torch.zeros((), device=self._layers[0].weight.device)
        return torch.stack(terms).sum()

    @torch.no_grad()
    def step(self) -> None:
        """End an ADMM iteration: project W + U, add what is left to U, and let the penalty grow.

        After `harden` it does nothing.

        Raises:
            PatcError: a weight is not finite.
        """
        for layer in self._layers:
            check_finite(layer)
        for layer in self._layers:
            state = self._state(layer)
            if not state.hardened:
                state.iteration += 1
                self._update(layer, state)

    @torch.no_grad()
    def harden(self) -> None:
        """Choose patterns and kernels for good: the other weights become +0 and stay so. A second call does nothing.

        Raises:
            PatcError: a weight is not finite; nothing is changed then.
        """
        for layer in self._layers:
            check_finite(layer)
        for layer in self._layers:
            state = self._state(layer)
            if state.hardened:
                continue
            choice = project(layer, layer.weight, state.keep, self.spec.balanced)
            state.mask.copy_(keep_mask(layer, choice))
            share(state.mask)
            state.hardened = True
            layer.weight.masked_fill_(~state.mask, 0.0)

    @torch.no_grad()
    def finalize(self) -> PruneReport:
        """Harden if that was not done, make plain parameters of the weights again, and return what was kept.

        The parameters stay the same objects, so that optimizers keep working; but nothing masks them any more.

        Raises:
            PatcError: a weight is not finite.
        """
        self.harden()
        reports = []
        for layer in self._all_layers:
            if layer.kind == "dense":
                reports.append(layer.report())
                continue
            keep = self._state(layer).keep
            parametrize.remove_parametrizations(layer.module, "weight", leave_parametrized=True)
            choice = project(layer, layer.weight, keep, self.spec.balanced)
            reports.append(layer.report(choice.patterns[choice.kept]))
        hide_buffers(self.model, KernelPruning)
        return PruneReport(self.spec.masks, self.spec.connectivity, tuple(reports))

    @torch.no_grad()
    def distance(self) -> float:
        """Return `|W - Z| / |W|` over all pruned layers: how far weights are from what they will be pruned to."""
        apart, whole = 0.0, 0.0
        for layer in self._layers:
            state, weight = self._state(layer), layer.weight
            target = torch.where(state.mask, weight, 0.0) if state.hardened else state.anchor + state.dual
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
            PatcError: a layer was prepared for another spec, is elsewhere, or keeps none or too many of its units.
        """
        for layer in self._layers:
            name = ".".join(part for part in (layer.name, "parametrizations.weight.0._extra_state") if part)
            number, keep, steps, masked = state[name].tolist()
            if (number, steps, masked) != (
                _number(self._asked),
                iteration,
                int(hardened),
            ) or not 0 < keep <= layer.units:
                wanted = [_number(self._asked), f"1 to {layer.units}", iteration, int(hardened)]
                raise PatcError(f"expected '{name}' to be {wanted}, found {[number, keep, steps, masked]}")

    def _update(self, layer: PrunedLayer, state: KernelPruning) -> None:
        """Set Z and U from the weight and U before."""
        with torch.no_grad():
            schedule, iteration = self.schedule, state.iteration
            moved = layer.weight + state.dual
            keep = schedule.kept_at(iteration, layer.units, state.keep)
            choice = project(layer, moved, keep, self.spec.balanced)
            target = torch.where(keep_mask(layer, choice), moved, 0.0)
            # U is the multiplier over rho: where rho grows, U shrinks.
            factor = schedule.rho_at(iteration - 1) / schedule.rho_at(iteration) if iteration else 0.0
            state.dual.copy_((moved - target) * factor)
            share(target)
            share(state.dual)
            state.anchor.copy_(target - state.dual)

    def _state(self, layer: PrunedLayer) -> KernelPruning:
        state = _find_state(layer)
        if state is None:
            raise PatcError("expected a prepared model, found a plain weight: call prepare() first", layer.name)
        return state


class _Penalty(torch.autograd.Function):
    """rho/2 |weight - anchor|^2, without the temporaries that autograd would keep."""

    @staticmethod
    def forward(weight: Tensor, anchor: Tensor, rho: float) -> Tensor:
        return (weight - anchor).square_().sum() * (rho / 2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: Tensor) -> None:
        weight, anchor, ctx.rho = inputs
        ctx.save_for_backward(weight, anchor)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        weight, anchor = ctx.saved_tensors
        return (weight - anchor) * (grad * ctx.rho), None, None


def _number(spec: PatternSpec) -> int:
    """Return a number that tells specs apart which prune differently."""
    return zlib.crc32(spec.text.encode())


def _find_state(layer: PrunedLayer) -> KernelPruning | None:
    if not parametrize.is_parametrized(layer.module, "weight"):
        return None
    state = layer.module.parametrizations.weight[0]
    return state if isinstance(state, KernelPruning) else None
