"""`pattern-layout`: choose where the elements of every activation lie, so that no layer has to pad or copy.

A producer writes straight into the layout its users want: with their halo, and with even and odd columns apart when
they are convolutions of stride 2. Only where users disagree, and at the function's boundary, is a `pattern.relayout`
needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch_mlir import ir

from patc.dialects import pattern
from patc.dialects.attributes import Activation, Layout
from patc.integers import ceil_div
from patc.passes.base import Pass, PassState
from patc.passes.ir.elements import vector_lanes
from patc.passes.ir.functions import defined_functions
from patc.passes.ir.planes import CONVOLUTIONS, has_no_gaps, is_global_pool, is_pointwise
from patc.passes.kernels import tiling
from patc.targets import Target, get_target

_WINDOWS = (*CONVOLUTIONS, pattern.MaxPool2dOp, pattern.AvgPool2dOp)
_FLEXIBLE = (pattern.AddOp, pattern.ActivateOp, pattern.RelayoutOp)


@dataclass(frozen=True)
class PatternLayout(Pass):
    """Give every activation the padded planar layout that its users want.

    Requires: pattern ops on static NCHW tensors, as `pattern-raise` makes them.
    Ensures: every rank 4 result of a pattern op has a `#pattern.layout` whose halo covers the pads of its users;
        function arguments and results and flattened tensors are packed (row-major).

        %1 = "pattern.conv2d"(%0, ...) {pads = [1, 1, 1, 1]} : ... -> tensor<1x64x56x56xf32>
        %2 = "pattern.conv2d"(%1, ...) {pads = [1, 1, 1, 1]} : ...
      becomes
        %1 = "pattern.conv2d"(%0, ...) : ... -> tensor<1x64x56x56xf32, #pattern.layout<{halo = [1, 1, 1, 1], ...}>>
        %2 = "pattern.conv2d"(%1, ...) : ...

    Idempotent: a tensor that has a layout keeps it.
    """

    name: ClassVar[str] = "pattern-layout"

    target: str = field(default="host", metadata={"help": "machine whose vectors the rows are aligned to"})

    def run(self, module: ir.Module, state: PassState) -> None:
        target = get_target(self.target)
        for function in defined_functions(module):
            block = function.regions[0].blocks[0]
            for argument in block.arguments:
                _place(argument, target, is_argument=True)
            for op in list(block.operations):
                if isinstance(op, (*_WINDOWS, *_FLEXIBLE)):
                    _place(op.result, target, is_argument=False)


@dataclass(frozen=True)
class _Use:
    """One operand that reads a value, as op and operand number."""

    op: Any
    number: int

    @property
    def slides(self) -> bool:
        """Whether the op moves a window over the value."""
        return isinstance(self.op, _WINDOWS) and self.number == 0 and not is_global_pool(self.op)

    @property
    def flexible(self) -> bool:
        """Whether the op reads any layout with a halo of zeros."""
        is_residual = isinstance(self.op, CONVOLUTIONS) and self.number > 0
        return isinstance(self.op, _FLEXIBLE) or is_residual or is_global_pool(self.op)


def _place(value: ir.Value, target: Target, is_argument: bool) -> None:
    """Set the layout of a value for its users, and give those that need another one a relayout."""
    tensor = value.type
    if not isinstance(tensor, ir.RankedTensorType) or len(tensor.shape) != 4 or tensor.encoding is not None:
        return
    uses = [_Use(use.owner.opview, use.operand_number) for use in value.uses]
    sliding = [use for use in uses if use.slides]
    lowest = [use for use in sliding if _needs_lowest(use.op)]
    zero = [use for use in sliding if use not in lowest]
    others = [use for use in uses if not use.slides and not use.flexible]
    packed = Layout.packed(*tensor.shape[2:])
    wanted = [(_sliding_layout(tensor, group, target), group) for group in (zero, lowest) if group]
    if lowest and not zero and not is_argument and any(is_global_pool(use.op) for use in uses):
        wanted.insert(0, (_flexible_layout(tensor, uses, target), []))  # a mean must not meet minus infinity
    if others or is_argument:
        wanted.append((packed, others))
    main = packed if is_argument else wanted[0][0] if wanted else _flexible_layout(tensor, uses, target)
    if not is_argument:
        main = _like_input(value, main)
    if not is_argument:
        value.set_type(_with_layout(tensor, main))
    for layout, group in wanted:
        # Windows read whole vectors: they need memory of ours, with room behind the last row.
        copied = is_argument and group and group[0].slides
        if copied or not _serves(main, layout, tensor.shape):
            _relayout(value, layout, group)


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


def _needs_lowest(op: Any) -> bool:
    """Whether a halo of zeros could win this max pooling."""
    return isinstance(op, pattern.MaxPool2dOp) and any(op.pads) and not _is_non_negative(op.input)


def _is_non_negative(value: ir.Value) -> bool:
    if isinstance(value.owner, ir.Block):
        return False
    op = value.owner.opview
    if isinstance(op, (pattern.MaxPool2dOp, pattern.AvgPool2dOp, pattern.RelayoutOp)):
        divides_by_less = "divisor" in op.attributes and op.attributes["divisor"].value < 0
        return not divides_by_less and _is_non_negative(op.input)
    if "activation" not in op.attributes:
        return False
    activation = Activation.from_attr(op.activation)
    # Where the bounds are in the wrong order, the upper one is all there is.
    return activation.kind == "relu" or (
        activation.kind == "clamp" and min(activation.minimum, activation.maximum) >= 0
    )


def _sliding_layout(tensor: ir.RankedTensorType, uses: list[_Use], target: Target) -> Layout:
    """Return the layout whose halo covers the pads of all windows; two phases when all have stride 2."""
    top, left, bottom, right = (max(use.op.pads[side] for use in uses) for side in range(4))
    # A convolution reads each row many times, pooling once: not worth another store for its producer.
    convolutions = [use.op for use in uses if isinstance(use.op, CONVOLUTIONS)]
    # A GPU loads all columns either way, and picks every second one.
    split = bool(convolutions) and all(use.op.strides[1] == 2 for use in uses) and not target.is_gpu
    phases = 2 if split else 1
    fill = "lowest" if _needs_lowest(uses[0].op) else "zero"
    if target.is_gpu:
        return _vector_rows(tensor, (top, left, bottom, right), fill, target)
    # Rows without gaps between them, see `planes.is_flat`.
    lanes = 1 if all(is_pointwise(use.op) for use in uses) else vector_lanes(tensor, target)
    return _padded(tensor, (top, left, bottom, right), phases, fill, lanes)


def _flexible_layout(tensor: ir.RankedTensorType, uses: list[_Use], target: Target) -> Layout:
    """Return the layout of a value that only flexible users read: aligned rows, or none for 1x1 convolutions."""
    if target.is_gpu:
        return _vector_rows(tensor, (0, 0, 0, 0), "zero", target)
    lanes = 1 if any(is_pointwise(use.op) for use in uses) else vector_lanes(tensor, target)
    return _padded(tensor, (0, 0, 0, 0), 1, "zero", lanes)


def _vector_rows(tensor: ir.RankedTensorType, halo: tuple[int, int, int, int], fill: str, target: Target) -> Layout:
    """Return the layout whose rows start on a vector, halo or not: a thread stores one vector, which is all its own."""
    top, left, bottom, right = halo
    left = ceil_div(left, target.lanes) * target.lanes
    return _padded(tensor, (top, left, bottom, right), 1, fill, target.lanes)


def _padded(tensor: ir.RankedTensorType, halo: tuple[int, int, int, int], phases: int, fill: str, lanes: int) -> Layout:
    top, left, bottom, right = halo
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
    line = tiling.line(tensor)
    lines = ceil_div((top + height + bottom) * row * phases + overhang, line)
    # Planes an odd number of cache lines apart spread over all sets of a cache.
    return Layout(top, left, bottom, right, row=row, plane=(lines | 1) * line, phases=phases, fill=fill)


def _with_layout(tensor: ir.RankedTensorType, layout: Layout) -> ir.RankedTensorType:
    """Return the type with a layout; a packed tensor needs none."""
    encoding = None if layout.is_packed(*tensor.shape[2:]) else layout.to_attr()
    return ir.RankedTensorType.get(list(tensor.shape), tensor.element_type, encoding)


def _relayout(value: ir.Value, layout: Layout, uses: list[_Use]) -> None:
    """Give `uses` the value in another layout."""
    first = min(uses, key=lambda use: _position(use.op)).op
    with ir.InsertionPoint(first):
        op = pattern.RelayoutOp(input=value, result=_with_layout(value.type, layout), loc=first.location)
    for use in uses:
        use.op.operation.operands[use.number] = op.result


def _position(op: Any) -> int:
    """Return the place of an op in its block."""
    return next(number for number, other in enumerate(op.operation.block) if other == op)
