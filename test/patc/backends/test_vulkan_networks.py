"""Whole nets on a Vulkan device against PyTorch in float64.

PATC_LARGE_TESTS=1 adds the ones that take a minute and more on a software device: half precision of the larger nets.
"""

from __future__ import annotations

from shutil import which

import numpy as np
import pytest
import torch
from gpu import needs_device, require_valid
from helpers import torch_results
from large import needs_large

import patc
from patc import models, pruning
from patc.pruning import PatternSpec
from patc.runtime.vulkan_model import VulkanModel

pytestmark = needs_device

BOUNDS = {"f32": 1e-4, "f16": 2e-2}
SPECS = {
    "resnet18_cifar": PatternSpec.for_compression(8.0),
    "resnet18": PatternSpec.for_compression(8.0),
    "vgg16_cifar": PatternSpec.for_compression(8.0),
    # Its 1x1 convolutions have most of the weights: their groups of nine channels have patterns as well.
    "mobilenet_v2": PatternSpec(connectivity=2.0, pointwise="groups"),
}
CASES = [
    *((name, "f32") for name in SPECS),
    ("resnet18_cifar", "f16"),
    *(pytest.param(name, "f16", marks=needs_large) for name in ("resnet18", "vgg16_cifar", "mobilenet_v2")),
]


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_networks(name: str, dtype: str) -> None:
    model = models.build(name, None)
    pruning.prune_(model, SPECS[name])
    x = torch.randn(models.MODELS[name].input_shape, generator=torch.Generator().manual_seed(0))
    compiled = patc.compile(model, (x,), target="spirv-vulkan", dtype=dtype)
    assert isinstance(compiled, VulkanModel)
    (wanted,) = torch_results(model, [x])
    for _ in range(2):
        error = np.abs(compiled(x).numpy() - wanted).max() / np.abs(wanted).max()
        assert error <= BOUNDS[dtype]
    assert any(layer.algorithm == "pattern-direct" for layer in compiled.layers)
    assert len(compiled.code.dispatches) == len(compiled.layers)
    if which("spirv-val"):
        require_valid(compiled.code)
