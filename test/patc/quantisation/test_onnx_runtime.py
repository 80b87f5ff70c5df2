"""The arithmetic is that of QLinearConv, as ONNX Runtime computes it: no bit differs."""

from __future__ import annotations

import numpy as np
import pytest
from quantised import QuantisedNet, Scale, run_quantised


@pytest.mark.parametrize("zero", [0, 117])
def test_convolutions_of_onnx_runtime(zero: int) -> None:
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    generator = np.random.default_rng(zero)
    x = generator.normal(size=(1, 12, 14, 30)).astype(np.float32)
    weight = generator.integers(-127, 128, (20, 12, 3, 3)).astype(np.int8)
    scales = (generator.random(20) * 0.01 + 0.001).astype(np.float32)
    bias = generator.integers(-3000, 3000, 20).astype(np.int32)
    given, made = Scale(0.0213, zero), Scale(0.147, 131)

    net = QuantisedNet(signed=False)
    y = net.conv(net.quantise(net.input(x), given), weight, scales, bias, made, pad=1)
    found = run_quantised(net, [net.dequantise(y)], "host")[0]

    helper, kinds = onnx.helper, onnx.TensorProto
    constants = {"w": weight, "ws": scales, "wz": np.zeros(20, np.int8), "b": bias}
    for name, scale in (("x", given), ("y", made)):
        constants |= {f"{name}s": np.float32(scale.scale), f"{name}z": np.int8(scale.zero - 128)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["q"]),
        helper.make_node("QLinearConv", ["q", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"], ["r"], pads=[1, 1, 1, 1]),
        helper.make_node("DequantizeLinear", ["r", "ys", "yz"], ["y"]),
    ]
    ends = (
        [helper.make_tensor_value_info(name, kinds.FLOAT, list(array.shape))]
        for name, array in (("x", x), ("y", y.array))
    )
    initializers = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "convolution", *ends, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(found, session.run(None, {"x": x})[0])
