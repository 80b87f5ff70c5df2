"""Well-known nets against PyTorch in float64, on each kind of target: their structure, with few channels and blocks.

PATC_LARGE_TESTS=1 adds those whose operations others have as well, and all nets as published.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from emulated import Emulated, needs_arm, needs_linker
from gpu import needs_device
from helpers import assert_close, torch_results
from large import needs_large
from nets import NETS
from torch.utils._pytree import tree_leaves

import patc
from patc.compiler import compile_program
from patc.options import make_options

BOUND = 1e-4
QUICK = [
    "efficientnet_b0", "mobilenet_v3", "squeezenet", "densenet121", "shufflenet_v1", "shufflenet_v2", "regnet_y_400mf",
    "resnext50", "drn_d22", "dpn68", "nasnet_cell", "centernet", "edsr", "espcn", "yolo_v3_tiny", "quartznet",
    "vit_tiny", "convnext_tiny",
]  # fmt: skip
# SiLU and squeeze-excite, groups and shuffles, pixel shuffle, 1-D convolutions, attention.
ELSEWHERE = ["efficientnet_b0", "shufflenet_v1", "espcn", "quartznet", "vit_tiny"]
pytestmark = pytest.mark.usefixtures("one_thread")


def require_close(found: list[np.ndarray], model: torch.nn.Module, x: torch.Tensor) -> None:
    wanted = torch_results(model, [x])
    assert all(np.abs(array).max() > 0 for array in wanted)
    assert_close(found, wanted, BOUND)


def leaves(outputs: object) -> list[np.ndarray]:
    return [leaf.numpy() for leaf in tree_leaves(outputs)]


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=needs_large) for name in NETS])
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
