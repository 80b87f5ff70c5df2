"""Token ids, masks and images as bytes, from Python, from files, from the shell and in C; and any batch of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from command import fail, run
from emulated import needs_arm
from gpu import needs_device
from torch import Tensor, nn

import patc
from patc.bench.emulator import EmulatedProgram
from patc.codegen import c_interface
from patc.library import compile_library
from patc.tools.images import picture_input

pytestmark = pytest.mark.usefixtures("one_thread")
DEVIATIONS = (0.229, 0.224, 0.225)


class Mixed(nn.Module):
    """Takes words, which of them count, and an image whose colours are last; normalizes the image itself."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.words, self.conv = nn.Embedding(10, 8), nn.Conv2d(3, 8, 3, padding=1)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor(DEVIATIONS).reshape(1, 3, 1, 1))

    def forward(self, ids: Tensor, mask: Tensor, image: Tensor) -> dict[str, Tensor]:
        x = (image.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.deviation
        pixels = torch.relu(self.conv(x)).mean((2, 3))
        scores = pixels + (self.words(ids) * mask[..., None]).sum(1)
        return {"scores": scores, "best": scores.argmax(1), "is_high": scores > 0, "next": ids + 1}


NET = Mixed().eval()


def make_inputs(batch: int = 1, ids: torch.dtype = torch.int64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(batch)
    words = torch.randint(0, 10, (batch, 5), generator=generator).to(ids)
    mask = torch.rand((batch, 5), generator=generator) > 0.5
    return words, mask, torch.randint(0, 256, (batch, 12, 12, 3), generator=generator).to(torch.uint8)


def require_right(found: dict[str, Tensor], inputs: tuple[Tensor, ...]) -> None:
    with torch.no_grad():
        torch.testing.assert_close(found, NET(*inputs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("ids", [torch.int64, torch.int32])
def test_calls(ids: torch.dtype) -> None:
    inputs = make_inputs(2, ids)
    compiled = patc.compile(NET, inputs)
    require_right(compiled(*inputs), inputs)
    # What normalizes the image is computed with its cast and its permutation, before the one convolution.
    first, *others = [layer for layer in compiled.layers if layer.op != "relayout"]
    assert first.explanation is not None and "aten.permute.default" in first.explanation.notes[0]
    assert all(f"aten.{name}" in first.explanation.notes[0] for name in ("to.dtype", "div.Tensor", "sub.Tensor"))
    assert [layer.op for layer in others].count("conv2d") == 1


@needs_device
def test_calls_on_vulkan() -> None:
    inputs = make_inputs()
    require_right(patc.compile(NET, inputs, target="spirv-vulkan")(*inputs), inputs)


@needs_arm
def test_aarch64() -> None:
    inputs = make_inputs()
    program = patc.compile(NET, inputs, target="aarch64-linux").program
    found = EmulatedProgram(program)(*(value.numpy() for value in inputs))
    require_right(
        dict(zip(("scores", "best", "is_high", "next"), (torch.tensor(array) for array in found), strict=True)), inputs
    )


def test_headers_have_the_types_of_c() -> None:
    header = c_interface.header(compile_library(NET, make_inputs(), name="net").interface)
    inputs = "const int64_t *input0, const uint8_t *input1, const uint8_t *input2"
    outputs = "float *output0, int64_t *output1, uint8_t *output2, int64_t *output3"
    assert f"int net_run({inputs}, {outputs}, void *workspace);" in header


def test_the_shell_takes_arrays_by_name(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    names, net = ("ids", "mask", "image"), tmp_path / "net.patc"
    patc.compile(NET, make_inputs(), dynamic_batch=True).save(net)
    assert "input 'image' of shape [batch, 12, 12, 3] uint8" in run(capsys, "report", net)
    inputs = make_inputs(3)
    np.savez(tmp_path / "x.npz", **{name: value.numpy() for name, value in zip(names, inputs, strict=True)})
    run(capsys, "run", net, "--input", tmp_path / "x.npz", "--output", tmp_path / "y.npz")
    with np.load(tmp_path / "y.npz") as saved:
        require_right({name.removeprefix("output."): torch.from_numpy(saved[name]) for name in saved}, inputs)
    np.savez(tmp_path / "wrong.npz", ids=inputs[0].numpy(), other=inputs[1].numpy())
    assert "got 0 by place and ids, other by name" in fail(capsys, "run", net, "--input", tmp_path / "wrong.npz")
    (tmp_path / "torn.npz").write_bytes((tmp_path / "x.npz").read_bytes()[:200])
    assert "expected a .npz file of arrays" in fail(capsys, "run", net, "--input", tmp_path / "torn.npz")
    assert "together with --dynamic-batch, got a compiled one" in fail(capsys, "run", net, "--dynamic-batch")


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (1, 8, 8, 3)])
def test_pictures_as_bytes(shape: tuple[int, ...], tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(np.full((20, 30, 3), (255, 0, 64), np.uint8)).save(tmp_path / "plain.png")
    x = picture_input(str(tmp_path / "plain.png"), shape, as_bytes=True)
    assert x.shape == shape and x.dtype == np.uint8
    first = x[0, 0, 0] if shape[3] == 3 else x[0, :, 0, 0]
    assert first.tolist() == [255, 0, 64]


def test_the_shell_compiles_for_any_batch(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 8), nn.Flatten()).eval()
    torch.export.save(torch.export.export(net, (torch.zeros(1, 3, 8, 8),)), tmp_path / "net.pt2")
    run(capsys, "compile", tmp_path / "net.pt2", "-o", tmp_path / "net.patc", "--dynamic-batch")
    x = torch.linspace(-1, 1, 576).reshape(3, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(patc.load(tmp_path / "net.patc")(x), net(x), rtol=1e-4, atol=1e-5)
    words = ("compile", tmp_path / "net.pt2", "-o", tmp_path / "net.mlir", "--emit", "mlir@raise", "--dynamic-batch")
    assert "together with --dynamic-batch, got mlir@raise" in fail(capsys, *words)
