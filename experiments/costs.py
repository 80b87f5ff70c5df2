"""What pruning adds to a training step, and the memory of an extraction from all 126 patterns.

python experiments/costs.py step                # ResNet-18: with and without the ADMM penalty, step by step in turn
python experiments/costs.py memory              # VGG-16: peak memory of two steps and a proximal step
"""

from __future__ import annotations

import argparse
import copy
import resource
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim.optimizer import ParamsT

from patc import models
from patc.pruning import PHASE1, LibraryExtractor, PatternPruner, PatternSpec
from patc.pruning.extraction import selection_bytes
from patc.pruning.kernels import find_layers


def make_step(
    model: nn.Module, x: Tensor, y: Tensor, penalty: Callable[[], Tensor] | None, parameters: ParamsT | None = None
) -> Callable[[], None]:
    """Return a function that takes one step of SGD with momentum."""
    optimizer = torch.optim.SGD(parameters or model.parameters(), lr=1e-3, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad(set_to_none=False)
        loss = nn.functional.cross_entropy(model(x), y)
        (loss if penalty is None else loss + penalty()).backward()
        optimizer.step()

    return step


def measure_step(batch: int, size: int, repetitions: int) -> None:
    """Print medians of a dense step, one with ADMM, and one with the selection variables of twelve patterns."""
    x, y = torch.randn(batch, 3, size, size), torch.randint(1000, (batch,))
    dense = models.resnet18().train()
    pruned = copy.deepcopy(dense)
    pruner = PatternPruner(pruned, PatternSpec("phase1", connectivity=3.56))
    pruner.prepare()
    selecting = copy.deepcopy(dense)
    extractor = LibraryExtractor(selecting, PHASE1, sizes=(8,))
    extractor.prepare()
    steps = {
        "dense": make_step(dense, x, y, None),
        "ADMM, 12 patterns": make_step(pruned, x, y, pruner.penalty),
        "selection of 12 patterns": make_step(selecting, x, y, extractor.penalty, extractor.parameter_groups()),
    }
    # CPU time of one thread: what other processes do in the meantime does not count.
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repetition in range(repetitions + 1):
        for name, step in steps.items():
            started = time.process_time()
            step()
            if repetition:
                seconds[name].append(time.process_time() - started)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    threads = torch.get_num_threads()
    print(
        f"resnet18, {batch} images of {size}x{size}, {threads} thread, median CPU time of {repetitions} steps in turn"
    )
    for name, median in medians.items():
        print(f"  {name:26s} {median:7.3f} s  {median / medians['dense'] - 1:+.1%}")
    started = time.process_time()
    pruner.step()
    print(f"  projection and dual update, once an ADMM iteration: {time.process_time() - started:.2f} s")


def measure_memory(batch: int) -> None:
    """Print the peak resident memory of an extraction step on VGG-16 and what the formula says."""
    model = models.vgg16().train()
    layers = [layer for layer in find_layers(model, PatternSpec()) if layer.kind != "dense"]
    kernels = sum(layer.units for layer in layers)
    extractor = LibraryExtractor(model, "all", sizes=(32,))
    extractor.prepare()
    x, y = torch.randn(batch, 3, 224, 224), torch.randint(1000, (batch,))
    step = make_step(model, x, y, extractor.penalty, extractor.parameter_groups())
    for _ in range(2):
        step()
    extractor.step()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # kilobytes on Linux
    weights = 3 * 4 * sum(parameter.numel() for name, parameter in model.named_parameters() if "selection" not in name)
    print(f"vgg16, {batch} images of 224x224: {kernels} kernels, 126 patterns, SGD with momentum")
    print(f"  selection variables by the formula {selection_bytes(kernels, 126) / 1e9:6.2f} GB")
    print(f"  weights, gradients and momentum    {weights / 1e9:6.2f} GB")
    print(f"  peak resident memory, measured     {peak / 1e9:6.2f} GB")
    histogram = extractor.reduce()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"  the same with the reduction to 32  {peak / 1e9:6.2f} GB ({sum(histogram.values())} kernels selected)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("step", "memory"))
    parser.add_argument("--batch", type=int, help="images a step (step: 16, memory: 2)")
    parser.add_argument("--size", type=int, default=224, help="of the images of `step`")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.what == "step":
        measure_step(args.batch or 16, args.size, args.repetitions)
    else:
        measure_memory(args.batch or 2)


if __name__ == "__main__":
    main()
