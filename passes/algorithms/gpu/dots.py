"""Layers with dense weights on quantised activations on a GPU; see `passes/kernels/gpu/dots.py`."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from patc.dialects.attributes import Activation
from patc.dialects.schedules import Schedule
from patc.integers import ceil_div
from patc.passes.algorithms.gpu.base import MOST_THREADS, GpuAlgorithm, convolution_limits
from patc.passes.algorithms.gpu.gemm import Gemm
from patc.passes.algorithms.gpu.gemv import MOST_ROWS
from patc.passes.algorithms.gpu.site import GpuSite
from patc.passes.algorithms.limits import Limit, at_most, divisor_of, multiple_of, one_of, power_of_two
from patc.passes.algorithms.quantised import (
    as_words,
    first_sums,
    has_whole_words,
    is_depthwise,
    own_role,
    padded,
    padded_filters,
    residual_factor,
    unit_of,
    word_groups,
    words_of,
    words_read,
)
from patc.passes.base import PassState
from patc.passes.cost.candidate import Candidate
from patc.passes.cost.gpu_convolution import convolution_candidate, convolution_schedules, turn_cycles
from patc.passes.cost.gpu_planes import shared_sum_candidate
from patc.passes.cost.models import cost_model
from patc.passes.formats.layer_weights import require_array
from patc.passes.generic.products import Product
from patc.passes.ir.constants import read_constant
from patc.passes.ir.elements import WORD
from patc.passes.ir.quantised import sum_factors
from patc.passes.ir.windows import Window
from patc.passes.kernels.dots import Plain, dots_of
from patc.passes.kernels.gpu import convolution
from patc.passes.kernels.gpu.dot_matmul import dot_matmul
from patc.passes.kernels.gpu.dot_rows import dot_rows
from patc.passes.kernels.gpu.dots import WordSums, WordTile
from patc.passes.kernels.gpu.kernel import LANES
from patc.passes.kernels.gpu.matmul import Tiling
from patc.passes.kernels.gpu.weights import pack_features, pack_taps
from patc.targets import Target

_PRUNED = 0.5  # of the weights: fewer become zero by rounding alone


class DotDirect(GpuAlgorithm):
    """Convolutions: goes through all words that a filter reads, for several filters side by side."""

    name = "dot-direct"

    def applies(self, op: Any) -> bool:
        return has_whole_words(op)

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        model, channels, dots = cost_model(target), words_read(op), dots_of(target)
        height, width = Window.of(op).kernel
        taps = [(0, dy, dx) for dy in range(height) for dx in range(width)]
        for schedule in convolution_schedules(op, self.name, _blocks(op), model):
            parts = schedule.sums
            if parts == 1 or channels >= 4 * parts:
                uniform = ceil_div(len(taps) * schedule.filters, LANES)
                turn = turn_cycles(op, taps, uniform, schedule, model, dots.instructions)
                yield convolution_candidate(op, schedule, turn * ceil_div(channels, parts), model)

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        filters, groups = padded_filters(op), word_groups(op)
        yield multiple_of("filters", schedule.filters, unit_of(op))
        if groups > 1:  # else weights of filters too many are zero
            yield divisor_of("filters", schedule.filters, filters // groups)
        yield at_most("sums", schedule.sums, words_read(op))
        yield from convolution_limits(schedule, target)

    def unused_zeros(self, op: Any, schedule: Schedule, target: Target, state: PassState) -> str:
        return _unused_zeros(op, target, state)

    def emit(self, site: GpuSite) -> None:
        op, block = site.op, site.schedule.filters
        stored = padded_filters(op)
        filters = ceil_div(stored, block) * block
        weight, sums = require_array(op, op.weight, "weight", site.state), word_sums(site, filters)
        is_single = is_depthwise(op) and block == WORD and isinstance(sums.dots, Plain)
        words = padded(weight.astype(np.int32) if is_single else words_of(op, weight), filters)
        role = f"{'numbers' if is_single else 'words'}{block}"
        values = site.memory.constant(pack_taps(words, block), op.weight, role)
        weights = convolution.DenseArrays(values, words.shape[1], stored // word_groups(op), stored)
        make = functools.partial(WordTile, words=sums, is_single=is_single)
        emit = functools.partial(convolution.dense_direct, layer=site.sliding_layer(), weights=weights, make=make)
        site.launch(site.grid(filters // block), emit)


class DotRows(GpuAlgorithm):
    """Fully connected layers: the threads of a workgroup share the words of four filters."""

    name = "dot-rows"

    def applies(self, op: Any) -> bool:
        return op.input.type.shape[0] <= MOST_ROWS and _ends_simply(op)

    def candidates(self, op: Any, target: Target, state: PassState, threads: int) -> Iterator[Candidate]:
        yield shared_sum_candidate(op, self.name, WORD, cost_model(target))

    def limits(self, op: Any, schedule: Schedule, target: Target) -> Iterator[Limit]:
        yield one_of("filters", schedule.filters, [WORD])
        yield power_of_two("threads", schedule.threads, 1, MOST_THREADS)

    def unused_zeros(self, op: Any, schedule: Schedule, target: Target, state: PassState) -> str:
        return _unused_zeros(op, target, state)

    def emit(self, site: GpuSite) -> None:
        op, layer = site.op, site.layer()
        packed = pack_features(as_words(require_array(op, op.weight, "weight", site.state)), WORD)
        words = word_sums(site, WORD * len(packed))
        # What a kernel sees of the weights holds a part of these with sums and factors.
        most = max(1, site.memory.seen_bytes // 2 // packed[0].nbytes)
        for first in range(0, len(packed), most):
            part = packed[first : first + most]
            weights = site.memory.constant(part, op.weight, f"words{WORD}.rows" + f".{first}" * (first > 0))
            start = first if len(packed) > most else None
            emit = functools.partial(dot_rows, layer=layer, weights=weights, words=words, first=start)
            site.launch((len(part), layer.source.channels, 1), emit)


class DotGemm(Gemm):
    """Fully connected layers of many rows: a workgroup computes a tile of the result."""

    name = "dot-gemm"

    def applies(self, op: Any) -> bool:
        return super().applies(op) and _ends_simply(op)

    def unused_zeros(self, op: Any, schedule: Schedule, target: Target, state: PassState) -> str:
        return _unused_zeros(op, target, state)

    def products(self, target: Target) -> float:
        return dots_of(target).instructions

    def emit(self, site: GpuSite) -> None:
        op = site.op
        rows = as_words(require_array(op, op.weight, "weight", site.state))
        weights, product = site.memory.constant(rows, op.weight, "words"), Product.of_linear(op)
        words, tiling, layer = word_sums(site, ceil_div(len(rows), WORD) * WORD), Tiling(site.schedule), site.layer()
        emit = functools.partial(dot_matmul, layer=layer, product=product, tiling=tiling, weights=weights, words=words)
        site.launch(tiling.groups(product), emit)


def _unused_zeros(op: Any, target: Target, state: PassState) -> str:
    """Return what reports say of weights that are pruned."""
    weight = read_constant(op.weight, state)
    is_pruned = weight is not None and np.mean(weight == 0) >= _PRUNED
    return f"{target.name} has no loops on integers that leave them out" if is_pruned else ""


def _ends_simply(op: Any) -> bool:
    """Return whether sums need no more than an activation that is the same for all filters."""
    return op.residual is None and not Activation.of(op).arrays


def word_sums(site: GpuSite, filters: int) -> WordSums:
    """Return what the sums of a layer begin with and become; zeros behind those of its filters."""
    op = site.op
    arrays = {"sums": first_sums(op, site.state), "factors": sum_factors(op)}
    held = {role: padded(array, filters) for role, array in arrays.items()}
    sums, factors = (site.memory.constant(array, op.weight, own_role(role, array)) for role, array in held.items())
    return WordSums(dots_of(site.target), sums, factors, residual_factor(op), op.result.type.shape[1])


def _blocks(op: Any) -> list[int]:
    """Return the numbers of filters that a thread could compute side by side."""
    group = padded_filters(op) // word_groups(op)
    is_whole = word_groups(op) > 1
    return [size for size in (1, 2, 4) if size % unit_of(op) == 0 and size <= group and not (is_whole and group % size)]
