"""Zeros of other tools: sparse tensors of ONNX files, masks of torch.nn.utils.prune, with what is folded into weights."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import assert_close
from torch import nn
from torch.nn.utils import prune

import patc
from patc.diagnostics import PatcError
from patc.pruning import PatternSpec, prune_

onnx = pytest.importorskip("onnx")

SHAPE = (8, 12, 5, 5)


def sparse_weight(linear: bool = True) -> tuple[np.ndarray, Any]:
    """Return a weight, and the ONNX form of it with one index an entry or one for each dimension."""
    rng = np.random.default_rng(0)
    weight = (rng.standard_normal(SHAPE) * (rng.random(SHAPE) < 0.15)).astype(np.float32)
    places = np.flatnonzero(weight)
    indices = places if linear else np.stack(np.unravel_index(places, SHAPE), 1)
    values = onnx.numpy_helper.from_array(weight.ravel()[places], "w")
    tensor = onnx.helper.make_sparse_tensor(values, onnx.numpy_helper.from_array(indices.astype(np.int64), "i"), SHAPE)
    return weight, tensor


def save(path: Path, tensor: Any, as_constant: bool) -> str:
    """Write a model of one convolution whose weight is a sparse tensor."""
    make, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [make("Constant", [], ["w"], name="constant", sparse_value=tensor)] if as_constant else []
    nodes.append(make("Conv", ["x", "w"], ["y"], name="conv"))
    ends = [value("x", 1, [1, 12, 10, 10])], [value("y", 1, [1, 8, 6, 6])]
    graph = onnx.helper.make_graph(nodes, "g", *ends, sparse_initializer=[] if as_constant else [tensor])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]), path)
    return str(path)


@pytest.mark.parametrize(("as_constant", "linear"), [(True, True), (False, False)])
def test_sparse_tensors(tmp_path: Path, as_constant: bool, linear: bool) -> None:
    weight, tensor = sparse_weight(linear)
    x = torch.randn(1, 12, 10, 10)
    compiled = patc.compile(save(tmp_path / "net.onnx", tensor, as_constant), (x,))
    assert_close(
        [np.asarray(compiled(x))], [nn.functional.conv2d(x.double(), torch.from_numpy(weight).double()).numpy()]
    )
    layer = next(layer for layer in compiled.layers if layer.op == "sparse_conv2d")
    assert layer.kept_weights == np.count_nonzero(weight)


def external(tensor: Any) -> None:
    tensor.values.data_location = tensor.values.EXTERNAL


def huge(tensor: Any) -> None:
    tensor.dims[0] = 1 << 40


def outside(tensor: Any) -> None:
    tensor.indices.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor.indices) + 2000, "i"))


def short(tensor: Any) -> None:
    tensor.indices.CopyFrom(onnx.numpy_helper.from_array(np.arange(3), "i"))


def damaged(tensor: Any) -> None:
    tensor.values.raw_data = tensor.values.raw_data[:-3]


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (external, "expected sparse tensor 'w' in the file, found it in external data"),
        (huge, "expected sparse tensor 'w' below 2 GB, found dimensions [1099511627776, 12, 5, 5]"),
        (outside, "expected indices of sparse tensor 'w' within [8, 12, 5, 5], found others"),
        (short, "expected sparse tensor 'w' with an index for each value, found indices of (3,)"),
        (damaged, "expected sparse tensor 'w' of whole values and indices, found it damaged"),
    ],
)
def test_bad_sparse_tensors(tmp_path: Path, harm: Callable[[Any], None], message: str) -> None:
    tensor = sparse_weight()[1]
    harm(tensor)
    with pytest.raises(PatcError, match=re.escape(message)):
        patc.compile(save(tmp_path / "net.onnx", tensor, False), (torch.randn(1, 12, 10, 10),))


def kept(model: nn.Module, x: torch.Tensor) -> dict[str, int]:
    """Compile a model, compare, and return the weights that each sparse layer keeps; nothing takes the generic road."""
    compiled = patc.compile(model, (x,), threads=1)
    with torch.no_grad():
        assert_close([compiled(x).numpy()], [model(x).numpy()])
    assert "call" not in {layer.op for layer in compiled.layers}, [layer.op for layer in compiled.layers]
    return {layer.name: layer.kept_weights for layer in compiled.layers if layer.op == "sparse_conv2d"}


def test_masks_that_were_not_removed_and_batch_norms() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 5), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 24, 3), nn.BatchNorm2d(24), nn.ReLU(),
        nn.Conv2d(24, 16, 3),
    )  # fmt: skip
    for number in (1, 4):
        model[number].running_mean.normal_()
        model[number].running_var.uniform_(0.5, 2)
    prune.random_unstructured(model[0], "weight", 0.8)
    prune.ln_structured(model[3], "weight", 0.5, n=2, dim=0)
    prune.ln_structured(model[6], "weight", 0.5, n=2, dim=1)
    compiled = patc.compile(model.eval(), (x := torch.randn(1, 3, 16, 16),), threads=1)
    with torch.no_grad():
        assert_close([compiled(x).numpy()], [model(x).numpy()])
    # Filters of zeros, and those that only columns of zeros read, are gone: what is left is dense.
    counts = [layer.kept_weights for layer in compiled.layers if "conv2d" in layer.op]
    left = int((model[3].weight.flatten(1).any(1) & model[6].weight.transpose(0, 1).flatten(1).any(1)).sum())
    assert counts == [int(model[0].weight.count_nonzero()), left * 16 * 9, 16 * left * 9]


@pytest.mark.parametrize("sort", ["espcn", "srvgg"])
def test_prelu_nets_with_patterns_are_fused_layers(sort: str) -> None:
    torch.manual_seed(0)
    if sort == "espcn":
        model = nn.Sequential(
            nn.Conv2d(1, 16, 5, padding=2), nn.PReLU(16), nn.Conv2d(16, 8, 3, padding=1), nn.PReLU(8),
            nn.Conv2d(8, 4, 3, padding=1),
        )  # fmt: skip
        x = torch.randn(1, 1, 20, 24)
    else:
        body = [layer for _ in range(3) for layer in (nn.Conv2d(16, 16, 3, padding=1), nn.PReLU(16))]
        model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.PReLU(16), *body, nn.Conv2d(16, 12, 3, padding=1))
        x = torch.randn(1, 3, 20, 24)
    for layer in model:
        if isinstance(layer, nn.PReLU):
            layer.weight.data.uniform_(-0.5, 0.5)
    report = prune_(model, PatternSpec(connectivity=2, kernels="all"))
    counts = kept(model.eval(), x)
    assert len(counts) == len(report.layers)
