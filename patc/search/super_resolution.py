"""`patc search sr`: nets that make pictures larger."""

from __future__ import annotations

import statistics
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from patc.search.blocks import BLOCKS
from patc.search.space import Choice, Point, Space
from patc.search.task import RUNGS, Effort, Part, Task
from patc.upscaling.pictures import draw_crops, draw_pictures, middle, open_folder, open_photographs, shrink
from patc.upscaling.quality import psnr

MOST_BLOCKS = 8
CROP = 48  # side of what a net takes in training
TESTED = 384  # side of the middle of each picture that nets are scored on
DRAWN, SIDE = 12, 256  # pictures of each kind that are made to learn from, and their side
PHOTOGRAPHS, DRAWINGS = "photographs", "drawings"
# Of scikit-image: to learn from, to choose by, to judge by.
PARTS = (
    ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "ihc.png", "hubble_deep_field.jpg"),
    ("brick.png", "rocket.jpg"),
    ("camera.png", "gravel.png", "retina.jpg"),
)
EFFORTS = {
    "tiny": Effort(6, RUNGS["tiny"], trials=3, batch_size=1, learning_rate=1e-3),
    "small": Effort(1500, RUNGS["small"], trials=30, batch_size=8, learning_rate=1e-3),
    "large": Effort(10_000, RUNGS["large"], trials=100, batch_size=16, learning_rate=1e-3),
}


class Upscaler(nn.Module):
    """A convolution, blocks, a convolution and a pixel shuffle; what they make is added to the resized picture."""

    def __init__(self, width: int, blocks: Sequence[str], scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.head = nn.Conv2d(3, width, 3, padding=1)
        self.activation = nn.PReLU(width)
        named = [(f"{kind}{number}", BLOCKS[kind](width)) for number, kind in enumerate(blocks)]
        self.blocks = nn.Sequential(OrderedDict(named))
        self.tail = nn.Conv2d(width, 3 * scale**2, 3, padding=1)
        self.shuffle = nn.PixelShuffle(scale)
        nn.init.zeros_(self.tail.weight)  # so that training begins with the resized picture
        nn.init.zeros_(self.tail.bias)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.shuffle(self.tail(self.blocks(self.activation(self.head(x)))))
        return y + functional.interpolate(x, scale_factor=self.scale, mode="bilinear", align_corners=False)


class SuperResolution(Task):
    """Nets that make pictures larger, learnt from pictures that were made smaller.

    Args:
        scale: pixels of the output for one of the input, along each axis.
        size: width and height of the input to compile for.
        data: "photographs" of scikit-image and drawn ones, "drawings" alone, or a folder of pictures, of which of
            each ten one is there to choose by and one to judge by.
        seed: of drawn pictures and crops.

    Raises:
        PatcError: there are no such pictures, or too few or too small ones.
    """

    name = "sr"
    figure = "PSNR, dB"
    pruned = ("blocks.*.conv*",)

    def __init__(self, scale: int, size: tuple[int, int], data: str = PHOTOGRAPHS, seed: int = 0) -> None:
        self.scale, self.data = scale, data
        kinds = tuple(BLOCKS)
        blocks = [
            Choice(f"block{number}", kinds, ordered=False, when=_has_block(number)) for number in range(MOST_BLOCKS)
        ]
        depths, widths = tuple(range(1, MOST_BLOCKS + 1)), (8, 16, 24, 32, 48)
        self.space = Space((Choice("depth", depths), Choice("width", widths), *blocks))
        self.inputs = (torch.zeros(1, 3, *size[::-1]),)
        learnt, *others = _open(data, scale * CROP, seed)
        self._learnt = learnt
        self._scored = [[middle(picture, TESTED, scale) for picture in part] for part in others]

    def build(self, point: Point) -> nn.Module:
        kinds = [str(point[f"block{number}"]) for number in range(int(point["depth"]))]
        return Upscaler(int(point["width"]), kinds, self.scale)

    def batch(self, seed: int, number: int, size: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {number}".encode()))
        wanted = draw_crops(self._learnt, self.scale * CROP, size, generator)
        return shrink(wanted, self.scale), wanted

    def loss(self, found: Tensor, wanted: Tensor) -> Tensor:
        return functional.l1_loss(found, wanted)

    @torch.no_grad()
    def score(self, net: nn.Module, part: Part) -> float:
        found = []
        for picture in self._scored[part == "judge"]:
            found.append(psnr(net(shrink(picture[None], self.scale)), picture[None]))
        return statistics.mean(found)

    def identity(self) -> Mapping[str, object]:
        checksum = 0
        for picture in (*self._learnt, *self._scored[0], *self._scored[1]):
            checksum = zlib.crc32(picture.numpy().tobytes(), checksum)
        size = "x".join(map(str, self.inputs[0].shape[:1:-1]))
        return {"scale": self.scale, "size": size, "data": f"{self.data} ({checksum:08x})"}

    def beside(self) -> Mapping[str, float]:
        def resize(mode: str) -> float:
            found = []
            for picture in self._scored[1]:
                x = shrink(picture[None], self.scale)
                found.append(psnr(functional.interpolate(x, scale_factor=self.scale, mode=mode), picture[None]))
            return statistics.mean(found)

        return {mode: resize(mode) for mode in ("bicubic", "bilinear")}


def _has_block(number: int) -> Callable[[Point], bool]:
    return lambda point: number < int(point["depth"])


def _open(data: str, side: int, seed: int) -> list[list[Tensor]]:
    """Return pictures to learn from, to choose by and to judge by."""
    side = max(side, SIDE)
    if data not in (PHOTOGRAPHS, DRAWINGS):
        return open_folder(data, side)
    drawn = [draw_pictures(count, 3 * seed + number, side) for number, count in enumerate((DRAWN, 1, 1))]
    photographs = [open_photographs(names) if data == PHOTOGRAPHS else [] for names in PARTS]
    return [one + other for one, other in zip(photographs, drawn, strict=True)]
