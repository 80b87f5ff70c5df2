"""Well-known nets as the files of torch's exporters, compiled by the command: right, against PyTorch in float64.

PATC_LARGE_TESTS=1 adds all nets, both exporters and more opsets.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import assert_close, torch_results
from large import needs_large
from nets import NETS
from torch.utils._pytree import tree_leaves

import patc
from patc.tools.patc import main

QUICK = [("espcn", 11), ("edsr", 13), ("vit_tiny", 17), ("quartznet", "pt2"), ("espcn", "dynamo")]
OTHERS = [(name, road) for name in NETS for road in (11, 13, 17, 20, "dynamo", "pt2")]


def export(model: torch.nn.Module, x: torch.Tensor, road: int | str, folder: Path) -> Path:
    """Write a file of a model.

    Args:
        road: an opset for the older exporter to ONNX, "dynamo" for the newer one, or "pt2".
    """
    path = folder / ("net.pt2" if road == "pt2" else "net.onnx")
    if road == "pt2":
        torch.export.save(torch.export.export(model, (x,)), path)
    elif road == "dynamo":
        pytest.importorskip("onnxscript", reason="the newer exporter needs onnxscript: pip install 'patc[bench]'")
        torch.onnx.export(model, (x,), path, dynamo=True, verbose=False)
    else:
        torch.onnx.export(model, (x,), path, dynamo=False, opset_version=road)
    return path


@pytest.mark.usefixtures("one_thread")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "road"), [*QUICK, *(pytest.param(*case, marks=needs_large) for case in OTHERS if case not in QUICK)]
)
def test_from_a_shell(name: str, road: int | str, tmp_path: Path) -> None:
    model, x = NETS[name].build(is_small=True)
    try:
        path = export(model, x, road, tmp_path)
    except torch.onnx.errors.OnnxExporterError as error:
        pytest.skip(f"torch does not export it: {error}")
    assert main(["compile", str(path), "--threads", "1", "--quiet", "-o", str(tmp_path / "net.patc")]) == 0
    found = [leaf.numpy() for leaf in tree_leaves(patc.load(tmp_path / "net.patc")(x))]
    assert_close(found, torch_results(model, [x]), 1e-4)
