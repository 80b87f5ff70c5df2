"""What processes that train a model together have to agree on."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

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
