"""Training of a candidate: masks grow first, then what is left is trained, a rung at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from patc.diagnostics import PatcError
from patc.pruning import Magnitude, Pruner
from patc.pruning.sites import find_sites
from patc.search.precision import run_in_training
from patc.search.supernet import falling

if TYPE_CHECKING:
    from patc.pruning import Plan
    from patc.search.space import Point
    from patc.search.task import Effort, Task

ITERATIONS = 8  # in which masks grow
PART = 1 / 3  # of the shared weights' learning rate: they are near to where they should be


class Diverged(PatcError):
    """A candidate's loss is not finite."""


def mask_steps(effort: Effort) -> int:
    """Return the steps in which masks grow, half of the first rung's. They come before these, so that candidates with
    zeros are compared with dense ones behind as many steps of what they are in the end."""
    return effort.rungs[0].steps // 2


def fit(task: Task, net: nn.Module, point: Point, effort: Effort, rung: int, seed: int) -> nn.Module:
    """Train a net of a candidate, in place, from one rung to the next, and return it in eval mode.

    The first rung (0) begins with shared weights and leaves zeros as the candidate has them; a later one begins with
    what the one before it left, and its zeros stay. The learning rate falls to a hundredth on each rung, so that nets
    are scored at rest, and is high again on the next one (I. Loshchilov and F. Hutter, SGDR, 2017). All candidates
    learn from the same batches.

    Raises:
        Diverged: the loss is not finite.
    """
    plan = task.plan(point)
    growing = mask_steps(effort) if plan is not None and rung == 0 else 0
    steps = effort.rungs[rung].steps - (effort.rungs[rung - 1].steps if rung else 0)
    pruner = None if plan is None else _prepare(net, plan, rung > 0)
    optimizer = torch.optim.Adam(net.parameters(), lr=effort.learning_rate)
    iterations = 0
    net.train().to(memory_format=torch.channels_last)
    for step in range(-growing, steps):
        if pruner is not None and step == 0:
            pruner.harden()
        for group in optimizer.param_groups:
            group["lr"] = PART * effort.learning_rate * falling(max(step, 0) / steps)
        x, wanted = task.batch(batch_seed(seed, rung), step + growing, effort.batch_size)
        loss = task.loss(run_in_training(net, x), wanted)
        if not torch.isfinite(loss):
            raise Diverged(f"expected a finite loss, found {loss.item()} in step {step + growing} of a candidate")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        while pruner is not None and step < 0 and iterations * growing < (step + 1 + growing) * ITERATIONS:
            iterations += 1
            pruner.step()
    if pruner is not None:
        pruner.finalize()
    return net.eval()


def batch_seed(seed: int, rung: int) -> int:
    """Return the seed of a rung's batches, which is not that of the search, as the shared weights' batches have."""
    return 10_000 * (seed + 1) + rung


def _prepare(net: nn.Module, plan: Plan, has_zeros: bool) -> Pruner:
    """Return a pruner of a net, which keeps the zeros that there are if it is said that there are some."""
    within = {site.name: site.weight.detach() != 0 for site in find_sites(net)} if has_zeros else None
    pruner = Pruner(net, plan, Magnitude(iterations=ITERATIONS), within)
    pruner.prepare()
    return pruner
