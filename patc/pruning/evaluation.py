"""What a model makes of data: loss and accuracy."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from patc.pruning.data import Data


@torch.no_grad()
def evaluate(model: nn.Module, data: Data, batch_size: int = 256) -> tuple[float, float]:
    """Return cross entropy and accuracy (0 to 1) of a model on the test data, where its weights are."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    loss, right, count = 0.0, 0, 0
    for inputs, labels in data.test.batches(batch_size):
        scores = call(model, data.prepare(move(inputs, device))).float().cpu()
        loss += float(nn.functional.cross_entropy(scores, labels, reduction="sum"))
        right += int((scores.argmax(1) == labels).sum())
        count += labels.numel()
    model.train(was_training)
    return loss / count, right / count


def move(value: Any, device: torch.device) -> Any:
    """Return tensors, or tuples, lists or dictionaries of them, on a device."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {name: move(item, device) for name, item in value.items()}
    return type(value)(move(item, device) for item in value) if isinstance(value, (tuple, list)) else value


def call(model: nn.Module, inputs: Any) -> Any:
    """Call a model with a tensor, or with tuples' or dictionaries' items as its arguments."""
    if isinstance(inputs, dict):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, (tuple, list)) else model(inputs)
