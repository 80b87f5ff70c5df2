"""What holds of the ops of the `pattern` dialect: rules that their verifiers share, and the errors of those broken."""

import functools
import math
from collections.abc import Callable
from typing import Any

from torch_mlir import ir
from torch_mlir.dialects.ext import partition_fields

from patc.dialects.attributes import (
    ActivationAttr,
    ClampAttr,
    ExplanationAttr,
    LayoutAttr,
    ScheduleAttr,
    WeightFormatAttr,
)
from patc.dialects.joins import FUNCTIONS
from patc.dialects.quantised import Quantisation, QuantisedType

Tensor = ir.RankedTensorType
STORED = ("i8", "i1")  # what weights may be in memory that are f32 in products


def rule(op: Any, holds: bool, expected: str, got: Any) -> bool:
    """Emit `'<op>' op expected <rule>, got <value>` where a rule does not hold."""
    if not holds:
        op.location.emit_error(f"'{op.OPERATION_NAME}' op expected {expected}, got {got}")
    return holds


def _verify_schedule(op: Any) -> bool:
    """Check what `pattern-schedule` wrote, where it did."""
    kinds = {"schedule": ScheduleAttr, "explanation": ExplanationAttr, "cycles": ir.IntegerAttr}
    for name, kind in kinds.items():  # their fields are checked where they are read: ops are verified often
        if name in op.attributes and not isinstance(op.attributes[name], kind):
            return rule(op, False, f"'{name}' as pattern-schedule writes it", op.attributes[name])
    return True


def verify_same_shape(op: Any) -> bool:
    """Check that the result has the input's shape."""
    given, made = list(op.input.type.shape), list(op.result.type.shape)
    return rule(op, given == made, "input and result of one shape", f"{given}, {made}")


def integer(attr: Any) -> int:
    """Return the value of an integer attribute, 0 for another kind."""
    return attr.value if isinstance(attr, ir.IntegerAttr) else 0


def verify_ranks(op: Any, wanted: int) -> bool:
    """Require the rank of input and result."""
    for name in ("input", "result"):
        rank = len(getattr(op, name).type.shape)
        if not rule(op, rank == wanted, f"{name} of rank {wanted}", f"rank {rank}"):
            return False
    return True


def verify_format(op: Any) -> bool:
    """Require a format, as many arrays as it has, and its own rules."""
    attr, count = op.attributes["format"], len(op.arrays)
    if not rule(op, isinstance(attr, WeightFormatAttr), "'format' to be a weight format, as #pattern.fkw", attr):
        return False
    names = attr.array_names()
    if not rule(op, count == len(names), f"arrays {', '.join(names)}", f"{count} operands"):
        return False
    violation = attr.find_violation(op)
    return violation is None or rule(op, False, *violation)


def verify_activation(op: Any) -> bool:
    """Check the activation, where the op has one."""
    if "activation" not in op.attributes:
        return True
    attr = op.attributes["activation"]
    if isinstance(attr, ClampAttr):
        bounds = [bound.maybe_downcast() for bound in (attr.minimum, attr.maximum)]
        numbers = all(isinstance(bound, ir.FloatAttr) for bound in bounds)
        return rule(op, numbers, "bounds of #pattern.clamp to be floats", attr)
    if isinstance(attr, ActivationAttr):
        violation = attr.find_violation(op.result.type.shape[1] if op.result.type.rank > 1 else 1)
        return violation is None or rule(op, False, *violation)
    known = isinstance(attr, ir.StringAttr) and attr.value in ("none", "relu")
    return rule(op, known, 'activation "none", "relu", #pattern.clamp or #pattern.activation', attr)


def is_pointwise(op: Any) -> bool:
    """Return whether a window is one element, without strides or pads."""
    return op.kernel_size == (1, 1) and list(op.strides) == [1, 1] and not any(op.pads)


def verify_bias(op: Any, filters: int) -> bool:
    """Check that a bias, where there is one, has a number for each filter."""
    if op.bias is None:
        return True
    shape = list(op.bias.type.shape)
    return rule(op, shape == [filters], f"bias of shape {[filters]}", shape)


def verify_integers(op: Any, name: str, count: int, least: int) -> bool:
    """Require attribute `name` to be array<i64: ...> of `count` values, each at least `least`."""
    attr = op.attributes[name]
    good = isinstance(attr, ir.DenseI64ArrayAttr) and len(attr) == count and min(attr) >= least
    return rule(op, good, f"'{name}' to be array<i64> of {count} values of {least} or more", attr)


def verify_window(op: Any, kernel: tuple[int, int]) -> bool:
    """Require ranks 4, legal strides, pads and dilations, equal batch, and the result's height and width.

    Verifier:
        op expected input of rank 4, got rank <r>
        op expected result of rank 4, got rank <r>
        op expected '<name>' to be array<i64> of <n> values of <m> or more, got <value>
        op expected result batch, height and width <...>, got <...>
    """
    if not (
        verify_ranks(op, 4)
        and verify_integers(op, "strides", 2, 1)
        and verify_integers(op, "pads", 4, 0)
        and verify_integers(op, "dilations", 2, 1)
    ):
        return False
    batch, _, *size = op.input.type.shape
    top, left, bottom, right = op.pads
    padded = (size[0] + top + bottom, size[1] + left + right)
    expected = [batch] + [
        (padded[axis] - op.dilations[axis] * (kernel[axis] - 1) - 1) // op.strides[axis] + 1 for axis in (0, 1)
    ]
    found = [op.result.type.shape[axis] for axis in (0, 2, 3)]
    fits = found == expected and min(expected) > 0
    return rule(op, fits, f"result batch, height and width {expected}", found)


def verify_pool(op: Any) -> bool:
    """Check the window of a pool, and its result."""
    if not verify_integers(op, "kernel", 2, 1) or not verify_window(op, tuple(op.kernel)):
        return False
    channels, made = op.input.type.shape[1], op.result.type.shape[1]
    return rule(op, channels == made, f"{channels} result channels", made) and verify_activation(op)


def verify_counting(op: Any) -> bool:
    """Check whether an average pool says what it counts."""
    attr = op.attributes["count_include_pad"]
    return rule(op, isinstance(attr, ir.BoolAttr), "'count_include_pad' to be true or false", attr)


def verify_divisor(op: Any) -> bool:
    """Check the divisor of an average pool, where it has one."""
    if "divisor" not in op.attributes:
        return True
    attr = op.attributes["divisor"]
    is_f32 = isinstance(attr, ir.FloatAttr) and isinstance(attr.type, ir.F32Type)
    fits = is_f32 and attr.value != 0 and math.isfinite(attr.value)
    return rule(op, fits, "'divisor' to be a finite f32 other than 0", attr)


def verify_uncounted_pads(op: Any) -> bool:
    """Check the pads that an average pool does not count, where it has any."""
    if "uncounted_pads" not in op.attributes:
        return True
    if not verify_integers(op, "uncounted_pads", 2, 0):
        return False
    rows, columns = op.attributes["uncounted_pads"]
    _, _, bottom, right = op.pads
    fits = rows <= bottom and columns <= right
    return rule(op, fits, f"'uncounted_pads' of {bottom}, {right} or less, the padding", f"{rows}, {columns}")


def verify_convolution(op: Any, filters: int, kernel: tuple[int, int]) -> bool:
    """Require the rules of a window, F result channels, a bias of F values and a residual that fits the result.

    Verifier:
        op expected <F> result channels, got <n>
        op expected bias of shape [<F>], got <shape>
        op expected residual of shape <shape>, got <shape>
        op expected activation "none", "relu", #pattern.clamp or #pattern.activation, got <value>
    """
    if not verify_window(op, kernel):
        return False
    result = list(op.result.type.shape)
    if not rule(op, result[1] == filters, f"{filters} result channels", result[1]):
        return False
    if not verify_bias(op, filters):
        return False
    return verify_residual(op) and verify_activation(op)


def verify_quantised(op: Any, filters: int) -> bool:
    """Check the weights, their scales and the bias of a layer on quantised activations.

    Verifier:
        op expected 'scales', one a filter, together with a quantised input, got <value>
        op expected 'scales' to be array<f32> of <F> values above 0, got <value>
        op expected a residual that is quantised as the result is, got <type>
        op expected weights of i8, got <type>
        op expected a bias of i32, got <type>
    """
    attr = op.attributes.get("scales", None)
    is_quantised = Quantisation.of(op.input.type) is not None
    if not rule(op, (attr is None) != is_quantised, "'scales', one a filter, together with a quantised input", attr):
        return False
    if attr is None:
        return True
    fits = isinstance(attr, ir.DenseF32ArrayAttr) and len(attr) == filters and all(0 < s < math.inf for s in attr)
    if not rule(op, fits, f"'scales' to be array<f32> of {filters} values above 0", attr):
        return False
    is_made = Quantisation.of(op.result.type) is not None
    joins = op.residual is None or (Quantisation.of(op.residual.type) is not None) == is_made
    if not rule(op, joins, "a residual that is quantised as the result is", op.residual and op.residual.type):
        return False
    is_byte = str(op.weight.type.element_type) == "i8"
    if not rule(op, is_byte, "weights of i8", op.weight.type):
        return False
    return op.bias is None or rule(op, str(op.bias.type.element_type) == "i32", "a bias of i32", op.bias.type)


def verify_scales(op: Any, name: str, weight: ir.Value, filters: int) -> bool:
    """Check the scales of weights of a layer that computes in f32: there are some where weights are integers.

    Args:
        name: of the attribute.

    Verifier:
        op expected '<name>', one a filter, together with weights of i8 or i1, got <value>
        op expected '<name>' to be array<f32> of <F> finite values of 0 or more, got <value>
    """
    attr, element = op.attributes.get(name, None), str(weight.type.element_type)
    if not rule(
        op,
        (attr is None) == (element not in STORED),
        f"'{name}', one a filter, together with weights of {' or '.join(STORED)}",
        attr,
    ):
        return False
    if attr is None:
        return True
    fits = isinstance(attr, ir.DenseF32ArrayAttr) and len(attr) == filters and all(0 <= s < math.inf for s in attr)
    return rule(op, fits, f"'{name}' to be array<f32> of {filters} finite values of 0 or more", attr)


def verify_residual(op: Any) -> bool:
    """Check the residual of a layer, where it has one, and how it joins the result."""
    if op.residual is None:
        return True
    shape, result = list(op.residual.type.shape), list(op.result.type.shape)
    if not rule(op, spreads(shape, result), f"residual of shape {result}", shape):
        return False
    if "join" not in op.attributes:
        return True
    attr = op.attributes["join"]
    known = isinstance(attr, ir.StringAttr) and attr.value in FUNCTIONS
    return rule(op, known, f"'join' to be one of {', '.join(FUNCTIONS)}", attr)


def spreads(shape: list[int], result: list[int]) -> bool:
    """Whether a tensor can be combined with one of shape `result`: it has that shape, or, of N x C x H x W, one image,
    one channel or one element of each plane for all."""
    if shape == result or len(shape) != 4 or len(result) != 4:
        return shape == result
    return all(one in (1, all_) for one, all_ in zip(shape, result, strict=True)) and shape[2:] in ([1, 1], result[2:])


def when_complete(verify: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Run `verify` only on ops that have their attributes and operands, all ranked tensors of known sizes.

    The generated verifier names a missing attribute and a wrong type, but it runs after this one.
    """

    @functools.wraps(verify)
    def verify_invariants(op: Any) -> bool:
        operands, attributes, results, _ = partition_fields(op._fields)
        if not all(each.name in op.attributes for each in attributes):
            return True
        if op._ODS_OPERAND_SEGMENTS and not _segments_fit(op, "operand"):
            found = op.attributes.get("operandSegmentSizes", "none")
            return rule(op, False, f"operandSegmentSizes of {len(operands)} values that count the operands", found)
        if not op._ODS_OPERAND_SEGMENTS and len(op.operands) != len(operands):
            return True
        if op._ODS_RESULT_SEGMENTS and not _segments_fit(op, "result"):
            found = op.attributes.get("resultSegmentSizes", "none")
            return rule(op, False, f"resultSegmentSizes of {len(results)} values that count the results", found)
        for value in [*op.operands, *op.results]:
            static = isinstance(value.type, Tensor) and value.type.has_static_shape
            if not rule(op, static, "ranked tensors of static shape", value.type):
                return False
            element = value.type.element_type
            violation = element.find_violation() if isinstance(element, QuantisedType) else None
            if violation is not None and not rule(op, False, violation, element):
                return False
            layout = value.type.encoding
            violation = layout.find_violation(value.type) if isinstance(layout, LayoutAttr) else None
            if violation is not None and not rule(op, False, violation, value.type):
                return False
        return _verify_quantised_tensors(op) and _verify_schedule(op) and verify(op)

    return verify_invariants


def _verify_quantised_tensors(op: Any) -> bool:
    """Check which tensors are quantised, where any is: what an op's `QUANTISED` says, or none.

    Verifier:
        op expected tensors that are not quantised, got <types>
        op expected a result of the input's elements, got <types>
        op expected a quantised input and result, got <types>
        op expected a quantised result, got <types>
    """
    types = [value.type for value in (*op.operands, *op.results)]
    if all(Quantisation.of(type_) is None for type_ in types):
        return True
    wanted, is_fine = _QUANTISED[getattr(op, "QUANTISED", "none")]
    return rule(op, is_fine(types), wanted, ", ".join(map(str, types)))


# What is expected, and whether types, the input's first and the result's last, are so.
_QUANTISED: dict[str, tuple[str, Callable[[list[Any]], bool]]] = {
    "none": ("tensors that are not quantised", lambda types: False),
    "any": ("", lambda types: True),
    "alike": ("a result of the input's elements", lambda types: types[0].element_type == types[-1].element_type),
    "both": (
        "a quantised input and result",
        lambda types: None not in (Quantisation.of(types[0]), Quantisation.of(types[-1])),
    ),
    "result": ("a quantised result", lambda types: Quantisation.of(types[-1]) is not None),
}


def _segments_fit(op: Any, part: str) -> bool:
    """Whether each operand, or each result, has a size of 0 or 1, 1 where it is not optional, and the sizes count
    them."""
    if f"{part}SegmentSizes" not in op.attributes:
        return False
    sizes = list(op.attributes[f"{part}SegmentSizes"])
    wanted, values = (
        (op._ODS_OPERAND_SEGMENTS, op.operands) if part == "operand" else (op._ODS_RESULT_SEGMENTS, op.results)
    )
    fits = all(size in (0, 1) and (size == 1 or least == 0) for size, least in zip(sizes, wanted, strict=False))
    return len(sizes) == len(wanted) and fits and sum(sizes) == len(values)
