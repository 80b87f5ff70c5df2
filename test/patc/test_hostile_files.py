"""Files that are data run no code, never wait, and take no more memory than they have: every reader but that of .pt2."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from patc.context import make_context
from patc.diagnostics import PatcError
from patc.mlir_files import parse_module, read_module
from patc.parameters import ParameterStore
from patc.pruning.data import open_data
from patc.tools.arrays import _read_array
from patc.tools.images import picture_input
from patc.tools.patc import main
from patc.torch_archives import describe_content
from patc.torch_files import load_data
from patc.tuning_cache import TuningCache

NO_FILE = "a pipe, device or socket"


def error_of(read: Callable[[], Any]) -> str:
    with pytest.raises(PatcError) as caught:
        read()
    assert "\n" not in str(caught.value)
    return caught.value.message


def make_pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def test_pipes_and_devices_are_not_waited_for(tmp_path: Path) -> None:
    pipe, zeros = make_pipe(tmp_path / "pipe"), tmp_path / "zeros"
    zeros.symlink_to("/dev/zero")
    for path in (pipe, zeros):
        assert error_of(lambda p=path: _read_array(str(p))) == f"expected a .npy file, found {NO_FILE}"
        assert error_of(lambda p=path: picture_input(str(p), (1, 3, 8, 8))) == f"expected a picture, found {NO_FILE}"
        expected = f"expected a safetensors file with the parameters, found {NO_FILE}"
        assert error_of(lambda p=path: ParameterStore.load(p)) == expected
    make_pipe(tmp_path / "data_batch_1.bin")
    assert error_of(lambda: open_data(f"cifar10:{tmp_path}", 32)) == f"expected a file of CIFAR-10, found {NO_FILE}"


def test_devices_are_no_mlir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patc.mlir_files.MOST_BYTES", 1 << 20)
    message = error_of(lambda: read_module("/dev/zero", make_context()))
    assert message == "expected an MLIR file of at most 1 MB, found more"


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "folder/x", "..", "", "a\\00b"])
def test_parameters_lie_beside_their_module(tmp_path: Path, name: str) -> None:
    text = f'module attributes {{pattern.parameters = "{name}"}} {{}}'
    message = error_of(lambda: parse_module(text, make_context(), folder=tmp_path))
    assert message.startswith("expected 'pattern.parameters' to be the name of a file beside this one, got '")


@pytest.mark.parametrize("write", ["header", "element type", "bounds", "nested"])
def test_damaged_safetensors(tmp_path: Path, write: str) -> None:
    header = {
        "header": b"{" * 8,
        "element type": json.dumps({"a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}).encode(),
        "bounds": json.dumps({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode(),
        "nested": b"[" * 100_000,
    }[write]
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    assert error_of(lambda: ParameterStore.load(path)).startswith("expected a safetensors file, found damaged data (")


def test_pictures_are_not_interpreted(tmp_path: Path) -> None:
    """Pillow would start an interpreter of PostScript, whatever the name of the file is."""
    path = tmp_path / "x.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")
    message = error_of(lambda: picture_input(str(path), (1, 3, 8, 8)))
    assert message.endswith("found another format or damaged data")
    Image.new("RGB", (8, 8)).save(path, "GIF")
    assert picture_input(str(path), (1, 3, 8, 8)).shape == (1, 3, 8, 8)


class Call:
    """What a pickle of it calls when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (os.fspath(self.path),)


def test_arrays_are_not_unpickled(tmp_path: Path) -> None:
    path, called = tmp_path / "x.npy", tmp_path / "called"
    objects = np.empty(1, object)
    objects[0] = Call(called)
    np.save(path, objects, allow_pickle=True)
    expected = "expected a .npy file of numbers, found damaged data or another format"
    assert error_of(lambda: _read_array(str(path))) == expected
    path.write_bytes(pickle.dumps(Call(called)))
    assert error_of(lambda: _read_array(str(path))) == expected
    assert not called.exists()


@pytest.mark.parametrize("shape", ["(1099511627776,)", "(-1,)", "(" * 200, "__import__('os').mkdir('x')", "(True,)"])
def test_headers_of_arrays(tmp_path: Path, shape: str) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    path = tmp_path / "x.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(16))
    assert error_of(lambda: _read_array(str(path))).startswith("expected a .npy file of numbers, found damaged data")


def test_archives_of_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    assert error_of(lambda: _read_array(str(tmp_path / "x.npz"))) == "expected a .npy file of one array, found several"
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.save(tmp_path / "x.npy", array)
    np.testing.assert_array_equal(_read_array(str(tmp_path / "x.npy")), array)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "null", '{"seconds": [1e400]}', '{"seconds": [true]}', "\xff"])
def test_damaged_tuning_records(tmp_path: Path, text: str) -> None:
    cache = TuningCache(tmp_path)
    cache.store("key", [1.0])
    (path,) = tmp_path.iterdir()
    path.write_bytes(text.encode("latin-1"))
    assert error_of(lambda: TuningCache(tmp_path).load("key", 1)) == "expected measured times, found damaged data"
    path.unlink()
    make_pipe(path)
    assert TuningCache(tmp_path).load("key", 1) is None


def nested(width: int, depth: int) -> list[Any]:
    """Return a list of the same list several times, which is so again, and so on; a file has each of them once."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value] * width
    return value


def test_values_that_are_small_in_a_file_alone(tmp_path: Path) -> None:
    path, itself = tmp_path / "x.pth", {}
    itself["itself"] = itself
    for value, found in (
        (nested(3, 30), "more than 1048576 values"),
        (nested(1, 40), "containers more than 32 deep"),
        (itself, "containers more than 32 deep"),
        (10**500, "a number of more than 64 bits"),
    ):
        torch.save({"x": value}, path)
        assert error_of(lambda: load_data(path, "checkpoint")) == f"expected a checkpoint, found {found}"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_other_files_of_torch_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, layer = tmp_path / "x.pth", torch.nn.Conv2d(3, 4, 3)
    torch.save(layer, path)
    assert describe_content(path) == (
        "a pickled 'torch.nn.modules.conv.Conv2d' of torch.save: export the module to a .pt2 file, "
        "with torch.export.export and torch.export.save"
    )
    torch.save(layer.state_dict(), path)
    assert str(describe_content(path)).startswith("weights of torch.save: give them as --weights together with")
    for saved, found in ((layer, "a pickled 'torch.nn.modules.conv.Conv2d'"), (layer.state_dict(), "weights of")):
        torch.save(saved, path, _use_new_zipfile_serialization=False)
        assert str(describe_content(path)).startswith(found)
    torch.jit.script(layer).save(str(path))
    assert str(describe_content(path)).startswith("a TorchScript archive: export the module")
    for command, name in (("run", "x.pth"), ("report", "x.pth"), ("bench", "x.pt"), ("bench", "x.onnx")):
        torch.jit.script(layer).save(str(tmp_path / name))
        assert main([command, str(tmp_path / name)]) == 1
        error = capsys.readouterr().err
        assert "found a TorchScript archive: export the module" in error and error.count("\n") == 1
    path.write_bytes(b"text")
    assert describe_content(path) is None
