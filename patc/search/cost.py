"""What a net takes: by the compiler's cost model, and measured."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from patc.compiler import compile_model, host_pipeline, lower_model
from patc.explain.build import modelled_cycles
from patc.instruments import SaveIr
from patc.layers import collect_layers
from patc.pruning import prune_
from patc.search.space import Point, describe
from patc.search.task import build_seeded

if TYPE_CHECKING:
    from torch import Tensor, nn

    from patc.search.task import Task

ROUNDS = 3  # of calls, each net in turn


@dataclass(frozen=True)
class Cost:
    """A machine to search for.

    Attributes:
        target: as `patc.compile` takes it, by its name.
        threads: that divide each layer.
        clock_hz: cycles of a core in a second.
        ratios: seconds that nets take, over those that the model says, by their scheme; 1 where there is none.
        save_ir: a folder for the IR of candidates after each pass, in a folder of each; None keeps none.
    """

    target: str
    threads: int
    clock_hz: float
    ratios: Mapping[str, float] = field(default_factory=dict)
    save_ir: Path | None = None

    @property
    def runs_here(self) -> bool:
        """Whether nets can be timed."""
        return self.target == "host"

    def predict(self, task: Task, point: Point) -> float:
        """Return the seconds that the cost model expects of a candidate, with random weights pruned in one shot."""
        net = _build(task, point)
        pipeline = host_pipeline(self.target, self.threads).until("schedule")
        instruments = SaveIr.into(self._ir_folder(point))
        module, state = lower_model(net, task.inputs, pipeline, instruments=instruments)
        cycles = sum(modelled_cycles(layer, self.threads) for layer in collect_layers(module, state))
        return self.ratios.get(str(point["scheme"]), 1.0) * cycles / self.clock_hz

    def compile(self, task: Task, point: Point, path: Path) -> None:
        """Write a candidate, with random weights pruned in one shot, as a file of `patc compile`."""
        net = _build(task, point)
        folder = self._ir_folder(point)
        compile_model(net, task.inputs, target=self.target, threads=self.threads, save_ir=folder).save(path)

    def _ir_folder(self, point: Point) -> Path | None:
        """Return the folder of a candidate's IR, which has the same name in every search."""
        return self.save_ir and self.save_ir / re.sub(r"[^\w.]+", "-", describe(point))


def _build(task: Task, point: Point) -> nn.Module:
    """Return the net of a candidate, with random weights pruned in one shot."""
    net = build_seeded(task, point).eval()
    plan = task.plan(point)
    if plan is not None:
        prune_(net, plan)
    return net


def measure_clock() -> float:
    """Return the cycles of a core of this machine in a second."""
    from patc.bench.machine import find_caches
    from patc.calibration.measure import measure_core
    from patc.targets import host

    return measure_core(host(), find_caches().level2).clock_hz


def time_files(paths: Sequence[Path], inputs: Sequence[Tensor]) -> list[float]:
    """Return the median seconds of a call of each compiled model, all timed in turns.

    Raises:
        PatcError: one cannot be loaded or run.
    """
    from patc.bench.timing import CALLS_PER_ROUND, Repeated, Times, take_turns
    from patc.loading import load

    arrays = [tensor.numpy() for tensor in inputs]
    calls = [functools.partial(load(path), *arrays) for path in paths]
    found = take_turns([Repeated(call) for call in calls], ROUNDS * CALLS_PER_ROUND)
    for item in found:
        if not isinstance(item, Times):
            raise item
    return [item.median for item in found if isinstance(item, Times)]
