"""ncnn on the CPU, the run time of many phones."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from patc.bench.peers.base import Exporter, Peer
from patc.bench.workload import Kind, Workload
from patc.diagnostics import PatcError

if TYPE_CHECKING:
    from torch import nn


def export_ncnn(model: nn.Module, inputs: Sequence[np.ndarray], folder: Path) -> None:
    """Write `net.ncnn.param` and `net.ncnn.bin`, through a trace and pnnx."""
    import pnnx
    import torch

    source = folder / "net.pt"
    with torch.no_grad():
        torch.jit.trace(model, [torch.from_numpy(array) for array in inputs]).save(os.fspath(source))
    shapes = ",".join(f"[{','.join(map(str, array.shape))}]" for array in inputs)
    # Its weights are 16 bits wide by default.
    command = [pnnx.EXEC_PATH, os.fspath(source), f"inputshape={shapes}", "fp16=0"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode != 0 or not (folder / "net.ncnn.param").exists():
        lines = (result.stderr or result.stdout).strip().splitlines() or ["no message"]
        raise PatcError(f"pnnx could not convert the model: {lines[-1]}")


class Ncnn(Peer):
    """ncnn in float32, converted by pnnx; images have no batch there."""

    name: ClassVar[str] = "ncnn"
    distribution: ClassVar[str] = "ncnn"
    modules: ClassVar[tuple[str, ...]] = ("ncnn", "pnnx")
    exporter: ClassVar[Exporter | None] = staticmethod(export_ncnn)

    @classmethod
    def refusal(cls, workload: Workload) -> str | None:
        return None if workload.batch == 1 else f"it takes one image at a time, not {workload.batch}"

    def load(self, threads: int, inputs: Sequence[np.ndarray], kind: Kind) -> None:
        import ncnn

        self._net = ncnn.Net()
        options = self._net.opt
        options.num_threads = threads
        options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = False
        options.use_bf16_packed = options.use_bf16_storage = False
        self._winograd = bool(options.use_winograd_convolution)
        files = [os.fspath(self.folder / f"net.ncnn.{part}") for part in ("param", "bin")]
        if self._net.load_param(files[0]) != 0 or self._net.load_model(files[1]) != 0:
            raise PatcError("ncnn could not load the converted model")
        # An ncnn.Mat made from an array shares its memory; a clone has ncnn's own alignment.
        mats = [ncnn.Mat(array[0]).clone() for array in inputs]
        self._inputs = list(zip(self._net.input_names(), mats, strict=True))

    def run(self) -> Any:
        extractor = self._net.create_extractor()
        for name, mat in self._inputs:
            extractor.input(name, mat)
        return [extractor.extract(name)[1] for name in self._net.output_names()]

    def arrays(self, outputs: Any) -> list[np.ndarray]:
        return [np.array(mat) for mat in outputs]

    def algorithm(self) -> str:
        packed = "packed GEMM elsewhere"
        if not self._winograd:
            return packed
        return f"Winograd F(6x6), F(4x4) or F(2x2) for 3x3 at stride 1, {packed} (by its options)"
