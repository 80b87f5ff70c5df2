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


def hide_buffers(model: nn.Module) -> None:
    """Keep DistributedDataParallel from sending the buffers of parametrized weights in every step.

    They change between steps only, where `share` sends them. To be called again when the parametrizations are gone.
    """
    hidden = [name for name, _ in model.named_buffers() if _is_parametrization(name)]
    others = [name for name in getattr(model, _DDP_IGNORED, ()) if not _is_parametrization(name)]
    setattr(model, _DDP_IGNORED, [*others, *hidden])


def _is_parametrization(name: str) -> bool:
    return ".parametrizations.weight.0." in f".{name}"
