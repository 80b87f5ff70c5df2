"""Which layers compute a batch image by image: those whose results, of all images, would leave the caches.

Layers that follow each other do so together: the first image goes through all of them, then the second. What lies
between them is one image and stays near, and each reads its weights once for each image. So a layer belongs to such a
run as long as the bytes that stay near are more than those of weights that are read again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch_mlir import ir

from patc.passes.algorithms.host.images import Reach
from patc.passes.ir.constants import CONSTANTS, is_constant
from patc.passes.ir.elements import stored_bytes
from patc.passes.ir.functions import top_level_ops
from patc.passes.ir.quantised import is_quantised
from patc.passes.ir.views import is_view
from patc.passes.layers.base import LayerKind
from patc.passes.layers.registry import kind_of
from patc.targets import Target


def find_image_runs(function: Any, target: Target) -> list[list[Any]]:
    """Return the layers of a function that compute image by image, in runs of those that follow each other."""
    if target.algorithms == "gpu":
        return []
    costs, found = target.core_costs(), list[list[Any]]()
    near = costs.second_level_bytes
    for ops in _eligible(function, costs.memory_bytes):
        while any(stored_bytes(op.result.type) > near for op in ops):
            count = _longest(ops, near)
            found += [ops[:count]] if count else []
            ops = ops[max(1, count) :]
    return found


def _eligible(function: Any, most: int) -> Iterator[list[Any]]:
    """Yield layers that follow each other, may compute image by image, and have equal batches; an image of any result
    has at most so many bytes: larger ones run band by band."""
    run: list[Any] = []
    for op in top_level_ops(function):
        if op.operation.name in CONSTANTS or is_view(op):
            continue
        kind = kind_of(op)
        images = 0 if kind is None or "schedule" in op.attributes else images_alone(op, kind)
        fits = images > 1 and stored_bytes(op.result.type) <= most * images
        if run and not (fits and images == run[0].result.type.shape[0]):
            yield run
            run = []
        if fits:
            run.append(op)
    yield run


def images_alone(op: Any, kind: LayerKind) -> int:
    """Return the batch of a layer all of whose activations are planes of as many images, which do not meet; else 0."""
    if len(op.results) != 1 or op.result.type.rank != 4:
        return 0
    images = int(op.result.type.shape[0])
    given = [op.operands[number] for number in kind.activations(op)]
    if any(is_constant(value) or value.type.rank != 4 or value.type.shape[0] != images for value in given):
        return 0
    ways = [each for each in kind.host_algorithms(op) if each.applies(op)]
    # Layers on integers have images of their own, too; their loops are of all of them.
    alone = is_quantised(op) or all(each.reach(op, images) in (Reach.OWN, Reach.ROUNDED) for each in ways)
    return images if ways and alone else 0


def _longest(ops: Sequence[Any], near: int) -> int:
    """Return how many layers, from the first on, gain most by computing image by image; 0 if none do."""
    place = {op.operation: number for number, op in enumerate(ops)}
    gains = [0.0] * len(ops)
    for number, op in enumerate(ops):
        users = [use.owner.operation for use in op.result.uses]
        size = stored_bytes(op.result.type)
        if size > near and all(user in place for user in users) and users:
            gains[max(place[user] for user in users)] += 2 * size  # written and read
        gains[number] -= (op.result.type.shape[0] - 1) * _weight_bytes(op)
    best, total, count = 0.0, 0.0, 0
    for number, gain in enumerate(gains):
        total += gain
        if total > best:
            best, count = total, number + 1
    return count


def _weight_bytes(op: Any) -> int:
    return sum(stored_bytes(value.type) for value in op.operands if is_constant(value))


def reads_of(ops: Sequence[Any]) -> list[ir.Value]:
    """Return the activations that layers read of others."""
    made = {op.result for op in ops}
    values = (value for op in ops for value in op.operands)
    return list(dict.fromkeys(value for value in values if value not in made and not is_constant(value)))
