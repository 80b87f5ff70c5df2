"""Well-known nets against PyTorch in float64, on each kind of target.

PATC_LARGE_TESTS=1 adds the nets as published; the others have their structure, but few channels and blocks.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from emulated import Emulated, needs_arm, needs_linker
from gpu import needs_device
from helpers import torch_results
from nets import NETS

import patc
from patc.compiler import compile_program
from patc.options import make_options

BOUND = 1e-4
# One for each kind of operation that few others have: SiLU and squeeze-excite, groups and shuffles, concatenations,
# dilation, transposed convolutions, pixel shuffle, a softmax over bins, 1-D convolutions, LSTMs, attention, layer norm.
ELSEWHERE = ["efficientnet_b0", "shufflenet_v1", "densenet121", "drn_d22", "unet", "espcn", "quartznet", "vit_tiny"]
needs_large = pytest.mark.skipif("PATC_LARGE_TESTS" not in os.environ, reason="PATC_LARGE_TESTS")
pytestmark = pytest.mark.usefixtures("one_thread")


def require_close(found: list[np.ndarray], model: torch.nn.Module, x: torch.Tensor) -> None:
    wanted = torch_results(model, [x])
    assert [array.shape for array in found] == [array.shape for array in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert np.abs(other).max() > 0
        assert np.abs(one - other).max() <= BOUND * np.abs(other).max()


def leaves(outputs: object) -> list[np.ndarray]:
    return [leaf.numpy() for leaf in torch.utils._pytree.tree_leaves(outputs)]


@pytest.mark.parametrize("name", NETS)
def test_small(name: str) -> None:
    model, x = NETS[name].build(is_small=True)
    require_close(leaves(patc.compile(model, (x,), threads=2)(x)), model, x)


@needs_large
@pytest.mark.parametrize("name", NETS)
def test_as_published(name: str) -> None:
    model, x = NETS[name].build(is_small=False)
    require_close(leaves(patc.compile(model, (x,), threads=2)(x)), model, x)


@needs_arm
@needs_linker
@pytest.mark.parametrize("name", ELSEWHERE)
def test_aarch64(name: str) -> None:
    model, x = NETS[name].build(is_small=True)
    program, _ = compile_program(model, (x,), make_options("aarch64-linux", 1))
    require_close(Emulated(program)(x.numpy()), model, x)


@needs_device
@pytest.mark.parametrize("name", ELSEWHERE)
def test_vulkan(name: str) -> None:
    model, x = NETS[name].build(is_small=True)
    require_close(leaves(patc.compile(model, (x,), target="spirv-vulkan")(x)), model, x)
