"""Dense weights to sparse ones: each layer's in the format that suits them, as FKW, bands and packs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch_mlir import ir

from patc.diagnostics import PatcError
from patc.dialects.attributes import i64
from patc.passes.base import Pass, PassState
from patc.passes.formats.base import Arrays, EncodeOptions, StaysDense, WeightFormat
from patc.passes.formats.fkw_library import MIN_ENTRIES, size
from patc.passes.formats.layer_weights import groups_of
from patc.passes.formats.registry import formats
from patc.passes.ir.constants import constant_name, make_constant, read_constant
from patc.passes.ir.functions import rebuild, walk_ops
from patc.passes.layers.registry import kind_of


@dataclass(frozen=True)
class PatternEncode(Pass):
    """Store the weights of pruned convolutions and linear layers as the arrays of a format.

    The formats are those of `passes/formats/registry.py`. Linear layers take bands or packs, whichever has fewer
    operations on vectors; convolutions take bands or packs where their zeros make some and no few patterns, else FKW.

    Bands are columns of 64, 32, 16, 8 or 4 neighbouring filters, as block pruning leaves them: the most filters that
    store hardly more than fewer would. What has an element in one of a band's filters is stored for all of them; of a
    convolution at most a quarter more than is not zero.

        %y = "pattern.linear"(%x, %w, %b) : (tensor<1x256xf32>, tensor<512x256xf32>, ...) -> ...
    ->
        %y = "pattern.sparse_linear"(%x, %values, %index, %offset, %reorder, %b)
               {format = #pattern.bands<16 : i64, array<i64: 1, 1>>, ...}
               : (tensor<1x256xf32>, tensor<1024x16xf32>, tensor<1024xi16>, tensor<33xi32>, tensor<512xi16>, ...) -> ...

    Packs have a weight each of 16 filters, whose inputs are among 32 neighbours: single zeros are left out where the
    16 filters have about as many weights among these, as gather-scatter pruning leaves them. At most half as many
    weights are stored as there are in all. Filters have another order where that saves a seventh of them. Of a
    convolution, without groups, the 32 are channels of one tap; at most a tenth more is stored than is not zero, and
    filters have whichever order stores less.

        %y = "pattern.sparse_linear"(%x, %values, %index, %counts, %reorder)
               {format = #pattern.packs<32 : i64, array<i64: 1, 1>>, ...}
               : (tensor<1x256xf32>, tensor<824x16xf32>, tensor<824x16xi8>, tensor<32x8xi8>, tensor<512xi16>) -> ...

    The pattern library of a layer is read from the zeros of its weights. All its patterns have as many entries as the
    fullest kernel, two or more. Masks of fewer entries that none of them covers are merged into further patterns, the
    most frequent first. Patterns are sorted by mask, so that layers with the same patterns can share their code. A
    kernel takes the first pattern that covers it, and stores zeros where it has fewer entries; a kernel of zeros is
    dropped.

    Zeros that make no few patterns, as those of unstructured pruning, are left out all the same where they are 60% of
    the weights or more: each tap that some kernel uses is a pattern of its own then, and each other weight a kernel.
    So are patterns' weights where one and a half times as many would be stored as are not zero.

    Nine consecutive input channels of one filter of a 1x1 convolution are one kernel of depth nine. The rest, C
    mod 9 channels, is stored as kernels of the last nine channels, as few as its entries need. Patterns for these
    join the library behind the others: each holds the rest's next entries, and other taps, whose weights are zero,
    where that is too few. The rest takes patterns that are there already where these leave no more to do.

    A layer stays dense, and a remark says why, when its weights are not constant, are all zero, or do not
    fit. Linear layers, 1x1 and depthwise convolutions that are not sparse stay dense without a remark.

        %y = "pattern.conv2d"(%x, %w, %b) {groups = 1, ...} : (..., tensor<64x64x3x3xf32>, ...) -> ...
    ->
        %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder, %b)
               {format = #pattern.fkw<array<i64: 3, 3>, array<i64: 27, 54>>, ...}
               : (..., tensor<1024x4xf32>, tensor<1024xi16>, tensor<65xi32>, tensor<64x3xi16>, ...) -> ...

        %y = "pattern.conv2d"(%x, %w, %b) {groups = 1, ...} : (..., tensor<64x64x1x1xf32>, ...) -> ...
    ->
        %y = "pattern.sparse_conv2d"(...)
               {format = #pattern.fkw<array<i64: 1, 1, 9>, array<i64: 27, 54>>, ...} : ...

    The arrays of parameter "conv1.weight" are "conv1.values", "conv1.index", "conv1.offset", "conv1.pattern_offsets"
    and "conv1.reorder"; the store keeps the dense one. FKW is in section 6.2 of the paper, 1x1 kernels in section 3.

    Requires: nothing.
    Ensures: every layer computes the same products as before, less those with a zero weight. A second run
        changes nothing.

    Options:
        max-patterns: the most patterns that a layer's own library may have, from 1; default 16.
            Patterns for the rest of a 1x1 convolution count, those of a single tap do not.
        min-sparsity: the least part of a layer's weights that the arrays must leave out, 0 to 1; default 0.3,
            since the slowest pattern loop runs at 0.7 of a dense loop's rate.
        library: masks of the 3x3 patterns to use, in this order and even if unused; distinct, with equally
            many entries, two or more. 1x1 convolutions use them for their kernels of nine channels too, and
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
        sizes = {size(mask) for mask in self.library}
        one_size = not sizes or (len(sizes) == 1 and min(sizes) >= MIN_ENTRIES)
        if not one_size or len(set(self.library)) < len(self.library):
            raise PatcError(
                f"pass '{self.name}' expected option 'library' to be distinct masks with equally many "
                f"entries, {MIN_ENTRIES} or more, got {list(self.library)}"
            )

    def run(self, module: ir.Module, state: PassState) -> None:
        with module.context, ir.Location.unknown():
            for sparse_op, layer in _dense_layers(module):
                try:
                    encoded = self._encode_layer(layer, state)
                except StaysDense as reason:
                    state.remark(layer, f"stays dense: {reason}")
                    continue
                if encoded:
                    _replace(layer, sparse_op, encoded, state)

    def _encode_layer(self, layer: Any, state: PassState) -> tuple[WeightFormat, Arrays] | None:
        """Return format and arrays of a layer; None for one that is dense as a matter of course.

        Raises:
            StaysDense: the reason of the first format that refuses the weights.
        """
        element, weight = str(layer.weight.type.element_type), read_constant(layer.weight, state)
        if layer.weight.type.rank == 2 and (element != "f32" or weight is None):
            return None
        if element != "f32":
            raise StaysDense(f"its weights are {element}, f32 expected")
        if weight is None:
            raise StaysDense("its weights are not constant")
        options = EncodeOptions(self.max_patterns, self.min_sparsity, self.library)
        reasons, found = [], []
        for kind in formats():
            try:
                encoded = kind.encode(weight, groups_of(layer), options)
            except StaysDense as reason:
                reasons.append(reason)
                continue
            if encoded is not None:
                found.append(encoded)
        if found:
            return min(found, key=lambda each: each[0].vectors(each[1]))
        if reasons:
            raise reasons[0]
        zeros = float((weight == 0).mean())
        if zeros >= self.min_sparsity:
            raise StaysDense(
                f"{zeros:.0%} of its weights are zero, but make too few columns of bands, packs or patterns"
            )
        return None


def _dense_layers(module: ir.Module) -> list[tuple[type, Any]]:
    """Return the layers whose weights a format may take, with the op that each becomes then."""
    kinds = [(kind_of(op), op) for op in walk_ops(module)]
    return [(kind.sparse, op) for kind, op in kinds if kind is not None and kind.sparse is not None]


def _replace(layer: Any, sparse_op: Any, encoded: tuple[WeightFormat, Arrays], state: PassState) -> None:
    """Put a sparse layer in the place of a dense one, its arrays in the place of the weight."""
    weight, attr = layer.weight, encoded[0].to_attr()
    stem = _stem(constant_name(weight))
    with ir.InsertionPoint(weight.owner):
        values = {
            f"array{number}": make_constant(array, stem and f"{stem}.{name}", state, location=weight.owner.location)
            for number, (name, array) in enumerate(zip(attr.array_names(), encoded[1], strict=True))
        }
    groups = groups_of(layer)
    with ir.InsertionPoint(layer):
        sparse = rebuild(layer, sparse_op, format=attr, **values)
    if groups > 1:
        sparse.attributes["groups"] = i64(groups)
    if next(iter(weight.uses), None) is None:
        weight.owner.erase()


def _stem(name: str | None) -> str | None:
    """Return "conv1" for "conv1.weight" and for what passes made of it, as "conv1.weight.folded"."""
    if name is None:
        return None
    parts = name.split(".")
    return ".".join(parts[: parts.index("weight")] if "weight" in parts[1:] else parts)
