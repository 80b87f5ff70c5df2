"""OpenVINO on the CPU."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from patc.bench.peers.base import ONEDNN_AVX2, Exporter, Peer, count_names, describe_kernels, export_onnx
from patc.bench.workload import Kind


class OpenVino(Peer):
    """The CPU plugin for latency, float32.

    The model is read by the C++ front end: the Python converter, which is what sends telemetry, has no part in it.
    """

    name: ClassVar[str] = "OpenVINO"
    distribution: ClassVar[str] = "openvino"
    modules: ClassVar[tuple[str, ...]] = ("openvino", "onnx", "onnxscript")
    kept_to: ClassVar[dict[str, dict[str, str]]] = {"x86-64-v3": ONEDNN_AVX2}
    exporter: ClassVar[Exporter | None] = staticmethod(export_onnx)

    def load(self, threads: int, inputs: Sequence[np.ndarray], kind: Kind) -> None:
        import openvino

        core = openvino.Core()
        options = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            # It would take bfloat16 where the CPU has instructions for it.
            "INFERENCE_PRECISION_HINT": "f32",
        }
        model = core.read_model(os.fspath(self.folder / "model.onnx"))
        self._compiled = core.compile_model(model, "CPU", options)
        self._request = self._compiled.create_infer_request()
        self._inputs = list(inputs)

    def run(self) -> Any:
        return self._request.infer(self._inputs, share_inputs=True)

    def arrays(self, outputs: Any) -> list[np.ndarray]:
        return [np.array(outputs[port]) for port in self._compiled.outputs]

    def algorithm(self) -> str:
        """Return the kernels of convolutions and of linear layers: MLAS's (`gemm_mlas`) use AVX-512 where the CPU has
        it, whatever `kept_to` tells oneDNN."""
        names = self._kernels("Convolution")
        linear = self._kernels("FullyConnected")
        convolutions = describe_kernels("oneDNN", names) if names else "no convolutions"
        return f"{convolutions}; linear layers: {count_names(linear)}" if linear else convolutions

    def _kernels(self, kind: str) -> list[str]:
        nodes = self._compiled.get_runtime_model().get_ops()
        return [_information(node, "primitiveType") for node in nodes if _information(node, "layerType").endswith(kind)]


def _information(node: Any, key: str) -> str:
    """Return an entry of the run-time information of a node; "" without one."""
    information = node.get_rt_info()
    return information[key].astype(str) if key in information else ""
