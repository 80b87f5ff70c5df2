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


def write_net(folder: Path, lines: Sequence[str], weights: bytes = b"") -> Path:
    """Write `net.param` and `net.bin`, and return the path of the first."""
    blobs = {word for line in lines for word in line.split()[4 : 4 + sum(map(int, line.split()[2:4]))]}
    path = folder / "net.param"
    path.write_text("\n".join(["7767517", f"{len(lines)} {len(blobs)}", *lines, ""]))
    path.with_suffix(".bin").write_bytes(weights)
    return path


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
