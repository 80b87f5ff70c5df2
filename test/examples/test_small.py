"""The small net for a first try: what its page says of it."""

from __future__ import annotations

import torch
from repository import ROOT

from patc.factories import build
from patc.tools import prune


def test_the_small_net_is_found_and_small() -> None:
    built = build(str(ROOT / prune.SMALL))
    weights = sum(parameter.numel() for parameter in built.model.parameters())
    assert 50_000 < weights < 200_000
    with torch.no_grad():
        assert built.model(*built.tensors).shape == (1, 10)
