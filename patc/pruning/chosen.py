"""What a run prunes to, in its checkpoints: the target as it was asked for, and what the run itself has chosen."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from patc.diagnostics import PatcError, first_line
from patc.pruning.checkpoint import Fault, Words, check_dict
from patc.pruning.plan import Plan
from patc.pruning.spec import PatternSpec

_CHOSEN = ("library", "connectivity", "compression", "rates")  # by the extraction, and for a speedup


def describe_target(target: PatternSpec | Plan) -> dict[str, Any]:
    """Return a target in numbers and words."""
    return asdict(target) if isinstance(target, PatternSpec) else {"plan": target.text, "rates": target.rates}


def read_target(state: Any, own: PatternSpec | Plan) -> PatternSpec | Plan:
    """Return the target of a checkpoint of a run that was asked for `own`.

    Raises:
        Fault: it is another's.
    """
    return _read_spec(state, own) if isinstance(own, PatternSpec) else _read_plan(state, own)


def _read_spec(state: Any, own: PatternSpec) -> PatternSpec:
    check_dict("spec", state, asdict(own))
    try:
        spec = PatternSpec(**state)
    except (PatcError, TypeError, ValueError) as error:
        raise Fault("spec", "one to prune to", Words(first_line(error))) from None
    chosen = {name: getattr(spec, name) for name in _CHOSEN}
    if replace(own, **chosen) != spec:
        raise Fault("spec", "that of the run but for the library and the rates", Words("another"))
    return spec


def _read_plan(state: Any, own: Plan) -> Plan:
    check_dict("spec", state, ("plan", "rates"))
    if state["plan"] == own.text:
        return own
    try:
        plan = own.with_rates(dict(state["rates"]), 1.0)
    except (PatcError, TypeError, ValueError) as error:
        raise Fault("spec.rates", "rates by name", Words(first_line(error))) from None
    if plan.text != state["plan"]:
        raise Fault("spec", "that of the run but for the rates", Words("another"))
    return plan
