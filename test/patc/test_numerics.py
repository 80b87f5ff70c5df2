"""Element types: the table, and inputs and outputs of each of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gpu import needs_device
from half import HALF
from torch import nn
from torch_mlir import ir

import patc
from patc.bench.emulator import EmulatedProgram
from patc.codegen.c_interface import describe_interface, header
from patc.context import make_context
from patc.diagnostics import PatcError
from patc.numerics import BFLOAT16, ELEMENT_TYPES, MLIR_TYPES, NUMERICS, TORCH_TYPES
from patc.passes.ir.elements import accumulator_type, element_bytes, mlir_type, numpy_type
from patc.runtime.model import CompiledModel
from patc.targets import AARCH64_CPUS
from patc.tools.patc import main

EVERY = TORCH_TYPES


class WithOthers(nn.Module):
    """A convolution, beside tensors that come back as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor, *others: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.conv(x), *others)


def example(dtype: str) -> torch.Tensor:
    """Return numbers that tell the bytes of an element apart."""
    if dtype == "bool":
        return torch.tensor([[True, False, True], [False, False, True]])
    values = torch.tensor([[1.5, -2.25, 3], [100, 0, 127]], dtype=torch.float64)
    return values.abs().to(torch.uint8) if dtype == "uint8" else values.to(getattr(torch, dtype))


def examples() -> tuple[torch.Tensor, ...]:
    image = torch.randn((1, 3, 6, 6), generator=torch.Generator().manual_seed(0))
    return (image, *(example(dtype) for dtype in EVERY))


def as_array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.view(torch.int16).numpy().view(BFLOAT16) if tensor.dtype == torch.bfloat16 else tensor.numpy()


def compile_others(target: str = "host", dtype: str = "f32") -> CompiledModel:
    torch.manual_seed(0)
    return patc.compile(WithOthers().eval(), examples(), target=target, dtype=dtype, threads=1)


@pytest.fixture(scope="module")
def compiled() -> CompiledModel:
    return compile_others()


# -- The table -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ELEMENT_TYPES)
def test_numpy_torch_mlir_and_c_mean_the_same(dtype: str) -> None:
    element = ELEMENT_TYPES[dtype]
    assert element.bytes == torch.empty(0, dtype=getattr(torch, dtype)).itemsize
    with make_context(), ir.Location.unknown():
        type_ = mlir_type(np.dtype(dtype))
        assert type_ == mlir_type(element) and element_bytes(type_) == element.bytes
        # Integers of MLIR have no sign.
        assert numpy_type(ir.RankedTensorType.get([2], type_)) == np.dtype(dtype.removeprefix("u"))
    sizes = {"double": 8, "float": 4}
    assert element.bytes == sizes.get(element.c) or element.c.removeprefix("u") == f"int{8 * element.bytes}_t"


def test_every_name_of_mlir_is_known_once() -> None:
    assert set(MLIR_TYPES) == {element.mlir for element in ELEMENT_TYPES.values()}
    assert all(numerics.storage.mlir == name for name, numerics in NUMERICS.items())


def test_sums_are_made_in_the_accumulator() -> None:
    with make_context(), ir.Location.unknown():
        for name, wanted in (("f16", "f32"), ("f32", "f32"), ("f64", "f64"), ("i8", "i8")):
            assert str(accumulator_type(ir.RankedTensorType.get([2], ir.Type.parse(name)))) == wanted


def test_a_cpu_computes_in_what_it_has_extensions_for() -> None:
    assert AARCH64_CPUS["cortex-a76"].computes_in(NUMERICS["f16"])
    assert not AARCH64_CPUS["cortex-a72"].computes_in(NUMERICS["f16"])
    assert all(cpu.computes_in(NUMERICS["f32"]) for cpu in AARCH64_CPUS.values())


# -- Calls -----------------------------------------------------------------------------------------------


def require_same(found: tuple[torch.Tensor, ...], given: tuple[torch.Tensor, ...]) -> None:
    for one, other in zip(found[1:], given[1:], strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other)


def test_tensors_of_each_type_go_in_and_out(compiled: CompiledModel) -> None:
    given = examples()
    require_same(compiled(*given), given)
    assert [info.dtype for info in compiled.program.inputs] == ["float32", *EVERY]


def test_arrays_of_each_type_go_in_and_out(compiled: CompiledModel) -> None:
    given = [as_array(tensor) for tensor in examples()]
    found = compiled(*given)
    for one, other in zip(found[1:], given[1:], strict=True):
        assert one.dtype == other.dtype and np.array_equal(one, other)


def test_elements_may_be_anywhere(compiled: CompiledModel) -> None:
    """Not contiguous, or where no element of the type may start."""
    image, *others = examples()
    shifted = []
    for tensor in others:
        space = np.zeros(tensor.nbytes + 1, np.uint8)[1:]
        shifted.append(np.ndarray(tensor.shape, as_array(tensor).dtype, space))
        shifted[-1][...] = as_array(tensor)
    found = compiled(image.numpy(), *shifted)
    assert all(np.array_equal(one, other) for one, other in zip(found[1:], shifted, strict=True))
    strided = tuple(tensor.t().contiguous().t() for tensor in others)
    require_same(compiled(image, *strided), (image, *others))


@pytest.mark.parametrize("number", range(len(EVERY)))
def test_another_type_is_refused(compiled: CompiledModel, number: int) -> None:
    given = list(examples())
    other = "int32" if EVERY[number] != "int32" else "float32"
    given[number + 1] = example(other)
    wanted = rf"^expected input 'others_{number}' of shape \[2, 3\] {EVERY[number]}, got shape \[2, 3\] {other}$"
    with pytest.raises(PatcError, match=wanted):
        compiled(*given)
    with pytest.raises(PatcError, match=wanted):
        compiled(*(as_array(tensor) for tensor in given))


def test_random_inputs_are_of_the_types(compiled: CompiledModel) -> None:
    given = compiled.random_inputs()
    assert [array.dtype.name for array in given] == ["float32", *EVERY]
    assert all(set(array.flat) <= {0, 1} for array in given if array.dtype.kind in "iub")
    compiled(*given)


def test_files_keep_the_types(compiled: CompiledModel, tmp_path: Path) -> None:
    compiled.save(tmp_path / "x.patc")
    loaded = patc.load(tmp_path / "x.patc")
    assert loaded.program.inputs == compiled.program.inputs
    assert [info.dtype for info in loaded.program.outputs] == ["float32", *EVERY]
    require_same(loaded(*examples()), examples())


def test_half_precision_is_for_what_is_computed() -> None:
    program = compile_others("aarch64-linux", "f16").program
    assert [info.dtype for info in program.outputs] == ["float32", *EVERY]


# -- Other machines and C --------------------------------------------------------------------------------


def test_types_on_aarch64() -> None:
    given = [as_array(tensor) for tensor in examples()]
    found = EmulatedProgram(compile_others("aarch64-linux").program)(*given)
    for one, other in zip(found[1:], given[1:], strict=True):
        assert one.dtype == other.dtype and np.array_equal(one, other)


@needs_device
def test_types_on_a_gpu() -> None:
    given = examples()
    require_same(compile_others("spirv-vulkan")(*given), given)


def test_headers_declare_the_types(compiled: CompiledModel) -> None:
    text = header(describe_interface(compiled.program, "net", "net", "cpu", embed=True))
    types = [
        "float",
        "double",
        "float",
        "uint16_t",
        "uint16_t",
        "int64_t",
        "int32_t",
        "int16_t",
        "int8_t",
        "uint8_t",
        "uint8_t",
    ]
    inputs = [f"const {type_} *input{number}" for number, type_ in enumerate(types)]
    outputs = [f"{type_} *output{number}" for number, type_ in enumerate(types)]
    assert f"int net_run({', '.join([*inputs, *outputs, 'void *workspace'])});" in text
    assert "#include <stdint.h>" in text and "/* input10: 'others_9', 2 x 3 of bool */" in text


# -- Models and files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float8_e5m2", "complex64"])
def test_a_type_that_there_is_none_of_is_refused(dtype: str) -> None:
    image = examples()[0]
    with pytest.raises(PatcError, match=f"^expected input 'others_0' to be one of float64, .*, bool, found {dtype}$"):
        patc.compile(WithOthers().eval(), (image, torch.zeros(2, dtype=getattr(torch, dtype))))


def test_mlir_files_have_types(tmp_path: Path) -> None:
    path = tmp_path / "x.mlir"
    path.write_text(
        """func.func @main(%x: tensor<1x2x4x4xf32>, %i: tensor<3xi64>) -> (tensor<1x2x4x4xf32>, tensor<3xi64>) {
          %y = "pattern.activate"(%x) {activation = "relu"} : (tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
          return %y, %i : tensor<1x2x4x4xf32>, tensor<3xi64>
        }"""
    )
    model = patc.compile(path)
    x, numbers = np.float32(np.arange(32) - 16).reshape(1, 2, 4, 4), np.array([1, -(1 << 60), 3])
    found = model(x, numbers)
    assert np.array_equal(found[0], np.maximum(x, 0)) and np.array_equal(found[1], numbers)


@pytest.mark.parametrize("type_", ["tensor<3xf8E5M2>", "tensor<3xui8>", "tensor<3xindex>", "i64"])
def test_other_types_of_mlir_files_are_refused(tmp_path: Path, type_: str) -> None:
    path = tmp_path / "x.mlir"
    path.write_text(f"func.func @main(%x: {type_}) -> {type_} {{\n  return %x : {type_}\n}}\n")
    with pytest.raises(PatcError) as caught:
        patc.compile(path)
    wanted = "expected @main to take and return tensors of static shape, of f64, f32, f16, bf16, i64, i32, i16, i8, i1"
    assert f"{wanted}, got {type_}" in str(caught.value)


def test_dynamo_hands_over_integers() -> None:
    torch._dynamo.reset()
    model = WithOthers().eval()
    given = (examples()[0], torch.tensor([3, 1 << 40]))
    with torch.no_grad():
        found = torch.compile(model, backend="patc")(*given)
    require_same(found, given)


def test_run_reads_and_writes_the_types(
    compiled: CompiledModel, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    compiled.save("x.patc")
    given = [as_array(tensor) for tensor in examples()]
    paths = [f"{number}.npy" for number in range(len(given))]
    for path, array in zip(paths, given, strict=True):
        np.save(path, array)
    assert main(["run", "x.patc", "--input", *paths, "--output", "y.npz"]) == 0
    assert "output.5 [2, 3] int64" in capsys.readouterr().out
    with np.load("y.npz") as found:
        for array, name in zip(given[1:], list(found)[1:], strict=True):
            wanted = "float32" if array.dtype.name == BFLOAT16 else array.dtype  # numpy has no files of bfloat16
            assert found[name].dtype == wanted and np.array_equal(found[name], array)
    assert main(["run", "x.patc"]) == 0
    assert "output.10 [2, 3]: from 0 to 1" in capsys.readouterr().out
    assert main(["run", "x.patc", "--input", paths[0], *paths[:-1]]) == 1
    assert "expected input 'others_0' of shape [2, 3] float64" in capsys.readouterr().err


def test_measurements_are_of_float32_inputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.pt2"
    torch.export.save(torch.export.export(WithOthers().eval(), examples()[:2]), path)
    assert main(["bench", str(path)]) == 1
    assert "expected float32 inputs to measure with, found float64" in capsys.readouterr().err


# -- Nets that compute with integers and truth values ----------------------------------------------------

LOOKUP = """
#words = affine_map<(d0, d1) -> (d0)>
#rows = affine_map<(d0, d1) -> (d0, d1)>
func.func @main(%words: tensor<3xi64>, %table: tensor<10x4xf32>) -> tensor<3x4xf32> {
  %empty = tensor.empty() : tensor<3x4xf32>
  %rows = linalg.generic {indexing_maps = [#words, #rows], iterator_types = ["parallel", "parallel"]}
      ins(%words : tensor<3xi64>) outs(%empty : tensor<3x4xf32>) {
  ^bb0(%word: i64, %out: f32):
    %row = arith.index_cast %word : i64 to index
    %column = linalg.index 1 : index
    %value = tensor.extract %table[%row, %column] : tensor<10x4xf32>
    linalg.yield %value : f32
  } -> tensor<3x4xf32>
  return %rows : tensor<3x4xf32>
}
"""
CLASSES = """
#scores = affine_map<(d0, d1) -> (d0, d1)>
#best = affine_map<(d0, d1) -> (d0)>
func.func @main(%scores: tensor<3x5xf32>) -> (tensor<3xi64>, tensor<3xi1>) {
  %zero = arith.constant 0 : i64
  %lowest = arith.constant 0xFF800000 : f32
  %positive = arith.constant 0.0 : f32
  %0 = tensor.empty() : tensor<3xi64>
  %1 = linalg.fill ins(%zero : i64) outs(%0 : tensor<3xi64>) -> tensor<3xi64>
  %2 = tensor.empty() : tensor<3xf32>
  %3 = linalg.fill ins(%lowest : f32) outs(%2 : tensor<3xf32>) -> tensor<3xf32>
  %4:2 = linalg.generic {indexing_maps = [#scores, #best, #best], iterator_types = ["parallel", "reduction"]}
      ins(%scores : tensor<3x5xf32>) outs(%3, %1 : tensor<3xf32>, tensor<3xi64>) {
  ^bb0(%score: f32, %best: f32, %place: i64):
    %5 = linalg.index 1 : index
    %6 = arith.index_cast %5 : index to i64
    %7 = arith.maximumf %score, %best : f32
    %8 = arith.cmpf ogt, %score, %best : f32
    %9 = arith.select %8, %6, %place : i64
    linalg.yield %7, %9 : f32, i64
  } -> (tensor<3xf32>, tensor<3xi64>)
  %10 = tensor.empty() : tensor<3xi1>
  %11 = linalg.generic {indexing_maps = [affine_map<(d0) -> (d0)>, affine_map<(d0) -> (d0)>],
      iterator_types = ["parallel"]} ins(%4#0 : tensor<3xf32>) outs(%10 : tensor<3xi1>) {
  ^bb0(%score: f32, %out: i1):
    %12 = arith.cmpf ogt, %score, %positive : f32
    linalg.yield %12 : i1
  } -> tensor<3xi1>
  return %4#1, %11 : tensor<3xi64>, tensor<3xi1>
}
"""
TARGETS = ["host", "aarch64-linux", pytest.param("spirv-vulkan", marks=needs_device)]


def run_text(text: str, folder: Path, target: str, *inputs: np.ndarray) -> list[np.ndarray]:
    path = folder / "x.mlir"
    path.write_text(text)
    model = patc.compile(path, target=target)
    found = EmulatedProgram(model.program)(*inputs) if target == "aarch64-linux" else model(*inputs)
    return list(found) if isinstance(found, (list, tuple)) else [found]


@pytest.mark.parametrize("target", TARGETS)
def test_integers_look_rows_up(tmp_path: Path, target: str) -> None:
    """What is behind the table, or before it, are the last and the first row."""
    table = np.float32(np.arange(40)).reshape(10, 4)
    for words, rows in (([9, 0, 3], [9, 0, 3]), ([99, -5, 10], [9, 0, 9])):
        (found,) = run_text(LOOKUP, tmp_path, target, np.array(words), table)
        assert np.array_equal(found, table[rows])


@pytest.mark.parametrize("target", TARGETS)
def test_places_of_maxima_are_integers(tmp_path: Path, target: str) -> None:
    scores = np.float32([[1, 3, 2, 3, 0], [-1, -2, -3, -4, -5], [0, 0, 0, 0, 1]])
    places, positive = run_text(CLASSES, tmp_path, target, scores)
    assert places.dtype == np.int64 and places.tolist() == [1, 0, 4]
    assert positive.dtype == np.bool_ and positive.tolist() == [True, False, True]


class Lookup(nn.Module):
    """Rows of a table, with a position added to each."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 4)
        self.register_buffer("positions", torch.arange(3))

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.table(words) + self.table(self.positions)


class Classes(nn.Module):
    """The best channel at each place, and where a pixel is positive."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.conv(image).argmax(1), image > 0


class Pixels(nn.Module):
    """A convolution of bytes, which have no sign, and sums and products of bytes that wrap."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.conv(image.float() / 255), image + 1, image[0, 0] @ image[0, 1], image[0] @ image[0]


class Chosen(nn.Module):
    """Float64 numbers where a mask says so, and what they are in other types."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.where(mask, 2 * x, x), x.half(), x.to(torch.int32)


NETS = {
    "lookup": (Lookup, (torch.tensor([[0, 9, 3], [1, 1, 7]]),)),
    "classes": (Classes, (examples()[0],)),
    "pixels": (Pixels, (torch.arange(108).remainder(256).mul(5).to(torch.uint8).reshape(1, 3, 6, 6),)),
    "chosen": (
        Chosen,
        (
            torch.tensor([[1.5, -2, 1e4, 1 + 2**-11 + 2**-40]], dtype=torch.float64),
            torch.tensor([True, False, True, False]),
        ),
    ),
}


@pytest.mark.parametrize("dtype", ["f32", HALF])
@pytest.mark.parametrize("name", list(NETS))
def test_nets_of_other_types(name: str, dtype: str) -> None:
    torch.manual_seed(0)
    kind, inputs = NETS[name]
    model = kind().eval()
    found, wanted = patc.compile(model, inputs, dtype=dtype, threads=2)(*inputs), model(*inputs)
    bound = 1e-5 if dtype == "f32" else 5e-3
    torch.testing.assert_close(found, wanted, rtol=bound, atol=bound)


@needs_device
@pytest.mark.parametrize("name", list(NETS))
def test_nets_of_other_types_on_a_gpu(name: str) -> None:
    torch.manual_seed(0)
    kind, inputs = NETS[name]
    model = kind().eval()
    found, wanted = patc.compile(model, inputs, target="spirv-vulkan")(*inputs), model(*inputs)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", list(NETS))
def test_nets_of_other_types_on_aarch64(name: str) -> None:
    torch.manual_seed(0)
    kind, inputs = NETS[name]
    model = kind().eval()
    program = patc.compile(model, inputs, target="aarch64-linux").program
    found, wanted = EmulatedProgram(program)(*(value.numpy() for value in inputs)), model(*inputs)
    for one, other in zip(found, wanted if isinstance(wanted, tuple) else (wanted,), strict=True):
        torch.testing.assert_close(torch.from_numpy(one.copy()), other.detach(), rtol=1e-5, atol=1e-5)


def test_dynamo_compiles_lookups() -> None:
    torch._dynamo.reset()
    model, (words,) = Lookup().eval(), NETS["lookup"][1]
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, backend="patc")(words), model(words))
