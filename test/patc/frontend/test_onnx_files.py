"""Damaged, contradictory and hostile ONNX files: one line each, with file and node."""

from __future__ import annotations

import gzip
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from patc.context import make_context
from patc.diagnostics import PatcError
from patc.sources import import_source

onnx = pytest.importorskip("onnx")
helper, FLOAT = onnx.helper, onnx.TensorProto.FLOAT
SHAPE = [1, 3, 8, 8]


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(), outputs.split(), name=outputs.split()[0].upper(), **attributes)


def model(*nodes: Any, opset: int = 18, shape: Any = SHAPE, weights: dict[str, np.ndarray] | None = None) -> Any:
    """Return a model from `x` to `y`; weights of the right shapes for 3 channels by default."""
    arrays = {"w": np.ones((4, 3, 3, 3), np.float32)} if weights is None else weights
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info("x", FLOAT, shape)],
        [helper.make_value_info("y", onnx.TypeProto())],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def conv(**attributes: Any) -> Any:
    return node("Conv", "x w", "y", **attributes)


def error_of(path: Path, shapes: Any = None) -> str:
    """Return the error of a file without its name."""
    with pytest.raises(PatcError) as caught:
        import_source(path, shapes, make_context())
    line = str(caught.value)
    assert "\n" not in line and line.startswith(f"{path}: ")
    return line.removeprefix(f"{path}: ")


def write(content: Any, folder: Path) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    return path


def foreign() -> Any:
    found = model(
        node("Fused", "x", "a", domain="com.acme"),
        node("Fused", "a", "b", domain="com.acme"),
        node("Tree", "b", "y", domain="ai.onnx.ml"),
    )
    found.opset_import.append(helper.make_opsetid("com.acme", 1))
    return found


def with_function_that_calls_itself() -> Any:
    body = [helper.make_node("Loops", ["a"], ["b"], domain="mine")]
    found = model(helper.make_node("Loops", ["x"], ["y"], domain="mine"))
    found.functions.append(helper.make_function("mine", "Loops", ["a"], ["b"], body, [helper.make_opsetid("mine", 1)]))
    return found


def with_raw(count: int, dims: list[int]) -> Any:
    found = model(conv())
    found.graph.initializer[0].raw_data = bytes(4 * count)
    found.graph.initializer[0].dims[:] = dims
    return found


def with_strings() -> Any:
    found = model(node("Relu", "x", "y"))
    found.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.STRING
    return found


WHOLE = model(conv()).SerializeToString()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected an .onnx file, found an empty file"),
        (b"not a model", "expected an .onnx file, found damaged, truncated or other data"),
        (b"\xff" * 200, "expected an .onnx file, found damaged, truncated or other data"),
        (WHOLE[:-5], "expected an .onnx file, found damaged, truncated or other data"),
        (WHOLE[: len(WHOLE) // 2], "expected an .onnx file, found damaged, truncated or other data"),
        (WHOLE[:10], "expected an .onnx file"),
        (gzip.compress(WHOLE), "expected an .onnx file, found a gzip file"),
        (b"PK\x03\x04" + WHOLE, "expected an .onnx file, found a zip archive"),
        (model(conv(), opset=6), "expected ONNX opset 7 to 23, found 6"),
        (model(conv(), opset=99), "expected ONNX opset 7 to 23, found 99"),
        (foreign(), "model has operations of other domains, which patc cannot compile: com.acme.Fused x2 ('A', 'B'), ai.onnx.ml.Tree x1 ('Y')"),
        (with_function_that_calls_itself(), "expected functions that do not call themselves"),
        (model(node("Add", "x b", "a"), node("Relu", "a", "b"), node("Neg", "b", "y")), "expected a graph without cycles, found nodes that wait for each other: 'A', 'B', 'Y'"),
        (model(node("Relu", "nobody", "y")), "Y: expected values that an input, an initializer or a node makes, found 'nobody'"),
        (model(node("Relu", "x", "a")), "expected values that an input, an initializer or a node makes, found 'y'"),
        (model(node("Relu", "x", "y"), node("Neg", "x", "y")), "Y: expected each value to be made once, found 'y' made again"),
        (model(conv(), weights={"w": np.ones((4, 5, 3, 3), np.float32)}), "Y: expected weights for 3 channels of input, found weights 4x5x3x3 of 1 group"),
        (model(node("Conv", "x w", "y", group=3), weights={"w": np.ones((4, 1, 3, 3), np.float32)}), "Y: expected weights for 3 channels of input, found weights 4x1x3x3 of 3 groups"),
        (model(node("Add", "x w", "y")), "Y: expected shapes that go together, found: Add of 1x3x8x8 and 4x3x3x3: Incompatible dimensions"),
        (model(node("MatMul", "x w", "y")), "expected shapes that go together"),
        (model(node("DequantizeLinear", "q s", "y", axis=7), weights={"q": np.ones((2, 3), np.int8), "s": np.ones(2, np.float32)}), "Y: expected an axis of a tensor of 2 dimensions, found 7|expected a model"),
        (model(node("Softmax", "x", "y", axis=-71494644084506625)), "Y: expected axis of Softmax from -4 to 3, found -71494644084506625"),
        (model(node("Flatten", "x", "y", axis=5)), "Y: expected shapes that go together, found: Flatten of 1x3x8x8: Invalid"),
        (model(node("Slice", "x i i", "y"), weights={"i": np.array(1)}), "Y: expected a list as input 2 of Slice, found a scalar"),
        (model(node("Pad", "x p", "y", mode="mirror"), weights={"p": np.ones(8, np.int64)}), "Y: expected mode of Pad to be one of constant, reflect, edge, wrap, found 'mirror'"),
        (model(node("Mystery", "x", "y")), "model has operations that are not in opset 18: Mystery x1 ('Y')"),
        (model(node("RoiAlign", "x g i", "y"), weights={"g": np.zeros((1, 4), np.float32), "i": np.zeros(1, np.int64)}), "model has operations patc cannot compile: RoiAlign x1 ('Y')"),
        (model(node("MaxRoiPool", "x g", "a", pooled_shape=[1, 1]), node("MaxRoiPool", "x g", "b", pooled_shape=[1, 1]), node("Det", "x", "c"), node("Add", "a b", "d"), node("Add", "c d", "y"), shape=[1, 1, 40, 40], weights={"g": np.zeros((1, 5), np.float32)}), "model has operations patc cannot compile: MaxRoiPool x2 ('A', 'B'), Det x1 ('C')"),
        (model(node("RandomUniformLike", "x", "a"), node("Add", "x a", "y")), "model draws random numbers, which patc cannot compile: RandomUniformLike x1 ('A')"),
        (model(node("NonZero", "x", "y")), "Y: expected NonZero to make tensors of static shape, found 'y', one whose shape depends on inputs"),
        (model(node("SequenceConstruct", "x", "y")), "expected shapes that go together|Y: expected SequenceConstruct"),
        (model(conv(), shape=None), "expected inputs of known shapes, found 'x' (of unknown rank); give them as in --shape x=1x3x224x224"),
        (model(conv(), shape=["N", 3, -1, 8]), "expected inputs of known shapes, found 'x' (N x 3 x ? x 8); give them as in --shape x=1x3x224x8"),
        (model(node("Relu", "x", "y"), shape=[1 << 20, 1 << 21]), "Y: expected at most 1099511627776 elements, found 'y' of 1048576x2097152"),
        (with_raw(4, [4, 3, 3, 3]), "initializer 'w': expected as many values as its shape [4, 3, 3, 3] says"),
        (with_raw(4, [1 << 40, 1 << 40]), "initializer 'w': expected as many values as its shape"),
        (with_raw(4, [-4]), "initializer 'w': expected numbers of a known type and shape, found FLOAT of [-4]"),
        (with_strings(), "expected shapes that go together, found: .*unsupported type: tensor(string)"),
    ],
)  # fmt: skip
def test_one_line(content: Any, message: str, tmp_path: Path) -> None:
    found = error_of(write(content, tmp_path))
    assert any(matches(part, found) for part in message.split("|")), found


def matches(pattern: str, line: str) -> bool:
    """Return whether a line has the parts of a pattern, between any text, in their order."""
    place = 0
    for part in pattern.split(".*"):
        place = line.find(part, place)
        if place < 0:
            return False
    return True


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"z": (1, 3, 8, 8)}, "expected shapes for inputs of 'x' (N x 3 x 8 x 8); got 'z'"),
        ({"x": (1, 4, 8, 8)}, "expected input 'x' (N x 3 x 8 x 8), got 1x4x8x8"),
        ({"x": (1, 3, 8)}, "expected input 'x' (N x 3 x 8 x 8), got 1x3x8"),
        ({"x": (0, 3, 8, 8)}, "expected a shape for input 'x', got (0, 3, 8, 8)"),
        ([np.zeros((1, 3, 8, 8)), 1], "expected 1 example inputs, found 2"),
        ({"x": (1 << 50, 3, 8, 8)}, "expected a shape for input 'x', got"),
    ],
)
def test_given_shapes(shapes: Any, message: str, tmp_path: Path) -> None:
    assert error_of(write(model(conv(), shape=["N", 3, 8, 8]), tmp_path), shapes).startswith(message)


def external(location: str, folder: Path, **entries: Any) -> Path:
    found = model(conv())
    tensor = found.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return write(found, folder)


def test_external_data_stays_in_its_folder(tmp_path: Path) -> None:
    folder, size = tmp_path / "in", 4 * 108
    folder.mkdir()
    for place in (tmp_path / "secret", folder / "data"):
        place.write_bytes(bytes(size))
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "up").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe")
    within = "initializer 'w': expected external data in a file within the model's folder, found"
    for location in ("../secret", os.fspath(tmp_path / "secret"), "", "a/../../secret", "a\0b"):
        assert error_of(external(location, folder)).startswith(within)
    for location in ("none", "pipe", "."):
        assert error_of(external(location, folder)).endswith(f"external data in {location}, found no such file")
    for location in ("link", "up/secret"):
        assert "expected external data within the model's folder, found a link out of it" in error_of(
            external(location, folder)
        )
    for entries in ({"offset": 4}, {"length": 4}, {"length": 2 * size}):
        assert f"expected {size} bytes of external data, found" in error_of(external("data", folder, **entries))
    assert "expected offset and length as numbers, found 'x', '0'" in error_of(external("data", folder, offset="x"))
    import_source(external("data", folder, offset=0, length=size), None, make_context())


def test_files_above_protobufs_limit(tmp_path: Path) -> None:
    path = write(WHOLE, tmp_path)
    os.truncate(path, 1 << 31)
    assert error_of(path).startswith("expected an .onnx file below 2 GB, protobuf's limit, found 2.1 GB")


def test_other_things(tmp_path: Path) -> None:
    (tmp_path / "folder.onnx").mkdir()
    os.mkfifo(tmp_path / "pipe.onnx")
    assert error_of(tmp_path / "none.onnx") == "expected an .onnx file, found no such file"
    assert error_of(tmp_path / "folder.onnx") == "expected an .onnx file, found a folder"
    assert error_of(tmp_path / "pipe.onnx") == "expected an .onnx file, found a pipe, device or socket"
    with zipfile.ZipFile(tmp_path / "zip.onnx", "w") as archive:
        archive.writestr("net.onnx", WHOLE)
    assert error_of(tmp_path / "zip.onnx") == "expected an .onnx file, found a zip archive"


def test_without_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(WHOLE, tmp_path)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(
        PatcError, match=r"expected the package onnx for .onnx files, found none: pip install 'patc\[onnx\]'"
    ):
        import_source(path, None, make_context())
