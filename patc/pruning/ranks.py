"""What processes that train a model together have to agree on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from patc.diagnostics import PatcError, first_line

Part = tuple[int, int]  # a process's number among those that train together, and how many they are

_DDP_IGNORED = "_ddp_params_and_buffers_to_ignore"


def share(tensor: Tensor) -> None:
    """Give all ranks the first one's values, where there are several."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return
    if tensor.dtype == torch.bool:
        sent = tensor.to(torch.uint8)  # gloo and NCCL do not both send bool
        dist.broadcast(sent, 0)
        tensor.copy_(sent.bool())
    else:
        dist.broadcast(tensor, 0)


def hide_buffers(model: nn.Module, kind: type[nn.Module]) -> None:
    """Keep DistributedDataParallel from sending the buffers of `kind` in every step.

    They change between steps only, where `share` sends them. To be called again when these modules are gone.
    """
    hidden = [
        f"{prefix}.{name}"
        for prefix, module in model.named_modules()
        if isinstance(module, kind)
        for name, _ in module.named_buffers()
    ]
    present = {name for name, _ in (*model.named_buffers(), *model.named_parameters())}
    others = [name for name in getattr(model, _DDP_IGNORED, ()) if name in present and name not in hidden]
    setattr(model, _DDP_IGNORED, [*others, *hidden])


def find_part() -> Part:
    """Return this process's number among those that train together, and how many they are."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


@contextlib.contextmanager
def joined(device: str | None) -> Iterator[None]:
    """Join the other processes that torchrun started, if it started this one.

    Args:
        device: "cuda" or "cpu"; None for a GPU where there is one.

    Raises:
        PatcError: they cannot be reached.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ or not dist.is_available() or dist.is_initialized():
        yield
        return
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    try:
        dist.init_process_group("nccl" if on_gpu else "gloo")
    except (RuntimeError, ValueError) as error:
        raise PatcError(f"expected to reach the processes that torchrun started: {first_line(error)}") from None
    try:
        yield
    finally:
        dist.destroy_process_group()


def wrap(model: nn.Module) -> nn.Module:
    """Return what computes as the model and averages the gradients of all ranks; the model where there is one."""
    if find_part()[1] == 1:
        return model
    device = next(model.parameters()).device
    return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)


def share_numbers(*numbers: float) -> tuple[float, ...]:
    """Return the first rank's numbers, which the others may have as anything."""
    if find_part()[1] == 1:
        return numbers
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    tensor = torch.tensor(numbers, dtype=torch.float64, device=device)
    dist.broadcast(tensor, 0)
    return tuple(tensor.tolist())


def average(tensor: Tensor) -> Tensor:
    """Return the mean over all ranks."""
    if find_part()[1] > 1:
        dist.all_reduce(tensor)
        tensor /= find_part()[1]
    return tensor


def wait() -> None:
    """Return when all ranks are here."""
    if find_part()[1] > 1:
        dist.barrier()
