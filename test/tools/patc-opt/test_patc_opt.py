"""`patc-opt` and the files it reads and writes; test/tools/patc-opt tests what it prints."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from torch_mlir import ir

from patc.context import make_context
from patc.diagnostics import PatcError
from patc.expected_diagnostics import read_expectations
from patc.mlir_files import parse_module, read_module, split_text, write_module, write_modules
from patc.parameters import ParameterStore
from patc.tools.patc_opt import main

WEIGHT = np.zeros((4, 2, 3, 3), np.float32)
WEIGHT[::2, :, :2, :2] = 1.0
WEIGHT[1::2, :, :2, 1:] = 2.0

LAYER = """\
{attributes}
  func.func @layer(%x: tensor<1x2x6x6xf32>) -> tensor<1x4x6x6xf32> {{
    %w = "pattern.parameter"() {{name = "conv.weight"}} : () -> tensor<{weight}>
    %y = "pattern.conv2d"(%x, %w) {{activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
      operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>,
      strides = array<i64: 1, 1>}} : (tensor<1x2x6x6xf32>, tensor<{weight}>) -> tensor<1x4x6x6xf32>
    return %y : tensor<1x4x6x6xf32>
  }}
}}
"""
WITH_DATA = 'module attributes {pattern.parameters = "layer.safetensors"} {'


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    """A file with one convolution whose weight is in a file beside it, together with an unused array."""
    ParameterStore({"conv.weight": WEIGHT, "unused": np.ones(3)}).save(tmp_path / "layer.safetensors")
    path = tmp_path / "layer.mlir"
    path.write_text(LAYER.format(attributes=WITH_DATA, weight="4x2x3x3xf32"))
    return path


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    path = tmp_path / "plain.mlir"
    path.write_text("func.func @f(%x: f32) -> f32 {\n  return %x : f32\n}\n")
    return path


def run_with_error(capfd: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Run the tool, which must fail with one line on standard error and nothing else; return that line."""
    assert main([str(argument) for argument in arguments]) == 1
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err.rstrip("\n")


# Start-up


def test_help_loads_neither_mlir_nor_numpy() -> None:
    code = (
        "import sys, patc.tools.patc_opt\n"
        "try: patc.tools.patc_opt.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'torch_mlir', 'numpy'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_running_passes_does_not_load_torch(plain: Path) -> None:
    code = (
        "import sys, patc.tools.patc_opt\n"
        "patc.tools.patc_opt.main(['--list-passes'])\n"
        f"patc.tools.patc_opt.main(['--pattern-raise', '--cse', {str(plain)!r}])\n"
        "sys.exit('torch' if 'torch' in sys.modules else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


# Parameters


def test_parameters_are_read_from_the_file_beside_the_text(layer: Path) -> None:
    module, store = read_module(layer, make_context())
    assert sorted(store) == ["conv.weight", "unused"]
    assert "loc(" in str(module.operation.location)
    assert str(layer) in str(module.operation.location)


def test_passes_on_parameters_write_the_ones_they_made(layer: Path) -> None:
    encoded = layer.with_name("encoded.mlir")
    assert main(["--pattern-encode", str(layer), "-o", str(encoded)]) == 0
    assert 'pattern.parameters = "encoded.safetensors"' in encoded.read_text()
    assert "pattern.sparse_conv2d" in encoded.read_text()
    module, store = read_module(encoded, make_context())
    assert str(module).count("pattern.parameter") == len(store) + 1 > 2
    assert "unused" not in store and "conv.weight" not in store


def test_a_written_file_goes_on_through_the_next_pass(layer: Path) -> None:
    encoded, reordered = layer.with_name("encoded.mlir"), layer.with_name("reordered.mlir")
    assert main(["--pattern-encode", str(layer), "-o", str(encoded)]) == 0
    assert main(["--pattern-reorder", str(encoded), "-o", str(reordered)]) == 0
    _, store = read_module(reordered, make_context())
    assert len(store) == 5


def test_a_file_can_be_written_over_itself(layer: Path) -> None:
    assert main([str(layer), "-o", str(layer)]) == 0
    _, store = read_module(layer, make_context())
    np.testing.assert_array_equal(store["conv.weight"], WEIGHT)
    assert list(store) == ["conv.weight"]


def test_planned_memory_keeps_its_weights(layer: Path) -> None:
    planned = layer.with_name("planned.mlir")
    passes = ["encode", "reorder", "layout", "schedule", "specialize", "plan-memory"]
    assert main([*(f"--pattern-{name}" for name in passes), str(layer), "-o", str(planned)]) == 0
    _, store = read_module(planned, make_context())
    assert "weights" in store and "conv.weight" not in store


def test_new_parameters_on_standard_output_are_missed(layer: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--pattern-encode", str(layer)]) == 0
    captured = capfd.readouterr()
    assert "pattern.sparse_conv2d" in captured.out
    assert captured.err == "patc-opt: remark: 5 new parameters were not written; -o FILE writes them\n"


def test_old_parameters_on_standard_output_are_not(layer: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--cse", str(layer)]) == 0
    captured = capfd.readouterr()
    assert 'pattern.parameters = "layer.safetensors"' in captured.out
    assert captured.err == ""


def test_parameters_without_data_parse_and_print(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "bare.mlir", tmp_path / "out.mlir"
    path.write_text(LAYER.format(attributes="module {", weight="4x2x3x3xf32"))
    assert main([str(path), "-o", str(out)]) == 0
    assert "pattern.parameters" not in out.read_text()
    assert sorted(os.listdir(tmp_path)) == ["bare.mlir", "out.mlir"]


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ("4x2x1x1xf32", "to be tensor<4x2x1x1xf32>, got [4, 2, 3, 3] of float32"),
        ("4x2x3x3xf16", "to be tensor<4x2x3x3xf16>, got [4, 2, 3, 3] of float32"),
    ],
)
def test_parameters_of_another_type_are_an_error(
    layer: Path, capfd: pytest.CaptureFixture[str], weight: str, message: str
) -> None:
    text = WITH_DATA + f'"pattern.parameter"() {{name = "conv.weight"}} : () -> tensor<{weight}>\n}}'
    layer.write_text(text.replace('{"pattern', '{\n  "pattern'))
    line = run_with_error(capfd, layer)
    assert line == f"{layer}:2:3: error: 'pattern.parameter' op expected 'conv.weight' {message}"


def test_a_parameter_that_is_not_in_the_file_is_an_error(layer: Path, capfd: pytest.CaptureFixture[str]) -> None:
    layer.write_text(layer.read_text().replace("conv.weight", "conv.wait"))
    line = run_with_error(capfd, layer)
    assert line.endswith("'pattern.parameter' op expected 'conv.wait' in layer.safetensors, found none")


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.uint8, np.int16, np.int32, np.int64, bool])
def test_every_element_type_is_checked(tmp_path: Path, dtype: type) -> None:
    name = {"float": "f", "uint": "ui", "int": "i", "bool": "i"}[np.dtype(dtype).name.rstrip("0123456789")]
    bits = 1 if dtype is bool else 8 * np.dtype(dtype).itemsize
    ParameterStore({"a": np.zeros(3, dtype)}).save(tmp_path / "layer.safetensors")
    text = WITH_DATA + '%0 = "pattern.parameter"() {name = "a"} : () -> tensor<3x' + f"{name}{bits}>}}"
    _, store = parse_module(text, make_context(), folder=tmp_path)
    assert store["a"].dtype == dtype


def test_a_missing_parameter_file_is_an_error(layer: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = layer.with_suffix(".safetensors")
    data.unlink()
    line = run_with_error(capfd, layer)
    assert line == f"{data}: error: expected a safetensors file with the parameters, found no such file"


def test_a_damaged_parameter_file_is_an_error(layer: Path, capfd: pytest.CaptureFixture[str]) -> None:
    layer.with_suffix(".safetensors").write_bytes(b"\x00" * 9)
    assert "error: expected a safetensors file, found damaged data" in run_with_error(capfd, layer)


def test_a_parameter_file_must_be_named_by_text(plain: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plain.write_text("module attributes {pattern.parameters = 3 : i64} {}")
    line = run_with_error(capfd, plain)
    assert line == f"{plain}:1:1: error: expected 'pattern.parameters' to be a file name, got 3 : i64"


def test_parameters_with_and_without_data_cannot_be_written_together(tmp_path: Path) -> None:
    text = '%{0} = "pattern.parameter"() {{name = "{0}"}} : () -> tensor<3xf32>\n'
    module, _ = parse_module(text.format("a") + text.format("b"), make_context())
    with pytest.raises(PatcError, match=r"op expected data for 'b', found none"):
        write_module(module, ParameterStore({"a": np.zeros(3, np.float32)}), tmp_path / "out.mlir")
    assert os.listdir(tmp_path) == []


def test_parts_of_a_split_file_have_their_own_parameters(layer: Path) -> None:
    out = layer.with_name("out.mlir")
    layer.write_text(f"{layer.read_text()}// -----\n{layer.read_text()}")
    assert main(["--split-input-file", str(layer), "-o", str(out)]) == 0
    parts = [text for _, text in split_text(out.read_text())]
    assert 'pattern.parameters = "out.safetensors"' in parts[0]
    assert 'pattern.parameters = "out.1.safetensors"' in parts[1]
    for part in parts:
        assert "conv.weight" in parse_module(part, make_context(), folder=out.parent)[1]


# Output


def test_output_that_cannot_be_written_leaves_nothing_behind(layer: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = sorted(os.listdir(layer.parent))
    missing = layer.parent / "missing" / "out.mlir"
    assert run_with_error(capfd, layer, "-o", missing) == f"{missing}: error: expected a file in a folder that exists"
    folder = layer.parent / "folder.mlir"
    folder.mkdir()
    assert run_with_error(capfd, layer, "-o", folder) == f"{folder}: error: expected a file to write, got a folder"
    blocked = layer.with_name("blocked.safetensors")
    blocked.mkdir()
    line = run_with_error(capfd, layer, "-o", blocked.with_suffix(".mlir"))
    assert line == f"{blocked}: error: cannot write the file: Is a directory"
    blocked.rmdir()
    assert sorted(os.listdir(layer.parent)) == sorted([*before, "folder.mlir"])


def test_output_named_as_its_parameters_is_an_error(layer: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = layer.with_name("out.safetensors")
    line = run_with_error(capfd, layer, "-o", out)
    assert line == f"{out}: error: expected the name of an MLIR file, got that of its parameters"


def test_nothing_is_written_after_an_error(layer: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = layer.with_name("out.mlir")
    run_with_error(capfd, layer, "--one-shot-bufferize", "-o", out)
    assert not out.exists()


def test_devices_are_written_to_and_stay(layer: Path) -> None:
    assert main([str(layer), "-o", "/dev/null"]) == 0
    assert not Path("/dev/null").is_file()
    assert not Path("/dev/null.safetensors").exists()


def test_a_full_device_is_an_error(plain: Path, capfd: pytest.CaptureFixture[str]) -> None:
    line = run_with_error(capfd, plain, "-o", "/dev/full")
    assert line == "/dev/full: error: cannot write the output: No space left on device"


def test_write_module_takes_print_options(tmp_path: Path) -> None:
    module = ir.Module.parse("func.func private @f()", make_context())
    write_modules([(module, ParameterStore())], tmp_path / "a.mlir", enable_debug_info=True)
    assert "loc(" in (tmp_path / "a.mlir").read_text()


def test_a_reader_that_stops_early_is_no_error(plain: Path) -> None:
    plain.write_text("func.func private @f()\n" + "".join(f"func.func private @f{n}()\n" for n in range(9999)))
    tool = [sys.executable, "-m", "patc.tools.patc_opt", str(plain)]
    with subprocess.Popen(tool, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""


# Input


def test_input_that_is_no_mlir_is_an_error(plain: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plain.write_bytes(bytes(range(256)))
    line = run_with_error(capfd, plain)
    assert line == f"{plain}: error: expected MLIR text with strings in UTF-8, found other bytes in line 2"
    assert run_with_error(capfd, "--split-input-file", plain).startswith(f"{plain}:1:")


def test_a_file_that_cannot_be_read_is_an_error(
    plain: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)  # root may read everything
    line = run_with_error(capfd, plain)
    assert line == f"{plain}: error: cannot read the file: Permission denied"


def test_an_op_that_its_verifier_cannot_handle_is_an_error(
    plain: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise IndexError("list index out of range")

    monkeypatch.setattr("patc.mlir_files.ir.Module.parseFile", fail)
    assert "error: expected valid operands and attributes" in run_with_error(capfd, plain)


def test_an_empty_text_is_an_empty_module(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert main([]) == 0
    assert capfd.readouterr().out == "module {\n}\n"


def test_an_option_without_its_value_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_with_error(capfd, "-o") == "patc-opt: error: argument -o: expected one argument"


def test_two_files_are_an_error(plain: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_with_error(capfd, plain, plain) == f"patc-opt: error: unrecognized arguments: {plain}"


def test_split_parts_know_their_first_line() -> None:
    assert split_text("a\n// -----\nb\nc\n  // -----  \nd") == [(1, "a\n"), (3, "b\nc\n"), (6, "d")]
    assert split_text("a // -----\n// ----- b\n") == [(1, "a // -----\n// ----- b\n")]


def test_expectations_say_where_and_what() -> None:
    text = """\
op // expected-error {{a}}
// expected-note @-1 {{b}}
// expected-remark-re @below {{c{{[0-9]+}}.}}
op
"""
    first, second, third = read_expectations(text, first_line=10)
    assert (first.severity, first.line, first.written_at) == ("error", 10, 10)
    assert (second.severity, second.line) == ("note", 10)
    assert third.accepts("remark", "see c12.", 13)
    assert not third.accepts("remark", "see c12,", 13)
