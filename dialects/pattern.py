"""The `pattern` dialect: convolutions whose kernels keep the entries of a few patterns.

Activations are NCHW tensors; their type may carry a `#pattern.layout` encoding. Ops are pure, so upstream CSE and
dead-code elimination apply. Convolutions share one epilogue:

    y = activation(conv(x, w) + bias + residual)

A residual has the shape of the result, or one image, one channel or one element of each plane for all. With an
attribute `join`, one of "subtract", "subtract_from", "multiply" and "divide", it is not added; see
`patc.dialects.joins`. With the unit attribute `joins_last` it joins what the activation gives. `activation` is "none",
"relu", `#pattern.clamp<minimum, maximum>` or `#pattern.activation<name, [constants]>`; `pads` is
[top, left, bottom, right].

Activations may be quantised, tensors of `!pattern.quantised`: then a layer computes the same function of the real
numbers, in the arithmetic of docs/int8.md. Its weights are i8, with an attribute `scales` of one f32 a filter, and its
bias is i32, in units of the input's scale times the filter's; the result is quantised or f32. Max pooling and
resampling keep the input's elements, average pooling makes quantised means of quantised elements, and a sum of which
any part is quantised is so, too. `pattern.relayout` changes from one to the other; all other ops compute floats.
"""

from typing import Any, Optional

from torch_mlir import ir
from torch_mlir._mlir_libs import _mlir
from torch_mlir.dialects.ext import Operand, Pure, Result, attribute

from patc.dialects.attributes import (
    ActivationAttr,
    ClampAttr,
    ExplanationAttr,
    FkwAttr,
    LayoutAttr,
    PatternDialect,
    ScheduleAttr,
    WeightFormatAttr,
)
from patc.dialects.quantised import Quantisation, QuantisedType
from patc.dialects.recurrent import RecurrentOp
from patc.dialects.rules import (
    Tensor,
    integer,
    is_pointwise,
    rule,
    spreads,
    verify_activation,
    verify_bias,
    verify_convolution,
    verify_counting,
    verify_divisor,
    verify_format,
    verify_integers,
    verify_pool,
    verify_quantised,
    verify_ranks,
    verify_residual,
    verify_same_shape,
    verify_scales,
    verify_uncounted_pads,
    when_complete,
)

MAX_ARRAYS = 6  # of a weight format
# Where the bindings look for the classes of ops; without it they search sys.path for each op that they meet.
_mlir.globals.append_dialect_search_prefix(__package__)


def load(context: ir.Context) -> None:
    """Register the dialect with a context; a second call does nothing."""
    if context.is_dialect_loaded(PatternDialect.DIALECT_NAMESPACE):
        return
    with context, ir.Location.unknown():
        PatternDialect.load()


class ParameterOp(PatternDialect.Operation, name="parameter", traits=[Pure]):
    """A tensor from the parameter store.

    Example:
        %w = "pattern.parameter"() {name = "layer1.0.conv1.weight"} : () -> tensor<64x64x3x3xf32>

    Verifier:
        'pattern.parameter' op expected 'name' to be a string, got <value>
    """

    name: Any
    result: Result[Tensor]

    @when_complete
    def verify_invariants(self) -> bool:
        return rule(self, isinstance(self.attributes["name"], ir.StringAttr), "'name' to be a string", self.name)


class Conv2dOp(PatternDialect.Operation, name="conv2d", traits=[Pure]):
    """A convolution with dense (or masked) weights: y = activation(conv(input, weight) + bias + residual).

    Operands:
        input: N x C x H x W.
        weight: F x C/groups x KH x KW.
        bias: F.
        residual: see above.

    Attributes:
        strides, dilations: array<i64: vertical, horizontal>.
        pads: array<i64: top, left, bottom, right>, zeros around the input.
        groups: i64.
        activation: "none", "relu", #pattern.clamp or #pattern.activation.
        scales: array<f32: F>, of the weights where the input is quantised; see above.

    Example:
        %y = "pattern.conv2d"(%x, %w, %b) {activation = "relu", dilations = array<i64: 1, 1>, groups = 1 : i64,
          operandSegmentSizes = array<i32: 1, 1, 1, 0>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>}
          : (tensor<1x64x56x56xf32>, tensor<64x64x3x3xf32>, tensor<64xf32>) -> tensor<1x64x56x56xf32>

    Verifier:
        'pattern.conv2d' op expected weight of rank 4, got rank <r>
        'pattern.conv2d' op expected input channels to equal groups x weight channels, got <c> and <g> x <k>
        'pattern.conv2d' op expected 'groups' of 1 or more, got <value>
        'pattern.conv2d' op expected filters to be a multiple of groups, got <f> and <g>
        and the rules of every convolution, see `verify_convolution`, and of what is quantised, see `verify_quantised`.
    """

    QUANTISED = "any"

    input: Operand[Tensor]
    weight: Operand[Tensor]
    result: Result[Tensor]
    strides: Any
    pads: Any
    dilations: Any
    groups: Any
    activation: Any
    bias: Optional[Operand[Tensor]] = None  # noqa: UP045 - the binding reads Optional
    residual: Optional[Operand[Tensor]] = None  # noqa: UP045

    @property
    def kernel_size(self) -> tuple[int, int]:
        """Height and width of the window."""
        height, width = self.weight.type.shape[2:]
        return height, width

    @property
    def is_pointwise(self) -> bool:
        """Whether the convolution is a product of matrices: a 1x1 window of stride 1 without padding."""
        return is_pointwise(self)

    @when_complete
    def verify_invariants(self) -> bool:
        weight = list(self.weight.type.shape)
        if not rule(self, len(weight) == 4, "weight of rank 4", f"rank {len(weight)}"):
            return False
        if not verify_convolution(self, filters=weight[0], kernel=(weight[2], weight[3])):
            return False
        if not verify_quantised(self, weight[0]):
            return False
        groups, channels = integer(self.groups), self.input.type.shape[1]
        return (
            rule(self, groups >= 1, "'groups' of 1 or more", self.groups)
            and rule(
                self,
                channels == groups * weight[1],
                "input channels to equal groups x weight channels",
                f"{channels} and {groups} x {weight[1]}",
            )
            and rule(
                self,
                weight[0] % groups == 0,
                "filters to be a multiple of groups",
                f"{weight[0]} and {groups}",
            )
        )


class _SparseOp(PatternDialect.Operation):
    """What layers have whose weights are stored as the arrays of some format."""

    input: Operand[Tensor]
    array0: Operand[Tensor]
    result: Result[Tensor]
    format: Any
    activation: Any
    # One variadic operand would do, but the binding demands one type of all its values.
    array1: Optional[Operand[Tensor]] = None  # noqa: UP045
    array2: Optional[Operand[Tensor]] = None  # noqa: UP045
    array3: Optional[Operand[Tensor]] = None  # noqa: UP045
    array4: Optional[Operand[Tensor]] = None  # noqa: UP045
    array5: Optional[Operand[Tensor]] = None  # noqa: UP045
    bias: Optional[Operand[Tensor]] = None  # noqa: UP045
    residual: Optional[Operand[Tensor]] = None  # noqa: UP045

    @property
    def arrays(self) -> list[ir.Value]:
        """The arrays, in the order of the format's names."""
        values = [getattr(self, f"array{number}") for number in range(MAX_ARRAYS)]
        return [value for value in values if value is not None]

    def array(self, name: str) -> ir.Value:
        """Return one of the arrays by its name."""
        return self.arrays[self.format.array_names().index(name)]


class SparseConv2dOp(_SparseOp, name="sparse_conv2d", traits=[Pure]):
    """A convolution whose weights are stored as the arrays of some format: `pattern.conv2d` with what they decode to.

    Operands:
        input: N x C x H x W.
        array0 .. array5: as many as the format has, from one to six; see its attribute, as `FkwAttr`.
        bias: F, by output channel.
        residual: see above.

    Attributes:
        format: a `WeightFormatAttr`, as #pattern.fkw.
        strides, pads, dilations, activation: as in `pattern.conv2d`.
        groups: optional i64, 1 where it is missing. What is stored names the input channels of the whole convolution.

    Example:
        %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder, %b) {activation = "relu",
          dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 3, 3>, array<i64: 27, 54>>,
          operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 1, 0>, pads = array<i64: 1, 1, 1, 1>,
          strides = array<i64: 1, 1>} : (tensor<1x64x56x56xf32>, tensor<1024x4xf32>, tensor<1024xi16>,
          tensor<65xi32>, tensor<64x3xi16>, tensor<64xi16>, tensor<64xf32>) -> tensor<1x64x56x56xf32>

    Verifier:
        'pattern.sparse_conv2d' op expected 'format' to be a weight format, as #pattern.fkw, got <value>
        'pattern.sparse_conv2d' op expected arrays <names>, got <n> operands
        'pattern.sparse_conv2d' op expected input of rank 4, got rank <r>
        'pattern.sparse_conv2d' op expected result of rank 4, got rank <r>
        the rules of the format: of #pattern.fkw
        'pattern.sparse_conv2d' op expected #pattern.fkw of two i64 arrays, got <value>
        'pattern.sparse_conv2d' op expected 2 or 3 kernel sizes of 1 or more, at most 63 taps in all, got <sizes>
        'pattern.sparse_conv2d' op expected patterns within the <h>x<w>[x<depth>] kernel, got mask <m>
        'pattern.sparse_conv2d' op expected patterns with equally many entries, got masks <...>
        'pattern.sparse_conv2d' op expected values of shape [K, <E>], got <shape>
        'pattern.sparse_conv2d' op expected index of shape [<K>], got <shape>
        'pattern.sparse_conv2d' op expected offset of shape [<F + 1>], got <shape>
        'pattern.sparse_conv2d' op expected pattern_offsets of shape [<F>, <P + 1>], got <shape>
        'pattern.sparse_conv2d' op expected reorder of shape [<F>], got <shape>
        'pattern.sparse_conv2d' op expected a library of depth <C> or less, the input channels, got <depth>
        'pattern.sparse_conv2d' op expected 'groups' that divide channels and filters, got <value>
        'pattern.sparse_conv2d' op expected another format for <G> groups, got <value>
        and the rules of every convolution, see `verify_convolution`.
    """

    strides: Any = attribute(kw_only=True)
    pads: Any = attribute(kw_only=True)
    dilations: Any = attribute(kw_only=True)

    @property
    def kernel_size(self) -> tuple[int, int]:
        """Height and width of the window."""
        return self.format.kernel_size()

    @property
    def is_pointwise(self) -> bool:
        """Whether the convolution is a product of matrices: a 1x1 window of stride 1 without padding."""
        return is_pointwise(self)

    @when_complete
    def verify_invariants(self) -> bool:
        if not (verify_ranks(self, 4) and verify_format(self)):
            return False
        channels, filters = self.input.type.shape[1], self.result.type.shape[1]
        if "groups" in self.attributes:
            groups = self.attributes["groups"]
            count = integer(groups)
            divides = count >= 1 and channels % count == filters % count == 0
            if not rule(self, divides, "'groups' that divide channels and filters", groups):
                return False
            fits = count == 1 or self.format.takes_groups()
            if not rule(self, fits, f"another format for {count} groups", self.format):
                return False
        return verify_convolution(self, filters=filters, kernel=self.kernel_size)


class LinearOp(PatternDialect.Operation, name="linear", traits=[Pure]):
    """A fully connected layer: y = activation(input . weight^T + bias + residual).

    Operands: input N x C, weight F x C, bias F, residual N x F. Attributes: activation, those of the residual, and
    scales as in `pattern.conv2d`. Where the input is not quantised scales are those of weights that are integers in
    memory alone, and what is multiplied is weight * scale, in f32: weights of i8, or of i1, which are 1 (true) or -1.

    Verifier:
        'pattern.linear' op expected result of shape [<N>, <F>], got <shape>
        'pattern.linear' op expected weight of shape [F, <C>], got <shape>
        'pattern.linear' op expected bias of shape [<F>], got <shape>
        'pattern.linear' op expected residual of shape [<N>, <F>], got <shape>
    """

    QUANTISED = "any"

    input: Operand[Tensor]
    weight: Operand[Tensor]
    result: Result[Tensor]
    activation: Any
    bias: Optional[Operand[Tensor]] = None  # noqa: UP045
    residual: Optional[Operand[Tensor]] = None  # noqa: UP045

    @when_complete
    def verify_invariants(self) -> bool:
        batch_channels, weight = list(self.input.type.shape), list(self.weight.type.shape)
        if not rule(self, len(batch_channels) == 2, "input of rank 2", f"rank {len(batch_channels)}"):
            return False
        batch, channels = batch_channels
        fits = len(weight) == 2 and weight[1] == channels
        if not rule(self, fits, f"weight of shape [F, {channels}]", weight):
            return False
        result = list(self.result.type.shape)
        if not rule(self, result == [batch, weight[0]], f"result of shape {[batch, weight[0]]}", result):
            return False
        if not verify_bias(self, weight[0]):
            return False
        if Quantisation.of(self.input.type) is not None:
            own = verify_quantised(self, weight[0])
        else:
            own = verify_scales(self, "scales", self.weight, weight[0])
        return own and verify_residual(self) and verify_activation(self)


class SparseLinearOp(_SparseOp, name="sparse_linear", traits=[Pure]):
    """A fully connected layer whose weights are stored as the arrays of some format: `pattern.linear` with what they
    decode to.

    Operands: input N x C; array0 .. array5 and attribute format as in `pattern.sparse_conv2d`; bias F; residual N x F.
    Attributes: activation, and those of the residual.

    Verifier:
        'pattern.sparse_linear' op expected input of rank 2, got rank <r>
        'pattern.sparse_linear' op expected result of rank 2, got rank <r>
        'pattern.sparse_linear' op expected a format of 1x1 kernels, got <h>x<w>
        'pattern.sparse_linear' op expected result of <N> rows, got <n>
        'pattern.sparse_linear' op expected bias of shape [<F>], got <shape>
        and the rules of formats, see `pattern.sparse_conv2d`.
    """

    @when_complete
    def verify_invariants(self) -> bool:
        if not (verify_ranks(self, 2) and verify_format(self)):
            return False
        height, width = self.format.kernel_size()
        if not rule(self, (height, width) == (1, 1), "a format of 1x1 kernels", f"{height}x{width}"):
            return False
        batch, (rows, filters) = self.input.type.shape[0], self.result.type.shape
        if not rule(self, rows == batch, f"result of {batch} rows", rows):
            return False
        return verify_bias(self, filters) and verify_residual(self) and verify_activation(self)


class _PoolOp(PatternDialect.Operation):
    """What layers of pooling have in common."""

    input: Operand[Tensor]
    result: Result[Tensor]
    kernel: Any
    strides: Any
    pads: Any
    dilations: Any

    @property
    def kernel_size(self) -> tuple[int, int]:
        """Height and width of the window."""
        height, width = self.kernel
        return height, width


class MaxPool2dOp(_PoolOp, name="max_pool2d", traits=[Pure]):
    """The maximum over a window; padding never wins.

    Attributes: kernel, strides, pads, dilations; optional: activation, of the maximum.

    Verifier: the rules of every window, see `verify_window`.
    """

    QUANTISED = "alike"

    @when_complete
    def verify_invariants(self) -> bool:
        return verify_pool(self)


class AvgPool2dOp(_PoolOp, name="avg_pool2d", traits=[Pure]):
    """The mean over a window: y = sum(window) / divisor; a window of the input's size is global average pooling.

    Attributes:
        kernel, strides, pads, dilations: of the window.
        count_include_pad: i1, whether the divisor counts the padding in the window as well, or its part of the input.
        uncounted_pads: array<i64: bottom, right>, optional: how many of the last rows and columns of the padding do not
            count even so, as those that rounding up adds.
        divisor: f32, optional: what every sum is divided by instead.
        activation: optional: of the mean.

    Example:
        %y = "pattern.avg_pool2d"(%x) {count_include_pad = true, dilations = array<i64: 1, 1>,
          kernel = array<i64: 3, 3>, pads = array<i64: 1, 1, 2, 2>, strides = array<i64: 2, 2>,
          uncounted_pads = array<i64: 1, 1>} : (tensor<1x8x8x8xf32>) -> tensor<1x8x5x5xf32>

    Verifier:
        'pattern.avg_pool2d' op expected 'count_include_pad' to be true or false, got <value>
        'pattern.avg_pool2d' op expected 'divisor' to be a finite f32 other than 0, got <value>
        'pattern.avg_pool2d' op expected 'uncounted_pads' to be array<i64> of 2 values of 0 or more, got <value>
        'pattern.avg_pool2d' op expected 'uncounted_pads' of <bottom>, <right> or less, the padding, got <value>
        and the rules of every window, see `verify_window`.
    """

    QUANTISED = "both"

    count_include_pad: Any

    @when_complete
    def verify_invariants(self) -> bool:
        return verify_pool(self) and verify_counting(self) and verify_divisor(self) and verify_uncounted_pads(self)


class _BinaryOp(PatternDialect.Operation):
    """What layers that combine two activations have in common: the second one has the shape of the result, or one
    image, one channel (a map of gates) or one element of each plane (a gate for each channel) for all."""

    lhs: Operand[Tensor]
    rhs: Operand[Tensor]
    result: Result[Tensor]
    activation: Any

    @when_complete
    def verify_invariants(self) -> bool:
        shapes = [list(value.type.shape) for value in (self.lhs, self.rhs, self.result)]
        fits = shapes[0] == shapes[2] and spreads(shapes[1], shapes[2])
        text = ", ".join(map(str, shapes))
        return rule(self, fits, "operands and result of one shape", text) and verify_activation(self)


class AddOp(_BinaryOp, name="add", traits=[Pure]):
    """y = activation(lhs + rhs), for sums that no convolution can take as its residual.

    Verifier:
        'pattern.add' op expected operands and result of one shape, got <shapes>
    """

    JOIN = "add"
    QUANTISED = "result"


class SubtractOp(_BinaryOp, name="subtract", traits=[Pure]):
    """y = activation(lhs - rhs); see `pattern.add`."""

    JOIN = "subtract"


class MultiplyOp(_BinaryOp, name="multiply", traits=[Pure]):
    """y = activation(lhs * rhs): also what gates channels, as in squeeze-and-excitation; see `pattern.add`."""

    JOIN = "multiply"


class DivideOp(_BinaryOp, name="divide", traits=[Pure]):
    """y = activation(lhs / rhs); see `pattern.add`."""

    JOIN = "divide"


class ActivateOp(PatternDialect.Operation, name="activate", traits=[Pure]):
    """y = activation(input), for activations that no producer can take into its epilogue.

    Verifier:
        'pattern.activate' op expected input and result of one shape, got <shapes>
    """

    input: Operand[Tensor]
    result: Result[Tensor]
    activation: Any

    @when_complete
    def verify_invariants(self) -> bool:
        return verify_same_shape(self) and verify_activation(self)


class DepthToSpaceOp(PatternDialect.Operation, name="depth_to_space", traits=[Pure]):
    """y = activation(input with channels as places): pixel shuffle, and what puts the phases of a transposed
    convolution between each other. Each place of the input becomes `steps` places of the result, from as many channels.

    Attributes:
        steps: array<i64: down, right>.
        mode: where the input has phase p of channel c, of P and C: "CRD" for channel c * P + p, "DCR" for channel
            p * C + c, as ONNX names it. Phase i * right + j is the place j to the right in row i.
        activation: as in `pattern.conv2d`.

    Verifier:
        'pattern.depth_to_space' op expected 'steps' to be array<i64> of 2 values of 1 or more, got <value>
        'pattern.depth_to_space' op expected 'mode' to be "CRD" or "DCR", got <value>
        'pattern.depth_to_space' op expected result of shape <shape>, got <shape>
    """

    input: Operand[Tensor]
    result: Result[Tensor]
    steps: Any
    mode: Any
    activation: Any

    @when_complete
    def verify_invariants(self) -> bool:
        if not (verify_ranks(self, 4) and verify_integers(self, "steps", 2, 1)):
            return False
        mode, found = self.attributes["mode"], list(self.result.type.shape)
        is_known = isinstance(mode, ir.StringAttr) and mode.value in ("CRD", "DCR")
        if not rule(self, is_known, '\'mode\' to be "CRD" or "DCR"', mode):
            return False
        down, right = self.steps
        batch, channels, height, width = self.input.type.shape
        wanted = [batch, channels // (down * right), height * down, width * right]
        is_whole = found == wanted and channels % (down * right) == 0
        return rule(self, is_whole, f"result of shape {wanted}", found) and verify_activation(self)


class ResampleOp(PatternDialect.Operation, name="resample", traits=[Pure]):
    """Planes of another size, each row of which is a weighted sum of rows of the input, and each column of columns:
    y[i, j] = activation(sum over a and b of row_weights[a, i] * column_weights[b, j] * x[rows[a, i], columns[b, j]]
    + residual).

    Interpolation is that, and so is padding by reflection, by the border or by the other side.

    Operands:
        rows, columns: integers, taps x height and taps x width of the result.
        row_weights, column_weights: of the same shapes; ones where absent, which needs a single tap.
        residual: see above.

    Verifier:
        'pattern.resample' op expected result of <N> images and <C> channels, got <shape>
        'pattern.resample' op expected <name> of shape [taps, <size>], got <shape>
        'pattern.resample' op expected <name> of shape <shape>, got <shape>
    """

    QUANTISED = "alike"

    input: Operand[Tensor]
    rows: Operand[Tensor]
    columns: Operand[Tensor]
    result: Result[Tensor]
    activation: Any
    row_weights: Optional[Operand[Tensor]] = None  # noqa: UP045
    column_weights: Optional[Operand[Tensor]] = None  # noqa: UP045
    residual: Optional[Operand[Tensor]] = None  # noqa: UP045

    @when_complete
    def verify_invariants(self) -> bool:
        if not verify_ranks(self, 4):
            return False
        planes, made = list(self.input.type.shape[:2]), list(self.result.type.shape)
        if not rule(self, made[:2] == planes, f"result of {planes[0]} images and {planes[1]} channels", made):
            return False
        sides = (("rows", self.rows, self.row_weights), ("columns", self.columns, self.column_weights))
        for (name, places, weights), size in zip(sides, made[2:], strict=True):
            shape = list(places.type.shape)
            if not rule(self, shape[1:] == [size], f"{name} of shape [taps, {size}]", shape):
                return False
            wanted, found = (shape, list(weights.type.shape)) if weights is not None else ([1, size], shape)
            label = f"{name[:-1]}_weights" if weights is not None else name
            if not rule(self, found == wanted, f"{label} of shape {wanted}", found):
                return False
        return verify_residual(self) and verify_activation(self)


class RelayoutOp(PatternDialect.Operation, name="relayout", traits=[Pure]):
    """The same elements in another layout, or of another floating-point or quantised type; rounded where that is
    narrower.

    A type without `#pattern.layout` is row-major.

    Verifier:
        'pattern.relayout' op expected input and result of one shape, got <shapes>
    """

    QUANTISED = "any"

    input: Operand[Tensor]
    result: Result[Tensor]

    @when_complete
    def verify_invariants(self) -> bool:
        return verify_same_shape(self)


__all__ = [
    "ActivateOp",
    "ActivationAttr",
    "AddOp",
    "AvgPool2dOp",
    "ClampAttr",
    "Conv2dOp",
    "DepthToSpaceOp",
    "DivideOp",
    "ExplanationAttr",
    "FkwAttr",
    "LayoutAttr",
    "LinearOp",
    "MaxPool2dOp",
    "MultiplyOp",
    "ParameterOp",
    "PatternDialect",
    "QuantisedType",
    "RecurrentOp",
    "RelayoutOp",
    "ResampleOp",
    "ScheduleAttr",
    "SparseConv2dOp",
    "SparseLinearOp",
    "SubtractOp",
    "WeightFormatAttr",
    "load",
]
