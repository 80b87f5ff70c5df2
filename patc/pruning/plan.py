"""Which weights of a model get which scheme, and at what rate."""

from __future__ import annotations

import fnmatch
import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from patc.diagnostics import PatcError
from patc.pruning.budget import Budget
from patc.pruning.schemes import Scheme

if TYPE_CHECKING:
    from torch import nn

    from patc.pruning.constraints.base import Constraint
    from patc.pruning.sites import Site

Entry = tuple[str, Scheme, float | None]


@dataclass(frozen=True)
class Plan:
    """What to prune a model to, for `prune_` and `Pruner`.

        Plan([("encoder.*", Block(8), 4.0), ("*", Pattern("phase2"), 8.0)])
        Plan([("*", Block(8))], compression=8.0)

    Weights are named as in the state dict, those called `weight` by their module: "layer1.0.conv1",
    "lstm.weight_hh_l0". Those that no entry names, or whose scheme does not fit them, stay dense.

    Attributes:
        entries: (names, scheme) or (names, scheme, rate). The first entry whose names, a pattern as of the shell's
            files, match a weight decides; if its scheme does not fit, the next one that matches. The rate is a weight's
            numbers over those that are stored.
        compression: of all weights that an entry names, dense ones too: all of their numbers over the stored ones. It
            decides for the entries without a rate of their own.
        allocation: "uniform" gives the entries without a rate the same share of units. "global" spends as many weights
            where the scores are: units of all layers compete, each layer keeps at least a quarter of that share.
        rates: units over kept units of single weights, by name, in place of what the entries say.
        rate: units over kept units of all weights for which nothing else says how many.

    Raises:
        PatcError: a value is out of its range.
    """

    entries: tuple[Entry, ...]
    compression: float | None = None
    allocation: Literal["uniform", "global"] = "uniform"
    rates: tuple[tuple[str, float], ...] = ()
    rate: float | None = None

    def __init__(
        self,
        entries: Iterable[Sequence[Any]],
        compression: float | None = None,
        allocation: Literal["uniform", "global"] = "uniform",
        rates: Mapping[str, float] | Iterable[tuple[str, float]] = (),
        rate: float | None = None,
    ) -> None:
        pairs = rates.items() if isinstance(rates, Mapping) else rates
        object.__setattr__(self, "entries", tuple(_as_entry(entry) for entry in entries))
        object.__setattr__(self, "compression", None if compression is None else _rate("compression", compression))
        object.__setattr__(self, "allocation", allocation)
        object.__setattr__(self, "rates", tuple((str(name), _rate(f"the rate of '{name}'", r)) for name, r in pairs))
        object.__setattr__(self, "rate", None if rate is None else _rate("rate", rate))
        if not self.entries:
            raise PatcError("expected a plan of at least one entry, found none")
        if allocation not in ("uniform", "global"):
            raise PatcError(f"expected allocation to be 'uniform' or 'global', found {allocation!r}")

    @property
    def text(self) -> str:
        """What tells plans apart that prune differently."""
        return repr(self)

    def with_rates(self, rates: Mapping[str, float], rate: float) -> Plan:
        """Return the plan with rates of units of single weights and one of all others."""
        entries = [(names, scheme) for names, scheme, _ in self.entries]
        return Plan(entries, rates=rates, rate=rate)

    def constrain(self, model: nn.Module) -> tuple[list[Constraint], Budget]:
        """Return what is asked of each weight that an entry names, and what they may keep.

        Raises:
            PatcError: no weight can be pruned, a weight that is named in full does not fit its scheme, has no rate, or
                `rates` names none.
        """
        from patc.pruning.constraints.base import Dense
        from patc.pruning.sites import find_sites

        sites = find_sites(model)
        found: list[Constraint] = []
        own: dict[str, float] = {}
        refused: list[str] = []
        for site in sites:
            named = [entry for entry in self.entries if fnmatch.fnmatchcase(site.name, entry[0])]
            if not named:
                continue
            constraint, rate, reasons = self._fit(site, named)
            refused += reasons
            found.append(constraint or Dense(site))
            if constraint is not None and rate is not None:
                own[site.name] = _unit_rate(constraint, rate)
        if not any(constraint.units for constraint in found):
            raise PatcError(_describe_none(self.entries, [site.name for site in sites], refused))
        flexible = {constraint.name for constraint in found if constraint.has_rate}
        for name, rate in self.rates:
            if name not in flexible:
                raise PatcError("expected a weight that the plan prunes in rates, found none of that name", name)
            own[name] = rate
        without = next((name for name in sorted(flexible) if name not in own), None)
        if without is not None and self.compression is None and self.rate is None:
            raise PatcError("expected a rate of its entry or a compression of the plan, found neither", without)
        return found, Budget(self.rate or 1.0, self.compression, self.allocation, own)

    def _fit(self, site: Site, named: list[Entry]) -> tuple[Constraint | None, float | None, list[str]]:
        """Return the constraint and rate of the first entry that fits, and why those before it do not."""
        reasons: list[str] = []
        for names, scheme, rate in named:
            constraint = scheme.constrain(site)
            if not isinstance(constraint, str):
                return constraint, rate, reasons
            if names == site.name:
                raise PatcError(f"expected {constraint}", site.name)
            reasons.append(f"{site.name}: expected {constraint}")
        return None, None, reasons


def _as_entry(entry: Sequence[Any]) -> Entry:
    if isinstance(entry, str) or len(entry) not in (2, 3) or not isinstance(entry[0], str):
        raise PatcError(f"expected (names, scheme) or (names, scheme, rate), found {entry!r}")
    names, scheme, rate = (*entry, None)[:3]
    if not hasattr(scheme, "constrain"):
        raise PatcError(f"expected a scheme such as Block(8) for '{names}', found {scheme!r}")
    return names, scheme, None if rate is None else _rate(f"the rate of '{names}'", rate)


def _rate(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 1 <= float(value) < math.inf:
        raise PatcError(f"expected {name} to be a finite rate of at least 1, found {value!r}")
    return float(value)


def _unit_rate(constraint: Constraint, rate: float) -> float:
    """Return units over kept units that a rate of weights asks of a weight.

    Raises:
        PatcError: the rate is out of the scheme's reach.
    """
    size = constraint.site.size
    most = constraint.fixed_weights + constraint.units * constraint.unit_weights
    least = constraint.fixed_weights + (constraint.unit_weights if constraint.has_rate else most)
    if not size / most - 5e-4 <= rate <= size / least + 5e-4:
        reached = f"a rate from {size / most:.3f} to {size / least:.3f}, which is what the scheme reaches"
        raise PatcError(f"expected {reached} here, found {rate:g}", constraint.name)
    kept = (size / rate - constraint.fixed_weights) / constraint.unit_weights
    return max(1.0, constraint.units / max(kept, 1.0))


def _describe_none(entries: tuple[Entry, ...], names: list[str], refused: list[str]) -> str:
    wanted = ", ".join(f"'{entry[0]}'" for entry in entries)
    if refused:
        return f"expected a weight that the plan's schemes fit, found none: {'; '.join(refused[:8])}"
    known = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return f"expected a weight that {wanted} names, found {known or 'no convolution, linear or recurrent layer'}"
