"""LiteRT, once TensorFlow Lite, on the CPU."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from patc.bench.environments import Environment
from patc.bench.peers.base import Exporter, Peer
from patc.bench.workload import Kind

if TYPE_CHECKING:
    from torch import nn


def export_litert(model: nn.Module, inputs: Sequence[np.ndarray], folder: Path) -> None:
    """Write `model.tflite`, with LiteRT's own converter for torch."""
    import litert_torch
    import torch

    tensors = tuple(torch.from_numpy(array) for array in inputs)
    litert_torch.convert(model, tensors).export(os.fspath(folder / "model.tflite"))


class LiteRt(Peer):
    """LiteRT with XNNPACK in float32.

    Its converter needs JAX, transformers and particular versions of what others need too: it has an environment of
    its own, with patc's torch.
    """

    name: ClassVar[str] = "LiteRT"
    distribution: ClassVar[str] = "ai-edge-litert"
    modules: ClassVar[tuple[str, ...]] = ("torch",)
    exporter: ClassVar[Exporter | None] = staticmethod(export_litert)
    environment: ClassVar[dict[str, str]] = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    own: ClassVar[Environment | None] = Environment(
        name="litert-2.3.0",
        packages=("litert-torch==0.10.0", "ai-edge-litert==2.3.0"),
        modules=("litert_torch", "ai_edge_litert", "torch", "numpy"),
        has_torch=True,
    )

    def load(self, threads: int, inputs: Sequence[np.ndarray], kind: Kind) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._net = Interpreter(model_path=os.fspath(self.folder / "model.tflite"), num_threads=threads)
        self._net.allocate_tensors()
        # Tensors of inputs keep their contents from call to call.
        for tensor, array in zip(self._net.get_input_details(), inputs, strict=True):
            self._net.set_tensor(tensor["index"], array)

    def run(self) -> Any:
        self._net.invoke()

    def arrays(self, outputs: Any) -> list[np.ndarray]:
        return [self._net.get_tensor(tensor["index"]) for tensor in self._net.get_output_details()]

    def algorithm(self) -> str:
        names = [node["op_name"] for node in self._net._get_ops_details()]
        return "XNNPACK indirect GEMM, NHWC" if "DELEGATE" in names else "im2col and GEMM, NHWC"
