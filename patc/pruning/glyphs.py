"""Rendered letters: 62 classes of 32x32 pictures, made from a seed, so that training needs no download.

The characters 0-9, A-Z and a-z of the font that Pillow brings, turned, sheared, scaled, moved, blurred, lighter or
darker than a tinted ground, and with noise. Some pairs, such as O and o, can hardly be told apart at unknown scale.
"""

from __future__ import annotations

import functools
import math
import string
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from patc.diagnostics import PatcError

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

CHARACTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase
CLASSES = len(CHARACTERS)
SIZE = 32

_CANVAS = 64  # letters are drawn at twice their size, then made smaller and turned at once
_FONT_SIZE = 48


def make_glyphs(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return images (count x 3 x 32 x 32 uint8) and their classes (count, int64), equally many of each class.

    Equal seeds give equal images with the same version of Pillow.

    Raises:
        PatcError: this Pillow has no scalable font.
    """
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(count) % CLASSES)
    images = np.stack([_render(int(label), random) for label in labels])
    return torch.from_numpy(images), torch.from_numpy(labels).long()


def _render(label: int, random: np.random.Generator) -> np.ndarray:
    """Return one picture of a character, 3 x 32 x 32 uint8."""
    from PIL import Image, ImageFilter

    turn, shear = random.normal(0, 0.2), random.normal(0, 0.15)
    height, width = random.uniform(0.8, 1.3), random.uniform(0.8, 1.3)
    move = random.normal(0, 1.5, 2)
    cos, sin = math.cos(turn), math.sin(turn)
    # From places of the picture to places of the canvas, around their centres.
    scale = _CANVAS / SIZE
    matrix = (
        np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, shear], [0, 1]]) @ np.diag([scale / width, scale / height])
    )
    offset = _CANVAS / 2 - matrix @ (np.array([SIZE / 2, SIZE / 2]) + move)
    (a, b), (d, e) = matrix.tolist()
    small = _draw(label).transform(
        (SIZE, SIZE), Image.Transform.AFFINE, (a, b, offset[0], d, e, offset[1]), Image.Resampling.BILINEAR
    )
    blurred = small.filter(ImageFilter.GaussianBlur(random.uniform(0, 1.2)))
    ink = np.asarray(blurred, np.float32) / 255
    grey = random.uniform(0, 255)
    paper = grey + random.normal(0, 15, (3, 1, 1))
    # Towards the middle of the range, so that the contrast is not cut off.
    contrast = (1 if grey < 128 else -1) * random.uniform(50, 150, (3, 1, 1))
    picture = paper + contrast * ink + random.normal(0, random.uniform(2, 24), (3, SIZE, SIZE))
    return picture.clip(0, 255).astype(np.uint8)


@functools.cache
def _draw(label: int) -> Image:
    from PIL import Image, ImageDraw

    canvas = Image.new("L", (_CANVAS, _CANVAS))
    ImageDraw.Draw(canvas).text((_CANVAS / 2, _CANVAS * 0.75), CHARACTERS[label], 255, _font(), anchor="ms")
    return canvas


@functools.cache
def _font() -> FreeTypeFont:
    from PIL import ImageFont

    try:
        font = ImageFont.load_default(_FONT_SIZE)
    except TypeError:  # before 10.1 the font had one size
        font = None
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise PatcError(
            "expected Pillow 10.1 or later with FreeType for the data set glyphs: pip install 'patc[train]'"
        )
    return font
