"""`patc quantize`: samples from folders, files and functions; errors in one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from gpu import needs_device

from patc.tools.patc import main

NET = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 5))
    return net, torch.zeros(1, 3, 8, 8)

def samples():
    return [torch.randn(1, 3, 8, 8) for _ in range(3)]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from PIL import Image

    home = tmp_path_factory.mktemp("quantize")
    (home / "net.py").write_text(NET)
    (home / "pictures").mkdir()
    generator = np.random.default_rng(0)
    for number in range(2):
        picture = generator.integers(0, 255, (12, 12, 3)).astype(np.uint8)
        Image.fromarray(picture).save(home / "pictures" / f"{number}.png")
    np.savez(home / "samples.npz", x=generator.normal(size=(4, 3, 8, 8)).astype(np.float32))
    np.save(home / "wrong.npy", np.zeros((4, 3, 9, 8), np.float32))
    (home / "empty").mkdir()
    return home


def quantize(folder: Path, data: str, *options: str) -> list[str]:
    model, output = str(folder / "net.py") + ":build", str(folder / "net.patc")
    return ["quantize", model, "--calibrate", data, "-o", output, "--threads", "1", *options]


@pytest.mark.parametrize("data", ["pictures", "samples.npz", "net.py:samples"])
def test_samples(folder: Path, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    output = folder / "net.patc"
    output.unlink(missing_ok=True)
    assert main(quantize(folder, str(folder / data), "--limit", "2")) == 0
    assert "net.patc: 3 of 3 layers with weights on integers" in capsys.readouterr().out
    assert main(["run", str(output)]) == 0


@needs_device
def test_gpus(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = quantize(folder, str(folder / "samples.npz"), "--target", "spirv-vulkan")
    assert main(command) == 0
    assert "net.patc: 3 of 3 layers with weights on integers" in capsys.readouterr().out
    output = str(folder / "net.patc")
    assert main(["run", output]) == 0 and main(["report", output]) == 0
    assert "dot-direct" in capsys.readouterr().out


def test_modules_for_vulkan(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, data, out = f"{folder / 'net.py'}:build", str(folder / "samples.npz"), str(folder / "modules")
    command = ["quantize", model, "--calibrate", data, "-o", out, "--emit", "spirv"]
    assert main(command) == 1
    assert "expected" in capsys.readouterr().err
    assert main([*command, "--target", "spirv-vulkan:dotprod"]) == 0
    manifest = json.loads((folder / "modules" / "manifest.json").read_text())
    assert manifest["features"] == ["shaderIntegerDotProduct"]
    assert any("DotProduct" in kernel["capabilities"] for kernel in manifest["kernels"])


def test_weights_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = folder / "weights.patc"
    command = ["quantize", f"{folder / 'net.py'}:build", "--weights-only", "8", "-o", str(output), "--threads", "1"]
    assert main(command) == 0
    found = capsys.readouterr().out
    assert "weights.patc: 1 of 3 layers with weights that are integers in memory" in found
    assert "its weights take a byte each, with a signal-to-noise of" in found
    assert main(["run", str(output)]) == 0


@pytest.mark.parametrize("how", [["--weights-only", "8"], ["--calibrate", "samples.npz"]])
def test_a_library(folder: Path, how: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ziglang", reason="needs a linker")
    option, value = how
    value = str(folder / value) if option == "--calibrate" else value
    output = folder / f"library{option}"
    command = [
        "quantize",
        f"{folder / 'net.py'}:build",
        option,
        value,
        "-o",
        str(output),
        "--target",
        "aarch64-android",
    ]
    assert main([*command, "--emit", "so"]) == 0
    assert "of 3 layers with weights" in capsys.readouterr().out
    assert {path.suffix for path in output.iterdir()} == {".so", ".h"}
    assert main([*command, "--emit", "obj"]) == 1
    assert "expected --emit to be patc, so or spirv, got 'obj'" in capsys.readouterr().err


def test_samples_or_weights_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["quantize", f"{folder / 'net.py'}:build", "-o", str(folder / "net.patc")]
    assert main(command) == 1
    assert "expected --calibrate or --weights-only, got neither" in capsys.readouterr().err
    assert main([*command, "--calibrate", str(folder / "samples.npz"), "--weights-only", "8"]) == 1
    assert "expected --calibrate or --weights-only, got both" in capsys.readouterr().err
    assert main([*command, "--weights-only", "3"]) == 1
    assert "expected weights alone of 8 or 1 bits, got 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ("none", [], "expected a folder of pictures, an .npy or .npz file, or FILE.py:function, found none"),
        ("empty", [], "in the folder, found none"),
        ("wrong.npy", [], "expected samples of input"),
        ("net.py:sample", [], "expected a function 'sample', found none; did you mean 'samples'?"),
        ("samples.npz", ["--limit", "0"], "expected --limit of 1 or more, got 0"),
        ("samples.npz", ["--ranges", "max"], "expected ranges to be one of histogram, minmax, got 'max'"),
    ],
)
def test_errors(folder: Path, data: str, options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(quantize(folder, str(folder / data), *options)) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and message in lines[0]
