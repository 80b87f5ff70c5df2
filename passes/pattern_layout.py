"""`pattern-layout`: choose where the elements of every activation lie, so that no layer has to pad or copy.

A producer writes straight into the layout its users want: with their halo, and with even and odd columns apart when
they are convolutions of stride 2. Only where users disagree, and at the function's boundary, is a `pattern.relayout`
needed.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from torch_mlir import ir

from patc.dialects import pattern
from patc.dialects.attributes import Layout
from patc.integers import ceil_div
from patc.passes.base import Pass, PassState
from patc.passes.ir.elements import element_bytes, vector_lanes
from patc.passes.ir.functions import RESHAPES, defined_functions
from patc.passes.ir.planes import has_no_gaps
from patc.passes.ir.targets import OVERRIDE, target_of
from patc.passes.ir.views import Views, is_concat, is_view
from patc.passes.ir.windows import Window
from patc.passes.kernels import tiling
from patc.passes.layers.base import Access, LayerKind, Sign
from patc.passes.layers.registry import kind_of
from patc.targets import Target


@dataclass(frozen=True)
class PatternLayout(Pass):
    """Give every activation the padded planar layout that its users want.

    Requires: pattern ops on static NCHW tensors, as `pattern-raise` makes them, and calls of outlined functions.
    Ensures: every rank 4 result of a pattern op has a `#pattern.layout` whose halo covers the pads of its users;
        function arguments and results and tensors of other shapes in the same memory are packed (row-major). What
        concatenations join and slices cut (see `views`) has one layout, so that it can lie in one memory, and is a
        `pattern.relayout` where it lies elsewhere.

        %1 = "pattern.conv2d"(%0, ...) {pads = [1, 1, 1, 1]} : ... -> tensor<1x64x56x56xf32>
        %2 = "pattern.conv2d"(%1, ...) {pads = [1, 1, 1, 1]} : ...
      becomes
        %1 = "pattern.conv2d"(%0, ...) : ... -> tensor<1x64x56x56xf32, #pattern.layout<{halo = [1, 1, 1, 1], ...}>>
        %2 = "pattern.conv2d"(%1, ...) : ...

    Idempotent: a tensor that has a layout keeps it.
    """

    name: ClassVar[str] = "pattern-layout"

    target: str = field(default="", metadata={"help": OVERRIDE})

    def run(self, module: ir.Module, state: PassState) -> None:
        target = target_of(module, self.target)
        for function in defined_functions(module):
            block = function.regions[0].blocks[0]
            _copy_what_lies_elsewhere(block)
            parts = Views.of(block).parts
            together: dict[ir.Value, list[ir.Value]] = {}
            for value, part in parts.items():
                together.setdefault(part.root, []).append(value)
            for argument in block.arguments:
                _place([argument], target)
            for op in list(block.operations):
                if kind_of(op) is not None or op.operation.name in RESHAPES or is_view(op):
                    for result in op.results:
                        joined = together.pop(parts[result].root, []) if result in parts else [result]
                        if joined:
                            _place(joined, target)


def _copy_what_lies_elsewhere(block: ir.Block) -> None:
    """Give views operands that can lie in one memory with their results."""
    copies: dict[tuple[ir.Value, bool], ir.Value] = {}
    for op, number in Views.of(block, _packs).copies:
        value, joins = op.operation.operands[number], is_concat(op)
        if joins or (value, joins) not in copies:
            with ir.InsertionPoint(op):
                copies[value, joins] = pattern.RelayoutOp(input=value, result=value.type, loc=op.location).result
        op.operation.operands[number] = copies[value, joins]


def _packs(value: ir.Value) -> bool:
    kind = kind_of(value.owner.opview)
    return kind is not None and kind.packs


@dataclass(frozen=True)
class _Use:
    """One operand that reads a value: `number` of the operands of `op`; `kind` is None for an op that is no layer."""

    op: Any
    number: int
    kind: LayerKind | None

    @functools.cached_property
    def access(self) -> Access:
        """How the op reads the value."""
        return Access.PACKED if self.kind is None else self.kind.operands(self.op)[self.number].access

    @property
    def window(self) -> Window | None:
        """The window that slides over the value, if one does."""
        return self.kind.window(self.op) if self.kind is not None and self.access is Access.WINDOW else None

    @property
    def is_pointwise(self) -> bool:
        """Whether rows without gaps between them suit the op, see `planes.is_flat`."""
        return self.kind is not None and self.kind.is_pointwise(self.op)

    @property
    def fill(self) -> str:
        """What the halo must hold for the window; zeros will do where nothing is below them, and where they are never
        alone."""
        window = self.window
        if self.kind is None or window is None or not any(window.pads):
            return "zero"
        meets = window.always_meets(self.op.input.type.shape[2:])
        return "zero" if meets and _is_non_negative(self.op.input) else self.kind.fill


@dataclass(frozen=True)
class _Request:
    """The layout that some uses of a value need."""

    layout: Layout
    uses: list[_Use]


def _place(values: list[ir.Value], target: Target) -> None:
    """Set the layout of values that lie together for their users, and give users that need another one a relayout."""
    tensor = values[0].type
    if not isinstance(tensor, ir.RankedTensorType) or len(tensor.shape) != 4 or tensor.encoding is not None:
        return
    uses = {value: _uses(value) for value in values}
    main = Layout.packed(*tensor.shape[2:])
    if not (is_given := any(_is_given(value) for value in values)):
        chosen = _deciding_uses(uses, target)
        requests = _collect_requests(tensor, chosen, target)
        main = _choose_layout(tensor, chosen, requests, target)
        main = _like_input(values[0], main) if len(values) == 1 else main
        for value in values:
            value.set_type(_with_layout(value.type, main))
    whole = max(value.type.shape[1] for value in values)
    for value in values:
        is_apart = tensor.shape[0] > 1 and value.type.shape[1] < whole  # its images have others between them
        for request in _collect_requests(tensor, uses[value], target):
            # Windows read whole vectors: they need memory of ours, with room behind the last row.
            is_copied = is_given and request.uses[0].window is not None
            is_copied |= is_apart and request.layout.is_packed(*tensor.shape[2:]) and request.uses[0].window is None
            if is_copied or not _serves(main, request.layout, tensor.shape):
                _relayout(value, request)


def _uses(value: ir.Value) -> list[_Use]:
    """Return what reads a value, but for views of it."""
    users = [(use.owner.opview, use.operand_number) for use in value.uses]
    return [_Use(op, number, kind_of(op)) for op, number in users if not is_view(op)]


def _deciding_uses(uses: dict[ir.Value, list[_Use]], target: Target) -> list[_Use]:
    """Return those uses of values that lie together which choose the layout: all, or those of what joins them where
    that is a product of matrices, whose rows are short vectors where they have gaps between them."""
    tensor = next(iter(uses)).type
    joined = [use for value, some in uses.items() if is_view(value.owner.opview) for use in some]
    is_product = any(use.is_pointwise for use in joined) and all(use.is_pointwise for use in joined if use.window)
    if is_product and tensor.shape[3] % max(vector_lanes(tensor, target) // 2, 4):
        return joined
    return [use for some in uses.values() for use in some]


def _is_given(value: ir.Value) -> bool:
    """Whether a value can only be row-major: it is an argument or a reshape, or its producer writes nothing else."""
    if isinstance(value.owner, ir.Block):
        return True
    op = value.owner.opview
    kind = kind_of(op)
    return not is_view(op) and (kind is None or kind.packs)


def _collect_requests(tensor: ir.RankedTensorType, uses: list[_Use], target: Target) -> list[_Request]:
    """Return the layouts that uses need, one for each fill of the halo; other uses read any layout."""
    requests = []
    for fill in ("zero", "lowest"):
        sliding = [use for use in uses if use.window is not None and use.fill == fill]
        if sliding:
            requests.append(_Request(_sliding_layout(tensor, sliding, fill, target), sliding))
    packed = [use for use in uses if use.access is Access.PACKED or use.access.is_constant]
    if packed:
        requests.append(_Request(Layout.packed(*tensor.shape[2:]), packed))
    return requests


def _choose_layout(tensor: ir.RankedTensorType, uses: list[_Use], requests: list[_Request], target: Target) -> Layout:
    """Return the layout that the producer writes: the first that is needed."""
    needs_zeros = any(use.access is Access.PLANES for use in uses)
    if not requests or (needs_zeros and requests[0].layout.fill != "zero"):
        return _flexible_layout(tensor, uses, target)
    layout = requests[0].layout
    if needs_zeros and layout.phases > 1:  # to the end of each row, which producers leave as it is else
        return replace(layout, right=layout.pitch - layout.left - tensor.shape[3])
    return layout


def _like_input(value: ir.Value, wanted: Layout) -> Layout:
    """Return the layout of the producer's input where it will do: layers of one size then share their kernel."""
    op = value.owner.opview
    given = getattr(op, "input", None)
    if given is None or list(given.type.shape[2:]) != list(value.type.shape[2:]) or given.type.encoding is None:
        return wanted
    if has_no_gaps(wanted, value.type.shape[3]):
        return wanted
    layout = Layout.of(given.type)
    return layout if _serves(layout, wanted, value.type.shape) else wanted


def _serves(layout: Layout, wanted: Layout, shape: Sequence[int]) -> bool:
    """Whether users that want one layout can read the other: the halo may be larger."""
    if layout == wanted:
        return True
    if wanted.is_packed(*shape[2:]) or layout.is_packed(*shape[2:]):
        return False
    wider = all(getattr(layout, side) >= getattr(wanted, side) for side in ("top", "left", "bottom", "right"))
    return wider and layout.phases == wanted.phases and layout.fill == wanted.fill


def _is_non_negative(value: ir.Value) -> bool:
    if isinstance(value.owner, ir.Block):
        return False
    op = value.owner.opview
    if is_view(op):
        return all(_is_non_negative(operand) for operand in op.operands)
    kind = kind_of(op)
    sign = Sign.ANY if kind is None else kind.sign(op)
    return sign is Sign.NON_NEGATIVE or (sign is Sign.AS_INPUT and _is_non_negative(op.input))


def _sliding_layout(tensor: ir.RankedTensorType, uses: list[_Use], fill: str, target: Target) -> Layout:
    """Return the layout whose halo covers the pads of all windows; two phases when all have stride 2."""
    windows = [use.window for use in uses if use.window is not None]
    top, left, bottom, right = (max(window.pads[side] for window in windows) for side in range(4))
    # A convolution reads each row many times, pooling once: not worth another store for its producer.
    rereads = any(use.kind is not None and use.kind.rereads for use in uses)
    split = rereads and all(window.strides[1] == 2 for window in windows) and target.splits_phases
    phases = 2 if split else 1
    if target.vector_rows:
        return _vector_rows(tensor, Layout(top, left, bottom, right, fill=fill), target)
    lanes = 1 if all(use.is_pointwise for use in uses) else vector_lanes(tensor, target)
    return _padded(tensor, Layout(top, left, bottom, right, phases=phases, fill=fill), lanes, target)


def _flexible_layout(tensor: ir.RankedTensorType, uses: list[_Use], target: Target) -> Layout:
    """Return the layout of a value that only flexible users read: aligned rows, or none for 1x1 convolutions."""
    if target.vector_rows:
        return _vector_rows(tensor, Layout(), target)
    lanes = 1 if any(use.is_pointwise for use in uses) else vector_lanes(tensor, target)
    return _padded(tensor, Layout(), lanes, target)


def _vector_rows(tensor: ir.RankedTensorType, halo: Layout, target: Target) -> Layout:
    """Return the layout whose rows start on a vector, halo or not: a thread stores one vector, which is all its own."""
    left = ceil_div(halo.left, target.lanes) * target.lanes
    return _padded(tensor, replace(halo, left=left), target.lanes, target)


def _padded(tensor: ir.RankedTensorType, halo: Layout, lanes: int, target: Target) -> Layout:
    """Return a layout with its rows, which start on so many lanes, and planes."""
    top, left, bottom, right, phases = halo.top, halo.left, halo.bottom, halo.right, halo.phases
    height, width = tensor.shape[2:]
    # The right halo of a row may be the left halo of the next one, if there is a next one.
    halo_columns = max(left, right) if bottom or not right else left + right
    columns = width + halo_columns if phases == 1 else left + width + right
    row = ceil_div(columns, phases)
    # Rows that start on a vector boundary cost padding; short rows align to the vector that covers them.
    align = 1 if lanes == 1 else min(lanes, tiling.cut(min(row, lanes), lanes)[-1].lanes)
    row = ceil_div(row, align) * align
    # The right halo of the last row lies behind it where it is the left halo of a row in other places.
    overhang = max(0, left + width + right - row * phases)
    line = target.costs.line_bytes // element_bytes(tensor)
    lines = ceil_div((top + height + bottom) * row * phases + overhang, line)
    # Planes an odd number of cache lines apart spread over all sets of a cache.
    return replace(halo, row=row, plane=(lines | 1) * line)


def _with_layout(tensor: ir.RankedTensorType, layout: Layout) -> ir.RankedTensorType:
    """Return the type with a layout; a packed tensor needs none."""
    encoding = None if layout.is_packed(*tensor.shape[2:]) else layout.to_attr()
    return ir.RankedTensorType.get(list(tensor.shape), tensor.element_type, encoding)


def _relayout(value: ir.Value, request: _Request) -> None:
    """Give uses the value in the layout that they need."""
    first = min(request.uses, key=lambda use: _position(use.op)).op
    with ir.InsertionPoint(first):
        op = pattern.RelayoutOp(input=value, result=_with_layout(value.type, request.layout), loc=first.location)
    for use in request.uses:
        use.op.operation.operands[use.number] = op.result


def _position(op: Any) -> int:
    """Return the place of an op in its block."""
    return next(number for number, other in enumerate(op.operation.block) if other == op)
