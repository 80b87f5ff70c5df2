"""Run by torchrun in test_pruning_admm.py: trains and prunes on two processes, and compares what they end with."""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from patc.pruning import AdmmSchedule, PatternPruner, PatternSpec


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(rank)  # other weights and other data on each rank
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Flatten(), nn.Linear(256, 5)
    )
    pruner = PatternPruner(model, PatternSpec(connectivity=4, allocation="global"), AdmmSchedule(iterations=3, rho=0.1))
    pruner.prepare()
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for epoch in range(5):
        for _ in range(3):
            optimizer.zero_grad()
            scores = wrapped(torch.randn(8, 3, 8, 8))
            (nn.functional.cross_entropy(scores, torch.randint(5, (8,))) + pruner.penalty()).backward()
            optimizer.step()
        if epoch < 3:
            pruner.step()
        elif epoch == 3:
            pruner.harden()
    report = pruner.finalize()
    for conv in (model[0], model[3]):
        weights = [torch.empty_like(conv.weight) for _ in range(2)]
        dist.all_gather(weights, conv.weight.detach())
        same = bool(torch.equal(*weights)) and bool(torch.equal(weights[0] != 0, weights[1] != 0))
        if not same:
            sys.exit(f"rank {rank}: the weights differ")
    if rank == 0:
        print(f"kept {report.kept_kernels} of {report.kernels} on both ranks")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
