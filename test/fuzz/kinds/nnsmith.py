"""Random networks of the package nnsmith, of all of its operations and element types: what PyTorch computes.

Needs `pip install nnsmith`; it draws valid shapes by a solver, so that a case is a seed and a size.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from outcome import Case, Fault, attempt
from torch import Tensor, nn

import patc

BOUND = 1e-4
TIMES_TORCH = 3.0  # as in nets.py
NEIGHBOURS = 8
DTYPES = ["bool", "int8", "int32", "int64", "float32", "float64"]  # no complex numbers


class Graph(nn.Module):
    """The operations of one of nnsmith's networks, without its checks of values."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.layers, self.instructions = net.mlist, net.instructions
        self.names, self.results = list(net.input_map), list(net.output_map)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        values = dict(zip(self.names, inputs, strict=True))
        for compute, given, made, _ in self.instructions:
            results = compute(*(values[name] for name in given))
            values.update(zip(made, results if isinstance(results, list) else [results], strict=True))
        return tuple(values[name] for name in self.results)


class Kind:
    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        from nnsmith.materialize.torch import TorchModelCPU

        self.model = TorchModelCPU
        self.operations = TorchModelCPU.operators()  # its own choice among them fails with this numpy

    def draw(self, choices: random.Random) -> Case:
        return {
            "seed": choices.getrandbits(31),
            "nodes": choices.choice([1, 2, 3, 5, 8]),
            "threads": choices.choice([1, 2]),
        }

    def run(self, case: Case, folder: Path) -> str:
        made = self._build(case)
        if made is None:
            return "nnsmith finds no network"
        graph, inputs = made
        compiled = attempt(lambda: patc.compile(graph, inputs, threads=case["threads"]))
        found = [torch.as_tensor(y) for y in torch.utils._pytree.tree_leaves(attempt(lambda: compiled(*inputs)))]
        with torch.no_grad():
            computed = _computed(graph, inputs)
            try:
                return min(_compare(*each) for each in zip(found, *computed, strict=True))
            except Fault:
                # PyTorch's rounding errors may be small by chance at these numbers: those at numbers beside them count.
                near = [_computed(graph, _moved(inputs, places)) for places in range(1, NEIGHBOURS)]
                errors = [max(_error(*(each[number] for each in way)) for way in near) for number in range(len(found))]
                return min(_compare(*each) for each in zip(found, *computed, errors, strict=True))

    def smaller(self, case: Case) -> Iterator[Case]:
        for nodes in range(1, case["nodes"]):
            yield case | {"nodes": nodes}
        if case["threads"] > 1:
            yield case | {"threads": 1}

    def _build(self, case: Case) -> tuple[Graph, tuple[Tensor, ...]] | None:
        from nnsmith.error import ConstraintError, InternalError
        from nnsmith.graph_gen import model_gen

        torch.manual_seed(case["seed"])
        try:
            made = model_gen(
                opset=self.operations, method="symbolic", seed=case["seed"], max_nodes=case["nodes"],
                max_elem_per_tensor=2**14, timeout_ms=5000, dtype_choices=DTYPES,
            )  # fmt: skip
            net = self.model.from_gir(made.make_concrete()).torch_model
        except (ConstraintError, InternalError, AssertionError):
            return None
        inputs = net.get_random_inps(margin=4, base="center")
        return Graph(net).eval().requires_grad_(False), tuple(inputs[name] for name in net.input_map)


def _as(graph: Graph, inputs: tuple[Tensor, ...], dtype: torch.dtype) -> tuple[Tensor, ...] | None:
    """Return what PyTorch computes in another type; None where the graph itself casts to one that does not go with it."""
    try:
        found: tuple[Tensor, ...] = copy.deepcopy(graph).to(dtype)(
            *(x.to(dtype) if x.is_floating_point() else x for x in inputs)
        )
    except RuntimeError:
        return None
    return found


def _computed(graph: Graph, inputs: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], ...]:
    """Return what PyTorch computes, in float64 and in float32, too."""
    own = graph(*inputs)
    return own, *(_as(graph, inputs, dtype) or own for dtype in (torch.float64, torch.float32))


def _moved(inputs: tuple[Tensor, ...], places: int) -> tuple[Tensor, ...]:
    """Return inputs of which the fractions are a little larger, by so many of float32's places from the tenth on."""
    return tuple(x * (1 + places * 2**-10) if x.is_floating_point() else x for x in inputs)


def _error(own: Tensor, exact: Tensor, single: Tensor) -> float:
    """Return PyTorch's largest error in an output."""
    kept = torch.isfinite(own) & torch.isfinite(exact)
    found = torch.stack([own.double() - exact.double(), single.double() - exact.double()])[:, kept]
    return float(found.abs().max()) if found.numel() else 0.0


def _compare(found: Tensor, own: Tensor, exact: Tensor, single: Tensor, near: float = 0.0) -> str:
    """Compare an output with PyTorch's in the same types and in float64; return a word.

    Functions as exp are computed in float32 in nets of float64 too: their errors are those of `single`.

    Args:
        near: PyTorch's error at other inputs.
    """
    if (found.shape, found.dtype) != (own.shape, own.dtype):
        raise Fault("another type", f"{found.shape} {found.dtype}, not {own.shape} {own.dtype}")
    if not own.is_floating_point():
        # A number rounded or compared after other sums may be another, or zero where float32 has none as small.
        if any(torch.equal(found, other.to(own.dtype)) for other in (own, exact, single)):
            return "right"
        share = float((found != own).float().mean())
        raise Fault("wrong whole numbers", f"{share:.2%} of {own.numel()}, {own.dtype}")
    kept = torch.isfinite(own) & torch.isfinite(exact)
    if not bool(kept.any()):
        return "not finite"
    error, *errors = (float((y.double() - exact.double())[kept].abs().max()) for y in (found, own, single))
    errors.append(near)
    scale = float(exact[kept].abs().max())
    if not error <= max(BOUND * scale, *(TIMES_TORCH * other for other in errors)):
        raise Fault("wrong numbers", f"{error:.3g} of {scale:.3g}, PyTorch {max(errors):.3g}")
    return "right"
