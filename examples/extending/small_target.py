"""A target from outside of the package: this machine with a tenth of its second-level cache and half of its registers.

python examples/extending/small_target.py
"""

from __future__ import annotations

from dataclasses import replace

import torch

import patc
from patc.targets import get_target, register_target


def small_target() -> patc.Target:
    """Return this machine as it would be with less memory near the core."""
    host = get_target("host")
    costs = host.core_costs()
    near = replace(costs, second_level_bytes=costs.second_level_bytes // 10)
    return replace(host, name="small", registers=host.registers // 2, costs=near)


def main() -> None:
    register_target(small_target())
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(64, 64, 3, padding=1)
    model, x = torch.nn.Sequential(layer, torch.nn.ReLU()).eval(), torch.randn(1, 64, 56, 56)
    with torch.no_grad():
        wanted = model.double()(x.double())
        for target in ("host", "small"):
            compiled = patc.compile(model.float(), (x,), target=target, threads=1)
            error = float((compiled(x) - wanted).abs().max() / wanted.abs().max())
            schedule = next(layer.schedule for layer in compiled.layers if layer.op == "conv2d")
            tile = f"{schedule.rows}x{schedule.columns}, {schedule.filters} filters"
            print(f"{target}: {schedule.algorithm}, tiles of {tile}")
            print(f"error {error:.1e} of the largest output")


if __name__ == "__main__":
    main()
