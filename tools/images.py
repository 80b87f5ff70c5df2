"""Pictures as inputs of networks: from a file, or drawn."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from patc.diagnostics import PatcError
from patc.picture_files import open_picture

if TYPE_CHECKING:
    from PIL import Image

    from patc.runtime.model import CompiledModel

# What torchvision's ImageNet networks were trained with: red, green, blue.
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
# The part of the shorter side that the crop keeps: 224 of 256.
CROP = 224 / 256
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


def find_pictures(paths: Sequence[str]) -> list[str]:
    """Return files, and in the place of a folder the pictures in it by their names.

    Raises:
        PatcError: a folder holds none, or cannot be read.
    """
    found: list[str] = []
    for path in paths:
        found += _pictures_in(path) if os.path.isdir(path) else [path]
    return found


def _pictures_in(folder: str) -> list[str]:
    try:
        names = sorted(name for name in os.listdir(folder) if name.lower().endswith(SUFFIXES))
    except OSError as error:
        raise PatcError(f"cannot read the folder: {error.strerror or error}", folder) from None
    if not names:
        raise PatcError(f"expected pictures ({', '.join(SUFFIXES)}) in the folder, found none", folder)
    return [str(Path(folder) / name) for name in names]


def picture_batches(paths: Sequence[str], compiled: CompiledModel) -> Iterator[tuple[Sequence[str], np.ndarray]]:
    """Yield as many files as a model takes at once, with its input; where too few are left, the last one repeats.

    Raises:
        PatcError: the model does not take images, or a file is none.
    """
    infos = compiled.program.inputs
    if len(infos) != 1:
        raise PatcError(f"expected a model of one input, of images, got {len(infos)} inputs")
    info = infos[0]
    if info.dtype not in ("float32", "uint8"):
        raise PatcError(f"expected a model of float32 or uint8 images, got input {info}")
    batch = 1 if compiled.program.dynamic_batch else max(1, *info.shape[:1])
    for start in range(0, len(paths), batch):
        group = paths[start : start + batch]
        images = [picture_input(path, (1, *info.shape[1:]), info.dtype == "uint8") for path in group]
        images += images[-1:] * (batch - len(images))
        yield group, np.concatenate(images) if batch > 1 else images[0]


def picture_input(path: str, shape: Sequence[int], as_bytes: bool = False) -> np.ndarray:
    """Read a picture as a network's input: scaled, cropped at the centre, normalized as for ImageNet.

    Args:
        path: a file in one of `patc.picture_files.FORMATS`.
        shape: 1, 3, H, W, or of bytes also 1, H, W, 3; of more images each becomes the picture.
        as_bytes: uint8 from 0 to 255, which the network itself normalizes.

    Raises:
        PatcError: the file is missing or no picture, or the shape is not that of colour images.
    """
    if as_bytes:
        return _picture_bytes(path, shape)
    _check_shape(shape)
    height, width = shape[2:]
    return _normalize(_read(path, width, height), shape)


def _picture_bytes(path: str, shape: Sequence[int]) -> np.ndarray:
    is_last = len(shape) == 4 and shape[3] == 3
    if not is_last:
        _check_shape(shape)
    height, width = shape[1:3] if is_last else shape[2:]
    picture = np.rint(_read(path, width, height) * 255).astype(np.uint8)
    image = picture if is_last else picture.transpose(2, 0, 1)
    return np.ascontiguousarray(np.broadcast_to(image, shape))


def drawn_input(shape: Sequence[int]) -> np.ndarray:
    """Return the input for a drawn picture, the same one each time: a ball above a plain, with some noise.

    Raises:
        PatcError: the shape is not that of colour images.
    """
    _check_shape(shape)
    height, width = shape[2:]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    sky = np.stack([0.45 + 0.2 * y, 0.65 + 0.15 * y, 0.95 + 0 * y], axis=-1)
    ground = np.stack([0.35 + 0 * y, 0.5 - 0.2 * y, 0.2 + 0 * y], axis=-1)
    picture = np.where((y > 0.4)[..., None], ground, sky)
    radius = np.hypot(x, y)
    light = np.clip(1 - np.hypot(x + 0.2, y + 0.25) / 0.9, 0, 1)[..., None]
    picture = np.where((radius < 0.55)[..., None], light * np.array([1.0, 0.4, 0.2]) + 0.1, picture)
    noise = np.random.default_rng(0).normal(0, 0.02, picture.shape)
    return _normalize(np.clip(picture + noise, 0, 1), shape)


def _check_shape(shape: Sequence[int]) -> None:
    if len(shape) != 4 or shape[1] != 3:
        raise PatcError(f"expected a network of colour images, N x 3 x H x W, got an input of shape {list(shape)}")


def _read(path: str, width: int, height: int) -> np.ndarray:
    """Return a picture of the size as numbers from 0 to 1, with the colours last."""
    from PIL import Image

    picture = read_picture(path).convert("RGB")
    scale = max(width / picture.width, height / picture.height) / CROP
    size = (max(width, round(picture.width * scale)), max(height, round(picture.height * scale)))
    picture = picture.resize(size, Image.Resampling.BILINEAR)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    picture = picture.crop((left, top, left + width, top + height))
    return np.asarray(picture, np.float32) / 255


def read_picture(path: str) -> Image.Image:
    """Return the picture in a file, upright.

    Raises:
        PatcError: the file is missing or no picture.
    """
    from PIL import Image, ImageOps

    try:
        # Pillow warns about pictures of odd metadata and of very many pixels: both can be read.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open_picture(path) as file:
                return ImageOps.exif_transpose(file)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise PatcError("expected a picture, found another format or damaged data", path) from None


def _normalize(picture: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return N x 3 x H x W from H x W x 3."""
    image = ((picture - MEAN) / DEVIATION).astype(np.float32).transpose(2, 0, 1)
    return np.ascontiguousarray(np.broadcast_to(image, shape))
