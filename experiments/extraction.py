"""Which patterns a net selects from all 126 when it is trained on rendered letters (paper, section 5 and figure 4).

    python experiments/extraction.py                # goes on where it was stopped

Trains the small net of glyphs.py dense, extracts 126 -> 32 -> 12 -> 8 -> 4 patterns, and writes docs/extraction.md with
a plot of each step: what came out, whether or not it is what section 4 derives.
"""

from __future__ import annotations

from pathlib import Path

import torch
from glyphs import PRESETS
from trials import make_parser, run_main

from patc.files import atomic_write
from patc.pruning import ELOG, GAUSSIAN, PHASE2, PatternSpec, draw
from patc.pruning.data import open_data
from patc.pruning.plots import save_histogram
from patc.pruning.run_log import Epoch
from patc.pruning.train import TrainReport, train
from patc.pruning.train_options import Phase, TrainOptions

SHOWN = 12


def describe(mask: int) -> str:
    return "Gaussian" if mask in GAUSSIAN else "ELoG" if mask in ELOG else ""


def write_report(report: TrainReport, images: int, options: TrainOptions, seed: int, docs: Path) -> None:
    """Write what each step found, as text and as plots."""
    text = f"""\
# Patterns that a net selects

The net of experiments/glyphs.py, trained dense for {options.dense_epochs} epochs on `glyphs:{images}`, then for
{options.extract_epochs} epochs in each step of the extraction; seed {seed}. Written by
`python experiments/extraction.py` with PyTorch {torch.__version__}.
"""
    docs.mkdir(parents=True, exist_ok=True)
    for histogram in report.histograms:
        total = sum(histogram.values())
        ordered = sorted(histogram.items(), key=lambda item: (-item[1], item[0]))
        share = sum(count for mask, count in ordered if mask in PHASE2) / total
        found = sum(mask in PHASE2 for mask, _ in ordered[: len(PHASE2)])
        eight = sum(count for _, count in ordered[: len(PHASE2)]) / total
        text += f"""
## Of {len(histogram)} patterns

Of {total} kernels {eight:.1%} select one of the eight most selected patterns, of which {found} are in phase 2, and
{share:.1%} select one of phase 2.

| pattern | drawn | kernels | of filter |
| --- | --- | --- | --- |
"""
        for mask, count in ordered[:SHOWN]:
            text += f"| {mask} | `{draw(mask)}` | {count / total:.1%} | {describe(mask)} |\n"
        text += f"\n![{len(histogram)} patterns](extraction-{len(histogram)}.png)\n"
        save_histogram(docs / f"extraction-{len(histogram)}.png", histogram)
    masks = ", ".join(f"{mask} `{draw(mask)}`" for mask in report.pruned.library)
    text += f"\nLeft in the end: {masks}.\n"
    atomic_write(docs / "extraction.md", text)
    print(docs / "extraction.md")


def main() -> None:
    parser = make_parser(__doc__, "extraction-checkpoints", PRESETS)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    preset = PRESETS[args.preset]
    options = TrainOptions(
        dense_epochs=preset.dense_epochs,
        extract=4,
        extract_epochs=max(1, preset.dense_epochs // 5),  # the paper takes 10% to 20% of the dense training a step
        prune_epochs=1,
        retrain_epochs=0,
        batch_size=preset.batch_size,
        learning_rate=0.05,
        seed=args.seed,
    )
    data = open_data(f"glyphs:{preset.images}", 32)

    def tell(phase: Phase, epoch: Epoch) -> None:
        print(f"epoch {epoch.epoch} {phase.kind}: test accuracy {epoch.test_accuracy:.2%}", flush=True)

    model = preset.net(data.classes, args.seed)
    resume = (args.out / "last.pt").is_file()
    report = train(model, data, PatternSpec(connectivity=1), options, args.out, resume, tell)
    write_report(report, preset.images, options, args.seed, args.docs)


if __name__ == "__main__":
    run_main(main)
