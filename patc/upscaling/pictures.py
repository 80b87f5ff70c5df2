"""Pictures to learn super-resolution from: photographs of scikit-image, drawn ones, or a folder of the user's."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional

from patc.diagnostics import PatcError, first_line
from patc.picture_files import open_picture
from patc.upscaling.drawings import draw_graphics, draw_lines, draw_page

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm")
_OF_EACH = 10  # pictures, one of which is there to choose by, and one to judge by


def open_photographs(names: Sequence[str]) -> list[Tensor]:
    """Return photographs of scikit-image, (3, H, W) from 0 to 1.

    Raises:
        PatcError: scikit-image is not there.
    """
    spec = importlib.util.find_spec("skimage")  # not imported: its own dependencies may be missing
    if spec is None or not spec.submodule_search_locations:
        raise PatcError("expected the package skimage, found none: pip install --no-deps --group nets")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    return [_as_tensor(_read(folder / name)) for name in names]


def draw_pictures(count: int, seed: int, side: int) -> list[Tensor]:
    """Return `count` drawn pictures of each kind, (3, side, side) from 0 to 1."""
    generator = np.random.default_rng(seed)
    kinds = (draw_page, draw_lines, draw_graphics)
    return [_as_tensor(draw(generator, side)) for _ in range(count) for draw in kinds]


def open_folder(folder: str | os.PathLike[str], side: int) -> list[list[Tensor]]:
    """Return the pictures of a folder, (3, H, W) from 0 to 1: those to learn from, to choose by and to judge by, which
    are the ninth and the tenth of each ten by their names; of fewer the last but one and the last.

    Args:
        side: the shortest that a picture may have.

    Raises:
        PatcError: there is no such folder, fewer than three pictures, or one is damaged or too small.
    """
    if not os.path.isdir(folder):
        raise PatcError("expected a folder of pictures, found none", str(folder))
    paths = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in SUFFIXES)
    if len(paths) < 3:
        kinds = ", ".join(SUFFIXES)
        raise PatcError(f"expected three pictures or more ({kinds}), found {len(paths)}", str(folder))
    period = min(_OF_EACH, len(paths))
    parts: list[list[Tensor]] = [[], [], []]
    for number, path in enumerate(paths):
        picture = _as_tensor(_read(path))
        if min(picture.shape[1:]) < side:
            height, width = picture.shape[1:]
            raise PatcError(f"expected pictures of {side}x{side} pixels or more, found {width}x{height}", str(path))
        parts[max(0, number % period - period + 3)].append(picture)
    return parts


def _read(path: Path) -> Image.Image:
    try:
        with open_picture(path) as picture:
            return ImageOps.exif_transpose(picture).convert("RGB")
    except PatcError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything
        raise PatcError(
            f"expected a picture that can be decoded, found damaged data ({first_line(error)})", str(path)
        ) from None


def _as_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def shrink(pictures: Tensor, scale: int) -> Tensor:
    """Return pictures (N, 3, H, W) whose sides are so many times shorter."""
    small = functional.interpolate(pictures, scale_factor=1 / scale, mode="bicubic", antialias=True)
    return small.clamp(0, 1)


def middle(picture: Tensor, side: int, scale: int) -> Tensor:
    """Return the middle of a picture (3, H, W), of at most `side` pixels a side, which `scale` divides."""
    height, width = (min(side, size) // scale * scale for size in picture.shape[1:])
    top, left = (picture.shape[1] - height) // 2, (picture.shape[2] - width) // 2
    return picture[:, top : top + height, left : left + width]


def draw_crops(pictures: Sequence[Tensor], side: int, count: int, generator: torch.Generator) -> Tensor:
    """Return squares of random pictures, also turned and mirrored, (N, 3, side, side)."""

    def number(most: int) -> int:
        return int(torch.randint(most, (), generator=generator))

    found = []
    for _ in range(count):
        picture = pictures[number(len(pictures))]
        top, left = number(picture.shape[1] - side + 1), number(picture.shape[2] - side + 1)
        crop = picture[:, top : top + side, left : left + side]
        found.append((crop.flip(2) if number(2) else crop).rot90(number(4), (1, 2)))
    return torch.stack(found)
