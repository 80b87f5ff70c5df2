"""One artefact for any batch size: blocks of images, files, libraries, and models whose batch cannot be taken apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gpu import needs_device
from torch import Tensor, nn

import patc
from patc.bench.emulator import Emulator
from patc.codegen import c_interface
from patc.frontend.shapes import BLOCK
from patc.library import compile_library
from patc.runtime.description import describe, parse
from patc.runtime.inputs import ADVICE
from patc.tools.patc import main


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> dict[str, Any]:
        y = torch.relu(self.norm(self.conv(x)))
        return {"scores": self.head(y.mean((2, 3))), "features": y, "none": None}


class Function(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


NET = Net().eval()
SIZES = (1, 2, 3, 4, 7)


def images(count: int) -> Tensor:
    return torch.randn((count, 3, 8, 8), generator=torch.Generator().manual_seed(count))


def require_right(compiled: patc.CompiledModel) -> None:
    for count in SIZES:
        with torch.no_grad():
            torch.testing.assert_close(compiled(images(count)), NET(images(count)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("block", [1, 3])
def test_any_batch(block: int, threads: int, tmp_path: Path) -> None:
    compiled = patc.compile(NET, (images(block),), threads=threads, dynamic_batch=True)
    require_right(compiled)
    assert "x [batch, 3, 8, 8] -> " in repr(compiled)
    compiled.save(tmp_path / "net.patc")
    require_right(patc.load(tmp_path / "net.patc"))
    assert [entry.block for entry in compiled.program.entries] == ([1, BLOCK] if block == 1 else [3, 1])
    several, one = sorted(compiled.program.entries, key=lambda entry: -entry.block)
    assert (several.counts_images, one.counts_images) == (True, False)
    for count, entry in ((BLOCK, several), (2, several), (1, one)):
        assert [item.layer for item in compiled.profile(images(count), repetitions=1)] == list(entry.layers)


@needs_device
@pytest.mark.parametrize("block", [1, 3])
def test_any_batch_on_vulkan(block: int) -> None:
    require_right(patc.compile(NET, (images(block),), target="spirv-vulkan", dynamic_batch=True))


def test_several_inputs_of_other_types() -> None:
    net = Function(lambda ids, mask: (torch.nn.functional.embedding(ids, TABLE) * mask[..., None], ids + 1)).eval()
    ids, mask = torch.arange(10).reshape(2, 5), torch.arange(10).reshape(2, 5) % 3 > 0
    compiled = patc.compile(net, (ids, mask), threads=1, dynamic_batch=True)
    ids, mask = ids.repeat(3, 1)[:5].flip(0), mask.repeat(3, 1)[:5]
    torch.testing.assert_close(compiled(ids, mask), net(ids, mask))
    with pytest.raises(patc.PatcError, match=r"expected input .* of shape \[5, 5\] bool, got shape \[4, 5\] bool"):
        compiled(ids, mask[:4])


TABLE = torch.linspace(-1, 1, 40).reshape(10, 4)


def test_other_sizes_are_fixed() -> None:
    compiled = patc.compile(NET, (images(1),), threads=1, dynamic_batch=True)
    for wrong in (images(1)[:0], images(1)[:, :, 1:], images(1)[0]):
        with pytest.raises(patc.PatcError) as caught:
            compiled(wrong)
        got = f"got shape {list(wrong.shape)}: the batch alone is free, from 1 on; {ADVICE}"
        assert str(caught.value) == f"expected input 'x' of shape [batch, 3, 8, 8] float32, {got}"
    with pytest.raises(patc.PatcError, match="; compile with dynamic_batch=True for any batch size"):
        patc.compile(NET, (images(1),), threads=1)(images(2))


def test_programs_exported_with_a_dynamic_batch() -> None:
    shapes = ({0: torch.export.Dim("batch", min=1, max=64)},)
    program = torch.export.export(NET, (images(2),), dynamic_shapes=shapes)
    require_right(patc.compile(program, threads=1, dynamic_batch=True))


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (
            lambda x: x - x.mean(0),
            "expected images that are computed alone for dynamic_batch, found that output 0 mixes",
        ),
        (lambda x: x / x.abs().max(), "output 0 mixes them"),
        (lambda x: x + x[:1], "output 0 mixes them"),
        (lambda x: x.flip(0), "output 0 mixes them"),
        (lambda x: x.sum(), "expected output 0 with the batch as first dimension for dynamic_batch, found shape []"),
        (lambda x: x.transpose(0, 1), "found shape [3, 1, 8, 8] for one image and [3, 2, 8, 8] for two"),
        (lambda x: (x * 2, x.shape[0]), "expected output 1 of any batch size for dynamic_batch, found 2"),
        (lambda x: x.view(2, 3, 64), "expected a model of any batch size for dynamic_batch: "),
        (lambda: TABLE * 2, "expected inputs with the batch as first dimension for dynamic_batch, got none"),
    ],
)
def test_batches_that_cannot_be_taken_apart(function: Callable[..., Any], expected: str) -> None:
    inputs = (images(2),) if function.__code__.co_argcount else ()
    with pytest.raises(patc.PatcError) as caught:
        patc.compile(Function(function).eval(), inputs, dynamic_batch=True)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_of_fixed_batch_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.mlir"
    path.write_text("func.func @main(%x: tensor<4x2xf32>) -> tensor<4x2xf32> { return %x : tensor<4x2xf32> }")
    with pytest.raises(
        patc.PatcError, match=r"expected inputs whose first size the file leaves open .*'arg0' \(4 x 2\)"
    ):
        patc.compile(path, dynamic_batch=True)
    with pytest.raises(
        patc.PatcError, match=r"expected a torch.nn.Module, .* or a file of a model .*, got a .txt file"
    ):
        patc.compile(tmp_path / "net.txt", dynamic_batch=True)


def test_descriptions_of_contradicting_batches() -> None:
    program = patc.compile(NET, (images(1),), threads=1, dynamic_batch=True).program
    text = describe(program)
    assert parse(text).dynamic_batch
    with pytest.raises(ValueError, match="dynamic_batch: expected true or false, found 1"):
        parse(text.replace(b'"dynamic_batch":true', b'"dynamic_batch":1'))
    with pytest.raises(ValueError, match="dynamic_batch: expected inputs and outputs of one batch size"):
        parse(text.replace(b'"shape":[1,3,8,8],"dtype"', b'"shape":[2,3,8,8],"dtype"'))


@pytest.mark.parametrize("block", [1, 2])
def test_libraries_take_the_batch(block: int) -> None:
    net = Function(lambda x: torch.relu(NET.conv(x))).eval()
    library = compile_library(net, (images(block),), name="net", dynamic_batch=True)
    header = c_interface.header(library.interface)
    assert "int net_run(size_t batch, const float *input0, float *output0, void *workspace);" in header
    assert "#define NET_BLOCK 1\n" in header
    assert f"any number from 1; {2 if block == 2 else BLOCK} are computed at once where there are as many." in header
    emulator = Emulator(library.object_file())
    x = images(4)
    with torch.no_grad():
        expected = net(x).numpy()
    given, made = emulator.put(x.numpy()), emulator.reserve(expected.nbytes)
    workspace = emulator.reserve(library.interface.workspace_bytes)
    for batch, status in ((4, 0), (0, 5), (3, 0)):
        assert emulator.call("net_run", batch, given, made, workspace) == status
        if batch == 4:
            np.testing.assert_allclose(emulator.get(made, expected.shape, "float32"), expected, rtol=1e-4, atol=1e-5)


def onnx_file(path: Path, nodes: list[tuple[str, list[str], str]], batch: int | str = "N") -> Path:
    """Write a net on 3x8x8 images; a weight `w` scales channels."""
    onnx = pytest.importorskip("onnx")
    x, y = (
        onnx.helper.make_tensor_value_info(name, 1, shape) for name, shape in (("x", [batch, 3, 8, 8]), ("y", None))
    )
    made = [onnx.helper.make_node(kind, inputs, [output]) for kind, inputs, output in nodes]
    weights = [onnx.numpy_helper.from_array(NET.conv.weight.detach().numpy(), "w")]
    axis = [onnx.numpy_helper.from_array(np.array([0]), "first")]
    graph = onnx.helper.make_graph(made, "net", [x], [y], initializer=[*weights, *axis])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9), path)
    return path


CONV = ("Conv", ["x", "w"], "c")


def test_onnx_files_with_an_open_batch(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "net.onnx", [CONV, ("Relu", ["c"], "y")])
    assert main(["compile", str(path), "--dynamic-batch", "--threads", "1", "-o", str(tmp_path / "net.patc")]) == 0
    compiled = patc.load(tmp_path / "net.patc")
    for count in SIZES:
        expected = torch.relu(torch.nn.functional.conv2d(images(count), NET.conv.weight)).detach()
        torch.testing.assert_close(compiled(images(count)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("nodes", "batch", "expected"),
    [
        (
            [CONV, ("Relu", ["c"], "y")],
            1,
            "expected inputs whose first size the file leaves open .*, found 'x' .1 ?x ?3",
        ),
        (
            [CONV, ("ReduceMean", ["c", "first"], "y")],
            "N",
            "expected output with the batch as first dimension .*, found 'y' of shape .1, ",
        ),
        (
            [CONV, ("ReduceMean", ["c", "first"], "m"), ("Sub", ["c", "m"], "y")],
            "N",
            "found that output 'y' mixes them",
        ),
    ],
)
def test_onnx_files_whose_batch_cannot_be_taken_apart(tmp_path: Path, nodes: Any, batch: Any, expected: str) -> None:
    with pytest.raises(patc.PatcError, match=expected) as caught:
        patc.compile(onnx_file(tmp_path / "net.onnx", nodes, batch), threads=1, dynamic_batch=True)
    assert "\n" not in str(caught.value)
