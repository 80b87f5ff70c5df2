"""MNN on the CPU, another run time of phones; it has kernels for weights with many zeros."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from patc.bench.peers.base import Exporter, Peer, count_in_file, export_onnx
from patc.bench.workload import Kind
from patc.diagnostics import PatcError

_CPU = 0
# The converter writes this word into every layer that is to run on sparse kernels.
_SPARSE_LAYER = b"sparseBlockOC"


def convert_to_mnn(source: Path, target: Path) -> None:
    """Convert an ONNX file. Layers with more than 60% zeros are marked to run on sparse kernels.

    This calls the native part of MNN's converter: the command around it installs a package and reports to its vendor.

    Raises:
        PatcError: the model cannot be converted.
    """
    import _tools

    files = ["--modelFile", os.fspath(source), "--MNNModel", os.fspath(target)]
    _tools.mnnconvert(["mnnconvert", "--framework", "ONNX", *files, "--bizCode", "patc", "--detectSparseSpeedUp"])
    if not target.exists():
        raise PatcError("MNN could not convert the model")


class Mnn(Peer):
    """MNN in float32, sparse kernels allowed."""

    name: ClassVar[str] = "MNN"
    distribution: ClassVar[str] = "MNN"
    modules: ClassVar[tuple[str, ...]] = ("MNN", "_tools", "onnx", "onnxscript")
    exporter: ClassVar[Exporter | None] = staticmethod(export_onnx)

    def load(self, threads: int, inputs: Sequence[np.ndarray], kind: Kind) -> None:
        converted = self.folder / f"model-{threads}.mnn"
        convert_to_mnn(self.folder / "model.onnx", converted)
        import MNN
        from MNN import expr

        # "low" would take bfloat16 where the CPU has instructions for it.
        options = {"backend": _CPU, "numThread": threads, "precision": "normal"}
        self._manager = MNN.nn.create_runtime_manager((options,))
        path = os.fspath(converted)
        self._net = MNN.nn.load_module_from_file(path, [], [], runtime_manager=self._manager, shape_mutable=False)
        self._inputs = [expr.const(array, list(array.shape), expr.NCHW) for array in inputs]
        self._sparse_layers = count_in_file(converted, _SPARSE_LAYER)
        converted.unlink()

    def run(self) -> Any:
        return self._net.forward(self._inputs)

    def arrays(self, outputs: Any) -> list[np.ndarray]:
        from MNN import expr

        return [np.array(expr.convert(value, expr.NCHW).read()) for value in outputs]

    def algorithm(self) -> str:
        dense = "Winograd or tiled GEMM as its cost model chooses"
        if not self._sparse_layers:
            return dense
        return f"sparse GEMM that skips zero weights (x{self._sparse_layers}), {dense} elsewhere"
