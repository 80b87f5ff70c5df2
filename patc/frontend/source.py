"""Where a node of an exported graph comes from: its layer and its line in the user's Python."""

from __future__ import annotations

import os
import re
from typing import Any

import torch
from torch_mlir import ir

_FRAME = re.compile(r'File "([^"]+)", line (\d{1,9})\b')
_OWN_LAYERS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "ncnn_")
_TORCH_FOLDER = os.path.dirname(torch.__file__) + os.sep
# A .pt2 file may have been exported on another machine, where torch is in another place.
_TORCH_ELSEWHERE = re.compile(r"[/\\](site|dist)-packages[/\\]torch[/\\]")


def is_torch_file(path: str) -> bool:
    """Return whether a Python file belongs to torch, or is the code of layers that a front end makes of a file, and not
    the user's."""
    generated = path.startswith("<eval_with_key>") or path.startswith(_OWN_LAYERS)
    return generated or path.startswith(_TORCH_FOLDER) or _TORCH_ELSEWHERE.search(path) is not None


def layer_path(node: torch.fx.Node) -> str:
    """Return the path of the module that made a node, as in `layer1.0.conv1`; "" for the model itself."""
    stack = node.meta.get("nn_module_stack") or {}
    return list(stack.values())[-1][0] if stack else ""


def operation_name(node: torch.fx.Node) -> str:
    """Return the operation as the user's graph has it: `aten.silu.default`, not the `aten.sigmoid` in it."""
    origin = node.meta.get("from_node")
    return str(origin[-1].target if origin else node.target)


def source_place(node: torch.fx.Node) -> tuple[str, int] | None:
    """Return file and line of the innermost frame outside torch, or None when every frame is inside."""
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    own = [(file, int(line)) for file, line in frames if not is_torch_file(file)]
    return own[-1] if own else None


def describe_place(place: tuple[str, int]) -> str:
    """Return `model.py:42`."""
    return f"{os.path.basename(place[0])}:{place[1]}"


def node_location(node: torch.fx.Node, context: ir.Context) -> Any | None:
    """Return the location of the ops made from a node: the layer's name and, inside it, the source line; the name of
    the operation is its metadata."""
    layer, place = layer_path(node), source_place(node)
    line = ir.Location.file(place[0], place[1], 0, context=context) if place else ir.Location.unknown(context)
    location = ir.Location.name(layer, line, context=context) if layer else line
    name = ir.StringAttr.get(operation_name(node), context=context)
    return ir.Location.fused([location], metadata=name, context=context)
