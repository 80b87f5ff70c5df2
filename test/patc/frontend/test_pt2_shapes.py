"""Programs of .pt2 files that leave sizes open: for any batch, for several shapes, and lines for other ones."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import patc
from patc.tools.patc import main


class Net(nn.Module):
    """Sizes that are computed: of windows, of views, and one that is returned."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3, stride=2), nn.Linear(8, 4)

    def forward(self, x: Tensor, y: Tensor) -> Any:
        z = nn.functional.interpolate(self.conv(x), scale_factor=2)
        n, c, h, w = z.shape
        scores = self.head(z.reshape(n, c, -1).mean(-1)) + y[:, :4]
        return scores, z.view(x.shape[0], -1), torch.zeros(n, 5) + scores[:, :1], h * w


NET = Net().eval()


def inputs(batch: int, height: int) -> tuple[Tensor, Tensor]:
    return torch.linspace(-1, 1, batch * 3 * height * 16).reshape(batch, 3, height, 16), torch.ones(batch, 8)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program of 2 to 6 images, and of 10 to 64 rows, an even number."""
    path = tmp_path_factory.mktemp("pt2") / "net.pt2"
    batch, half = torch.export.Dim("batch", max=6), torch.export.Dim("half", min=5, max=32)
    program = torch.export.export(NET, inputs(2, 16), dynamic_shapes=({0: batch, 2: 2 * half}, {0: batch}))
    torch.export.save(program, path)
    return path


def test_sizes_follow_from_the_inputs(path: Path) -> None:
    compiled = patc.compile(path, shapes=[{"x": (1, 3, 20, 16)}, {"x": (3, 3, 32, 16), "y": (3, 8)}], threads=1)
    for given in (inputs(1, 20), inputs(3, 32)):
        with torch.no_grad():
            torch.testing.assert_close(compiled(*given), NET(*given), rtol=1e-4, atol=1e-5)
    assert "x [1, 3, 20, 16], y [1, 8] or x [3, 3, 32, 16], y [3, 8] -> " in repr(compiled)


def test_any_batch_of_a_file(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten()).eval()
    program = torch.export.export(net, (torch.zeros(2, 3, 8, 8),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, tmp_path / "net.pt2")
    words = ["compile", tmp_path / "net.pt2", "--dynamic-batch", "--threads", "1", "--quiet", "-o", tmp_path / "a.patc"]
    assert main([*map(str, words)]) == 0
    compiled = patc.load(tmp_path / "a.patc")
    for count in (1, 3, 9):
        x = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(count))
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), net(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("shapes", "options", "expected"),
    [
        (None, {}, "expected inputs of known shapes, found 'x' (N x 3 x ? x 16), 'y' (N x 8); give them as in --shape x=2x3x16x16"),
        ({"z": (1, 8)}, {}, "expected shapes for inputs of 'x' (N x 3 x ? x 16), 'y' (N x 8); got 'z'"),
        ({"x": (2, 3, 16)}, {}, "expected input 'x' (N x 3 x ? x 16), got 2x3x16"),
        ({"x": (2, 3, 17, 16)}, {}, "expected input 'x' (N x 3 x ? x 16), got 2x3x17x16"),
        ({"x": (2, 4, 16, 16)}, {}, "expected input 'x' (N x 3 x ? x 16), got 2x4x16x16"),
        ({"x": (2, 3, 16, 16), "y": (3, 8)}, {}, "expected input 'y' (N x 8), got 3x8"),
        ({"x": (2, 3, 8, 16)}, {}, "from 5 to 32, as the program was exported for, got 4"),
        ([(2, 3, 16, 16)], {}, "expected 2 example inputs, 'x' (N x 3 x ? x 16), 'y' (N x 8), found 1"),
        (None, {"dynamic_batch": True}, "expected inputs of known shapes, found 'x' (N x 3 x ? x 16); give them as in --shape x=2x3x16x16"),
    ],
)  # fmt: skip
def test_other_shapes(path: Path, shapes: Any, options: Any, expected: str) -> None:
    with pytest.raises(patc.PatcError) as caught:
        patc.compile(path, shapes, threads=1, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and re.sub(r"\bs\d+ x ", "N x ", message).endswith(expected)


CODE = "__import__('os').mkdir('called')"


@pytest.mark.parametrize(
    "text", [CODE, f"Add({CODE}, 1)", "Pow(9, 9999999)", "Symbol('s", "(" * 9000, "FloorDiv(1, 0)"]
)
def test_expressions_are_data(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    (name,) = (name for name in entries if name.endswith("models/model.json"))
    model = json.loads(entries[name])
    model["graph_module"]["graph"]["tensor_values"]["conv2d"]["sizes"][2]["as_expr"]["expr_str"] = text
    with zipfile.ZipFile(tmp_path / "net.pt2", "w") as archive:
        for entry, data in (entries | {name: json.dumps(model).encode()}).items():
            archive.writestr(entry, data)
    with pytest.raises(patc.PatcError, match="conv2d to be a size, found "):
        patc.compile(tmp_path / "net.pt2", {"x": (2, 3, 16, 16)}, threads=1)
    assert not (tmp_path / "called").exists()
