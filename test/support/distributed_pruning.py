"""Run by torchrun in test/patc/pruning/test_admm.py: extracts and prunes on two processes, and compares what they end with."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from patc.pruning import AdmmSchedule, LibraryExtractor, PatternPruner, PatternSpec


def train(model: nn.Module, penalty: Callable[[], Tensor]) -> Callable[[], None]:
    """Return a function that trains for three steps, on other images on each rank."""
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def steps() -> None:
        for _ in range(3):
            optimizer.zero_grad()
            scores = wrapped(torch.randn(8, 3, 8, 8))
            (nn.functional.cross_entropy(scores, torch.randint(5, (8,))) + penalty()).backward()
            optimizer.step()

    return steps


def require_same(what: str, tensor: Tensor) -> None:
    """Exit if the ranks have other values."""
    found = [torch.empty_like(tensor) for _ in range(2)]
    dist.all_gather(found, tensor.detach())
    if not torch.equal(*found):
        sys.exit(f"rank {dist.get_rank()}: {what} differs")


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(rank)  # other weights on each rank
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Flatten(), nn.Linear(256, 5)
    )
    convolutions = (model[0], model[3])

    extractor = LibraryExtractor(model, sizes=(12, 4))
    extractor.prepare()
    while not extractor.finished:
        steps = train(model, extractor.penalty)
        for _ in range(2):
            for conv in convolutions:
                require_same("d", conv.parametrizations.weight[0].d)
            steps()
            extractor.step()
        extractor.reduce()
    library = extractor.finalize()
    require_same("the library", torch.tensor(library))

    spec = PatternSpec(library, connectivity=4, allocation="global")
    pruner = PatternPruner(model, spec, AdmmSchedule(iterations=3, rho=0.1))
    pruner.prepare()
    steps = train(model, pruner.penalty)
    for epoch in range(5):
        steps()
        if epoch < 3:
            pruner.step()
        elif epoch == 3:
            pruner.harden()
    report = pruner.finalize()
    require_same("what a global budget keeps", torch.tensor([layer.kept_kernels for layer in report.layers]))
    for conv in convolutions:
        require_same("a weight", conv.weight)
        require_same("a mask", (conv.weight != 0).to(torch.uint8))
    if rank == 0:
        print(f"kept {report.kept_kernels} of {report.kernels} in {len(library)} patterns on both ranks")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
