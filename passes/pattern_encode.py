"""Dense weights to FKW arrays: finds each layer's pattern library in the weights' zeros."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from torch_mlir import ir

from patc.diagnostics import PatcError
from patc.dialects.attributes import MAX_TAPS, Library
from patc.dialects.pattern import Conv2dOp, SparseConv2dOp
from patc.integers import ceil_div
from patc.passes.base import Pass, PassState
from patc.passes.formats.fkw import Fkw, choose_patterns, encode, kernel_masks, rest_masks
from patc.passes.ir.constants import constant_name, make_constant, read_constant

MIN_ENTRIES, MAX_ENTRIES = 2, 6
POINTWISE_DEPTH = 9  # input channels that a 1x1 convolution's kernels span


class StaysDense(Exception):
    """Why a layer is not encoded."""


@dataclass(frozen=True)
class PatternEncode(Pass):
    """Store pattern-pruned convolutions as FKW arrays.

    The pattern library of a layer is read from the zeros of its weights. All its patterns have as many
    entries as the fullest kernel, two to six. Masks of fewer entries that none of them covers are merged into
    further patterns, the most frequent first. Patterns are sorted by mask, so that layers with the same patterns
    can share their code. A kernel takes the first pattern that covers it, and stores zeros where it has
    fewer entries; a kernel of zeros is dropped.

    Nine consecutive input channels of one filter of a 1x1 convolution are one kernel of depth nine. The rest, C
    mod 9 channels, is stored as kernels of the last nine channels, as few as its entries need. Patterns for these
    join the library behind the others: each holds the rest's next entries, and other taps, whose weights are zero,
    where that is too few. The rest takes patterns that are there already where these leave no more to do.

    A layer stays dense, and a remark says why, when its weights are not constant, are all zero, or do not
    fit. 1x1 and depthwise convolutions that are not sparse stay dense without a remark.

        %y = "pattern.conv2d"(%x, %w, %b) {groups = 1, ...} : (..., tensor<64x64x3x3xf32>, ...) -> ...
    ->
        %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %stride, %reorder, %b)
               {library = #pattern.library<array<i64: 3, 3>, array<i64: 27, 54>>, ...}
               : (..., tensor<1024x4xf32>, tensor<1024xi16>, tensor<65xi32>, tensor<64x3xi16>, ...) -> ...

        %y = "pattern.conv2d"(%x, %w, %b) {groups = 1, ...} : (..., tensor<64x64x1x1xf32>, ...) -> ...
    ->
        %y = "pattern.sparse_conv2d"(...)
               {library = #pattern.library<array<i64: 1, 1, 9>, array<i64: 27, 54>>, ...} : ...

    The arrays of parameter "conv1.weight" are "conv1.values", "conv1.index", "conv1.offset", "conv1.stride"
    and "conv1.reorder"; the store keeps the dense one. FKW is in section 6.2 of the paper, 1x1 kernels in section 3.

    Requires: nothing.
    Ensures: every layer computes the same products as before, less those with a zero weight. A second run
        changes nothing.

    Options:
        max-patterns: the most patterns that a layer's own library may have, from 1; default 16.
            Patterns for the rest of a 1x1 convolution count.
        min-sparsity: the least part of a layer's weights that the arrays must leave out, 0 to 1; default 0.3,
            since the slowest pattern loop runs at 0.7 of a dense loop's rate.
        library: masks of the 3x3 patterns to use, in this order and even if unused; distinct, with equally
            many entries, two to six. 1x1 convolutions use them for their kernels of nine channels too, and
            add what their rest needs. Default: find them, as always for other kernel sizes.

    Raises:
        PatcError: an option is out of its range.
    """

    name: ClassVar[str] = "pattern-encode"

    max_patterns: int = field(
        default=16, metadata={"help": "most patterns that a layer's own library may have", "minimum": 1}
    )
    min_sparsity: float = field(
        default=0.3,
        metadata={"help": "least part of a layer's weights to leave out", "minimum": 0.0, "maximum": 1.0},
    )
    library: tuple[int, ...] = field(
        default=(),
        metadata={
            "help": "masks of the 3x3 and nine-channel patterns to use; default: find them",
            "minimum": 1,
            "maximum": 511,
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = {_size(mask) for mask in self.library}
        one_size = not sizes or (len(sizes) == 1 and MIN_ENTRIES <= min(sizes) <= MAX_ENTRIES)
        if not one_size or len(set(self.library)) < len(self.library):
            raise PatcError(
                f"pass '{self.name}' expected option 'library' to be distinct masks with equally many "
                f"entries, {MIN_ENTRIES} to {MAX_ENTRIES}, got {list(self.library)}"
            )

    def run(self, module: ir.Module, state: PassState) -> None:
        with module.context, ir.Location.unknown():
            for conv in _convolutions(module):
                try:
                    encoded = self._encode_layer(conv, state)
                except StaysDense as reason:
                    state.remark(conv, f"stays dense: {reason}")
                    continue
                if encoded:
                    _replace(conv, *encoded, state)

    def _encode_layer(self, conv: Conv2dOp, state: PassState) -> tuple[Library, Fkw] | None:
        """Return the library and the arrays of a layer; None for one that is dense as a matter of course."""
        element = str(conv.weight.type.element_type)
        if element != "f32":
            raise StaysDense(f"its weights are {element}, f32 expected")
        weight = read_constant(conv.weight, state)
        if weight is None:
            raise StaysDense("its weights are not constant")
        if _is_usually_dense(conv, weight) and np.mean(weight == 0) < self.min_sparsity:
            return None
        _check_kind(conv, weight)
        height, width = weight.shape[2:]
        depth = POINTWISE_DEPTH if height * width == 1 else 1
        try:
            masks = self._layer_library(weight, depth)
            fkw = self._encode_weight(weight, masks, conv.groups.value, depth)
        except StaysDense as reason:
            if depth == 1:
                raise
            raise StaysDense(f"with {depth} input channels to a kernel, {reason}") from None
        return Library((height, width), masks, depth), fkw

    def _encode_weight(self, weight: np.ndarray, masks: tuple[int, ...], groups: int, depth: int) -> Fkw:
        fkw = encode(weight, masks, groups, depth)
        left_out = 1 - fkw.values.size / weight.size
        if left_out < self.min_sparsity:
            raise StaysDense(f"patterns leave out {left_out:.0%} of the weights, {self.min_sparsity:.0%} expected")
        return fkw

    def _layer_library(self, weight: np.ndarray, depth: int) -> tuple[int, ...]:
        kernels, rest = kernel_masks(weight, depth), rest_masks(weight, depth)
        taps = depth * weight.shape[2] * weight.shape[3]
        is_given = bool(self.library) and (weight.shape[2:] == (3, 3) or depth == POINTWISE_DEPTH)
        if is_given:
            _check_library(kernels, self.library)
            return self.library + find_rest_patterns(rest, self.library, taps)
        found = find_library(kernels, taps, self.max_patterns)
        patterns = found + find_rest_patterns(rest, found, taps)
        if len(patterns) > self.max_patterns:
            raise StaysDense(
                f"{len(patterns)} patterns of {_size(patterns[0])} entries with those of the rest, "
                f"at most {self.max_patterns} fit"
            )
        return patterns


def _is_usually_dense(conv: Conv2dOp, weight: np.ndarray) -> bool:
    """Whether a convolution is of a kind that most pruning leaves alone: 1x1, depthwise or very large."""
    _, channels, height, width = weight.shape
    return height * width == 1 or height * width > MAX_TAPS or (channels == 1 and conv.groups.value > 1)


def _check_kind(conv: Conv2dOp, weight: np.ndarray) -> None:
    """Refuse the kinds of convolutions that are never encoded, and weights that are all zero.

    Raises:
        StaysDense: the reason.
    """
    _, channels, height, width = weight.shape
    if height * width > MAX_TAPS:
        raise StaysDense(f"{height}x{width} kernels have more than {MAX_TAPS} taps")
    if height * width == 1 and conv.groups.value > 1:
        raise StaysDense("1x1 kernels of a grouped convolution have no patterns")
    if height * width == 1 and channels < POINTWISE_DEPTH:
        raise StaysDense(f"1x1 kernels have patterns over {POINTWISE_DEPTH} input channels, the layer has {channels}")
    if not weight.any():
        raise StaysDense("all weights are zero")


def _check_library(kernels: np.ndarray, masks: tuple[int, ...]) -> None:
    """Require that each kernel fits one of the given patterns.

    Raises:
        StaysDense: the number of those that do not.
    """
    misfits = np.count_nonzero(choose_patterns(kernels, masks) == len(masks))
    if misfits:
        raise StaysDense(
            f"{misfits} of {np.count_nonzero(kernels)} kernels fit none of the {len(masks)} given patterns"
        )


def find_library(kernels: np.ndarray, taps: int, max_patterns: int) -> tuple[int, ...]:
    """Return a few patterns that cover every kernel mask of a layer, chosen as the pass describes.

    Args:
        kernels: masks of any shape; no patterns where all of them are zero.
        taps: height x width x depth of a kernel.

    Raises:
        StaysDense: the kernels have too many entries or need too many patterns.
    """
    masks, counts = np.unique(kernels[kernels != 0], return_counts=True)
    if not masks.size:
        return ()
    sizes = np.sum([masks >> tap & 1 for tap in range(taps)], axis=0)
    entries = max(MIN_ENTRIES, int(sizes.max()))
    if entries > MAX_ENTRIES:
        raise StaysDense(f"kernels keep up to {entries} of {taps} weights")
    patterns = masks[sizes == entries].tolist()
    if len(patterns) > max_patterns:
        raise StaysDense(f"{len(patterns)} patterns of {entries} entries, at most {max_patterns} fit")

    by_frequency = np.lexsort((masks, -counts))
    masks, counts = masks[by_frequency], counts[by_frequency]
    orphans = masks[choose_patterns(masks, patterns) == len(patterns)]
    patterns += _merge(orphans, entries, taps, max_patterns)
    if len(patterns) > max_patterns:
        raise StaysDense(f"more patterns of {entries} entries than the {max_patterns} that fit")
    return tuple(sorted(patterns))


def find_rest_patterns(rest: np.ndarray, patterns: tuple[int, ...], taps: int) -> tuple[int, ...]:
    """Return the patterns that are wanted beside `patterns` to cover every mask of `rest` by few kernels.

    Any mask of n taps, counting all that some filter uses, then takes at most n / E kernels of E entries, rounded up.
    """
    left = int(np.bitwise_or.reduce(rest))
    entries = _size(patterns[0]) if patterns else min(max(MIN_ENTRIES, _size(left)), MAX_ENTRIES)
    added: list[int] = []
    while left:
        kernels = ceil_div(_size(left), entries)
        pattern = max((*patterns, *added), key=lambda mask: _size(mask & left), default=0)
        if _size(left & ~pattern) > (kernels - 1) * entries:
            pattern = _first_taps(left, entries, taps)
            added.append(pattern)
        left &= ~pattern
    return tuple(added)


def _first_taps(mask: int, entries: int, taps: int) -> int:
    """Return the first `entries` taps of a mask, filled up with the last ones of the kernel.

    The rest is at the end of its kernels: an input channel there is read for another of the filter's kernels.
    """
    pattern = 0
    for tap in [tap for tap in range(taps) if mask >> tap & 1] + [*reversed(range(taps))]:
        if _size(pattern) < entries:
            pattern |= 1 << tap
    return pattern


def _merge(masks: np.ndarray, entries: int, taps: int, most: int) -> list[int]:
    """Return patterns of `entries` taps that cover all `masks`; stop after `most` + 1."""
    patterns: list[int] = []
    while masks.size and len(patterns) <= most:
        pattern = 0
        # After the masks single taps fill the pattern up: whichever they are, their weights are zero.
        for mask in [*masks.tolist(), *(1 << tap for tap in range(taps))]:
            if _size(pattern | mask) <= entries:
                pattern |= mask
            if _size(pattern) == entries:
                break
        patterns.append(pattern)
        masks = masks[(masks & ~pattern) != 0]
    return patterns


def _size(mask: int) -> int:
    return bin(mask).count("1")


def _convolutions(module: ir.Module) -> list[Conv2dOp]:
    found: list[Conv2dOp] = []

    def visit(operation: Any) -> ir.WalkResult:
        if operation.name == Conv2dOp.OPERATION_NAME:
            found.append(operation.opview)
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit, ir.WalkOrder.PRE_ORDER)
    return found


def _replace(conv: Conv2dOp, library: Library, arrays: Fkw, state: PassState) -> None:
    """Put a sparse convolution in the place of a dense one, its arrays in the place of the weight."""
    weight = conv.weight
    stem = _stem(constant_name(weight))
    with ir.InsertionPoint(weight.owner):
        operands = {
            array: make_constant(
                getattr(arrays, array), stem and f"{stem}.{array}", state, location=weight.owner.location
            )
            for array in ("values", "index", "offset", "stride", "reorder")
        }
    with ir.InsertionPoint(conv):
        sparse = SparseConv2dOp(
            input=conv.input,
            **operands,
            result=conv.result.type,
            library=library.to_attr(),
            strides=conv.strides,
            pads=conv.pads,
            dilations=conv.dilations,
            activation=conv.activation,
            bias=conv.bias,
            residual=conv.residual,
            loc=conv.location,
        )
    _copy_further_attributes(conv, sparse)
    if conv.groups.value > 1:
        sparse.attributes["grouped"] = ir.UnitAttr.get(conv.context)
    conv.result.replace_all_uses_with(sparse.result)
    conv.operation.erase()
    if next(iter(weight.uses), None) is None:
        weight.owner.erase()


def _stem(name: str | None) -> str | None:
    """Return "conv1" for "conv1.weight" and for what passes made of it, as "conv1.weight.folded"."""
    if name is None:
        return None
    parts = name.split(".")
    return ".".join(parts[: parts.index("weight")] if "weight" in parts[1:] else parts)


def _copy_further_attributes(conv: Conv2dOp, sparse: SparseConv2dOp) -> None:
    """Keep what others noted about the layer."""
    for name in conv.attributes:
        if name != "groups" and name not in sparse.attributes:
            sparse.attributes[name] = conv.attributes[name]
