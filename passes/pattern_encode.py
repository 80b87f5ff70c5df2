"""Dense weights to FKW arrays: finds each layer's pattern library in the weights' zeros."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from torch_mlir import ir

from patc.diagnostics import PatcError
from patc.dialects.attributes import Library
from patc.dialects.pattern import Conv2dOp, SparseConv2dOp
from patc.passes.base import Pass, PassState
from patc.passes.constants import constant_name, make_constant, read_constant
from patc.passes.fkw import MAX_TAPS, Fkw, choose_patterns, encode, kernel_masks

MIN_ENTRIES, MAX_ENTRIES = 2, 6


class StaysDense(Exception):
    """Why a layer is not encoded."""


@dataclass(frozen=True)
class PatternEncode(Pass):
    """Store pattern-pruned convolutions as FKW arrays.

    The pattern library of a layer is read from the zeros of its weights. All its patterns have as many
    entries as the fullest kernel, two to six. Masks of fewer entries that none of them covers are merged into
    further patterns, the most frequent first. Patterns are sorted by the number of kernels that they cover,
    falling, then by mask. A kernel takes the first pattern that covers it, and stores zeros where it has
    fewer entries; a kernel of zeros is dropped.

    A layer stays dense, and a remark says why, when its weights are not constant, are all zero, or do not
    fit. 1x1 and depthwise convolutions always stay dense; a remark says so when they are sparse.

        %y = "pattern.conv2d"(%x, %w, %b) {groups = 1, ...} : (..., tensor<64x64x3x3xf32>, ...) -> ...
    ->
        %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %stride, %reorder, %b)
               {library = #pattern.library<array<i64: 3, 3>, array<i64: 27, 54>>, ...}
               : (..., tensor<1024x4xf32>, tensor<1024xi16>, tensor<65xi32>, tensor<64x3xi16>, ...) -> ...

    The arrays of parameter "conv1.weight" are "conv1.values", "conv1.index", "conv1.offset", "conv1.stride"
    and "conv1.reorder"; the store keeps the dense one. FKW is in section 6.2 of the paper.

    Requires: nothing.
    Ensures: every layer computes the same products as before, less those with a zero weight. A second run
        changes nothing.

    Options:
        max-patterns: the most patterns that a layer's own library may have, from 1; default 16.
        min-sparsity: the least part of a layer's weights that the arrays must leave out, 0 to 1; default 0.3,
            since the slowest pattern loop runs at 0.7 of a dense loop's rate.
        library: masks of the 3x3 patterns to use, in this order and even if unused; distinct, with equally
            many entries, two to six. Default: find them, as always for other kernel sizes.

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
            "help": "masks of the 3x3 patterns to use; default: find them",
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
        unsuitable = _unsuitable(conv, weight)
        if unsuitable:
            if np.mean(weight == 0) < self.min_sparsity:
                return None
            raise StaysDense(unsuitable)
        height, width = weight.shape[2:]
        masks = self._layer_library(kernel_masks(weight), (height, width))
        fkw = encode(weight, masks, conv.groups.value)
        left_out = 1 - fkw.values.size / weight.size
        if left_out < self.min_sparsity:
            raise StaysDense(
                f"patterns leave out {left_out:.0%} of the weights, {self.min_sparsity:.0%} expected"
            )
        return Library((height, width), masks), fkw

    def _layer_library(self, kernels: np.ndarray, kernel: tuple[int, int]) -> tuple[int, ...]:
        if not kernels.any():
            raise StaysDense("all weights are zero")
        if kernel != (3, 3) or not self.library:
            return find_library(kernels, kernel[0] * kernel[1], self.max_patterns)
        misfits = np.count_nonzero(choose_patterns(kernels, self.library) == len(self.library))
        if misfits:
            kept = np.count_nonzero(kernels)
            raise StaysDense(
                f"{misfits} of {kept} kernels fit none of the {len(self.library)} given patterns"
            )
        return self.library


def find_library(kernels: np.ndarray, taps: int, max_patterns: int) -> tuple[int, ...]:
    """Return a few patterns that cover every kernel mask of a layer, chosen as the pass describes.

    Args:
        kernels: masks of any shape, some of them not zero.
        taps: height x width of a kernel.

    Raises:
        StaysDense: the kernels have too many entries or need too many patterns.
    """
    masks, counts = np.unique(kernels[kernels != 0], return_counts=True)
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
    covered = {pattern: int(counts[(masks & ~pattern) == 0].sum()) for pattern in patterns}
    return tuple(sorted(patterns, key=lambda pattern: (-covered[pattern], pattern)))


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


def _unsuitable(conv: Conv2dOp, weight: np.ndarray) -> str:
    """Return why a kind of convolution is never encoded, or ""."""
    _, channels, height, width = weight.shape
    if height * width == 1:
        return "a 1x1 kernel has no patterns"
    if channels == 1 and conv.groups.value > 1:
        return "depthwise convolutions are not encoded"
    if height * width > MAX_TAPS:
        return f"{height}x{width} kernels have more than {MAX_TAPS} taps"
    return ""


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
