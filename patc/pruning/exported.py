"""Programs of `torch.export`, as the layers whose weights can be pruned: a program has no modules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from patc.diagnostics import PatcError
from patc.pruning.plan import Plan
from patc.pruning.prune import prune_
from patc.pruning.report import PruneReport
from patc.pruning.spec import PatternSpec

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_CONVOLUTIONS = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}
_TURNED = {3: nn.ConvTranspose1d, 4: nn.ConvTranspose2d, 5: nn.ConvTranspose3d}


def prune_program_(program: ExportedProgram, target: PatternSpec | Plan) -> PruneReport:
    """Prune the convolutions and linear layers of a program in place, as `prune_` does those of a module.

    Raises:
        PatcError: as `prune_`.
    """
    layers, names = _find_layers(program)
    if not names:
        raise PatcError("expected a program with convolutions or linear layers that have weights, found none")
    report = prune_(layers, target)
    for name, layer in names.items():
        program.state_dict[name] = nn.Parameter(layer.weight.detach(), requires_grad=False)
    return report


def _find_layers(program: ExportedProgram) -> tuple[nn.Module, dict[str, Any]]:
    """Return a module of the program's layers, in the order in which they run, and each by the name of its weight."""
    parameters = program.graph_signature.inputs_to_parameters
    root, found = nn.Module(), dict[str, Any]()
    for node in program.graph.nodes:
        operation = str(getattr(node.target, "_schema", None) and node.target._schema.name).removeprefix("aten::")
        kind = "linear" if operation == "linear" else "conv" if operation.startswith("conv") else None
        weight = node.args[1] if kind is not None and len(node.args) > 1 else None
        name = parameters.get(getattr(weight, "name", ""))
        if name is None or name in found:
            continue
        values = _arguments(node)
        is_turned = bool(values.get("transposed")) or "transpose" in operation
        found[name] = _make_layer(program.state_dict[name], kind == "linear", is_turned, values)
        _add(root, name.removesuffix(".weight"), found[name])
    return root.eval(), found


def _arguments(node: Any) -> dict[str, Any]:
    """Return the arguments of an operation by their names."""
    names = [argument.name for argument in node.target._schema.arguments]
    return dict(zip(names, node.args, strict=False)) | dict(node.kwargs)


def _make_layer(weight: torch.Tensor, is_linear: bool, is_turned: bool, values: dict[str, Any]) -> Any:
    first, second, *kernel = weight.shape
    with torch.device("meta"):
        if is_linear:
            layer: Any = nn.Linear(second, first, bias=False)
        else:
            groups, stride = values.get("groups", 1), tuple(values.get("stride") or (1,))
            stride = stride if len(stride) == len(kernel) else stride * len(kernel)
            make = (_TURNED if is_turned else _CONVOLUTIONS)[weight.ndim]
            channels = (first, second * groups) if is_turned else (second * groups, first)
            layer = make(*channels, tuple(kernel), stride, groups=groups, bias=False)
    layer.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    return layer


def _add(root: nn.Module, name: str, layer: nn.Module) -> None:
    """Put a layer where the module had it that was exported."""
    *path, last = name.split(".")
    for part in path:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        child = root._modules[part]
        assert child is not None
        root = child
    root.add_module(last, layer)
