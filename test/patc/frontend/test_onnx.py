"""ONNX files: compiled to the numbers of torch or of onnx's own evaluator."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conv_layers import draw_weight
from helpers import assert_close, torch_results
from large import LARGE
from onnx_nodes import PASSES, REFUSED, load_cases, run_cases
from torch import Tensor, nn

import patc
from patc.compiler import lower_model
from patc.diagnostics import PatcError
from patc.frontend.onnx import read_graph
from patc.pipeline import Pipeline
from patc.tools.patc import main

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnx.reference")
helper, FLOAT, INT64 = onnx.helper, onnx.TensorProto.FLOAT, onnx.TensorProto.INT64


def export(model: nn.Module, inputs: Sequence[Tensor], path: Path, **options: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, tuple(inputs), os.fspath(path), dynamo=False, **options)
    return path


def save(
    nodes: Sequence[Any],
    inputs: Sequence[tuple[str, int, Any]],
    outputs: Sequence[str],
    path: Path,
    constants: dict[str, np.ndarray] | None = None,
    opset: int = 18,
) -> Path:
    """Write a model whose outputs have no declared type."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_value_info(name, onnx.TypeProto()) for name in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]), path)
    return path


def evaluate(path: Path, *inputs: np.ndarray) -> list[np.ndarray]:
    """Return what onnx's own evaluator computes."""
    names = [value.name for value in onnx.load(path).graph.input]
    return onnx.reference.ReferenceEvaluator(os.fspath(path)).run(None, dict(zip(names, inputs, strict=True)))


def results(path: Path, *inputs: np.ndarray, shapes: Any = None) -> list[np.ndarray]:
    found = patc.compile(path, shapes, threads=1)(*inputs)
    return list(found) if isinstance(found, tuple) else [found]


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


class Detector(nn.Module):
    """A net with the shape arithmetic that exporters write: 1x3xHxW -> boxes, scores."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
        self.deep, self.head = nn.Conv2d(16, 16, 3, padding=1, groups=4), nn.Conv2d(32, 6, 1)
        self.norm.running_mean.data.uniform_(-1, 1)
        self.norm.running_var.data.uniform_(0.5, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        low = nn.functional.silu(self.norm(self.stem(x)))
        deep = nn.functional.leaky_relu(self.deep(nn.functional.max_pool2d(low, 2)), 0.1)
        up = nn.functional.interpolate(deep, size=low.shape[2:], mode="nearest")
        y = self.head(torch.cat((low, up), 1))
        y = y.view(x.shape[0], 2, 3, -1).permute(0, 3, 1, 2).reshape(x.shape[0], -1, 6)
        return y[..., :4] * 2, y[..., 4:].softmax(-1)


@pytest.mark.parametrize("opset", [9, 13, 18])
def test_open_shapes_are_given_and_shape_arithmetic_is_computed(opset: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Detector().eval(), torch.randn(1, 3, 24, 32)
    names = {"input_names": ["image"], "output_names": ["boxes", "scores"]}
    axes = {"image": {0: "N", 2: "H", 3: "W"}}
    path = export(model, [x], tmp_path / "net.onnx", opset_version=opset, dynamic_axes=axes, **names)
    with pytest.raises(PatcError, match=r"found 'image' \(N x 3 x H x W\); give them as in --shape image=1x3x224x224"):
        patc.compile(path)
    compiled = patc.compile(path, {"image": (1, 3, 24, 32)}, threads=1)
    assert [info.name for info in compiled.program.inputs] == ["image"]
    assert [info.name for info in compiled.program.outputs] == ["boxes", "scores"]
    assert_close(compiled(x.numpy()), torch_results(model, [x]), 1e-4)


def test_parts_of_a_split_that_nobody_wants(tmp_path: Path) -> None:
    nodes = [helper.make_node("Split", ["x", "sizes"], ["", "y"], axis=1)]
    path = save(nodes, [("x", FLOAT, [2, 4])], ["y"], tmp_path / "net.onnx", {"sizes": np.array([1, 3])})
    assert np.array_equal(results(path, random(2, 4))[0], random(2, 4)[:, 1:])


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
def test_pads_that_cut(mode: str, tmp_path: Path) -> None:
    nodes = [helper.make_node("Pad", ["x", "pads", "", "axes"], ["y"], mode=mode)]
    constants = {"pads": np.array([-1, 2, 1, -2]), "axes": np.array([3, 2])}
    path, x = save(nodes, [("x", FLOAT, [1, 2, 5, 6])], ["y"], tmp_path / "net.onnx", constants), random(1, 2, 5, 6)
    wanted = np.pad(x[:, :, :3, 1:], ((0, 0), (0, 0), (2, 0), (0, 1)), mode)
    assert np.array_equal(results(path, x)[0], wanted)


def test_pads_that_go_around_axes_of_one_element(tmp_path: Path) -> None:
    nodes = [helper.make_node("Pad", ["x", "pads"], ["y"], mode="wrap")]
    constants = {"pads": np.array([0, 0, 1, 2, 0, 0, 3, 9])}
    path, x = save(nodes, [("x", FLOAT, [1, 2, 1, 4])], ["y"], tmp_path / "net.onnx", constants), random(1, 2, 1, 4)
    assert np.array_equal(results(path, x)[0], np.pad(x, ((0, 0), (0, 0), (1, 3), (2, 9)), "wrap"))


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("mode", ["CRD", "DCR"])
def test_depth_becomes_space(channels: int, mode: str, tmp_path: Path) -> None:
    nodes = [helper.make_node("DepthToSpace", ["x"], ["y"], blocksize=2, mode=mode)]
    x = random(2, 4 * channels, 3, 5)
    path = save(nodes, [("x", FLOAT, list(x.shape))], ["y"], tmp_path / "net.onnx")
    order = (0, 1, 4, 2, 5, 3) if mode == "CRD" else (0, 3, 4, 1, 5, 2)
    parts = x.reshape(2, *((channels, 2, 2) if mode == "CRD" else (2, 2, channels)), 3, 5)
    assert np.array_equal(results(path, x)[0], parts.transpose(order).reshape(2, channels, 6, 10))


@pytest.mark.parametrize("counts_pads", [False, True])
def test_windows_that_reach_beyond_the_pads(counts_pads: bool, tmp_path: Path) -> None:
    x = random(1, 2, 5, 3)
    sizes = {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 0]}
    node = helper.make_node("AveragePool", ["x"], ["y"], ceil_mode=1, count_include_pad=int(counts_pads), **sizes)
    path = save([node], [("x", FLOAT, list(x.shape))], ["y"], tmp_path / "net.onnx")
    pool = nn.AvgPool2d((3, 2), 2, (1, 0), ceil_mode=True, count_include_pad=counts_pads)
    assert_close(results(path, x), [pool(torch.from_numpy(x)).numpy()], 1e-6)


@pytest.mark.parametrize("pads", [[0, 0, 1, 1], [1, 0, 0, 2], [0, 0, 0, 0]])
def test_dilated_means_count_the_pads_of_one_side(pads: list[int], tmp_path: Path) -> None:
    x = random(1, 1, 14, 13)
    sizes = {"kernel_shape": [5, 4], "strides": [3, 3], "dilations": [2, 2], "pads": pads}
    node = helper.make_node("AveragePool", ["x"], ["y"], ceil_mode=1, count_include_pad=1, **sizes)
    path = save([node], [("x", FLOAT, list(x.shape))], ["y"], tmp_path / "net.onnx", opset=19)
    found = results(path, x)[0][0, 0]
    padded = np.pad(x[0, 0], ((pads[0], pads[2]), (pads[1], pads[3])))
    wanted = [
        [padded[3 * row : 3 * row + 9 : 2, 3 * column : 3 * column + 7 : 2].mean() for column in range(found.shape[1])]
        for row in range(found.shape[0])
    ]
    assert_close([found], [np.array(wanted)], 1e-6)


def test_zeros_of_a_pruned_model_are_found(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1)).eval()
    for conv in (model[0], model[2]):
        generator = torch.Generator().manual_seed(1)
        conv.weight.data.copy_(draw_weight({"zeros": "patterns", "keep": 0.5}, tuple(conv.weight.shape), generator))
    x = torch.randn(1, 8, 12, 12)
    path = export(model, [x], tmp_path / "pruned.onnx")
    compiled = patc.compile(path, threads=1)
    kept = [(layer.kept_weights, layer.weights) for layer in compiled.layers if layer.weights]
    assert len(kept) == 2 and all(2 * some < every for some, every in kept)
    assert_close([compiled(x.numpy())], torch_results(model, [x]), 1e-4)


def test_weights_are_parameters_with_their_names(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 5)).eval()
    path = export(model, [torch.zeros(1, 3, 4, 4)], tmp_path / "net.onnx")
    module, state = lower_model(path, None, Pipeline())
    assert {*state.parameters} == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert "dense<" not in str(module).replace("dense<1> : vector<2xi64>", "")


def test_old_files_list_weights_as_inputs(tmp_path: Path) -> None:
    weight = random(4, 3, 1, 1)
    inputs = [("x", FLOAT, [1, 3, 5, 5]), ("w", FLOAT, [4, 3, 1, 1])]
    path = save([helper.make_node("Conv", ["x", "w"], ["y"])], inputs, ["y"], tmp_path / "a.onnx", {"w": weight}, 8)
    x = random(1, 3, 5, 5)
    assert_close(results(path, x), [np.tensordot(weight[:, :, 0, 0], x, (1, 1)).transpose(1, 0, 2, 3)], 1e-4)


def test_conditions_that_are_known_are_inlined(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info("r", FLOAT, None)
    then = helper.make_graph(
        [helper.make_node("Mul", ["x", "c"], ["r"])],
        "then",
        [],
        [value],
        [onnx.numpy_helper.from_array(np.float32([2, 3]), "c")],
    )
    other = helper.make_graph([helper.make_node("Exp", ["x"], ["r"])], "else", [], [value])
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Equal", ["n", "four"], ["is_four"]),
        helper.make_node("If", ["is_four"], ["y"], then_branch=then, else_branch=other),
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("Greater", ["total", "nought"], ["is_large"]),
        helper.make_node("If", ["is_large"], ["z"], then_branch=then, else_branch=other),
    ]
    constants = {"zero": np.int64(0), "four": np.int64(4), "nought": np.float32(0)}
    path = save(
        nodes,
        [("x", FLOAT, ["N", 2])],
        ["y", "z"],
        tmp_path / "a.onnx",
        {k: np.asarray(v) for k, v in constants.items()},
    )
    for sign in (1, -1):
        x = sign * np.abs(random(4, 2))
        y, z = results(path, x, shapes=[x])
        assert_close([y, z], [x * [2, 3], x * [2, 3] if sign > 0 else np.exp(x)], 1e-4)


def test_sizes_that_share_a_name_are_one(tmp_path: Path) -> None:
    path = save(
        [helper.make_node("Add", ["x", "y"], ["z"])],
        [("x", FLOAT, ["N", 3]), ("y", FLOAT, ["N", 3])],
        ["z"],
        tmp_path / "a.onnx",
    )
    x = random(2, 3)
    assert_close(results(path, x, x, shapes={"x": (2, 3)}), [x + x])


def test_weights_of_half_precision(tmp_path: Path) -> None:
    weight = random(4, 3, 1, 1)
    for element, name in ((onnx.TensorProto.BFLOAT16, "bf16"), (onnx.TensorProto.FLOAT16, "f16")):
        half = helper.make_tensor("w", element, weight.shape, weight.ravel())
        nodes = [helper.make_node("Cast", ["w"], ["wide"], to=FLOAT), helper.make_node("Conv", ["x", "wide"], ["y"])]
        path = save(nodes, [("x", FLOAT, [1, 3, 5, 5])], ["y"], tmp_path / f"{name}.onnx")
        model = onnx.load(path)
        model.graph.initializer.append(half)
        onnx.save(model, path)
        rounded = onnx.numpy_helper.to_array(half).astype(np.float64)
        x = random(1, 3, 5, 5)
        assert_close(results(path, x), [np.tensordot(rounded[:, :, 0, 0], x, (1, 1)).transpose(1, 0, 2, 3)], 1e-5)


def test_images_with_channels_last(tmp_path: Path) -> None:
    """What tf2onnx writes: a transpose before and after each convolution, or around all of them."""
    weights = {"w": random(8, 3, 3, 3), "v": random(4, 8, 1, 1)}
    transposes = [
        helper.make_node("Transpose", ["x"], ["a"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["a", "w"], ["b"], pads=[1] * 4),
        helper.make_node("Transpose", ["b"], ["c"], perm=[0, 2, 3, 1]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Transpose", ["d"], ["e"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["e", "v"], ["f"]),
        helper.make_node("Transpose", ["f"], ["y"], perm=[0, 2, 3, 1]),
    ]
    path = save(transposes, [("x", FLOAT, [1, 6, 7, 3])], ["y"], tmp_path / "a.onnx", weights)
    x = random(1, 6, 7, 3)
    assert_close(results(path, x), evaluate(path, x), 1e-4)


def test_quantised_weights_and_activations(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    constants = {
        "s": np.float32(0.02), "z": np.uint8(128), "wq": rng.integers(-127, 127, (8, 4, 3, 3)).astype(np.int8),
        "ws": rng.uniform(0.001, 0.01, 8).astype(np.float32), "wz": np.zeros(8, np.int8),
        "mq": rng.integers(0, 255, (8, 5)).astype(np.uint8), "mz": np.uint8(120),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xr"]),
        helper.make_node("DequantizeLinear", ["wq", "ws", "wz"], ["wr"], axis=0),
        helper.make_node("Conv", ["xr", "wr"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("DynamicQuantizeLinear", ["f"], ["fq", "fs", "fz"]),
        helper.make_node("MatMulInteger", ["fq", "mq", "fz", "mz"], ["m"]),
        helper.make_node("Cast", ["m"], ["mf"], to=FLOAT),
        helper.make_node("Mul", ["mf", "fs"], ["y"]),
    ]
    arrays = {name: np.asarray(array) for name, array in constants.items()}
    path = save(nodes, [("x", FLOAT, [1, 4, 6, 6])], ["y", "xq"], tmp_path / "a.onnx", arrays, 21)
    x = random(1, 4, 6, 6)
    found, wanted = results(path, x), evaluate(path, x)
    assert_close(found[:1], wanted[:1], 1e-4)
    assert np.array_equal(found[1], wanted[1]) and found[1].dtype == np.uint8


def test_functions_of_the_model_are_inlined(tmp_path: Path) -> None:
    body = [helper.make_node("Mul", ["a", "a"], ["b"]), helper.make_node("Relu", ["b"], ["c"])]
    function = helper.make_function("mine", "Squared", ["a"], ["c"], body, [helper.make_opsetid("", 18)])
    graph = helper.make_graph(
        [helper.make_node("Squared", ["x"], ["y"], domain="mine")],
        "graph",
        [helper.make_tensor_value_info("x", FLOAT, [2, 3])],
        [helper.make_tensor_value_info("y", FLOAT, [2, 3])],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("mine", 1)]
    onnx.save(helper.make_model(graph, functions=[function], opset_imports=opsets), tmp_path / "a.onnx")
    x = random(2, 3)
    assert_close(results(tmp_path / "a.onnx", x), [x * x])


def test_external_data(tmp_path: Path) -> None:
    model = nn.Conv2d(3, 64, 3).eval()
    x = torch.randn(1, 3, 8, 8)
    loaded = onnx.load(export(model, [x], tmp_path / "whole.onnx"))
    onnx.save(loaded, tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    assert_close([patc.compile(tmp_path / "net.onnx", threads=1)(x.numpy())], torch_results(model, [x]), 1e-4)


def test_from_a_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    axes = {"x": {0: "N"}}
    model = nn.Conv2d(3, 4, 3).eval()
    export(model, [torch.zeros(1, 3, 8, 8)], tmp_path / "net.onnx", input_names=["x"], dynamic_axes=axes)
    arguments = [os.fspath(tmp_path / "net.onnx"), "-o", os.fspath(tmp_path / "net.patc"), "--threads", "1"]
    assert main(["compile", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "expected inputs of known shapes, found 'x' (N x 3 x 8 x 8)" in error
    assert main(["compile", *arguments, "--shape", "x=2x3x8x8"]) == 0
    x = torch.randn(2, 3, 8, 8)
    assert_close([patc.load(tmp_path / "net.patc")(x.numpy())], torch_results(model, [x]), 1e-4)


def test_constants_of_arrays_beyond_memory_are_not_made(tmp_path: Path) -> None:
    constants = {"shape": np.array([1 << 20, 1 << 20], np.int64), "i": np.zeros(2, np.int64)}
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["large"]),
        helper.make_node("ReduceSum", ["large"], ["one"], keepdims=0),
        helper.make_node("Add", ["x", "one"], ["y"]),
    ]
    path = save(nodes, [("x", FLOAT, [2])], ["y"], tmp_path / "a.onnx", constants)
    with pytest.raises(
        PatcError, match=r"expected at most 1.1 GB of constants.*found ConstantOfShape of 8796.1 GB more"
    ):
        read_graph(path, None)


# Operations of many kinds; all cases of all operations take some twenty minutes.
FAST = ("test_gemm_alpha", "test_resize_upsample_sizes_nearest", "test_slice", "test_convtranspose_pads")
FAST += ("test_layer_normalization_2d_axis1", "test_gather_elements_0", "test_qlinearmatmul_2D_uint8_float32")
FAST += ("test_resize_downsample_scales_cubic_antialias", "test_resize_tf_crop_and_resize", "test_gridsample_bicubic")
FAST += ("test_gridsample_reflection_padding", "test_dft_inverse", "test_col2im_5d")
FAST += ("test_averagepool_2d_ceil", "test_dynamicquantizelinear")
FAST += ("test_group_normalization_example", "test_sce_none", "test_det_2d", "test_scan9_sum")
FAST += ("test_attention_4d_causal_with_past_and_present", "test_bernoulli")


def test_nodes() -> None:
    cases = [case for case in load_cases() if LARGE or case.name in FAST]
    outcomes = run_cases(cases, workers=2)
    assert len(outcomes) == len(cases) >= len(FAST)
    assert not [outcome for outcome in outcomes if outcome.word not in (PASSES, REFUSED)]
    assert {outcome.case for outcome in outcomes if outcome.word == REFUSED} >= {"test_bernoulli"}
    assert {outcome.case for outcome in outcomes if outcome.word == PASSES} >= {*FAST[:-1]}
