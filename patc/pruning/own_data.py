"""Data sets of the user's own Python code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from patc.diagnostics import PatcError
from patc.pruning.data import Data, Split, epoch_seed, trained_images
from patc.pruning.ranks import Part
from patc.python_files import naming_errors

_WANTED = "(train, test), two data sets of (input, class), or a patc.pruning.data.Data"


@dataclass(frozen=True)
class DatasetSplit:
    """A sequence of (input, class): what `torch.utils.data.Dataset` is. Inputs are tensors, or tuples or dictionaries
    of them; classes are numbers, or tensors of them, one for each place of a sequence."""

    items: Any

    def __len__(self) -> int:
        return len(self.items)

    def batches(
        self, batch_size: int, seed: int = 0, epoch: int | None = None, part: Part = (0, 1)
    ) -> Iterator[tuple[Any, Tensor]]:
        order = torch.arange(len(self))
        if epoch is not None:
            generator = torch.Generator().manual_seed(epoch_seed(seed, epoch))
            order = torch.randperm(len(order), generator=generator)[: trained_images(len(order), batch_size)]
        for chosen in order.split(batch_size):
            with naming_errors("the data set's code"):
                batch = default_collate([self.items[index] for index in chosen.tensor_split(part[1])[part[0]].tolist()])
            yield batch[0], batch[1]


def as_data(name: str, value: Any) -> Data:
    """Return the data set that a function of the user's returned.

    Raises:
        PatcError: it is something else, or its items are not (input, class).
    """
    if isinstance(value, Data):
        return value
    if not isinstance(value, tuple) or len(value) != 2:
        raise PatcError(f"expected a function that returns {_WANTED}, got {type(value).__name__}", name)
    train, test = (_as_split(name, part) for part in value)
    return Data(name, None, None, train, test, prepare=lambda inputs: inputs)


def _as_split(name: str, items: Any) -> Split:
    if not (hasattr(items, "__len__") and hasattr(items, "__getitem__")):
        raise PatcError(f"expected data sets with a length and items, got {type(items).__name__}", name)
    if not len(items):
        raise PatcError("expected items to train on and to test with, got none", name)
    with naming_errors("the data set's code", name):
        first = items[0]
    if not isinstance(first, (tuple, list)) or len(first) != 2:
        raise PatcError(f"expected items of (input, class), got {type(first).__name__}", name)
    classes = torch.as_tensor(first[1])
    if classes.is_floating_point():
        expected = "expected classes as whole numbers (train other targets in Python, with patc.pruning.Pruner)"
        raise PatcError(f"{expected}, got {classes.dtype}".replace("torch.", ""), name)
    return DatasetSplit(items)
