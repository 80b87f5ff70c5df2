"""Quantised ONNX files as ONNX Runtime's tools write them: layers compute on integers, and the numbers are its own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gpu import needs_device
from helpers import layer_ops
from torch import nn

import patc
from patc.compiler import host_pipeline, lower_model
from patc.diagnostics import PatcError
from patc.passes.ir.constants import read_constant

onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
tools: Any = pytest.importorskip("onnxruntime.quantization")
from onnx.reference import ReferenceEvaluator  # noqa: E402

helper, kinds = onnx.helper, onnx.TensorProto
SHAPE = (1, 3, 12, 12)
TARGETS = ("host", pytest.param("spirv-vulkan", marks=needs_device))


class Net(nn.Module):
    """Residual, groups, strides, pools, a concatenation, resizing, a gate and two classifiers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 1, 1)
        self.body = nn.Conv2d(16, 16, 3, 1, 1)
        self.depthwise = nn.Conv2d(16, 16, 3, 1, 1, groups=16)
        self.skip = nn.Conv2d(16, 8, 1, 2)
        self.joined = nn.Conv2d(24, 20, 3, 1, 1)
        self.hidden, self.classifier = nn.Linear(20, 16), nn.Linear(16, 7)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        functional = nn.functional
        x = self.stem(x).relu()
        x = (x + self.body(x)).relu()
        pooled = functional.max_pool2d(functional.relu6(self.depthwise(x)), 2)
        x = functional.interpolate(torch.cat([pooled, self.skip(x)], 1), scale_factor=2.0, mode="nearest")
        planes = self.joined(functional.avg_pool2d(x, 2))
        gated = planes * torch.sigmoid(planes)
        return self.classifier(self.hidden(functional.adaptive_avg_pool2d(gated, 1).flatten(1)).relu()), planes


class Samples(tools.CalibrationDataReader):  # type: ignore[misc, name-defined]
    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self._samples: Iterator[Any] = iter([{"x": draw(generator)} for _ in range(3)])

    def get_next(self) -> Any:
        return next(self._samples, None)


def draw(generator: np.random.Generator) -> np.ndarray:
    return generator.normal(size=SHAPE).astype(np.float32)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("quantised") / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = {"input_names": ["x"], "output_names": ["y", "planes"]}
        torch.onnx.export(Net().eval(), (torch.zeros(SHAPE),), str(path), dynamo=False, opset_version=17, **names)
    return path


def quantise(source: Path, target: Path, form: str, per_channel: bool, signed: bool) -> Path:
    kind = tools.QuantType.QInt8 if signed else tools.QuantType.QUInt8
    tools.quantize_static(
        str(source),
        str(target),
        Samples(),
        quant_format=getattr(tools.QuantFormat, form),
        per_channel=per_channel,
        activation_type=kind,
        weight_type=tools.QuantType.QInt8,
    )
    return target


def run_onnx(path: Path, **inputs: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return list(session.run(None, inputs))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("form", "per_channel", "signed"), [("QDQ", True, False), ("QDQ", False, True), ("QOperator", True, True)]
)
def test_nets_of_the_quantisation_tools(
    exported: Path, form: str, per_channel: bool, signed: bool, target: str, tmp_path: Path
) -> None:
    path = quantise(exported, tmp_path / "net.onnx", form, per_channel, signed)
    compiled = patc.compile(path, target=target, threads=1)
    by_op = [(layer.op, layer.dtype) for layer in compiled.layers]
    computed = [
        dtype for op, dtype in by_op if op in ("conv2d", "linear", "add", "max_pool2d", "avg_pool2d", "resample")
    ]
    assert set(computed) == {"i8"} and len(computed) == 12
    # The gate alone has no kernels on integers: two numbers go there, and two come back.
    said = [item.message for item in compiled.diagnostics if "integers" in item.message]
    assert len(said) == 4 and any("for what has no kernels" in message for message in said)
    copies = [layer.remarks for layer in compiled.layers if layer.op == "relayout" and layer.remarks]
    assert {remark for remarks in copies for remark in remarks if "integers" in remark} == {*said}
    x = draw(np.random.default_rng(7))
    for found, wanted in zip(compiled(x), run_onnx(path, x=x), strict=True):
        values = np.unique(np.abs(wanted))
        step = values[values > 0].min()  # a bound of the scale of results
        assert np.abs(np.asarray(found) - wanted).max() <= step * 1.001
        assert np.mean(np.asarray(found) != wanted) < 0.02


def save(nodes: list[Any], x: Any, sizes: list[int], made: list[int], path: Path, **constants: np.ndarray) -> Path:
    """Write a graph from `x`, of such an element type, to `y`, with QuantizeLinear in the form of older and newer
    files."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", x, sizes)],
        [helper.make_tensor_value_info("y", kinds.FLOAT, made)],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), path)
    return path


ENDS = {"s": np.float32(0.05), "z": np.int8(-3), "t": np.float32(0.3), "u": np.int8(11)}


def qdq(x: str, scale: str, zero: str, name: str) -> list[Any]:
    return [
        helper.make_node("QuantizeLinear", [x, scale, zero], [f"{name}_integers"]),
        helper.make_node("DequantizeLinear", [f"{name}_integers", scale, zero], [name]),
    ]


@pytest.mark.parametrize("target", TARGETS)
def test_rows_of_three_dimensions(target: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    weight = generator.integers(-127, 128, (12, 9)).astype(np.int8)
    nodes = [
        *qdq("x", "s", "z", "a"),
        helper.make_node("DequantizeLinear", ["w", "ws"], ["b"], axis=1),
        helper.make_node("MatMul", ["a", "b"], ["c"]),
        *qdq("c", "t", "u", "y"),
    ]
    scales = (generator.random(9) * 0.01 + 0.001).astype(np.float32)
    path = save(nodes, kinds.FLOAT, [2, 5, 12], [2, 5, 9], tmp_path / "net.onnx", w=weight, ws=scales, **ENDS)
    compiled = patc.compile(path, target=target, threads=1)
    assert [layer.dtype for layer in compiled.layers if layer.op == "linear"] == ["i8"]
    x = generator.normal(size=(2, 5, 12)).astype(np.float32)
    found = np.asarray(compiled(x))
    assert np.abs(found - run_onnx(path, x=x)[0]).max() <= 0.301
    # Exactly, by the arithmetic of docs/int8.md.
    given = np.clip(np.rint(x / ENDS["s"]) - 3, -128, 127) + 3
    v = (given @ weight.astype(np.float64)).astype(np.float32) * ((ENDS["s"] * scales) / ENDS["t"])
    np.testing.assert_array_equal(found, (np.clip(np.rint(v) + 11, -128, 127) - 11).astype(np.float32) * ENDS["t"])


@pytest.mark.parametrize("target", TARGETS)
def test_inputs_of_integers(target: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    weight = generator.integers(-127, 128, (8, 4, 3, 3)).astype(np.int8)
    nodes = [
        helper.make_node("MaxPool", ["x"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("QLinearConv", ["m", "s", "z", "w", "ws", "wz", "t", "u"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("DequantizeLinear", ["c", "t", "u"], ["y"]),
    ]
    constants = {"w": weight, "ws": np.float32(0.007), "wz": np.int8(0), **ENDS}
    path = save(nodes, kinds.INT8, [1, 4, 8, 8], [1, 8, 4, 4], tmp_path / "net.onnx", **constants)
    compiled = patc.compile(path, target=target, threads=1)
    x = generator.integers(-128, 128, (1, 4, 8, 8)).astype(np.int8)
    found, wanted = np.asarray(compiled(x)), run_onnx(path, x=x)[0]
    assert {layer.dtype for layer in compiled.layers if layer.weights} == {"i8"}
    np.testing.assert_array_equal(found, wanted)


def test_weights_that_are_no_integers_stay(tmp_path: Path) -> None:
    weight = np.random.default_rng(2).normal(size=(8, 4, 3, 3)).astype(np.float32)
    nodes = [*qdq("x", "s", "z", "a"), helper.make_node("Conv", ["a", "w"], ["c"], "first"), *qdq("c", "t", "u", "y")]
    path = save(nodes, kinds.FLOAT, [1, 4, 8, 8], [1, 8, 6, 6], tmp_path / "net.onnx", w=weight, **ENDS)
    compiled = patc.compile(path, target="host", threads=1)
    said = [str(item) for item in compiled.diagnostics]
    assert any("first: remark: stays in f32: its weights are no integers of eight bits" in each for each in said)
    x = np.random.default_rng(3).normal(size=(1, 4, 8, 8)).astype(np.float32)
    # ONNX Runtime rounds these weights to integers of its own.
    wanted = ReferenceEvaluator(str(path)).run(None, {"x": x})[0]
    assert np.mean(np.abs(np.asarray(compiled(x)) - wanted) > 1e-3) < 0.01


def test_half_precision(exported: Path, tmp_path: Path) -> None:
    """There are no kernels on integers with f16: what they stand for is computed."""
    path = quantise(exported, tmp_path / "net.onnx", "QDQ", True, False)
    compiled = patc.compile(path, target="aarch64-linux", dtype="f16")
    assert "i8" not in {layer.dtype for layer in compiled.layers}


def test_operations_of_the_domain_that_are_not_known_are_listed(tmp_path: Path) -> None:
    nodes = [helper.make_node("QLinearSoftmax", ["x", "s", "z", "t", "u"], ["y"], "soft", domain="com.microsoft")]
    path = save(nodes, kinds.INT8, [1, 4], [1, 4], tmp_path / "net.onnx", **ENDS)
    with pytest.raises(PatcError, match=r"of other domains, .*: com\.microsoft\.QLinearSoftmax x1"):
        patc.compile(path)


@pytest.mark.parametrize("target", TARGETS)
def test_integers_that_were_moved_are_read_as_integers(target: str, tmp_path: Path) -> None:
    """As files of operations on integers have them: parts of channels, and planes that become rows."""
    generator = np.random.default_rng(4)
    first, second = (generator.integers(-127, 128, (8, size, 3, 3)).astype(np.int8) for size in (4, 5))
    numbers = ["ws", "wz", "t", "u"]
    nodes = [
        helper.make_node("QLinearConv", ["x", "s", "z", "first", *numbers], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Split", ["c", "parts"], ["left", "right"], axis=1),
        helper.make_node("QLinearConv", ["right", "t", "u", "second", *numbers], ["d"]),
        helper.make_node("Flatten", ["d"], ["rows"]),
        helper.make_node("QLinearMatMul", ["rows", "t", "u", "third", *numbers], ["e"]),
        helper.make_node("DequantizeLinear", ["e", "t", "u"], ["y"]),
    ]
    constants = {"ws": np.float32(0.007), "wz": np.int8(0), "parts": np.array([3, 5]), **ENDS}
    arrays = {"first": first, "second": second, "third": generator.integers(-127, 128, (32, 6)).astype(np.int8)}
    path = save(nodes, kinds.INT8, [1, 4, 4, 4], [1, 6], tmp_path / "net.onnx", **constants, **arrays)
    compiled = patc.compile(path, target=target, threads=1)
    assert [layer.dtype for layer in compiled.layers if layer.weights] == ["i8"] * 3
    x = generator.integers(-128, 128, (1, 4, 4, 4)).astype(np.int8)
    np.testing.assert_array_equal(np.asarray(compiled(x)), run_onnx(path, x=x)[0])


@pytest.mark.parametrize("sizes", [(3, 1), (1, 3), (0, 1)])
def test_scales_and_zero_points_of_other_numbers_of_filters(sizes: tuple[int, int], tmp_path: Path) -> None:
    constants = {"ws": np.full(sizes[0], 0.007, np.float32), "wz": np.ones(sizes[1], np.int8), **ENDS}
    nodes = [
        helper.make_node("QLinearConv", ["x", "s", "z", "w", "ws", "wz", "t", "u"], ["c"], "first"),
        helper.make_node("DequantizeLinear", ["c", "t", "u"], ["y"]),
    ]
    weight = np.ones((8, 4, 3, 3), np.int8)
    path = save(nodes, kinds.INT8, [1, 4, 4, 4], [1, 8, 2, 2], tmp_path / "net.onnx", w=weight, **constants)
    with pytest.raises(PatcError, match="first: expected shapes that go together"):
        patc.compile(path)


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_biases_of_any_size_stay_what_they_are(form: str, tmp_path: Path) -> None:
    """Numbers of f32 do not tell integers of more than 24 bits, and their products with a scale not those of 23."""
    generator = np.random.default_rng(0)
    sizes = np.logspace(0, np.log10(2**30), 512)
    bias = (sizes * generator.choice([-1, 1], 512)).astype(np.int32)
    scales = (generator.random(512) * 1e-6 + 1e-7).astype(np.float32)
    constants = {"w": generator.integers(-127, 128, (512, 4, 1, 1)).astype(np.int8), "ws": scales, "b": bias, **ENDS}
    constants |= {"wz": np.zeros(512, np.int8), "bs": ENDS["s"] * scales}
    if form == "QDQ":
        nodes = [
            *qdq("x", "s", "z", "a"),
            helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["weight"], axis=0),
            helper.make_node("DequantizeLinear", ["b", "bs"], ["bias"], axis=0),
            helper.make_node("Conv", ["a", "weight", "bias"], ["c"]),
            *qdq("c", "t", "u", "y"),
        ]
    else:
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            helper.make_node("QLinearConv", ["q", "s", "z", "w", "ws", "wz", "t", "u", "b"], ["r"]),
            helper.make_node("DequantizeLinear", ["r", "t", "u"], ["y"]),
        ]
    path = save(nodes, kinds.FLOAT, [1, 4, 3, 3], [1, 512, 3, 3], tmp_path / "net.onnx", **constants)
    module, state = lower_model(path, None, host_pipeline("host", 1).until("quantize"))
    (op,) = (op for op in layer_ops(module) if op.operation.name == "pattern.conv2d")
    np.testing.assert_array_equal(read_constant(op.bias, state), bias)
    np.testing.assert_array_equal(np.array(list(op.attributes["scales"]), np.float32), scales)
    x = generator.normal(size=(1, 4, 3, 3)).astype(np.float32)
    np.testing.assert_array_equal(np.asarray(patc.compile(path, threads=1)(x)), run_onnx(path, x=x)[0])
