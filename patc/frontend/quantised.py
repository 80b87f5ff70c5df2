"""Quantised parts of exported programs, as convert_pt2e of torchao writes them: numbers that become integers of eight
bits and are real numbers again, in one operation of patc. Weights are folded like other constants."""

from __future__ import annotations

from collections.abc import Container

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.fx import Node

from patc.dialects.quantised import Quantisation
from patc.frontend.held import describe_integers
from patc.frontend.rewrites import ConstantValues

_library = torch.library.Library("patc", "FRAGMENT")
_library.define("requantise(Tensor input, str integers) -> Tensor")
_DOMAIN = "quantized_decomposed::"
_LIMITS = {torch.int8: (-128, 127), torch.uint8: (0, 255)}


@torch.library.impl(_library, "requantise", "Meta")
def _shape(input: torch.Tensor, integers: str) -> torch.Tensor:
    return torch.empty_like(input)


def join_quantised(graph: torch.fx.Graph, constants: Container[Node]) -> bool:
    """Replace what makes integers of activations and what makes numbers of these, where both have one scale that is a
    number; return whether there were some.

    Args:
        constants: the nodes that do not depend on the inputs: they stay.
    """
    joined: dict[Node, Node] = {}
    for node in list(graph.nodes):
        if node in constants or not _is(node, "dequantize_per_tensor") or not isinstance(node.args[0], Node):
            continue
        source = node.args[0]
        given = _integers(node)
        is_pair = _is(source, "quantize_per_tensor") and source.args[1:] == node.args[1:] and not node.kwargs
        if given is None or not is_pair or len(node.meta["val"].shape) < 2 or not node.meta["val"].numel():
            continue
        if (first := joined.get(source)) is not None and all(user.op != "output" for user in node.users):
            node.replace_all_uses_with(first)
            graph.erase_node(node)
            continue
        node.target, node.args = torch.ops.patc.requantise.default, (source.args[0], describe_integers(given))
        for key in ("stack_trace", "nn_module_stack"):  # torchao's nodes have none
            if not node.meta.get(key) and (known := source.args[0].meta.get(key)):
                node.meta[key] = known
        joined[source] = node
    return bool(joined)


def find_steps(program: ExportedProgram, constants: Container[Node]) -> set[np.float32]:
    """Return the numbers that constants are multiplied with to be real numbers."""
    values, found = ConstantValues(program), set[np.float32]()
    for node in program.graph.nodes:
        if node in constants and (_is(node, "dequantize_per_channel") or _is(node, "dequantize_per_tensor")):
            scale = values[node.args[1]] if isinstance(node.args[1], Node) else torch.tensor(node.args[1])
            found.update(scale.detach().to(torch.float32).cpu().numpy().ravel())
    return found


def _is(node: Node, name: str) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target.name() == _DOMAIN + name


def _integers(node: Node) -> Quantisation | None:
    """Return what the integers of eight bits stand for that a node makes numbers of."""
    _, scale, zero, low, high, dtype = (*node.args, *[None] * 6)[:6]
    is_number = isinstance(scale, float) and isinstance(zero, int) and 0 < np.float32(scale) < np.inf
    if not is_number or _LIMITS.get(dtype) != (low, high) or node.meta["val"].dtype != torch.float32:
        return None
    return Quantisation(float(np.float32(scale)), zero, dtype == torch.int8)
