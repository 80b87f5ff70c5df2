"""All values of a calibration: what loops and layers say of this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

from patc.bench.machine import find_caches
from patc.calibration.fit import fit, time_layers
from patc.calibration.measure import measure_core
from patc.calibration.store import Calibration
from patc.costs import CoreCosts
from patc.cpus import fitted_rows
from patc.targets import Target, fitted_costs

WITH_OTHERS = "contention"  # fitted to layers together with the other costs of loops, or not at all


def calibrate(target: Target, notify: Callable[[str], None] = lambda _: None) -> Calibration:
    """Measure this machine. Costs that were fitted to layers on a CPU of its kind stay, since layers say more than
    loops of one kind of instruction, and seconds are enough for the others; else they are fitted now, in minutes.

    Args:
        target: of this machine, as its table says.
        notify: called with what is done next.
    """
    core = measure_core(target, find_caches().level2)
    fitted = fitted_costs(target)
    core = replace(core, values={name: value for name, value in core.values.items() if name not in fitted})
    if WITH_OTHERS in fitted:
        return Calibration(core.values, core.is_shared)
    measured = Calibration(core.values, core.is_shared).apply(target)
    # What loops did not say is that of the CPU whose layers are most like those of this one.
    alike = [Calibration({**row, **core.values}, False).apply(target) for row in fitted_rows(target.lanes)]
    starts = [each.core_costs() for each in (measured, *alike)]
    timed = time_layers(measured, notify=notify)
    notify("fitting costs")
    costs = fit(timed, measured, core.clock_hz, starts)
    built_in = target.core_costs()
    found = {item.name: getattr(costs, item.name) for item in fields(CoreCosts)}
    changed = {name: value for name, value in found.items() if name in core.values or value != getattr(built_in, name)}
    return Calibration({**core.values, **changed}, core.is_shared)
