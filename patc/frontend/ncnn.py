"""Nets of ncnn as modules of torch, which every other part of patc takes.

Layers keep their names, blobs that nothing takes are the outputs. ncnn has no batch: inputs and outputs here have it in
front.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from patc.diagnostics import PatcError, first_line
from patc.frontend.ncnn_files import NcnnLayer, WeightReader, read_layers
from patc.frontend.ncnn_layers import BUILDERS, build
from patc.frontend.shapes import Shapes

for _family in ("activations", "arithmetic", "convolutions", "planes", "shapes"):
    importlib.import_module(f"patc.frontend.ncnn_{_family}")

_INPUT = "Input"


def load_ncnn(path: Path, shapes: Shapes | None = None) -> tuple[fx.GraphModule, dict[str, torch.Tensor]]:
    """Return a net in eval mode and inputs of zeros by their names.

    Args:
        path: of the .param file; the weights are in the .bin file beside it.
        shapes: see `net_inputs`.

    Raises:
        PatcError: as `load_net` and `net_inputs`.
    """
    net = load_net(path)
    return net, net_inputs(net, shapes)


def load_net(path: Path) -> fx.GraphModule:
    """Return a net in eval mode.

    Raises:
        PatcError: a file is missing or damaged, or layers are unknown, of which all are listed.
    """
    layers = read_layers(path)
    _require_known(layers, path)
    weights = WeightReader(path.with_suffix(".bin"))
    modules = {layer.name: build(layer, weights) for layer in layers if layer.type != _INPUT}
    weights.require_end()
    net = _connect(layers, modules).eval()
    net.meta["path"] = path
    return net


def net_inputs(net: fx.GraphModule, shapes: Shapes | None = None) -> dict[str, torch.Tensor]:
    """Return inputs of zeros by their names.

    Args:
        net: of `load_net`.
        shapes: of inputs, in order or by name, batch first; else they have batch 1 and the sizes that the file has.

    Raises:
        PatcError: a shape is unknown, or the layers do not take the shapes.
    """
    sources: dict[str, NcnnLayer] = net.meta["sources"]
    given = _by_name(shapes, sources, net.meta["path"])
    inputs = {
        name: torch.zeros(given[name] if name in given else _own_shape(layer, name)) for name, layer in sources.items()
    }
    _try(net, inputs, net.meta["path"])
    return inputs


def has_shapes(net: fx.GraphModule) -> bool:
    """Return whether the file of a net of `load_net` has the shapes of all inputs."""
    return all(_sizes(layer) for layer in net.meta["sources"].values())


def output_names(net: fx.GraphModule) -> list[str]:
    """Return the blobs that a net of `load_net` returns."""
    return list(net.meta["outputs"])


def _require_known(layers: Sequence[NcnnLayer], path: Path) -> None:
    unknown: dict[str, list[str]] = {}
    for layer in layers:
        if layer.type not in BUILDERS and layer.type != _INPUT:
            unknown.setdefault(layer.type, []).append(layer.name)
    if unknown:
        listed = ", ".join(f"{kind} x{len(names)} ({', '.join(names)})" for kind, names in unknown.items())
        raise PatcError(f"model has layers of ncnn that patc cannot compile: {listed}", str(path))
    if not any(layer.type == _INPUT for layer in layers):
        raise PatcError("expected a layer Input, found none", str(path))


def _connect(layers: Sequence[NcnnLayer], modules: Mapping[str, nn.Module]) -> fx.GraphModule:
    """Return a module that calls those of the layers in their order."""
    graph, root = fx.Graph(), nn.Module()
    values: dict[str, fx.Node] = {}
    taken = {name for layer in layers for name in layer.inputs}
    sources: dict[str, NcnnLayer] = {}
    for layer in layers:
        if layer.type == _INPUT:
            node = graph.placeholder(re.sub(r"\W", "_", layer.outputs[0]))
            node.target = node.name  # torch.export would call it so: in small letters
            values[layer.outputs[0]], sources[node.name] = node, layer
    for layer in layers:
        if layer.type == _INPUT:
            continue
        name = re.sub(r"\W", "_", layer.name) or "layer"
        while hasattr(root, name):  # also what every module has
            name += "_"
        root.add_module(name, modules[layer.name])
        made = graph.call_module(name, tuple(values[blob] for blob in layer.inputs))
        for place, blob in enumerate(layer.outputs):
            values[blob] = made if len(layer.outputs) == 1 else graph.call_function(_item, (made, place))
    results = [blob for layer in layers for blob in layer.outputs if blob not in taken]
    outputs = [values[blob] for blob in results]
    graph.output(outputs[0] if len(outputs) == 1 else tuple(outputs))
    net = fx.GraphModule(root, graph, "NcnnNet")
    net.meta.update(outputs=results, sources=sources)
    return net


def _item(values: Sequence[Any], place: int) -> Any:
    return values[place]


def _by_name(shapes: Shapes | None, sources: Mapping[str, NcnnLayer], path: Path) -> dict[str, tuple[int, ...]]:
    """Return shapes by the names of arguments; they may have those of blobs, too."""
    if shapes is None:
        return {}
    if not isinstance(shapes, dict):
        if len(shapes) != len(sources):
            raise PatcError(f"expected shapes of the inputs {', '.join(sources)}, found {len(shapes)}", str(path))
        return dict(zip(sources, shapes, strict=True))
    blobs = {layer.outputs[0]: name for name, layer in sources.items()}
    found = {blobs.get(name, name): shape for name, shape in shapes.items()}
    unknown = next((name for name in found if name not in sources), None)
    if unknown is not None:
        raise PatcError(f"expected shapes of the inputs {', '.join(sources)}, found one of '{unknown}'", str(path))
    return found


def _own_shape(layer: NcnnLayer, name: str) -> tuple[int, ...]:
    """Return the shape that the text has, with a batch of one."""
    sizes = _sizes(layer)
    if not sizes:
        raise PatcError(f"expected a shape of input '{name}', found none; give it as {name}=1x3x360x640", layer.place)
    return (1, *sizes)


def _sizes(layer: NcnnLayer) -> list[int]:
    """Return the sizes of a blob that the text has, outermost first; none where it has no such."""
    sizes = layer.sizes()
    return sizes if min(sizes, default=0) > 0 else []


def _try(net: fx.GraphModule, inputs: Mapping[str, torch.Tensor], path: Path) -> None:
    """Refuse shapes that the layers do not take, without computing anything."""
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
        try:
            net(**{name: mode.from_tensor(value) for name, value in inputs.items()})
        except PatcError:
            raise
        except Exception as error:
            listed = ", ".join(f"{name} {list(value.shape)}" for name, value in inputs.items())
            expected = f"expected inputs that the layers take, found {listed}"
            raise PatcError(f"{expected}: {first_line(error)}", str(path)) from None
