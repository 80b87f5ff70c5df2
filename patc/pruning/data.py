"""Labelled images to train on, by name: CIFAR-10's binary files, folders of pictures, digits and rendered letters.

    data = open_data("cifar10:/data/cifar-10-batches-bin", size=32)
    for images, labels in data.train.batches(128, seed=0, epoch=3):    # N x 3 x H x W uint8, N int64

Batches depend on seed and epoch alone, so that a run that is resumed sees what an uninterrupted one sees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from patc.diagnostics import PatcError, nearest
from patc.files import check_regular
from patc.pruning.ranks import Part

KINDS = ("cifar10", "imagenet", "folder", "glyphs", "digits")
FORMS = "cifar10:DIR, imagenet:DIR, folder:DIR, glyphs, glyphs:IMAGES, digits or FILE.py:function"

_CIFAR_RECORD = 1 + 3 * 32 * 32
_GLYPHS = 20000
# Of pixels from 0 to 1, red, green, blue: what torchvision's networks were trained with, and `patc run --image` takes.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Split(Protocol):
    """The training or the test part of a data set."""

    def __len__(self) -> int: ...

    def batches(
        self, batch_size: int, seed: int = 0, epoch: int | None = None, part: Part = (0, 1)
    ) -> Iterator[tuple[Any, Tensor]]:
        """Yield images as pixels, for `Data.prepare` where the model is, and their classes.

        Args:
            epoch: shuffles and augments for training, another way in each epoch; None gives all images as they are.
            part: which part of each batch, of how many.

        Raises:
            PatcError: an image cannot be read.
        """


@dataclass(frozen=True)
class Data:
    """A data set.

    Attributes:
        name: as it was asked for.
        classes: number of labels; None where only the model knows.
        shape: of one image, channels, height, width; None of inputs that are something else.
        prepare: makes inputs of what batches hold.
    """

    name: str
    classes: int | None
    shape: tuple[int, int, int] | None
    train: Split
    test: Split
    prepare: Callable[[Any], Any] = lambda images: normalise(images)


@dataclass(frozen=True)
class TensorSplit:
    """Images in memory.

    Attributes:
        images: N x 3 x H x W uint8.
        labels: N int64.
        shift: pixels that an image may move in training, in either direction.
        flips: whether half of the images are mirrored in training.
    """

    images: Tensor
    labels: Tensor
    shift: int = 0
    flips: bool = False

    def __len__(self) -> int:
        return len(self.images)

    def batches(
        self, batch_size: int, seed: int = 0, epoch: int | None = None, part: Part = (0, 1)
    ) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.arange(len(self.images))
        generator = torch.Generator()
        if epoch is not None:
            generator.manual_seed(epoch_seed(seed, epoch))
            order = torch.randperm(len(order), generator=generator)[: trained_images(len(order), batch_size)]
        for chosen in order.split(batch_size):
            images = self.images[chosen]
            if epoch is not None:
                images = self._augment(images, generator)
            yield images.tensor_split(part[1])[part[0]], self.labels[chosen].tensor_split(part[1])[part[0]]

    def _augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        count, height, width = images.shape[0], images.shape[2], images.shape[3]
        if self.flips:
            flipped = torch.rand(count, generator=generator) < 0.5
            images = torch.where(flipped[:, None, None, None], images.flip(3), images)
        if self.shift:
            dy, dx = torch.randint(2 * self.shift + 1, (2, count), generator=generator) - self.shift
            # What comes in at an edge repeats it.
            rows = (dy[:, None] + torch.arange(height)).clamp(0, height - 1)[:, :, None]
            columns = (dx[:, None] + torch.arange(width)).clamp(0, width - 1)[:, None, :]
            images = images[torch.arange(count)[:, None, None], :, rows, columns].permute(0, 3, 1, 2).contiguous()
        return images


def open_data(name: str, size: int, seed: int = 0) -> Data:
    """Return the data set that `name` stands for; files are checked before anything is trained.

    Args:
        name: one of `FORMS`. imagenet:DIR has DIR/train/<class>/ and DIR/val/<class>/; folder:DIR has the same, or
            DIR/<class>/ of which every tenth picture is for testing.
        size: height and width that pictures of folders get; the others have 32x32.
        seed: of generated data, which have half as many images to test with.

    Raises:
        PatcError: the name is unknown, or its files are missing or damaged.
    """
    kind, _, rest = name.partition(":")
    if kind not in KINDS:
        raise PatcError(f"expected --data as {FORMS}; found '{name}'{nearest(kind, KINDS)}")
    if kind == "digits":
        if rest:
            raise PatcError(f"expected --data digits alone, found '{name}'")
        return _digits()
    if kind == "glyphs":
        return _glyphs(rest, name, seed)
    if not rest:
        raise PatcError(f"expected a folder as in {kind}:DIR, found '{name}'")
    folder = Path(rest)
    if not folder.is_dir():
        raise PatcError(f"expected a folder of data, found {'a file' if folder.exists() else 'no such folder'}", rest)
    if kind == "cifar10":
        return _cifar10(folder, name)
    from patc.pruning.pictures import open_pictures

    return open_pictures(folder, name, size, needs_parts=kind == "imagenet")


def normalise(images: Tensor) -> Tensor:
    """Return N x 3 x H x W uint8 pixels as float32 of about zero mean and unit variance."""
    mean, deviation = _statistics(images.device)
    return (images.float() / 255 - mean) / deviation


def denormalise(images: Tensor) -> Tensor:
    """Return pixels from about 0 to 1 of what `normalise` gave."""
    mean, deviation = _statistics(images.device)
    return images * deviation + mean


def trained_images(count: int, batch_size: int) -> int:
    """Return how many of `count` images an epoch trains on: whole batches, or all if they are too few for one."""
    # A last batch of few images would make batch norm's statistics worthless.
    return max(count - count % batch_size, min(count, batch_size))


def epoch_seed(seed: int, epoch: int) -> int:
    """Return a seed for everything that is random in an epoch."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])


def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    mean, deviation = (torch.tensor(values, device=device).reshape(3, 1, 1) for values in (MEAN, DEVIATION))
    return mean, deviation


def _cifar10(folder: Path, name: str) -> Data:
    inner = folder / "cifar-10-batches-bin"
    folder = inner if inner.is_dir() else folder
    train = [_read_cifar(folder / f"data_batch_{number}.bin") for number in range(1, 6)]
    images, labels = (torch.cat(parts) for parts in zip(*train, strict=True))
    test_images, test_labels = _read_cifar(folder / "test_batch.bin")
    return Data(
        name, 10, (3, 32, 32), TensorSplit(images, labels, shift=4, flips=True), TensorSplit(test_images, test_labels)
    )


def _read_cifar(path: Path) -> tuple[Tensor, Tensor]:
    """Return images and labels of one file: records of a label and 3 x 32 x 32 bytes."""
    check_regular(path, "a file of CIFAR-10")
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise PatcError(f"cannot read CIFAR-10: {error.strerror or error}", str(path)) from None
    if not data.size or data.size % _CIFAR_RECORD:
        raise PatcError(
            f"expected CIFAR-10's records of {_CIFAR_RECORD} bytes, found {data.size} bytes: the file is damaged",
            str(path),
        )
    records = torch.from_numpy(data.reshape(-1, _CIFAR_RECORD))
    if int(records[:, 0].max()) > 9:
        raise PatcError(
            f"expected labels from 0 to 9, found {int(records[:, 0].max())}: the file is damaged", str(path)
        )
    return records[:, 1:].reshape(-1, 3, 32, 32).contiguous(), records[:, 0].long()


def _digits() -> Data:
    """Return scikit-learn's 1797 handwritten digits, scaled to 32x32; every fifth is for testing."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise PatcError(
            "expected scikit-learn for the data set digits, found none: pip install 'patc[train]'"
        ) from None
    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels).float().reshape(-1, 1, 8, 8) * (255 / 16)
    large = functional.interpolate(images, size=(32, 32), mode="bilinear").round().to(torch.uint8).expand(-1, 3, -1, -1)
    classes = torch.from_numpy(labels).long()
    is_test = torch.arange(len(classes)) % 5 == 4
    return Data(
        "digits",
        10,
        (3, 32, 32),
        TensorSplit(large[~is_test], classes[~is_test], shift=2),
        TensorSplit(large[is_test], classes[is_test]),
    )


def _glyphs(count: str, name: str, seed: int) -> Data:
    from patc.pruning.glyphs import CLASSES, make_glyphs

    if count and (not count.isdecimal() or int(count) < 1):
        raise PatcError(f"expected a number of images as in glyphs:{_GLYPHS}, found '{name}'")
    images = int(count) if count else _GLYPHS
    train = TensorSplit(*make_glyphs(images, seed=2 * seed), shift=2)
    test = TensorSplit(*make_glyphs(max(images // 2, 1), seed=2 * seed + 1))
    return Data(name, CLASSES, (3, 32, 32), train, test)
