"""Random networks, as modules and as files: what patc computes is what PyTorch computes in float64."""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from outcome import Case, Fault, Refusal, attempt
from random_networks import Clamp, Layer, Network, build_network, draw_layers, make_others
from sequence_layers import draw_words
from torch import Tensor, nn

import patc
from patc.targets import TARGETS, host_features

BOUNDS = {"f32": 1e-4, "f16": 2e-2}
# PyTorch's own error in the same element type may be larger where terms cancel.
TIMES_TORCH = 3.0
ROUNDED_RUNS = 6
# Of the largest sum before a clamp, which may leave nothing but the errors of its neighbours in a Winograd tile.
HIDDEN_BOUNDS = {"f32": 1e-6, "f16": 1e-3}
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


class Kind:
    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        available = host_features()
        self.targets = ["host"] + [name for name, target in TARGETS.items() if set(target.features) <= available]
        self.has_half = "avx512fp16" in available

    def draw(self, choices: random.Random) -> Case:
        rank = choices.choice([4] * 7 + [3, 3, 5])
        most = [33, 31, 9][rank - 3]
        first = choices.choice(["words", ""]) if rank == 3 else choices.choice(["bytes"] + [""] * 9)
        return {
            "seed": choices.getrandbits(31),
            "shape": [
                choices.choice([1, 1, 1, 2, 3]),
                choices.choice([1, 2, 3, 3, 4, 6, 8, 16, 18, 24]),
                *(min(choices.choice([1, 5, 7, 8, 12, 14, 16, 20, 33]), most) for _ in range(rank - 2)),
            ],
            "threads": choices.choice([1, 1, 2]),
            "target": choices.choice(["host", "host", "x86-64-v3", "x86-64-v4"]),
            "dtype": "f16" if choices.random() < 0.1 else "f32",
            "inputs": [
                "normal",
                choices.choice(["zeros", "large", "tiny", "constant"]),
                choices.choice(["sparse", "nan", "inf"]),
            ],
            "extra": choices.choice([None] * 5 + [1, 2, 3]),
            "layers": draw_layers(choices, choices.randint(1, 6)),
            "first": first,
            "road": choices.choice(["module"] * 14 + ["pt2"] + [11, 13, 15, 17, "dynamo"]),
            "batch": choices.choice([None] * 5 + [1, 2, 5]),
        }

    def run(self, case: Case, folder: Path) -> str:
        # Cases of before there were these have none of them.
        shape = case["shape"] if case.get("rows", True) else [*case["shape"][:2], case["shape"][3]]
        first = case.get("first", "bytes" if case.get("bytes") else "")
        network = build_network(case["layers"], shape, case["seed"], case["extra"], first)
        if len(network.layers) == bool(first):
            return "no layer fits"
        case = case | {"shape": shape, "first": first}
        target = case["target"] if case["target"] in self.targets else "host"
        dtype = case["dtype"] if self.has_half and target == "host" else "f32"
        examples = make_inputs("normal", network, case, dtype)
        road, batch = case.get("road", "module"), case.get("batch")
        model = _take_road(network, examples, road, folder)
        if model is None:
            return "torch does not export it"
        options: dict[str, Any] = {"target": target, "threads": case["threads"], "dtype": dtype}
        if batch is not None and road == "module":
            options["dynamic_batch"] = True
            case["shape"] = [batch, *shape[1:]]
        try:
            compiled = attempt(lambda: patc.compile(model, None if model != network else examples, **options))
        except Refusal as refusal:
            if "linalg." in str(refusal):  # which no user wrote
                raise Fault("a refusal in terms of linalg", str(refusal)) from None
            raise
        words = {_compare(compiled, network, kind, case, dtype) for kind in (["normal"] if first else case["inputs"])}
        return max(words) + (" in f16" if dtype == "f16" else "")

    def smaller(self, case: Case) -> Iterator[Case]:
        layers: list[Layer] = case["layers"]
        for start in range(len(layers)):
            yield case | {"layers": layers[start + 1 :]}
            yield case | {"layers": layers[:start]}
        for i in range(len(layers)):
            yield case | {"layers": layers[:i] + layers[i + 1 :]}
        for kind in case["inputs"] if len(case["inputs"]) > 1 else ():
            yield case | {"inputs": [kind]}
        for name, simple in (
            ("extra", None),
            ("threads", 1),
            ("first", ""),
            ("road", "module"),
            ("batch", None),
            ("target", "host"),
            ("dtype", "f32"),
        ):
            if case.get(name, simple) != simple:
                yield case | {name: simple}
        for axis, size in enumerate(case["shape"]):
            for less in {1, size // 2, size - 1} - {0, size}:
                yield case | {"shape": [*case["shape"][:axis], less, *case["shape"][axis + 1 :]]}
        for i, layer in enumerate(layers):
            for simple_layer in _simpler(layer):
                yield case | {"layers": [*layers[:i], simple_layer, *layers[i + 1 :]]}


def _simpler(layer: Layer) -> Iterator[Layer]:
    plain: Layer = {
        "extra": None, "dilation": [1, 1], "groups": 1, "bias": False, "zeros": "none", "norm": False, "after": None,
        "stride": [1, 1], "pad": [0, 0], "kernel": [1, 1], "filters": 1, "ceil": False,
    }  # fmt: skip
    for name, value in plain.items():
        if name in layer and layer[name] != value and not (name == "dilation" and layer["op"] != "conv"):
            yield layer | {name: value}
    if layer.get("filters", 0) > 3:
        yield layer | {"filters": layer["filters"] // 2}


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Drop what is printed, by native code too."""
    saved, null = [os.dup(stream) for stream in (1, 2)], os.open(os.devnull, os.O_WRONLY)
    try:
        for stream in (1, 2):
            os.dup2(null, stream)
        yield
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        for stream, old in enumerate(saved, start=1):
            os.dup2(old, stream)
            os.close(old)
        os.close(null)


def _take_road(network: Network, examples: list[Tensor], road: Any, folder: Path) -> Any:
    """Return a network, or the file that torch makes of it; None where torch cannot.

    Args:
        road: "module", "pt2", "dynamo" for the newer one of torch's ONNX exporters, or an opset for the older one.
    """
    if road == "module":
        return network
    path = folder / ("net.pt2" if road == "pt2" else "net.onnx")
    logging.disable()
    try:
        with _silence():
            if road == "pt2":
                torch.export.save(torch.export.export(network, tuple(examples)), path)
            elif road == "dynamo":
                torch.onnx.export(network, tuple(examples), path, dynamo=True, verbose=False)
            else:
                torch.onnx.export(network, tuple(examples), path, dynamo=False, opset_version=road)
    except Exception:  # of many kinds: what torch lacks is not looked at here
        return None
    finally:
        logging.disable(logging.NOTSET)
    return path


def make_inputs(kind: str, network: Network, case: Case, dtype: str) -> list[Tensor]:
    """Return the inputs of a network; the first one is of a kind unless it is of bytes or words."""
    shape, seed = case["shape"], case["seed"]
    generator = torch.Generator().manual_seed(seed)
    if case["first"] == "bytes":
        x = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    else:
        x = draw_words(shape, generator) if case["first"] == "words" else make_input(kind, shape, seed, dtype)
    return [x, *make_others(network, shape, seed + 1)]


def make_input(kind: str, shape: list[int], seed: int, dtype: str) -> Tensor:
    """Return an input: normally distributed, or such that something is odd about it."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator)
    if kind == "zeros":
        return torch.zeros(*shape)
    if kind == "constant" and dtype == "f32":  # in f16 there is nothing left where terms of one size cancel
        return torch.full(shape, 255.0) + 0.01 * x
    if kind == "large":
        return x * (1e5 if dtype == "f32" else 10.0)
    if kind == "tiny":
        return x * (1e-20 if dtype == "f32" else 0.1)
    if kind == "sparse":
        return x * (torch.rand(*shape, generator=generator) < 0.1)
    if kind in ("nan", "inf"):
        x.view(-1)[int(torch.randint(x.numel(), (1,), generator=generator))] = float(kind)
    return x


@torch.no_grad()
def _compare(compiled: Any, network: Network, kind: str, case: Case, dtype: str) -> str:
    inputs = make_inputs(kind, network, case, dtype)
    wanted = _leaves(copy.deepcopy(network).double()(*_cast(inputs, torch.float64)))
    found = _leaves(attempt(lambda: compiled(*inputs)))
    if [tuple(y.shape) for y in found] != [tuple(y.shape) for y in wanted]:
        raise Fault("another shape", f"{[y.shape for y in found]}, not {[y.shape for y in wanted]}")
    if kind in ("nan", "inf"):
        pairs = zip(found, wanted, strict=True)
        return max(_compare_holes(one.numpy(), other.numpy(), kind, dtype, network) for one, other in pairs)
    word = "right"
    for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
        error, scale = _error(one, other), float(other.abs().max())
        if error <= BOUNDS[dtype] * scale:
            continue
        own = _torch_error(network, inputs, dtype, number, other)
        if not error <= max(TIMES_TORCH * own, HIDDEN_BOUNDS[dtype] * _largest_hidden(network, inputs)):
            ratios = [value / max(scale, 1e-300) for value in (error, own)]
            what = f"{ratios[0]:.3g} of the largest output {scale:.3g}, PyTorch {ratios[1]:.3g}"
            raise Fault(f"wrong numbers ({dtype})", f"{kind} input, output {number}: {what}")
        word = "right, as PyTorch in the same type"
    return word


def _cast(inputs: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    return [x.to(dtype) if x.is_floating_point() else x for x in inputs]


def _largest_hidden(network: Network, inputs: list[Tensor]) -> float:
    """Return the largest sum of a network with clamps, which may hide it; rounding errors are as large as sums are."""
    exact = copy.deepcopy(network).double()
    if not any(isinstance(layer, (nn.ReLU6, nn.Hardtanh, Clamp)) for layer in exact.modules()):
        return 0.0
    sums = [0.0]
    for layer in exact.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(lambda _, given, made: sums.append(float(made.abs().max())))
    exact(*_cast(inputs, torch.float64))
    return max(sums)


def _compare_holes(found: np.ndarray, wanted: np.ndarray, kind: str, dtype: str, network: nn.Module) -> str:
    """Compare outputs of an input with a NaN or an infinity: it reaches what its windows reach.

    A product with a weight of zero, of an interpolation too, is NaN for PyTorch, and left out by patc: there it may
    reach less.
    """
    interpolates = any(isinstance(layer, nn.Upsample) for layer in network.modules())
    reached, got = ~np.isfinite(wanted), ~np.isfinite(found)
    if not (has_zero_weights(network) or interpolates) and np.any(reached & ~got):
        raise Fault(f"{kind} vanishes", f"in {np.sum(reached & ~got)} outputs of {np.sum(reached)}")
    if not interpolates and np.any(got & ~reached):
        raise Fault(f"{kind} reaches too far", f"{np.sum(got & ~reached)} outputs, PyTorch {np.sum(reached)}")
    left = ~reached & ~got
    scale = np.abs(wanted[left]).max(initial=0.0)
    if np.abs(found[left] - wanted[left]).max(initial=0.0) > 10 * BOUNDS[dtype] * scale:
        raise Fault(f"wrong numbers beside {kind}")
    return "right"


def has_zero_weights(network: nn.Module) -> bool:
    """Return whether some weight is zero."""
    return any(bool((parameter == 0).any()) for parameter in network.parameters() if parameter.ndim > 1)


def _torch_error(network: Network, inputs: list[Tensor], dtype: str, number: int, wanted: Tensor) -> float:
    """Return the largest error of an output of PyTorch in the element type, or in float64 where each layer's result is
    as far off as rounding to that type may make it: errors of one run may cancel by chance."""
    narrow = torch.float16 if dtype == "f16" else torch.float32
    runs = [_leaves(copy.deepcopy(network).to(narrow)(*_cast(inputs, narrow)))]
    exact = _cast(inputs, torch.float64)
    runs += [_leaves(_rounded(network, narrow, seed)(*exact)) for seed in range(ROUNDED_RUNS)]
    return max(_error(leaves[number], wanted) for leaves in runs)


def _rounded(network: Network, narrow: torch.dtype, seed: int) -> nn.Module:
    """Return a network in float64 whose layers' results have random errors of up to a place of `narrow`: sums round more
    than once. So have the means of norms: of equal numbers nothing else is left."""
    generator = torch.Generator().manual_seed(seed)
    place = torch.finfo(narrow).eps

    def errors(*shape: int) -> Tensor:
        return place * (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1)

    def disturb(value: Any) -> Any:
        return value * (1 + errors(*value.shape)) if isinstance(value, Tensor) else value

    def move_mean(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = inputs[0]
        rows = x.shape[: -len(module.normalized_shape)] if isinstance(module, nn.LayerNorm) else x.shape[:2]
        if isinstance(module, nn.GroupNorm):
            rows = (x.shape[0], module.num_groups)
        group = x.reshape(math.prod(rows), -1)
        off = (
            group.mean(1, keepdim=True)
            * errors(len(group), 1)
            / (group.var(1, correction=0, keepdim=True) + module.eps).sqrt()
        )
        off = off.expand_as(group).reshape(x.shape)
        if module.weight is not None:
            is_last = isinstance(module, nn.LayerNorm)
            off = off * (module.weight if is_last else module.weight.reshape(-1, *[1] * (x.dim() - 2)))
        return output + off

    copied = copy.deepcopy(network).double()
    for module in copied.modules():
        if isinstance(module, _NORMS):
            module.register_forward_hook(move_mean)
        if not any(module.children()):
            module.register_forward_hook(lambda module, inputs, output: disturb(output))
    return copied


def _error(found: Tensor, wanted: Tensor) -> float:
    error = (found.double() - wanted).abs().max()
    return float(error) if bool(torch.isfinite(error)) else float("inf")


def _leaves(value: Any) -> list[Tensor]:
    return list(value) if isinstance(value, (tuple, list)) else [value]
