"""Pictures that are made: pages of text, line art and graphics, equal ones from equal generators."""

from __future__ import annotations

import string

import numpy as np
from PIL import Image, ImageDraw, ImageFont


def draw_page(generator: np.random.Generator, side: int) -> Image.Image:
    """Return a page of random words."""
    image = Image.new("RGB", (side, side), tuple(generator.integers(220, 256, 3)))
    draw, top = ImageDraw.Draw(image), 4
    letters = list(string.ascii_letters + string.digits + "    .,")
    while top < side:
        size = int(generator.integers(9, 28))
        text = "".join(generator.choice(letters, side // 4))
        draw.text((4, top), text, tuple(generator.integers(0, 90, 3)), ImageFont.load_default(size))
        top += size + 5
    return image


def draw_lines(generator: np.random.Generator, side: int) -> Image.Image:
    """Return dark curves on areas of plain colours, drawn large and made small, as animation has them."""
    image = Image.new("RGB", (2 * side, 2 * side), tuple(generator.integers(120, 256, 3)))
    draw = ImageDraw.Draw(image)
    for _ in range(24):
        middle, radius = generator.uniform(0, 2 * side, 2), generator.uniform(10, side / 2)
        turns = np.linspace(0, 2 * np.pi, 60)
        waves = np.ones(60)
        for k in (2, 3, 5):
            waves += generator.normal(0, 0.15) * np.cos(k * turns + generator.uniform(0, 6))
        points = [tuple(p) for p in middle + radius * waves[:, None] * np.stack([np.cos(turns), np.sin(turns)], 1)]
        draw.polygon(points, tuple(generator.integers(0, 256, 3)))
        draw.line([*points, points[0]], tuple(generator.integers(0, 60, 3)), int(generator.integers(2, 8)), "curve")
    return image.resize((side, side), Image.Resampling.LANCZOS)


def draw_graphics(generator: np.random.Generator, side: int) -> Image.Image:
    """Return rectangles and discs with gradients of colour."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    picture = np.ones((side, side, 3)) * generator.random(3)
    for _ in range(30):
        angle, place, size = generator.uniform(0, np.pi), generator.uniform(-1, 1, 2), generator.uniform(0.05, 0.4, 2)
        u = (x - place[0]) * np.cos(angle) + (y - place[1]) * np.sin(angle)
        v = (y - place[1]) * np.cos(angle) - (x - place[0]) * np.sin(angle)
        is_disc = generator.random() < 0.5
        inside = np.hypot(u / size[0], v / size[1]) < 1 if is_disc else (abs(u) < size[0]) & (abs(v) < size[1])
        colours = generator.random((2, 3))
        picture[inside] = (colours[0] + (colours[1] - colours[0]) * (u / size[0] + 1)[..., None] / 2)[inside]
    return Image.fromarray((picture.clip(0, 1) * 255).astype(np.uint8))
