"""DeepSparse on the CPU, a run time for networks with many zero weights."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from patc.bench.environments import Environment
from patc.bench.peers.base import Exporter, Peer
from patc.bench.workload import Kind
from patc.diagnostics import PatcError

if TYPE_CHECKING:
    from torch import nn

_OPSET = 13  # the newest that its documentation names


def export_old_onnx(model: nn.Module, inputs: Sequence[np.ndarray], folder: Path) -> None:
    """Write `old.onnx`: DeepSparse cannot read the files that torch's newer exporter writes."""
    import torch

    tensors = tuple(torch.from_numpy(array) for array in inputs)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The exporter switches modes, which modules from .pt2 files refuse; a trace has only one.
        trace = torch.jit.trace(model, tensors)
        torch.onnx.export(trace, tensors, os.fspath(folder / "old.onnx"), dynamo=False, opset_version=_OPSET)


class DeepSparse(Peer):
    """The last DeepSparse that there was, in float32, with packages of its time in an environment of its own."""

    name: ClassVar[str] = "DeepSparse"
    distribution: ClassVar[str] = "deepsparse"
    modules: ClassVar[tuple[str, ...]] = ("torch", "onnx")
    exporter: ClassVar[Exporter | None] = staticmethod(export_old_onnx)
    environment: ClassVar[dict[str, str]] = {"NM_DISABLE_ANALYTICS": "1", "ORT_DISABLE_TELEMETRY": "1"}
    kept_to: ClassVar[dict[str, dict[str, str]]] = {"x86-64-v3": {"NM_ARCH": "avx2"}}
    own: ClassVar[Environment | None] = Environment(
        name="deepsparse-1.8.0",
        # 1.9.0 is empty: it only says that there is nothing any more.
        packages=("deepsparse==1.8.0", "sparsezoo==1.8.1", "onnx==1.14.1", "numpy==1.26.4", "protobuf<8"),
        modules=("deepsparse", "onnx", "numpy"),
        pythons=((3, 11), (3, 10)),
    )

    def load(self, threads: int, inputs: Sequence[np.ndarray], kind: Kind) -> None:
        import deepsparse

        cores = deepsparse.cpu.cpu_architecture().num_available_physical_cores
        if threads > cores:
            raise PatcError(f"it runs one thread on each physical core, and there are {cores}, not {threads}")
        path = os.fspath(self.folder / "old.onnx")
        self._net = deepsparse.Engine(path, batch_size=inputs[0].shape[0], num_cores=threads)
        self._inputs = list(inputs)

    def run(self) -> Any:
        return self._net.run(self._inputs, val_inp=False)

    def arrays(self, outputs: Any) -> list[np.ndarray]:
        return list(outputs)

    def algorithm(self) -> str:
        share = self._net.fraction_of_supported_ops
        return f"closed kernels that skip zero weights, for {share:.0%} of the network"
