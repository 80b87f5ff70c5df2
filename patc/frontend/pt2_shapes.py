"""Sizes that the program of a .pt2 file leaves open, as numbers: those that follow from the shapes of its inputs.

torch runs the expressions of such sizes as Python; here they are trees of a few operations on numbers.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from torch._export.serde import schema

from patc.diagnostics import PatcError, nearest
from patc.frontend.json_schema import Mismatch, placed, quote
from patc.frontend.shapes import Shapes

_MOST_LETTERS, _MOST_POWER = 10_000, 8
_LIMIT = 1 << 48
_OPERATIONS: dict[str, Callable[..., Any]] = {
    "Add": lambda *terms: sum(terms),
    "Mul": lambda *factors: math.prod(factors),
    "CleanDiv": operator.floordiv,
    "FloorDiv": operator.floordiv,
    "FloatTrueDiv": operator.truediv,
    "IntTrueDiv": operator.truediv,
    "Mod": operator.mod,
    "PythonMod": operator.mod,
    "Max": max,
    "Min": min,
    "CeilToInt": math.ceil,
    "FloorToInt": math.floor,
    "TruncToInt": math.trunc,
    "ToFloat": float,
    "Integer": int,
    "Float": float,
    "Rational": Fraction,
    "Equality": operator.eq,
    "Unequality": operator.ne,
    "GreaterThan": operator.ge,
    "StrictGreaterThan": operator.gt,
    "LessThan": operator.le,
    "StrictLessThan": operator.lt,
    "And": lambda *values: all(values),
    "Or": lambda *values: any(values),
    "Not": operator.not_,
}
# Of graphs and arguments, by the ends of their names: what a value of a known name is.
_KINDS = {"int": int, "bool": bool, "float": float}
_ASSERTIONS = ("torch.ops.aten._assert_scalar.default", "torch.ops.aten.sym_constrain_range")

Symbols = dict[str, int]


def open_inputs(program: schema.ExportedProgram) -> dict[str, schema.TensorMeta]:
    """Return the inputs of a program by name; none where none of them leaves a size open."""
    module = program.graph_module
    arguments = [spec.value.arg for spec in module.signature.input_specs if spec.type == "user_input"]
    names = [argument.value.name for argument in arguments if argument.type == "as_tensor"]
    found = {name: module.graph.tensor_values[name] for name in names if name in module.graph.tensor_values}
    return found if any(size.type == "as_expr" for meta in found.values() for size in meta.sizes) else {}


def open_batch(program: schema.ExportedProgram, given: Shapes | None) -> dict[str, tuple[int, ...]]:
    """Return shapes of the inputs of a program that leaves their batch open: that of one image where none is given; {}
    for a program of static shapes.

    Raises:
        PatcError: the program says how many images there are.
    """
    inputs = open_inputs(program)
    shapes = _by_name(inputs, given)
    for name, meta in inputs.items():
        if not meta.sizes or meta.sizes[0].type == "as_int":
            expected = "expected inputs whose first size the file leaves open for dynamic_batch"
            raise PatcError(f"{expected}, found {_describe(name, meta)}")
        if name not in shapes and all(size.type == "as_int" for size in meta.sizes[1:]):
            shapes[name] = (1, *(size.value for size in meta.sizes[1:]))
    return shapes


def set_shapes(program: schema.ExportedProgram, given: Shapes | None) -> None:
    """Give a program static shapes, where its inputs leave sizes open.

    Args:
        given: shapes of inputs, in order or by name.

    Raises:
        PatcError: there is no such input, its shape is another one, or sizes stay unknown; those are listed.
        Mismatch: a size is no expression of those of inputs.
    """
    inputs = open_inputs(program)
    if not inputs:
        return
    symbols: Symbols = {}
    shapes = _by_name(inputs, given)
    for name, shape in shapes.items():
        if len(shape) != len(inputs[name].sizes):
            raise _contradiction(name, inputs[name], shape)
        for number, size in zip(shape, inputs[name].sizes, strict=True):
            _bind(size, number, symbols)
    unknown = [name for name, meta in inputs.items() if _shape(meta, symbols) is None]
    if unknown and unknown[0] not in shapes:
        listed = ", ".join(_describe(name, inputs[name]) for name in unknown)
        example = "x".join(str(_example(size)) for size in inputs[unknown[0]].sizes)
        advice = f"give them as in --shape {unknown[0]}={example}"
        raise PatcError(f"expected inputs of known shapes, found {listed}; {advice}")
    for name, shape in shapes.items():
        if _shape(inputs[name], symbols) != shape:
            raise _contradiction(name, inputs[name], shape)
    _require_ranges(program.range_constraints, symbols)
    with placed("graph_module"):
        values = _set_graph(program.graph_module.graph, symbols)
    for output in program.graph_module.signature.output_specs:
        if output.type == "user_output":
            output.value.arg = _number(output.value.arg, values)


def _by_name(inputs: Mapping[str, schema.TensorMeta], given: Shapes | None) -> dict[str, tuple[int, ...]]:
    if not inputs or given is None:
        return {}
    known = ", ".join(_describe(name, meta) for name, meta in inputs.items())
    if not isinstance(given, dict):
        if len(given) != len(inputs):
            raise PatcError(f"expected {len(inputs)} example inputs, {known}, found {len(given)}")
        given = dict(zip(inputs, given, strict=True))
    for name in given:
        if name not in inputs:
            raise PatcError(f"expected shapes for inputs of {known}; got '{name}'{nearest(name, list(inputs))}")
    return dict(given)


def _bind(size: schema.SymInt, number: int, symbols: Symbols) -> None:
    """Learn a symbol from the size that it is, or that it is a multiple of, as where sizes have to be even."""
    if size.type == "as_int":
        return
    tree = _parse(size.value.expr_str)
    names = {_symbol(node) for node in ast.walk(tree)} - {None, *symbols}
    if len(names) != 1:
        return
    (name,) = names
    assert name is not None
    at = [_evaluate(tree, symbols | {name: value}) for value in (0, 1)]
    slope = at[1] - at[0]
    if slope and (number - at[0]) % slope == 0:
        symbols[name] = int((number - at[0]) // slope)


def _symbol(node: ast.AST) -> str | None:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Symbol" and node.args):
        return None
    name = node.args[0]
    return name.value if isinstance(name, ast.Constant) and isinstance(name.value, str) else None


def _shape(meta: schema.TensorMeta, symbols: Symbols) -> tuple[int, ...] | None:
    """Return the shape of a tensor, or None where a symbol in it is not known."""
    try:
        return tuple(_size(size, symbols) for size in meta.sizes)
    except KeyError:
        return None


def _example(size: schema.SymInt) -> int:
    """Return a size, or that of what the program was exported with."""
    hint = None if size.type == "as_int" else size.value.hint
    return size.value if size.type == "as_int" else hint.value if hint is not None and hint.type == "as_int" else 1


def _describe(name: str, meta: schema.TensorMeta) -> str:
    sizes = [str(size.value) if size.type == "as_int" else _spell(size.value.expr_str) for size in meta.sizes]
    return f"{name!a} ({' x '.join(sizes) or 'scalar'})"


def _spell(text: str) -> str:
    return _symbol(_parse(text)) or "?"


def _contradiction(name: str, meta: schema.TensorMeta, shape: Sequence[int]) -> PatcError:
    return PatcError(f"expected input {_describe(name, meta)}, got {'x'.join(map(str, shape))}")


def _require_ranges(ranges: Mapping[str, schema.RangeConstraint], symbols: Symbols) -> None:
    for name, number in symbols.items():
        if (range_ := ranges.get(name)) is None:
            continue
        low, high = range_.min_val, range_.max_val
        # torch traces sizes of 2 and more and takes all; the least that a model says itself is larger.
        if number < (low if low is not None and low > 2 else 1) or (high is not None and number > high):
            limits = f"from {low}" if high is None else f"from {low} to {high}"
            raise PatcError(f"expected size {name} {limits}, as the program was exported for, got {number}")


# -- Expressions -----------------------------------------------------------------------------------------


def _parse(text: str) -> ast.expr:
    try:
        if len(text) <= _MOST_LETTERS:
            return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        pass
    raise Mismatch("a size", quote(text))


def _size(size: Any, symbols: Symbols) -> int:
    if size.type == "as_int":
        return int(size.value)
    found = _evaluate(_parse(size.value.expr_str), symbols)
    if found != int(found):
        raise Mismatch("a whole number", quote(size.value.expr_str))
    return int(found)


def _evaluate(tree: ast.expr, symbols: Symbols) -> Any:
    """Return the value of an expression; a KeyError is a symbol that is not known."""
    try:
        found = _value(tree, symbols)
    except (ArithmeticError, TypeError, ValueError, RecursionError):
        found = None
    if found is None or not abs(found) < _LIMIT:
        raise Mismatch("a size", quote(ast.unparse(tree)))
    return found


def _value(node: ast.expr, symbols: Symbols) -> Any:
    if isinstance(node, (ast.Constant, ast.UnaryOp)):
        return ast.literal_eval(node)
    if (name := _symbol(node)) is not None:
        return symbols[name]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        parts = [_value(part, symbols) for part in node.args]
        if node.func.id == "Pow" and len(parts) == 2 and abs(parts[1]) <= _MOST_POWER and abs(parts[0]) < _LIMIT:
            return Fraction(parts[0]) ** int(parts[1])
        if node.func.id in _OPERATIONS:
            return _OPERATIONS[node.func.id](*parts)
    raise ValueError("no operation on sizes")


# -- Graphs ------------------------------------------------------------------------------------------------


def _set_graph(graph: schema.Graph, symbols: Symbols) -> dict[str, Any]:
    """Put numbers in the place of a graph's symbolic values, and return these by name; what computes them goes."""
    values: dict[str, Any] = {}
    try:
        for name, meta in graph.tensor_values.items():
            with placed("tensor_values", name):
                meta.sizes, meta.strides = (
                    [schema.SymInt.create(as_int=_size(size, symbols)) for size in field]
                    for field in (meta.sizes, meta.strides)
                )
                meta.storage_offset = schema.SymInt.create(as_int=_size(meta.storage_offset, symbols))
        for kind, type_ in _KINDS.items():
            for name, value in getattr(graph, f"sym_{kind}_values").items():
                is_known = value.type != "as_expr"
                values[name] = type_(value.value if is_known else _evaluate(_parse(value.value.expr_str), symbols))
    except KeyError as error:
        raise Mismatch("a number that follows from the shapes of inputs", quote(error.args[0])) from None
    graph.sym_int_values, graph.sym_bool_values, graph.sym_float_values = {}, {}, {}
    nodes = []
    for node in graph.nodes:
        for item in node.inputs:
            item.arg = _number(item.arg, values)
        if node.target.startswith(_ASSERTIONS):
            _require_true(node)
        elif not node.outputs or not all(output.type.startswith("as_sym") for output in node.outputs):
            nodes.append(node)
    graph.nodes = nodes
    graph.outputs = [_number(output, values) for output in graph.outputs]
    return values


def _require_true(node: schema.Node) -> None:
    if any(item.arg.type == "as_bool" and not item.arg.value for item in node.inputs):
        found = next((item.arg.value for item in node.inputs if item.arg.type == "as_string"), "others")
        raise PatcError(f"expected shapes that the program was exported for, found: {found!a:.200}")


def _number(argument: schema.Argument, values: Mapping[str, Any]) -> schema.Argument:
    """Return an argument with numbers in the place of names of symbolic values."""
    kind = argument.type
    if not kind.startswith("as_sym"):
        return argument
    items = argument.value if isinstance(argument.value, list) else [argument.value]
    numbers = [values.get(item.value) if item.type == "as_name" else item.value for item in items]
    if None in numbers:
        raise Mismatch("the name of an earlier number", quote([item.value for item in items]))
    found = numbers if isinstance(argument.value, list) else numbers[0]
    return schema.Argument.create(**{f"as_{kind.removeprefix('as_sym_')}": found})
