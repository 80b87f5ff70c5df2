"""What layers reach of what a core can do: the last of the values of a calibration."""

from __future__ import annotations

import statistics
from dataclasses import replace

from patc.bench.machine import find_caches
from patc.calibration.check import check
from patc.calibration.held_out import HeldOut
from patc.calibration.measure import measure_core
from patc.calibration.store import Calibration
from patc.targets import Target, fitted_costs

# Bound by multiply-adds, which they do with loads beside them.
LAYERS = (HeldOut(64, 128, 28, 1), HeldOut(256, 64, 28, 1), HeldOut(128, 256, 14, 1))


def calibrate(target: Target) -> Calibration:
    """Measure this machine; takes some seconds. Costs that were fitted to layers on a CPU of its kind stay: layers say
    more of them than loops of one kind of instruction.

    Args:
        target: of this machine, as its table says.
    """
    core = measure_core(target, find_caches().level2)
    fitted = fitted_costs(target)
    core = replace(core, values={name: value for name, value in core.values.items() if name not in fitted})
    if "sustained_fma" in fitted:
        return Calibration(core.values, core.is_shared)
    found = Calibration({**core.values, "sustained_fma": 1.0}, core.is_shared)
    checked = check(found.apply(target), core.clock_hz, layers=LAYERS)
    share = statistics.median(item.modelled / item.measured for item in checked)
    return Calibration({**core.values, "sustained_fma": round(min(1.0, share), 2)}, core.is_shared)
