"""Folders of pictures, one folder a class, read while training."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from patc.diagnostics import PatcError
from patc.picture_files import open_picture
from patc.pruning.data import Data, epoch_seed, trained_images
from patc.pruning.ranks import Part

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm")
_MOST_WORKERS = 16
_TEST_SCALE = 1.14  # the short side before the centre is cut out: 256 for 224


@dataclass(frozen=True)
class PictureSplit:
    """Pictures in files.

    Attributes:
        files: path and class of each.
        size: height and width that they get: a random part in training, else the centre.
    """

    files: tuple[tuple[str, int], ...]
    size: int

    def __len__(self) -> int:
        return len(self.files)

    def batches(
        self, batch_size: int, seed: int = 0, epoch: int | None = None, part: Part = (0, 1)
    ) -> Iterator[tuple[Tensor, Tensor]]:
        order = np.arange(len(self.files))
        drawn = None if epoch is None else epoch_seed(seed, epoch)
        if drawn is not None:
            order = np.random.default_rng(drawn).permutation(order)[: trained_images(len(order), batch_size)]
        if part[1] > 1:
            batches = [order[first : first + batch_size] for first in range(0, len(order), batch_size)]
            order = np.concatenate([np.array_split(batch, part[1])[part[0]] for batch in batches])
            batch_size = -(-batch_size // part[1])
        workers = min(_MOST_WORKERS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
        loader = DataLoader(
            _Pictures(self, drawn),
            batch_size=batch_size,
            sampler=order.tolist(),
            num_workers=workers if len(order) > batch_size else 0,
            collate_fn=_collate,
            pin_memory=torch.cuda.is_available(),
        )
        for batch in loader:
            if isinstance(batch, str):
                raise PatcError("expected a picture that can be decoded, found damaged data", batch)
            images, labels = batch  # a list, once it was pinned
            yield images, labels


def open_pictures(folder: Path, name: str, size: int, needs_parts: bool) -> Data:
    """Return the pictures of a folder. See `open_data`.

    Args:
        needs_parts: whether there have to be parts for training and testing.

    Raises:
        PatcError: there are no classes or pictures, or the first picture of a class is damaged.
    """
    train, test = folder / "train", next((folder / part for part in ("val", "test") if (folder / part).is_dir()), None)
    if train.is_dir() and test is not None:
        classes = _classes(train)
        if _classes(test) != classes:
            raise PatcError(f"expected the {len(classes)} classes of {train}, found others", str(test))
        parts = _files(train, classes), _files(test, classes)
    elif needs_parts:
        raise PatcError("expected folders train and val", str(folder))
    else:
        classes = _classes(folder)
        files = _files(folder, classes)
        parts = (
            tuple(file for place, file in enumerate(files) if place % 10 != 9),
            tuple(file for place, file in enumerate(files) if place % 10 == 9),
        )
    for part in parts:
        if not part:
            raise PatcError("expected pictures to train on and to test with, found too few", str(folder))
        _check_first_of_each(part)
    training, testing = (PictureSplit(part, size) for part in parts)
    return Data(name, len(classes), (3, size, size), training, testing)


class _Pictures(Dataset):
    """Pictures by number: uint8 3 x size x size and class; or the path of one that is damaged."""

    def __init__(self, split: PictureSplit, seed: int | None) -> None:
        self.split, self.seed = split, seed

    def __getitem__(self, index: int) -> tuple[np.ndarray, int] | str:
        path, label = self.split.files[index]
        random = None if self.seed is None else np.random.default_rng([self.seed, index])
        try:
            return _read(path, self.split.size, random), label
        except Exception:  # Pillow's decoders raise nearly anything
            return path


def _collate(items: list[Any]) -> tuple[Tensor, Tensor] | str:
    # An exception of a worker process would arrive as a page of text.
    for item in items:
        if isinstance(item, str):
            return item
    images, labels = zip(*items, strict=True)
    return torch.from_numpy(np.stack(images)), torch.tensor(labels)


def _read(path: str, size: int, random: np.random.Generator | None) -> np.ndarray:
    """Return a picture scaled to 3 x size x size: the centre, or for training a random part, mirrored or not."""
    from PIL import Image, ImageOps

    with open_picture(path) as file:
        picture = file.convert("RGB")
    if random is None:
        picture = ImageOps.fit(picture, (round(size * _TEST_SCALE),) * 2, Image.Resampling.BILINEAR)
        edge = (picture.width - size) // 2
        picture = picture.crop((edge, edge, edge + size, edge + size))
    else:
        box = _random_box(picture.width, picture.height, random)
        picture = picture.resize((size, size), Image.Resampling.BILINEAR, box=box)
        if random.random() < 0.5:
            picture = ImageOps.mirror(picture)
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))


def _random_box(width: int, height: int, random: np.random.Generator) -> tuple[float, float, float, float]:
    """Return a part of 25% to 100% of a picture, its sides at 3:4 to 4:3."""
    area = width * height * random.uniform(0.25, 1.0)
    ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
    part_width, part_height = min(width, math.sqrt(area * ratio)), min(height, math.sqrt(area / ratio))
    left, top = random.uniform(0, width - part_width), random.uniform(0, height - part_height)
    return left, top, left + part_width, top + part_height


def _classes(folder: Path) -> tuple[str, ...]:
    classes = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir()))
    if len(classes) < 2:
        raise PatcError(f"expected a folder for each of at least two classes, found {len(classes)}", str(folder))
    return classes


def _files(folder: Path, classes: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    files = []
    for label, name in enumerate(classes):
        found = sorted(str(path) for path in (folder / name).iterdir() if path.suffix.lower() in SUFFIXES)
        if not found:
            raise PatcError(f"expected pictures ({', '.join(SUFFIXES)}), found none", str(folder / name))
        files += [(path, label) for path in found]
    return tuple(files)


def _check_first_of_each(files: tuple[tuple[str, int], ...]) -> None:
    first = {label: path for path, label in reversed(files)}
    for path in first.values():
        try:
            _read(path, 32, None)
        except Exception:
            raise PatcError("expected a picture that can be decoded, found damaged data", path) from None
