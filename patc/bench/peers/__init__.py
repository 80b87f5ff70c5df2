"""The run times that patc is measured beside: one file each.

To add one, write a `Peer` in a file of its own and name it in `PEERS`.
"""

from __future__ import annotations

import importlib

from patc.bench.peers.base import Peer
from patc.diagnostics import PatcError, nearest

# Name on the command line -> module and class; loaded when asked for.
PEERS = {
    "torch": ("patc.bench.peers.torch_eager", "TorchEager"),
    "onnxruntime": ("patc.bench.peers.onnx_runtime", "OnnxRuntime"),
    "openvino": ("patc.bench.peers.openvino_cpu", "OpenVino"),
    "ncnn": ("patc.bench.peers.ncnn_cpu", "Ncnn"),
    "mnn": ("patc.bench.peers.mnn_cpu", "Mnn"),
    "litert": ("patc.bench.peers.litert_cpu", "LiteRt"),
    "deepsparse": ("patc.bench.peers.deepsparse_cpu", "DeepSparse"),
}
BASELINE = "torch"


def find_peer(name: str) -> type[Peer]:
    """Return the peer called `name`; loading it imports none of what it measures.

    Raises:
        PatcError: no peer has that name; the message lists the names.
    """
    if name not in PEERS:
        raise PatcError(f"expected a peer out of {', '.join(PEERS)}, got '{name}'{nearest(name, PEERS)}")
    module, kind = PEERS[name]
    peer: type[Peer] = getattr(importlib.import_module(module), kind)
    return peer


__all__ = ["BASELINE", "PEERS", "Peer", "find_peer"]
