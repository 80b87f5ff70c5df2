"""What the compiler's cost model expects each layer to take at several rates."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from patc.pruning import PatternSpec, Plan


def modelled_times(
    shape: tuple[int, ...], model: nn.Module, target: PatternSpec | Plan, save_ir: str | None = None
) -> Callable[[str, float], float]:
    """Return a function of a weight's name and a rate of its units that gives cycles of one thread on this machine.

    The model is pruned to each rate in one shot, and goes through the passes up to `pattern-schedule`.

    Args:
        shape: of the input, N, C, H, W.
        target: its rates are replaced.
        save_ir: a folder for the IR after each pass, in a folder for each rate.

    Raises:
        PatcError: the model cannot be pruned, imported or scheduled.
    """
    import torch

    from patc import pruning
    from patc.compiler import host_pipeline, lower_model
    from patc.instruments import SaveIr
    from patc.layers import collect_layers

    pipeline = host_pipeline("host", threads=1).until("schedule")
    known: dict[float, dict[str, float]] = {}

    def time_of(layer: str, rate: float) -> float:
        if rate not in known:
            pruned = copy.deepcopy(model).cpu().eval()
            pruning.prune_(pruned, target.with_rates({}, rate))
            folder = None if save_ir is None else os.path.join(save_ir, f"rate-{rate:g}")
            instruments = SaveIr.into(folder)
            module, state = lower_model(pruned, (torch.zeros(shape),), pipeline, instruments=instruments)
            known[rate] = {report.name: float(report.predicted_cycles) for report in collect_layers(module, state)}
        # A layer that the compiler removed costs nothing.
        return known[rate].get(layer, 0.0)

    return time_of
