"""PyTorch in eager mode, as most models run before anyone compiles them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from patc.bench.peers.base import Peer, captured_output, describe_kernels
from patc.bench.workload import Kind, leaves


class TorchEager(Peer):
    """`model(x)` under `torch.inference_mode`, NCHW tensors."""

    name: ClassVar[str] = "PyTorch eager"
    distribution: ClassVar[str] = "torch"
    modules: ClassVar[tuple[str, ...]] = ("torch",)

    def load(self, threads: int, inputs: Sequence[np.ndarray], kind: Kind) -> None:
        import torch

        torch.set_num_threads(threads)
        self._inference = torch.inference_mode
        self._model = self.workload.build(kind)
        self._inputs = [torch.from_numpy(array) for array in inputs]

    def run(self) -> Any:
        with self._inference():
            return self._model(*self._inputs)

    def arrays(self, outputs: Any) -> list[np.ndarray]:
        return leaves(outputs)

    def algorithm(self) -> str:
        """Return what oneDNN says it runs; without oneDNN, torch lowers convolutions to a matrix product."""
        import torch

        if not torch.backends.mkldnn.is_available():
            return "im2col and GEMM (no oneDNN)"
        with captured_output() as lines, torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
            self.run()
        names = onednn_convolutions(lines)
        return describe_kernels("oneDNN", names) if names else "ATen kernels (oneDNN ran no convolution)"


def onednn_convolutions(lines: Sequence[str]) -> list[str]:
    """Return the implementation of each convolution in oneDNN's verbose output."""
    names = []
    for line in lines:
        fields = line.split(",")
        if "exec" in fields and "convolution" in fields:
            names.append(fields[fields.index("convolution") + 1])
    return names
