"""Weights that all nets of a space share, and their training.

Source: J. Yu and T. Huang, Universally slimmable networks and improved training techniques, 2019 (the sandwich rule).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from patc.diagnostics import PatcError
from patc.pruning.checkpoint import read_checkpoint
from patc.pruning.train import save_state
from patc.search.precision import run_in_training
from patc.search.space import Point
from patc.search.task import Effort, Task, build_seeded, seeded

RANDOM_NETS = 2  # of a step, beside the largest and the smallest
SAVE_SECONDS = 60.0
REPORTS = 20  # lines of a training

Tell = Callable[[str], None]


class SuperNet:
    """The weights of all nets of a task's space.

    Attributes:
        weights: by name, each as large as that of the largest net that has it.
    """

    def __init__(self, task: Task, seed: int) -> None:
        self.task = task
        self.weights: dict[str, nn.Parameter] = {}
        for corner in task.space.corners(-1):
            for name, parameter in build_seeded(task, corner, seed).named_parameters():
                known = self.weights.get(name)
                if known is None or known.numel() < parameter.numel():
                    self.weights[name] = nn.Parameter(parameter.detach().clone())

    def shared(self, net: nn.Module) -> dict[str, Tensor]:
        """Return the parts of the weights that are the parameters of a net."""
        return {
            name: self.weights[name][tuple(map(slice, parameter.shape))] for name, parameter in net.named_parameters()
        }

    def run(self, net: nn.Module, x: Tensor) -> Tensor:
        """Return what a net makes of its input with the shared weights, which gradients reach."""
        result: Tensor = functional_call(net, self.shared(net), (x,))
        return result

    @torch.no_grad()
    def extract(self, point: Point) -> nn.Module:
        """Return the net of an architecture with copies of the shared weights."""
        net = build_seeded(self.task, point)
        for name, part in self.shared(net).items():
            net.get_parameter(name).copy_(part)
        return net


def train_supernet(task: Task, effort: Effort, seed: int, path: Path, tell: Tell) -> SuperNet:
    """Return the shared weights, trained: those of a file where it has them, or from where it was left.

    Each step trains the largest net, the smallest one and two others on one batch, so that all between learn.

    Raises:
        PatcError: the file is damaged or of another search, or the loss is not finite.
    """
    supernet = SuperNet(task, seed)
    optimizer = torch.optim.Adam(supernet.weights.values(), lr=effort.learning_rate)
    first = _restore(supernet, optimizer, effort, path) if path.exists() else 0
    saved = time.monotonic()
    for step in range(first, effort.supernet_steps):
        for group in optimizer.param_groups:
            group["lr"] = effort.learning_rate * falling(step / effort.supernet_steps)
        loss = _step(supernet, optimizer, effort, seed, step)
        done = step + 1
        if done % max(1, effort.supernet_steps // REPORTS) == 0:
            tell(f"supernet: step {done} of {effort.supernet_steps}, loss {loss:.4g}")
        if done == effort.supernet_steps or time.monotonic() - saved > SAVE_SECONDS:
            saved = time.monotonic()
            save_state(path, _state(supernet, optimizer, done))
    return supernet


def _step(supernet: SuperNet, optimizer: torch.optim.Optimizer, effort: Effort, seed: int, step: int) -> float:
    """Make a step; return the mean loss of its nets."""
    task, generator = supernet.task, seeded("supernet", seed, step)
    points = [task.space.extreme(place, generator) for place in (-1, 0)]
    points += [task.space.sample(generator) for _ in range(RANDOM_NETS)]
    x, wanted = task.batch(seed, step, effort.batch_size)
    optimizer.zero_grad(set_to_none=True)
    total = 0.0
    for point in points:
        run = functools.partial(supernet.run, task.build(point).train())
        loss = task.loss(run_in_training(run, x), wanted)
        if not torch.isfinite(loss):
            raise PatcError(f"expected a finite loss, found {loss.item()} in step {step} of the supernet")
        loss.backward()
        total += loss.item()
    optimizer.step()
    return total / len(points)


def falling(done: float) -> float:
    """Return the part of a learning rate that is left behind a part of the steps: a line from 1 to a hundredth."""
    return 1 - 0.99 * done


def _state(supernet: SuperNet, optimizer: torch.optim.Optimizer, step: int) -> dict[str, Any]:
    weights = {name: weight.detach() for name, weight in supernet.weights.items()}
    return {"model": weights, "optimizer": optimizer.state_dict(), "step": step}


def _restore(supernet: SuperNet, optimizer: torch.optim.Optimizer, effort: Effort, path: Path) -> int:
    """Give weights and optimizer the state of a file; return the steps that were made."""
    state = read_checkpoint(path, ("optimizer", "step"))
    weights: Mapping[str, Tensor] = state["model"]
    shapes = {name: weight.shape for name, weight in supernet.weights.items()}
    if not isinstance(weights, dict) or {name: getattr(w, "shape", None) for name, w in weights.items()} != shapes:
        raise PatcError("expected the shared weights of this search's space, found others", str(path))
    step = state["step"]
    if not isinstance(step, int) or not 0 < step <= effort.supernet_steps:
        raise PatcError(f"expected shared weights of at most {effort.supernet_steps} steps, found {step}", str(path))
    with torch.no_grad():
        for name, weight in supernet.weights.items():
            weight.copy_(weights[name])
    try:
        optimizer.load_state_dict(state["optimizer"])
    except (ValueError, KeyError, TypeError):
        raise PatcError("expected the state of a training of these weights, found another", str(path)) from None
    return step
