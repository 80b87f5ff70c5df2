"""Euclidean projection on the probability simplex: the proximal step of section 5.1, equations 25 and 26."""

from __future__ import annotations

import torch
from torch import Tensor


def simplex_threshold(d: Tensor) -> Tensor:
    """Return for each row the root nu of sum_j max(d_j - nu, 0) = 1: (K, M) -> (K, 1).

    Exact up to rounding: with the row sorted in descending order, nu = (sum of the first n - 1) / n for the largest n
    whose n-th value is above that.
    """
    ordered = torch.sort(d, dim=1, descending=True).values
    counts = torch.arange(1, d.shape[1] + 1, device=d.device, dtype=d.dtype)
    roots = (ordered.cumsum(1) - 1) / counts
    last = (ordered > roots).sum(1, keepdim=True).clamp_min(1) - 1
    return roots.gather(1, last)


def project_simplex(d: Tensor) -> Tensor:
    """Return the nearest point of the probability simplex to each row: (K, M) -> (K, M)."""
    return (d - simplex_threshold(d)).clamp_min(0)
