"""PyTorch in eager mode, as most models run before anyone compiles them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from patc.bench.peers.base import ONEDNN_AVX2, Peer, captured_output, describe_kernels
from patc.bench.workload import Kind, leaves

# What torch calls where it does not use oneDNN; a 1x1 window needs no im2col.
_OTHER_KERNELS = {
    "aten::_slow_conv2d_forward": "ATen im2col and GEMM",
    "aten::_nnpack_spatial_convolution": "NNPACK",
    "aten::xnnpack_conv2d": "XNNPACK",
}


class TorchEager(Peer):
    """`model(x)` under `torch.inference_mode`, NCHW tensors."""

    name: ClassVar[str] = "PyTorch eager"
    distribution: ClassVar[str] = "torch"
    modules: ClassVar[tuple[str, ...]] = ("torch",)
    kept_to: ClassVar[dict[str, dict[str, str]]] = {
        "x86-64-v3": {**ONEDNN_AVX2, "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
    }

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
        """Return what oneDNN says that it runs, and the convolutions that torch gives to others."""
        return " and ".join([*self._onednn_kernels(), *self._other_kernels()]) or "no convolutions"

    def _onednn_kernels(self) -> list[str]:
        import torch

        if not torch.backends.mkldnn.is_available():
            return []
        with captured_output() as lines, torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
            self.run()
        names = onednn_convolutions(lines)
        return [describe_kernels("oneDNN", names)] if names else []

    def _other_kernels(self) -> list[str]:
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CPU]) as trace:
            self.run()
        counts = {event.key: event.count for event in trace.key_averages()}
        return [f"{words} (x{counts[name]})" for name, words in _OTHER_KERNELS.items() if name in counts]


def onednn_convolutions(lines: Sequence[str]) -> list[str]:
    """Return the implementation of each convolution in oneDNN's verbose output."""
    names = []
    for line in lines:
        fields = line.split(",")
        if "exec" in fields and "convolution" in fields:
            names.append(fields[fields.index("convolution") + 1])
    return names
