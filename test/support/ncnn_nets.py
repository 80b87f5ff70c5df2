"""Nets of ncnn for tests: the two files, and what ncnn itself computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

TAGS = {"float32": 0, "float16": 0x01306B47, "bfloat16": 0x01348B83, "int8": 0x000D4B38}


def tagged(values: np.ndarray, dtype: str = "float32") -> bytes:
    """Return weights as layers have them that may store other types."""
    if dtype == "bfloat16":
        stored = (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    else:
        stored = values.astype(np.dtype(dtype).newbyteorder("<")).tobytes()
    return TAGS[dtype].to_bytes(4, "little") + stored + b"\0" * (-len(stored) % 4)


def plain(values: np.ndarray) -> bytes:
    """Return weights as layers have them that store float32 alone."""
    return values.astype("<f4").tobytes()


def write_net(folder: Path, lines: Sequence[str], weights: bytes = b"", name: str = "net") -> Path:
    """Write `NAME.param` and `NAME.bin`, and return the path of the first."""
    blobs = {word for line in lines for word in line.split()[4 : 4 + sum(map(int, line.split()[2:4]))]}
    path = folder / f"{name}.param"
    path.write_text("\n".join(["7767517", f"{len(lines)} {len(blobs)}", *lines, ""]))
    path.with_suffix(".bin").write_bytes(weights)
    return path


def write_upscaler(folder: Path, name: str = "net", pads: int = 1) -> Path:
    """Write a net that doubles pictures: two convolutions with random weights, pixels from channels, and what resizing
    makes of the picture.

    Args:
        pads: of the convolutions; without them the output lacks a border.
    """
    generator = np.random.default_rng(5)
    first, second = (generator.normal(0, 0.1, size).astype(np.float32) for size in ((8, 3, 3, 3), (12, 8, 3, 3)))
    lines = [
        "Input in 0 1 data",
        "Split split 1 2 data a b",
        f"Convolution first 1 1 a c 0=8 1=3 4={pads} 5=1 6=216 9=1",
        f"Convolution second 1 1 c d 0=12 1=3 4={pads} 5=1 6=864",
        "PixelShuffle up 1 1 d e 0=2",
        "Interp resize 1 1 b f 0=2 1=2.0 2=2.0",
        "BinaryOp sum 2 1 e f output",
    ]
    if not pads:
        lines[5:] = ["ReLU end 1 1 e output"]
        lines[1:3] = ["Convolution first 1 1 data c 0=8 1=3 5=1 6=216 9=1"]
    bias = np.full(12, 0.1, np.float32)
    return write_net(folder, lines, tagged(first) + plain(bias[:8]) + tagged(second) + plain(bias), name)


def run_ncnn(path: Path, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]) -> list[np.ndarray]:
    """Return what ncnn computes in float32 of inputs without a batch."""
    import ncnn

    net = ncnn.Net()
    options = net.opt
    options.num_threads = 1
    options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = False
    options.use_bf16_packed = options.use_bf16_storage = False
    assert net.load_param(str(path)) == 0
    assert net.load_model(str(path.with_suffix(".bin"))) == 0
    extractor = net.create_extractor()
    for name, array in inputs.items():
        kept = np.ascontiguousarray(array)  # whose memory the first Mat has
        extractor.input(name, ncnn.Mat(kept).clone())
    found = []
    for name in outputs:
        status, mat = extractor.extract(name)
        assert status == 0, f"ncnn refuses the net ({status})"
        found.append(np.array(mat))
    return found
