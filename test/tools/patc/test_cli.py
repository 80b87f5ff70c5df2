"""The command `patc`: what it prints and writes, and that every error is one line. See also test/tools/patc."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from command import fail, run
from documents import small_model
from emulated import needs_linker
from torch import nn

import patc
from patc import models, pruning
from patc.diagnostics import PatcError
from patc.targets import host_features
from patc.tools import arguments, console, demo
from patc.tools.images import drawn_input, picture_input
from patc.tools.patc import main

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = (1, 3, 8, 8)


class Two(nn.Module):
    """Two outputs: scores of a batch and an image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 7)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = torch.relu(self.conv(x))
        return {"scores": self.fc(y.mean((2, 3))), "image": y}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an exported model, compiled ones of one and two outputs, an input and a picture."""
    from PIL import Image

    path = tmp_path_factory.mktemp("cli")
    torch.manual_seed(0)
    scorer = nn.Sequential(nn.Conv2d(3, 12, 8), nn.Flatten()).eval()
    x = torch.randn(SHAPE)
    torch.export.save(torch.export.export(scorer, (x,)), path / "scorer.pt2")
    patc.compile(scorer, (torch.cat([x, x]),), threads=1).save(path / "scorer.patc")
    patc.compile(Two().eval(), (x,), threads=1).save(path / "two.patc")
    (path / "two.txt").write_text("cat\ndog\n")
    (path / "two.json").write_text('{"1": "cat", "2": "dog"}')
    np.save(path / "x.npy", torch.cat([x, x]).numpy())
    np.save(path / "double.npy", x.numpy().astype(np.float64))
    Image.fromarray(np.full((20, 30, 3), (255, 0, 0), np.uint8)).save(path / "red.png")
    return path


# -- Help --------------------------------------------------------------------------------------------


def test_help_loads_neither_torch_nor_mlir_nor_numpy() -> None:
    program = """
import contextlib, sys
from patc.tools.patc import main
for words in (["--help"], ["compile", "--help"], ["demo", "--help"], ["bench", "--help"]):
    with contextlib.suppress(SystemExit):
        main(words)
print([name for name in ("torch", "torch_mlir", "numpy", "rich", "PIL") if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout.endswith("[]\n"), result.stderr


def test_without_a_command_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    text = run(capsys)
    assert text.startswith("usage: patc [-h]")
    for command in ("demo", "compile", "run", "report", "prune", "bench"):
        assert f"\n    {command} " in text


def test_prints_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    text = run(capsys, "--version")
    assert text.startswith(f"patc {patc.__version__} (Python {sys.version_info.major}.") and text.count("\n") == 1
    assert f"torch {torch.__version__.split('+')[0]}" in text


def test_knows_the_names_of_all_models() -> None:
    assert tuple(models.MODELS) == arguments.MODEL_NAMES


# -- compile -----------------------------------------------------------------------------------------


def test_compiles_a_named_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "net.patc"
    shape = ("--input-shape", "2,3,32,32")
    text = run(capsys, "compile", "vgg16_cifar", *shape, "--compression", "20", "--threads", "2", "-o", out)
    assert re.search(
        r"net.patc: \d+ layers \(1 with dense weights\), .* of 14.7M weights, .* target host, 2 threads", text
    )
    program = patc.load(out).program
    assert program.inputs[0].shape == (2, 3, 32, 32) and program.threads == 2
    report = run(capsys, "report", out)
    assert "input 'x' of shape [2, 3, 32, 32] float32" in report and "pattern-direct" in report
    assert run(capsys, "run", out).count("\n") == 13


def test_compiles_a_file_and_says_what_stays_dense(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    text = run(capsys, "compile", folder / "scorer.pt2", "-o", tmp_path / "scorer.patc", "--target", "x86-64-v3")
    assert patc.load(tmp_path / "scorer.patc").program.target == "x86-64-v3"
    assert "(1 with dense weights)" in text


def test_prints_remarks_unless_quiet(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = nn.Conv2d(3, 4, 3).eval()
    torch.export.save(torch.export.export(model, (torch.zeros(SHAPE),)), tmp_path / "dense.pt2")
    words = ("compile", tmp_path / "dense.pt2", "-o", tmp_path / "dense.patc")
    emit = ("compile", tmp_path / "dense.pt2", "-o", tmp_path / "dense.mlir", "--emit", "mlir@encode")
    assert "remark: stays dense" in run(capsys, *words)
    assert "remark: stays dense" in run(capsys, *emit)
    assert run(capsys, *words, "--quiet") == "" == run(capsys, *emit, "--quiet")


def test_emits_the_ir_of_a_stage(capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "scorer.mlir"
    run(capsys, "compile", folder / "scorer.pt2", "-o", out, "--emit", "mlir@raise")
    assert '"pattern.conv2d"' in out.read_text() and (tmp_path / "scorer.safetensors").is_file()
    run(capsys, "compile", out, "-o", tmp_path / "scorer.patc")
    x = np.load(folder / "x.npy")[:1]
    wanted = patc.load(folder / "scorer.patc")(np.concatenate([x, x]))[:1]
    np.testing.assert_allclose(patc.load(tmp_path / "scorer.patc")(x), wanted, rtol=1e-5, atol=1e-5)


def test_says_which_formats_go_with_which_targets(capsys: pytest.CaptureFixture[str]) -> None:
    found = fail(capsys, "compile", "resnet18", "-o", "out", "--emit", "spirv")
    assert found == "expected a target of spirv-vulkan, spirv-vulkan:dotprod together with --emit spirv, got 'host'"
    found = fail(capsys, "compile", "resnet18", "-o", "out", "--target", "spirv-vulkan", "--emit", "so")
    known = "host, x86-64-v3, x86-64-v4, aarch64-linux, aarch64-android"
    assert found == f"expected a target of {known} together with --emit so, got 'spirv-vulkan'"


@needs_linker
def test_writes_a_library(capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    words = ("compile", folder / "scorer.pt2", "--target", "aarch64-android", "--cpu", "cortex-a55", "-o", out)
    line = run(capsys, *words).splitlines()[-1]
    assert re.fullmatch(
        rf"{out}/libscorer.so, {out}/scorer.h: 2 layers \(1 with dense weights\), 2.3k of 2.3k weights, [\d.]+ kB; "
        r"target aarch64-android, cortex-a55, 1 thread, workspace [\d.]+ kB, [\d.]+ s",
        line,
    )
    assert sorted(path.name for path in out.iterdir()) == ["libscorer.so", "scorer.h"]
    assert run(capsys, *words, "--weights", "file", "--quiet") == ""
    assert sorted(path.name for path in out.iterdir()) == ["libscorer.so", "scorer.h", "scorer.weights"]


def test_a_library_takes_a_state_dict_and_a_place_for_its_weights(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(models.MODELS, "resnet18_cifar", small_model(models.MODELS["resnet18_cifar"]))
    state = models.build("resnet18_cifar").state_dict()
    torch.save({name: value + 1 for name, value in state.items()}, tmp_path / "seeded.pth")
    common = ("--target", "aarch64-linux", "--emit", "obj", "--quiet", "--weights", "file")
    run(capsys, "compile", "resnet18_cifar", "-o", tmp_path / "a.o", *common)
    first = (tmp_path / "resnet18_cifar.weights").read_bytes()
    run(capsys, "compile", "resnet18_cifar", "-o", tmp_path / "a.o", *common, "--weights", tmp_path / "seeded.pth")
    assert sorted(path.name for path in tmp_path.glob("*[!h]")) == ["a.o", "resnet18_cifar.weights"]
    second = (tmp_path / "resnet18_cifar.weights").read_bytes()
    assert len(first) == len(second) and first != second


def test_aarch64_models_are_saved_and_not_run_here(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scorer.patc"
    text = run(capsys, "compile", folder / "scorer.pt2", "--target", "aarch64-linux", "-o", out)
    assert "target aarch64-linux, 1 thread" in text
    if "neon" not in host_features():
        found = fail(capsys, "run", out)
        assert f"{out}: expected an AArch64 machine, as compiled for target 'aarch64-linux', got " in found


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("fly", "argument COMMAND: invalid choice: 'fly'"),
        ("compile", "the following arguments are required: MODEL, -o/--output; patc compile --help says more"),
        ("compile scorer.pt2 -o x.onnx", "x.onnx: expected a file named .patc, got '.onnx'; --emit says what to write"),
        ("compile scorer.pt2 -o x.html", "x.html: expected a file named .patc, got '.html'; --emit says what to write"),
        ("compile scorer.pt2 -o x.so", "x.so: expected a file named .patc, got '.so'; --emit says what to write"),
        ("compile scorer.pt2 --emit mlir@encode -o x.patc", "x.patc: expected a file named .mlir, got '.patc'"),
        ("compile resnet19 -o x", "expected a .pt2, .onnx, .mlir or .param \\(ncnn\\) file, FILE.py:FUNCTION or MODULE:FUNCTION, or one of resnet18, .*; got 'resnet19'; did you mean 'resnet18'"),
        ("debug scorer.patc", "scorer.patc: expected a .pt2, .onnx, .mlir or .param file, got a compiled one: name the model that it was compiled from"),
        ("compile x.npy -o x", "x.npy: expected a .pt2, .onnx, .mlir or .param file, got one of another kind"),
        ("compile none.pt2 -o x", "none.pt2: expected a .pt2 file, found no such file"),
        ("compile none.mlir -o x", "none.mlir: expected an MLIR file, found none"),
        ("compile none.onnx -o x", "none.onnx: expected an .onnx file, found no such file"),
        ("compile scorer.pt2 -o none/x", "none/x: expected a file in a folder that exists"),
        ("compile scorer.pt2 -o .", r"\.: expected a file to write, got a folder"),
        ("compile scorer.pt2 -o x.npy/x", "x.npy/x: expected a file in a folder that exists"),
        ("compile scorer.pt2 -o x --target x86", "expected a target of host, x86-64-v3, x86-64-v4, aarch64-linux, aarch64-android, spirv-vulkan, spirv-vulkan:dotprod, got 'x86'"),
        ("compile scorer.pt2 -o x --target aarch64-linux --cpu cortex-a75", "expected a CPU of cortex-a53, .*, got 'cortex-a75'; did you mean 'cortex-a7"),
        ("compile scorer.pt2 -o x --target aarch64-linux:a76", "expected a CPU of cortex-a53, .*, got 'a76'"),
        ("compile scorer.pt2 -o x --cpu cortex-a76", "expected a target of x86-64-v3, x86-64-v4, aarch64-linux, aarch64-android together with a CPU, got 'host'"),
        ("compile scorer.pt2 -o x --target aarch64-linux:cortex-a53 --cpu cortex-a76", "together with a CPU, got 'aarch64-linux:cortex-a53'"),
        ("compile scorer.pt2 -o x --emit so --target spirv-vulkan", "expected a target of host, x86-64-v3, x86-64-v4, aarch64-linux, aarch64-android together with --emit so, got 'spirv-vulkan'"),
        ("compile scorer.pt2 -o x --emit asm --target spirv-vulkan", "together with --emit asm, got 'spirv-vulkan'"),
        ("compile scorer.pt2 -o x --emit obj --target aarch64-linux --tune measure", "expected target 'host' together with tune 'measure', got 'aarch64-linux'"),
        ("compile scorer.pt2 -o x --weights file", "expected --emit so or obj together with --weights file, got patc"),
        ("compile scorer.pt2 -o x --weights file --weights embed --target aarch64-linux", r"expected --weights with one place \(embed or file\), got file and embed"),
        ("compile vgg16_cifar -o x --weights a.pth --weights b.pth", "expected --weights with one state dict, got a.pth and b.pth"),
        ("compile scorer.pt2 -o x --weights embed --target aarch64-linux --emit asm", "expected --weights file together with --emit asm, which is text, got embed"),
        ("compile scorer.pt2 -o x.so --target aarch64-linux", "x.so: expected a folder for a library and its header, got the name of a .so file"),
        ("compile scorer.pt2 -o x.npy --target aarch64-linux", "x.npy: expected a folder for a library and its header, got a file"),
        ("compile scorer.pt2 -o x.npy/y --target aarch64-linux", "x.npy/y: expected a folder for a library and its header, got a file"),
        ("compile scorer.pt2 -o scorer.h --target aarch64-linux --emit obj", "scorer.h: expected the name of an object file, whose header"),
        ("compile scorer.pt2 -o none/x.o --target aarch64-linux --emit obj", "none/x.o: expected a file in a folder that exists"),
        ("compile none.pt2 -o x --target aarch64-linux --emit obj", "none.pt2: expected a .pt2 file, found no such file"),
        ("compile scorer.pt2 -o x --threads 0", "expected --threads of 1 or more, got 0"),
        ("compile scorer.pt2 -o x --threads 1025", "expected --threads of at most 1024, got 1025"),
        ("compile scorer.pt2 -o x --tune fast", "expected tune to be one of off, cost, measure, got 'fast'"),
        ("compile scorer.pt2 -o x --tune measure --target x86-64-v3", "expected target 'host' together with tune 'measure', got 'x86-64-v3'"),
        ("compile scorer.pt2 -o x --emit mlir@schedule --tune fast", "expected tune to be one of off, cost, measure, got 'fast'"),
        ("compile scorer.pt2 -o x --dtype f64", "expected dtype to be one of f32, f16, got 'f64'"),
        ("compile scorer.pt2 -o x --dtype f16 --target x86-64-v4", "expected a CPU with fullfp16 or avx512fp16 for dtype f16, got target 'x86-64-v4', which lacks it"),
        ("compile scorer.pt2 -o x --dtype f16 --target aarch64-linux --cpu cortex-a72", "expected a CPU with fullfp16 or avx512fp16 for dtype f16, got cortex-a72, which lacks it: choose one of cortex-a55"),
        ("compile scorer.pt2 -o x --emit mlir@demote --dtype f16 --target x86-64-v4", "expected a CPU with fullfp16 or avx512fp16 for dtype f16"),
        ("compile scorer.pt2 -o x --threads two", "argument --threads: invalid int value: 'two'"),
        ("compile scorer.pt2 -o x --emit exe", "expected --emit to be patc, so, obj, asm, llvm, spirv or mlir@STAGE, got 'exe'"),
        ("compile scorer.pt2 -o x --emit mlir@end", "expected a stage, one of linalg, promote, fold-batch-norm, .*, got 'end'"),
        ("compile scorer.pt2 -o x --weights w.pth", "scorer.pt2: expected the name of a model together with --weights, got a file"),
        ("compile scorer.pt2 -o x --input-shape 1,3,8,8", "the name of a model together with --input-shape, got a file"),
        ("compile scorer.pt2 -o x --compression 8", r"expected a model with a prunable convolution \(3x3, groups=1\), found none among 1 convolutions"),
        ("compile vgg16_cifar -o x --library phase2", "expected --compression or --connectivity together with --library, got neither"),
        ("compile vgg16_cifar -o x --compression 8 --library all", "expected a pattern library out of phase1, .*; found 'all'"),
        ("compile vgg16_cifar -o x --compression 0", "expected compression to be a finite rate of at least 1, found 0.0"),
        ("compile vgg16_cifar -o x --input-shape 3,32,32", "expected --input-shape of four sizes such as 1,3,224,224, got 3,32,32"),
        ("compile vgg16_cifar -o x --input-shape 1,3,0,0", "argument --input-shape: expected sizes such as 1,3,224,224, got '1,3,0,0'"),
        ("compile vgg16_cifar -o x --weights none.pth", "none.pth: expected a state dict file, found no such file"),
        ("run none.patc", "none.patc: expected a compiled model, found no such file"),
        ("run red.png", "red.png: expected a compiled model, found damaged data or another format"),
        ("run scorer.patc --tune cost", "scorer.patc: expected a model to compile together with --tune, got a compiled one"),
        ("run scorer.patc --dtype f16", "scorer.patc: expected a model to compile together with --dtype, got a compiled one"),
        ("run scorer.patc --threads 2", "scorer.patc: expected a model to compile together with --threads, got a compiled one"),
        ("run scorer.patc --target x86-64-v3", "expected a model to compile together with --target, got a compiled one"),
        ("run scorer.patc --input none.npy", "none.npy: expected a .npy file, found no such file"),
        ("run scorer.patc --input red.png", "red.png: expected a .npy file of numbers, found damaged data or another format"),
        ("run scorer.patc --input x.npy x.npy", r"expected 1 input \('input' of shape \[2, 3, 8, 8\] float32\), got 2"),
        ("run scorer.patc --input double.npy", r"expected input .*, got shape \[1, 3, 8, 8\] float64"),
        ("run scorer.patc --input x.npy --image red.png", "argument --image: not allowed with argument --input"),
        ("run scorer.patc --image none.png", "none.png: expected a picture, found no such file"),
        ("run scorer.patc --image x.npy", "x.npy: expected a picture, found another format or damaged data"),
        ("run scorer.patc --image red.png --labels red.png", "red.png: expected labels as text in UTF-8, found something else"),
        ("run scorer.patc --image red.png --labels none.txt", "none.txt: expected a file of labels, found no such file"),
        ("run two.patc --labels two.txt", "two.txt: expected 7 labels, one for each score, found 2"),
        ("run two.patc --labels two.json", r"two.json: expected labels 0 to 1 in the JSON object, found other keys"),
        ("accuracy scorer.patc none", "none: expected a folder with a folder of pictures for each class, found none"),
        ("accuracy scorer.patc red.png", "red.png: expected a folder with a folder of pictures for each class, found a file"),
        ("run scorer.patc --output y.txt", r"y.txt: expected a file named .npy or .npz, got '.txt'"),
        ("run two.patc --output y.npy", "y.npy: expected a .npz file for the 2 outputs of this model"),
        ("report none.patc", "none.patc: expected a compiled model, found no such file"),
        ("prune vgg16_cifar", "expected --compression, --connectivity or --bits, got none"),
        ("prune vgg16_cifar --compression 8 --connectivity 2", "argument --connectivity: not allowed with argument --compression"),
        ("prune mobilenet_v2 --compression 8", "expected a compression from 1.000 to 1.000, which is what this model reaches; found 8"),
        ("prune vgg16_cifar --compression 8 -o x.npz", r"x.npz: expected a file named .safetensors or .pth, got '.npz'"),
        ("prune scorer.pt2 --compression 8", r"expected a model with a prunable convolution \(3x3, groups=1\), found none among 1 convolutions"),
        ("demo --threads 0", "expected --threads of 1 or more, got 0"),
        ("demo --compression 0.5", "expected compression to be a finite rate of at least 1, found 0.5"),
        ("demo --image x.npy", "x.npy: expected a picture"),
    ],
)  # fmt: skip
def test_errors_are_one_line(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch, words: str, message: str
) -> None:
    monkeypatch.chdir(folder)
    before = sorted(os.listdir())
    assert re.search(message, fail(capsys, *words.split()))
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize("out", ["x.o --emit obj", "."])
def test_the_names_beside_a_library_are_checked_before(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_net.h").mkdir()
    words = f"compile my-net.pt2 --target aarch64-linux -o {out}".split()
    assert fail(capsys, *words).endswith("my_net.h: expected a file to write, got a folder")


class Spectrum(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fft.fft(x).real


def test_an_unsupported_operation_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    program = torch.export.export(Spectrum().eval(), (torch.zeros(SHAPE),))
    torch.export.save(program, tmp_path / "spectrum.pt2")
    found = fail(capsys, "compile", tmp_path / "spectrum.pt2", "-o", tmp_path / "spectrum.patc")
    assert "model has operations patc cannot compile: aten.fft_fft.default (complex64 result) x1" in found
    assert not (tmp_path / "spectrum.patc").exists()


def test_a_folder_that_is_read_only_is_one_line(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    found = fail(capsys, "compile", folder / "scorer.pt2", "-o", tmp_path / "x.patc")
    assert found.endswith("x.patc: expected a file in a folder that can be written to")
    found = fail(capsys, "compile", folder / "scorer.pt2", "-o", tmp_path / "x", "--target", "aarch64-linux")
    assert found.endswith("x: expected a folder that can be written to")


def test_an_interrupted_command_is_silent(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("patc.loading.load", interrupt)
    assert main(["run", "net.patc"]) == 130
    assert capsys.readouterr().err == ""


def test_a_closed_pipe_is_silent(folder: Path) -> None:
    command = f"'{sys.executable}' -m patc.tools.patc report '{folder / 'two.patc'}' | head -n 1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert result.stdout.startswith("input 'x'") and result.stderr == ""


# -- Where outputs go --------------------------------------------------------------------------------


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A model of one convolution."""
    path = tmp_path / "net.mlir"
    path.write_text("""\
func.func @main(%x: tensor<1x3x8x8xf32>) -> tensor<1x3x8x8xf32> {
  %w = arith.constant dense<0.5> : tensor<3x3x1x1xf32>
  %e = tensor.empty() : tensor<1x3x8x8xf32>
  %z = arith.constant 0.0 : f32
  %i = linalg.fill ins(%z : f32) outs(%e : tensor<1x3x8x8xf32>) -> tensor<1x3x8x8xf32>
  %y = linalg.conv_2d_nchw_fchw ins(%x, %w : tensor<1x3x8x8xf32>, tensor<3x3x1x1xf32>)
    outs(%i : tensor<1x3x8x8xf32>) -> tensor<1x3x8x8xf32>
  return %y : tensor<1x3x8x8xf32>
}
""")
    return path


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "link"])
def test_standard_output_gets_nothing_but_the_data(
    capfdbinary: pytest.CaptureFixture[bytes], text: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(text.parent)
    Path("link").symlink_to("/dev/stdout")
    assert main(["compile", "net.mlir", "-o", name]) == 0
    compiled, messages = capfdbinary.readouterr()
    Path("net.patc").write_bytes(compiled)
    assert b"2 layers" in messages
    assert main(["run", "net.patc", "--output", name]) == 0
    output, messages = capfdbinary.readouterr()
    assert np.load(io.BytesIO(output)).shape == (1, 3, 8, 8) and b"output [1, 3, 8, 8] float32" in messages
    assert main(["compile", "net.mlir", "-o", name, "--emit", "mlir@plan-memory"]) == 0
    module, messages = capfdbinary.readouterr()
    assert module.startswith(b"module") and b"remark: 1 parameter was not written; -o FILE writes it" in messages
    assert sorted(os.listdir()) == ["link", "net.mlir", "net.patc"] and Path("link").is_symlink()


def test_a_text_of_empty_tensors_is_refused(capsys: pytest.CaptureFixture[str], text: Path) -> None:
    text.write_text("func.func @main(%x: tensor<0x3xf32>) -> tensor<0x3xf32> { return %x : tensor<0x3xf32> }")
    found = fail(capsys, "compile", text, "-o", text.with_name("x.patc"))
    assert found == "expected tensors with elements, got 'arg0' of shape [0, 3] float32"


def test_links_and_pipes_stay_what_they_are(capsys: pytest.CaptureFixture[str], text: Path) -> None:
    link, target, pipe = (text.with_name(name) for name in ("link.mlir", "target.mlir", "pipe"))
    link.symlink_to(target)
    target.write_text("old")
    os.mkfifo(pipe)
    run(capsys, "compile", text, "-o", link, "--emit", "mlir@linalg")
    assert link.is_symlink() and target.read_text().startswith("module")
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_text()))
    reader.start()
    run(capsys, "compile", text, "-o", pipe, "--emit", "mlir@linalg")
    reader.join()
    assert found == [target.read_text()] and pipe.is_fifo()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-o", "x" * 300], "x: cannot write the file: File name too long"),
        (["-o", "x/" * 2500], "cannot write the file: File name too long|expected a file to write, got a folder"),
        (["-o", "a\0b"], r"a\\0b: expected a name without null characters"),
        (["-o", ""], "expected the name of a file or folder, got an empty one"),
        (["-o", "net.mlir/"], "net.mlir/: expected a file to write, got a folder"),
        (["-o", "loop"], "loop: cannot write the file: Too many levels of symbolic links"),
        (["-o", "blocked.mlir", "--emit", "mlir@raise"], "blocked.safetensors: expected a file to write, got a folder"),
        (["-o", "a.o", "--emit", "obj", "--target", "aarch64-linux"], "net.h: expected a file to write, got a folder"),
        (["-o", "/dev/null", "--emit", "obj", "--target", "aarch64-linux"], "/dev/null: expected a file that a header can lie beside, got a device or pipe"),
        (["-o", ".", "--target", "aarch64-linux"], "net.h: expected a file to write, got a folder"),
        (["-o", "x" * 300, "--target", "aarch64-linux"], "cannot make the folder: File name too long"),
        (["-o", "x" * 300, "--target", "spirv-vulkan", "--emit", "spirv"], "cannot make the folder: File name too long"),
    ],
)  # fmt: skip
def test_outputs_are_checked_before_anything_takes_time(
    capsys: pytest.CaptureFixture[str], text: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(text.parent)
    Path("loop").symlink_to("loop")
    Path("net.h").mkdir()
    Path("blocked.safetensors").mkdir()
    monkeypatch.setattr("patc.tools.arguments.load_model", None)
    assert re.search(message, fail(capsys, "compile", "net.mlir", *words))
    assert sorted(os.listdir()) == ["blocked.safetensors", "loop", "net.h", "net.mlir"]


# -- run ---------------------------------------------------------------------------------------------


def test_prints_the_five_largest_scores_of_each_image(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    lines = run(capsys, "run", folder / "scorer.patc", "--input", folder / "x.npy").splitlines()
    scores = patc.load(folder / "scorer.patc")(np.load(folder / "x.npy"))
    assert lines[0] == "output, image 0: largest of 12" and lines[6] == "output, image 1: largest of 12"
    assert [int(line.split()[0]) for line in lines[1:6]] == scores[0].argsort()[::-1][:5].tolist()
    chance = np.exp(scores[0] - scores[0].max())
    assert lines[1].split()[1:] == [f"{scores[0].max():.6f}", f"{chance.max() / chance.sum():.2%}"]


def test_says_that_an_input_is_random(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    text = run(capsys, "run", folder / "two.patc")
    assert text.startswith("no --input: running on random numbers (seed 0)\noutput.scores: largest of 7")
    assert "output.image [1, 4, 8, 8]: from 0 to " in text
    assert run(capsys, "run", folder / "two.patc") == text


def test_saves_outputs(capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path) -> None:
    text = run(capsys, "run", folder / "scorer.patc", "--input", folder / "x.npy", "--output", tmp_path / "y.npy")
    assert text == f"{tmp_path / 'y.npy'}: output [2, 12] float32\n"
    wanted = patc.load(folder / "scorer.patc")(np.load(folder / "x.npy"))
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), wanted)
    run(capsys, "run", folder / "two.patc", "--output", tmp_path / "y.npz")
    with np.load(tmp_path / "y.npz") as saved:
        assert {name: saved[name].shape for name in saved} == {"output.scores": (1, 7), "output.image": (1, 4, 8, 8)}


def test_compiles_and_runs_a_model_file(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert "output: largest of 12" in run(capsys, "run", folder / "scorer.pt2", "--threads", "1")


def test_profiles_layers(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    text = run(capsys, "run", folder / "scorer.patc", "--input", folder / "x.npy", "--profile")
    assert re.search(r"conv 8x8 +dense-direct .* [\d.]+ [num]s +\d+%", text)
    assert re.search(r"^layers: [\d.]+ [num]s$", text, re.MULTILINE)


def test_runs_on_a_picture(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    text = run(capsys, "run", folder / "scorer.patc", "--image", folder / "red.png")
    assert text.startswith(f"output, {folder / 'red.png'}: largest of 12\n")


def test_runs_on_several_pictures_and_names_classes(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    """Three pictures for a model of batches of two: from a folder, and one more."""
    from PIL import Image

    (tmp_path / "photos").mkdir()
    for name, colour in (("b.png", (0, 255, 0)), ("a.jpg", (0, 0, 255)), ("notes.txt", None)):
        if colour is None:
            (tmp_path / "photos" / name).write_text("no picture")
        else:
            Image.fromarray(np.full((20, 30, 3), colour, np.uint8)).save(tmp_path / "photos" / name)
    (tmp_path / "labels.txt").write_text("\n".join(f"class {i}" for i in range(12)) + "\n\n")
    images = (tmp_path / "photos", folder / "red.png")
    words = ("run", folder / "scorer.patc", "--image", *images)
    lines = run(capsys, *words, "--labels", tmp_path / "labels.txt").splitlines()
    files = [tmp_path / "photos" / "a.jpg", tmp_path / "photos" / "b.png", folder / "red.png"]
    assert lines[::6] == [f"output, {file}: largest of 12" for file in files]
    compiled = patc.load(folder / "scorer.patc")
    for file, start in zip(files, range(1, 18, 6), strict=True):
        best = compiled(picture_input(str(file), (2, 3, 8, 8)))[0].argsort()[::-1][:5]
        assert [line.split("  ")[-1] for line in lines[start : start + 5]] == [f"class {i}" for i in best]
    run(capsys, *words, "--output", tmp_path / "y.npy")
    assert np.load(tmp_path / "y.npy").shape == (3, 12)


def test_pictures_are_normalized(folder: Path) -> None:
    x = picture_input(str(folder / "red.png"), (2, 3, 8, 8))
    assert x.shape == (2, 3, 8, 8) and x.dtype == np.float32
    np.testing.assert_allclose(x[1, :, 0, 0], [(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225], rtol=1e-5)
    assert drawn_input((1, 3, 20, 30)).shape == (1, 3, 20, 30)
    with pytest.raises(PatcError, match=r"expected a network of colour images, N x 3 x H x W, got .*\[1, 1, 8, 8\]"):
        picture_input(str(folder / "red.png"), (1, 1, 8, 8))


# -- prune -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_prunes_and_saves(capsys: pytest.CaptureFixture[str], tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"pruned{suffix}"
    text = run(capsys, "prune", "mobilenet_v2", "--pointwise", "groups", "--compression", "4", "-o", out)
    assert re.search(r"^features.18.0\b.*\bpointwise-groups\b.* 409600 ", text, re.MULTILINE)
    assert re.search(r"^all\b.*4\.00x *$", text, re.MULTILINE)
    saved, source = text.splitlines()[-2:]
    assert saved.startswith(f"{out}: ")
    assert source == "the weights of mobilenet_v2 are random ones: --weights FILE takes trained ones"
    pruned = models.mobilenet_v2()
    pruning.prune_(pruned, pruning.PatternSpec.for_compression(4.0, pointwise="groups"))
    for name, tensor in models.mobilenet_v2(out).state_dict().items():
        assert torch.equal(tensor, pruned.state_dict()[name])


def test_says_that_nothing_is_saved(capsys: pytest.CaptureFixture[str]) -> None:
    pointwise = ("--pointwise", "groups", "--filter-group", "2", "--library", "elog")
    text = run(capsys, "prune", "mobilenet_v2", "--connectivity", "2", *pointwise)
    assert "\nnothing saved: -o FILE saves the weights\n" in text
    assert "connectivity 2.000" in text and "  58  .x./xxx/..." in text


# -- demo --------------------------------------------------------------------------------------------


def test_demo(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On a small network: the real one takes half a minute."""
    torch.save(models.vgg16_cifar(seed=3).state_dict(), tmp_path / "weights.pth")
    monkeypatch.setattr(demo, "MODEL", "vgg16_cifar")
    monkeypatch.setattr(demo, "REPETITIONS", 4)
    monkeypatch.chdir(tmp_path)
    text = run(capsys, "demo", "--threads", "1", "--weights", "weights.pth")
    assert "pruned to 8.00x" in text
    assert re.search(r"right: \d.*e-\d+ of the largest output off PyTorch", text)
    assert re.search(r"features.3 +conv 3x3 .* [\d.]+ GFLOP/s +\d+%", text)
    assert re.search(r"^patc, pruned +[\d.]+ ms", text, re.MULTILINE)
    assert re.search(r"^[\d.]+x as fast with 1 thread each", text, re.MULTILINE)
    assert "PyTorch, dense   finds class" in text
    assert max(map(len, text.splitlines())) <= 100


def test_numbers_are_short() -> None:
    assert [console.shorten(number) for number in (0, 7, 999, 4076, 11.7e6, 2e9)] == [
        "0",
        "7",
        "999",
        "4.08k",
        "11.7M",
        "2G",
    ]
    assert [console.describe_bytes(size) for size in (12, 1500, 503_100_000)] == ["12 B", "1.5 kB", "503 MB"]
    assert [console.plural(number, "thread") for number in (1, 2)] == ["1 thread", "2 threads"]


def test_progress_is_for_terminals(capsys: pytest.CaptureFixture[str]) -> None:
    for quiet in (False, True):
        with console.compilation_progress(quiet) as report:
            report("codegen", 1, 2)
    assert capsys.readouterr().err == ""


def test_what_is_said_of_many_layers_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    from patc.diagnostics import Diagnostic
    from patc.tools.compile import print_diagnostics

    many = [Diagnostic("remark", "stays dense", f"layer{number}") for number in range(5)]
    print_diagnostics([*many, Diagnostic("remark", "other", "layer0"), Diagnostic("remark", "other", "layer1")])
    assert capsys.readouterr().out.splitlines() == [
        "layer0: remark: stays dense (and of 4 more layers)",
        "layer0: remark: other",
        "layer1: remark: other",
    ]


def test_pruning_an_onnx_file_says_what_to_do_instead(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["prune", "net.onnx", "--compression", "4", "-o", "x.safetensors"]) == 1
    assert "FILE.py:FUNCTION, got a .onnx file; prune the module and export it again" in capfd.readouterr().err
