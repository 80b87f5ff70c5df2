"""Operations of .onnx files whose attributes torch-mlir lacks or reads in another way, against ONNX's own evaluator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

import patc


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def check(
    nodes: Sequence[Any], given: dict[str, np.ndarray], constants: dict[str, np.ndarray], opset: int, path: Path
) -> None:
    """Compare all results of some nodes that nothing else reads."""
    types = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in given.items()}
    read = {name for each in nodes for name in each.input}
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, types[name], array.shape) for name, array in given.items()],
        [helper.make_value_info(name, onnx.TypeProto()) for each in nodes for name in each.output if name not in read],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.save(model, path)
    found = patc.compile(path, threads=1)(*given.values())
    wanted = ReferenceEvaluator(model).run(None, given)
    for value, one, other in zip(graph.output, found, wanted, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype), value.name
        if one.dtype.kind in "biu":
            np.testing.assert_array_equal(one, other, err_msg=value.name)
            continue
        bound = 1e-2 if one.dtype == np.float16 else 1e-5
        np.testing.assert_allclose(one, other, rtol=0, atol=bound * np.abs(other).max(), err_msg=value.name)


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


@pytest.mark.usefixtures("one_thread")
def test_windows_products_and_places(tmp_path: Path) -> None:
    x, vector = random(2, 4, 6, 8), random(8)
    nodes = [
        node("ConvTranspose", "x w", "asymmetric", pads=[0, 1, 2, 1], strides=[2, 1], kernel_shape=[3, 3]),
        node("ConvTranspose", "x w", "dilated", pads=[1, 0, 0, 2], dilations=[2, 1], kernel_shape=[3, 3]),
        node("ConvTranspose", "x w", "upper", auto_pad="SAME_UPPER", strides=[2, 3], kernel_shape=[3, 3]),
        node("ConvTranspose", "x wide", "lower", auto_pad="SAME_LOWER", strides=[2, 3], kernel_shape=[4, 4]),
        node("ConvTranspose", "x single", "depthwise", group=4, pads=[1, 0, 0, 1], strides=[2, 1], kernel_shape=[3, 3]),
        node("ConvTranspose", "x single", "turned", group=4, pads=[1, 0, 2, 1], kernel_shape=[3, 3], dilations=[1, 2]),
        node("LpPool", "x", "norms", auto_pad="SAME_UPPER", kernel_shape=[3, 2], strides=[2, 2], p=3),
        node("MaxPool", "x", "largest places", strides=[2, 2], kernel_shape=[2, 2]),
        node("Mul", "places three", "counted"),
        node("MaxUnpool", "largest places", "unpooled", strides=[2, 2], kernel_shape=[2, 2]),
        node("MatMul", "x vector", "rows"),
        node("MatMul", "short x", "columns"),
        node("Slice", "x starts ends axes steps", "backwards"),
        node("Einsum", "rows m", "implicit", equation="nch, hk"),
        node("ReverseSequence", "vector3 lengths", "reversed", time_axis=0, batch_axis=1),
    ]
    constants = {"w": random(4, 3, 3, 3), "wide": random(4, 3, 4, 4), "m": random(6, 5), "single": random(4, 1, 3, 3)}
    constants |= {"short": random(6), "starts": np.array([-1, 1]), "ends": np.array([-9, 4]), "axes": np.array([3, 1])}
    constants |= {"steps": np.array([-2, 2])}
    constants |= {"three": np.array(3), "lengths": np.array([1, 4, 2])}
    check(nodes, {"x": x, "vector": vector, "vector3": random(4, 3, 2)}, constants, 18, tmp_path / "net.onnx")


@pytest.mark.usefixtures("one_thread")
def test_regions_deformed_taps_determinants_and_least_elements(tmp_path: Path) -> None:
    taps = {"kernel_shape": [3, 2], "strides": [2, 1], "dilations": [1, 2], "pads": [1, 0, 1, 2]}
    bins = {"output_height": 3, "output_width": 2, "sampling_ratio": 2, "spatial_scale": 0.5}
    nodes = [
        node("DeformConv", "x w offset bias mask", "deformed", group=2, offset_group=2, **taps),
        node("RoiAlign", "x regions images", "means", **bins),
        node("RoiAlign", "x regions images", "largest", mode="max", **bins),
        node("RoiAlign", "x regions images", "old", coordinate_transformation_mode="output_half_pixel", **bins),
        node("Det", "matrices", "determinants"),
        node("ScatterElements", "matrices places updates", "least", axis=-1, reduction="min"),
    ]
    matrices = random(2, 4, 4)
    matrices[0, 0, 0] = 0
    given = {"x": random(2, 4, 6, 7), "offset": 2 * random(2, 24, 3, 7), "mask": random(2, 12, 3, 7)}
    given |= {"regions": np.array([[0, 0, 9, 11], [-6, -4, 20, 7], [5, 2, 5.2, 18]], np.float32), "matrices": matrices}
    constants = {"w": random(6, 2, 3, 2), "bias": random(6), "images": np.array([0, 1, 1])}
    constants |= {"places": np.array([[[0, -1, 2, 2]], [[3, 3, 3, 3]]]), "updates": random(2, 1, 4)}
    check(nodes, given, constants, 20, tmp_path / "net.onnx")


@pytest.mark.usefixtures("one_thread")
def test_numbers_of_16_bits_blocks_and_half_precision(tmp_path: Path) -> None:
    constants = {
        "scale": np.float32(0.001),
        "zero": np.array(3000, np.uint16),
        "weights": np.random.default_rng(0).integers(-8, 8, (5, 6)).astype(np.int8),
        "scales": np.abs(random(3, 6)) + 0.1,
        "half": np.array(0.1, np.float16),
    }
    nodes = [
        node("QuantizeLinear", "x scale zero", "q"),
        node("DequantizeLinear", "q scale zero", "restored"),
        node("DequantizeLinear", "weights scales", "w", axis=0, block_size=2),
        node("MatMul", "x w", "product"),
        node("DequantizeLinear", "bytes half", "halves"),
    ]
    given = {"x": random(3, 5), "bytes": np.arange(-8, 8, dtype=np.int8)}
    check(nodes, given, constants, 21, tmp_path / "net.onnx")


@pytest.mark.parametrize(("opset", "kind"), [(9, "Upsample"), (10, "Resize")])
def test_old_resizing_places_elements_at_multiples(opset: int, kind: str, tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node(kind, ["x", "scales"], ["y"], mode="linear")],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 1, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.array([1, 1, 1, 2], np.float32), "scales")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), tmp_path / "a.onnx"
    )
    found = patc.compile(tmp_path / "a.onnx", threads=1)(np.array([[[[0, 2, 3]]]], np.float32))
    assert np.asarray(found).ravel().tolist() == [0, 1, 2, 2.5, 3, 3]


@pytest.mark.parametrize(("producer", "last"), [("pytorch", 6.0), ("backend-test", 2 * 6 / 2.5)])
def test_corners_of_scales_that_shrink(producer: str, last: float, tmp_path: Path) -> None:
    """Seven elements at half the scale are three to PyTorch, as to ONNX Runtime, and three and a half to ONNX's cases."""
    graph = helper.make_graph(
        [
            helper.make_node(
                "Resize", ["x", "", "scales"], ["y"], mode="linear", coordinate_transformation_mode="align_corners"
            )
        ],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 1, 7])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.array([1, 1, 1, 0.5], np.float32), "scales")],
    )
    opsets = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name=producer), tmp_path / "a.onnx")
    found = patc.compile(tmp_path / "a.onnx", threads=1)(np.arange(7, dtype=np.float32).reshape(1, 1, 1, 7))
    assert np.asarray(found).ravel().tolist() == pytest.approx([0, last / 2, last])


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("dtype", ["uint16", "uint32", "uint64"])
def test_integers_without_a_sign(dtype: str, tmp_path: Path) -> None:
    generator, most = np.random.default_rng(0), np.iinfo(dtype).max
    a, b = (generator.integers(most // 4, most, (4, 6), dtype, endpoint=True) for _ in range(2))
    element, floating = helper.np_dtype_to_tensor_dtype(a.dtype), dtype != "uint64"
    nodes = [
        node("Add", "a b", "sum"),
        node("Mul", "sum b", "product"),
        node("BitwiseNot", "product", "bits"),
        node("Less", "product a", "less"),
        node("Max", "product c", "largest"),
        node("Where", "less a c", "chosen"),
        node("TopK", "bits k", "first places"),
        node("Clip", "product c", "clipped"),
        node("Cast", "long", "cast", to=element),
        node("Concat", "cast bits", "joined", axis=0),
        *[node(kind, "product b", kind.lower()) for kind in ("Div", "Mod") if floating],
        *[node("Cast", "bits", "number", to=TensorProto.DOUBLE)] * floating,
    ]
    constants = {"c": np.full(6, most // 2 + 9, dtype), "k": np.array([2])}
    check(
        nodes, {"a": a, "b": b, "long": np.array([[-1, 1, 5, 70000, 1 << 40, 9]])}, constants, 18, tmp_path / "a.onnx"
    )
    if not floating:
        with pytest.raises(patc.PatcError, match="cannot compile for uint64: Div x1"):
            check([node("Div", "a b", "y")], {"a": a, "b": b}, {}, 18, tmp_path / "b.onnx")


LOOPS = """
<ir_version: 8, opset_import: ["" : 17]>
graph (float[2, 3] x) => (total, steps, sums, backwards, joined, part)
<int64 zero = {0}, int64 one = {1}, int64 four = {4}, int64 many = {9223372036854775807}, bool yes = {1}, float half = {0.5}>
{
    count, total, steps = Loop (many, yes, one, x) <body = counted (int64 i, bool go, int64 n, float[2, 3] a)
        => (bool more, int64 m, b, c) {
        m = Add (n, n)
        inner = Loop (i, , a) <body = nested (int64 j, bool on, float[2, 3] e) => (bool on_too, f) {
            on_too = Identity (yes)
            k = Cast <to = 1> (j)
            g = Mul (e, half)
            f = Add (g, k)
        }>
        b = Add (inner, x)
        c = ReduceSum <keepdims = 0> (b)
        more = Less (m, four)
    }>
    sums, backwards = Scan <num_scan_inputs = 1, scan_input_axes = [1], scan_input_directions = [1],
        scan_output_axes = [1], scan_output_directions = [1], body = scanned (float[2] s, float[2] column)
        => (float[2] t, float[2] u) {
        t = Add (s, column)
        u = Mul (t, half)
    }> (first, x)
    first = Gather <axis = 1> (x, zero)
    none = SequenceEmpty ()
    parts = SplitToSequence <axis = 1> (x, one)
    length = SequenceLength (parts)
    filled = Loop (length, yes, none) <body = filling (int64 p, bool still, seq(float[2, 1]) q)
        => (bool always, seq(float[2, 1]) r) {
        always = Identity (still)
        element = SequenceAt (parts, p)
        r = SequenceInsert (q, element, zero)
    }>
    joined = ConcatFromSequence <axis = 0, new_axis = 1> (filled)
    part = SequenceAt (filled, one)
}
"""


@pytest.mark.usefixtures("one_thread")
def test_loops_of_known_lengths_and_their_sequences(tmp_path: Path) -> None:
    model, x = onnx.parser.parse_model(LOOPS), random(2, 3)
    onnx.save(model, tmp_path / "loops.onnx")
    found = patc.compile(tmp_path / "loops.onnx", threads=1)(x)
    first, second = x + x, (x + x) * 0.5 + x
    sums = [x[:, 0] + x[:, 2], x[:, 0] + x[:, 2] + x[:, 1], x[:, 0] + x.sum(1)]
    steps = [first.sum(), second.sum()]
    wanted = [second, steps, sums[-1], np.stack(sums[::-1], 1) / 2, x.T[::-1, :, None], x[:, 1:2]]
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("count", "line"),
    [("n", "A: expected Loop to run as often as constants say"), ("many", "A: expected a Loop of at most 16384 op")],
)
def test_loops_that_are_not_written_out(count: str, line: str, tmp_path: Path) -> None:
    text = f"""<ir_version: 8, opset_import: ["" : 17]> graph (float[2] x, int64 n) => (y)
    <int64 many = {{9223372036854775807}}, bool yes = {{1}}> {{
    [A] y = Loop ({count}, yes, x) <body = body (int64 i, bool go, float[2] a) => (bool on, b) {{
        on = Identity (go)
        b = Add (a, a)
    }}> }}"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "loop.onnx")
    with pytest.raises(patc.PatcError, match=line):
        patc.compile(tmp_path / "loop.onnx", threads=1)


def test_instance_norm_is_one_function(tmp_path: Path) -> None:
    """That of PyTorch, too."""
    x, path = 3 * random(2, 5, 9, 7) + 1, tmp_path / "net.onnx"
    net = torch.nn.InstanceNorm2d(5, eps=1e-3, affine=True).eval()
    net.weight.data, net.bias.data = torch.arange(5.0), torch.arange(5.0) - 2
    constants = {"s": net.weight.detach().numpy(), "b": net.bias.detach().numpy()}
    types = [helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape) for name in "xy"]
    nodes = [node("InstanceNormalization", "x s b", "y", epsilon=1e-3)]
    initializers = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "graph", types[:1], types[1:], initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    wanted = net.double()(torch.from_numpy(x).double()).detach().numpy()
    for model, inputs in ((path, None), (net.float(), (torch.from_numpy(x),))):
        compiled = patc.compile(model, inputs, threads=1)
        assert [layer.op for layer in compiled.layers] == ["generic"]
        np.testing.assert_allclose(np.asarray(compiled(x)), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
