"""ONNX Runtime on the CPU."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from patc.bench.peers.base import Exporter, Peer, count_in_file, export_onnx
from patc.bench.workload import Kind

_SILENT = 4  # what fails raises as well


class OnnxRuntime(Peer):
    """The CPU execution provider, all graph optimisations on, float32."""

    name: ClassVar[str] = "ONNX Runtime"
    distribution: ClassVar[str] = "onnxruntime"
    modules: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnx", "onnxscript")
    exporter: ClassVar[Exporter | None] = staticmethod(export_onnx)
    environment: ClassVar[dict[str, str]] = {"ORT_DISABLE_TELEMETRY": "1"}

    def load(self, threads: int, inputs: Sequence[np.ndarray], kind: Kind) -> None:
        import onnxruntime

        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _SILENT
        optimised = self.folder / f"optimised-{threads}.onnx"
        options.optimized_model_filepath = os.fspath(optimised)
        path = os.fspath(self.folder / "model.onnx")
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [value.name for value in self._session.get_inputs()]
        self._inputs = dict(zip(names, inputs, strict=True))
        self._blocked = count_in_file(optimised, b"com.microsoft.nchwc") > 0
        optimised.unlink()

    def run(self) -> Any:
        return self._session.run(None, self._inputs)

    def arrays(self, outputs: Any) -> list[np.ndarray]:
        return list(outputs)

    def algorithm(self) -> str:
        return "MLAS direct, NCHWc blocked" if self._blocked else "MLAS im2col and GEMM"
