"""How often nets that learned from ImageNet say the same of photographs with integers of eight bits as with floats.

    pip install --no-deps --group nets      # the nets, and the photographs, which are scikit-image's
    python experiments/int8_photographs.py  # writes docs/int8_photographs.md

Each net is compiled in float32, and quantised with views of some photographs: random parts of them, as training takes
them. Then both are shown views of other photographs. EfficientNet-Lite0 names one of 1,000 classes. The MobileNet-V2
that packages carry has lost its classes: it names the photograph whose middle is most like the view, by the cosine of
what the net makes of both.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from trials import make_parser, read_seeds, run_main

import patc
from patc.files import atomic_write
from patc.upscaling.pictures import middle, open_photographs

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "test" / "support"))

SEEN = (
    "astronaut.png", "coffee.png", "motorcycle_left.png", "camera.png", "coins.png", "brick.png", "grass.png",
    "hubble_deep_field.jpg",
)  # fmt: skip
SHOWN = (
    "chelsea.png", "rocket.jpg", "clock_motion.png", "moon.png", "retina.jpg", "ihc.png", "gravel.png", "cell.png",
)  # fmt: skip
RANGES = {"histogram": "least squared error", "minmax": "all that was seen"}
SIDE = 224
_LEAST_AREA, _ASPECT = 0.35, 4 / 3  # of a view: its part of a photograph, and the most that a side has of the other


@dataclass(frozen=True)
class Preset:
    """How large an experiment is.

    Attributes:
        samples: views of each photograph to calibrate with.
        views: of each photograph to be shown.
    """

    samples: int
    views: int


PRESETS = {"tiny": Preset(1, 1), "small": Preset(8, 25)}


@dataclass(frozen=True)
class Net:
    """A trained net.

    Attributes:
        name: in the table.
        build: returns it.
        mean, deviation: of pixels from 0 to 255, one number or one a channel.
        has_classes: whether its outputs are scores, and else a description.
    """

    name: str
    build: Callable[[], nn.Module]
    mean: Tensor
    deviation: Tensor
    has_classes: bool

    def inputs(self, views: list[Tensor]) -> list[Tensor]:
        """Return views, (3, SIDE, SIDE) from 0 to 1, as the net reads them."""
        mean, deviation = (each.reshape(-1, 1, 1) for each in (self.mean, self.deviation))
        return [((255 * view - mean) / deviation)[None].contiguous() for view in views]


def open_nets() -> list[Net]:
    import trained

    return [
        Net("MobileNet-V2", trained.mobilenet_v2, *trained.IMAGENET, False),
        Net("EfficientNet-Lite0", trained.efficientnet_lite0, torch.tensor(127.0), torch.tensor(128.0), True),
    ]


def draw_views(photographs: list[Tensor], count: int, seed: int) -> list[Tensor]:
    """Return so many random parts of each photograph, half of them mirrored, (3, SIDE, SIDE) from 0 to 1."""
    generator = torch.Generator().manual_seed(seed)

    def between(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    def draw(photograph: Tensor) -> Tensor:
        height, width = photograph.shape[1:]
        area, aspect = between(_LEAST_AREA, 1) * height * width, between(1 / _ASPECT, _ASPECT)
        rows, columns = min(height, round((area / aspect) ** 0.5)), min(width, round((area * aspect) ** 0.5))
        top, left = round(between(0, height - rows)), round(between(0, width - columns))
        part = photograph[:, top : top + rows, left : left + columns]
        return resize(part.flip(2) if between(0, 1) < 0.5 else part)

    return [draw(photograph) for photograph in photographs for _ in range(count)]


def resize(picture: Tensor) -> Tensor:
    size = (SIDE, SIDE)
    return functional.interpolate(picture[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)


def names_of(net: Net, outputs: Tensor, gallery: Tensor) -> Tensor:
    """Return the number of the class, or of the photograph, that each row of outputs means."""
    if net.has_classes:
        return outputs.argmax(1)
    return (functional.normalize(outputs) @ functional.normalize(gallery).T).argmax(1)


def is_sure(net: Net, outputs: Tensor) -> Tensor:
    """Return whether a net gives one class half of the probability or more; of a description, never."""
    return outputs.softmax(1).amax(1) >= 0.5 if net.has_classes else torch.zeros(len(outputs), dtype=torch.bool)


@dataclass(frozen=True)
class Agreement:
    """How far integers say what floats do.

    Attributes:
        same: of all views, the part of which they say the same.
        sure: of those that floats are sure of; None where these are none.
        noise: signal-to-noise of the outputs, in dB.
    """

    same: float
    sure: float | None
    noise: float


def measure(net: Net, preset: Preset, seed: int, threads: int) -> dict[str, Agreement]:
    """Return what comes out for each kind of ranges."""
    seen, shown = (open_photographs(names) for names in (SEEN, SHOWN))
    samples = net.inputs(draw_views(seen, preset.samples, seed))
    views = net.inputs(draw_views(shown, preset.views, 1000 + seed))
    pictures = net.inputs([resize(middle(picture, min(picture.shape[1:]), 1)) for picture in seen + shown])
    model = net.build()

    def run(compiled: Any) -> tuple[Tensor, Tensor]:
        outputs, gallery = (torch.cat([compiled(x) for x in some]) for some in (views, pictures))
        return outputs, names_of(net, outputs, gallery)

    wanted, names = run(patc.compile(model, (samples[0],), threads=threads))
    sure, found = is_sure(net, wanted), {}
    for ranges in RANGES:
        outputs, own = run(patc.quantize(model, samples, ranges=ranges, threads=threads))
        noise = float(10 * torch.log10(wanted.square().sum() / (outputs - wanted).square().sum()))
        same = (own == names).double()
        found[ranges] = Agreement(float(same.mean()), float(same[sure].mean()) if sure.any() else None, noise)
        print(f"seed {seed} {net.name} {ranges}: {found[ranges]}, {int(sure.sum())} of {len(sure)} sure", flush=True)
    return found


def make_page(rows: list[str], preset: Preset, name: str, seeds: int) -> str:
    return "\n".join(
        [
            "# What integers say of photographs",
            "",
            "Of how many views of photographs nets that learned from ImageNet say the same with integers of eight bits "
            f"as with floats: {preset.views} random parts of each of {len(SHOWN)} photographs of scikit-image, post-"
            f"training, with {preset.samples} parts of each of {len(SEEN)} others, {seeds} seed(s). "
            "EfficientNet-Lite0 names one of 1,000 classes; MobileNet-V2, whose package has not its classes, the "
            f"photograph of {len(SEEN) + len(SHOWN)} whose middle is most like the view. Sure ones are views of "
            "which floats give a class half of the probability or more; textures and slides show no class. "
            f"Written by `python experiments/int8_photographs.py --preset {name}`.",
            "",
            "| net | ranges | the same, % | each seed | of sure ones, % | signal-to-noise, dB |",
            "| --- | --- | ---: | --- | ---: | ---: |",
            *rows,
            "",
        ]
    )


def main() -> None:
    args, _ = read_seeds(make_parser(__doc__, "int8-photographs", PRESETS))
    preset, rows = PRESETS[args.preset], []
    for net in open_nets():
        found = [measure(net, preset, seed, args.threads) for seed in range(args.seeds)]
        for ranges, words in RANGES.items():
            runs = [each[ranges] for each in found]
            each = ", ".join(f"{100 * run.same:.2f}" for run in runs)
            known = [run.sure for run in runs if run.sure is not None]
            sure = f"{100 * statistics.mean(known):.2f}" if known else ""
            same, noise = 100 * statistics.mean(run.same for run in runs), statistics.mean(run.noise for run in runs)
            rows.append(f"| {net.name} | {words} | {same:.2f} | {each} | {sure} | {noise:.1f} |")
    args.docs.mkdir(parents=True, exist_ok=True)
    atomic_write(args.docs / "int8_photographs.md", make_page(rows, preset, args.preset, args.seeds))


if __name__ == "__main__":
    run_main(main)
