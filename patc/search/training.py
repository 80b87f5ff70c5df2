"""Training of a candidate: pruned for the first half of the steps, retrained in the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from patc.diagnostics import PatcError
from patc.pruning import Magnitude, Pruner
from patc.search.precision import run_in_training
from patc.search.supernet import falling

if TYPE_CHECKING:
    from patc.search.space import Point
    from patc.search.task import Effort, Task

ITERATIONS = 8  # in which masks grow
PART = 1 / 3  # of the shared weights' learning rate: they are near to where they should be


class Diverged(PatcError):
    """A candidate's loss is not finite."""


def fit(task: Task, net: nn.Module, point: Point, effort: Effort, steps: int, seed: int) -> nn.Module:
    """Train a net of a candidate, in place, and return it in eval mode with zeros as the candidate has them.

    Raises:
        Diverged: the loss is not finite.
    """
    plan = task.plan(point)
    pruner = None if plan is None else Pruner(net, plan, Magnitude(iterations=ITERATIONS))
    if pruner is not None:
        pruner.prepare()
    optimizer = torch.optim.Adam(net.parameters(), lr=effort.learning_rate)
    half, iterations = steps // 2, 0
    net.train().to(memory_format=torch.channels_last)
    for step in range(steps):
        if pruner is not None and step == half:
            pruner.harden()
        for group in optimizer.param_groups:
            group["lr"] = PART * effort.learning_rate * falling(step / steps)
        x, wanted = task.batch(seed, step, effort.batch_size)
        loss = task.loss(run_in_training(net, x), wanted)
        if not torch.isfinite(loss):
            raise Diverged(f"expected a finite loss, found {loss.item()} in step {step} of a candidate")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        while pruner is not None and step < half and iterations * half < (step + 1) * ITERATIONS:
            iterations += 1
            pruner.step()
    if pruner is not None:
        pruner.finalize()
    return net.eval()
