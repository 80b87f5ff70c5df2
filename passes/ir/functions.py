"""The functions of a module, as passes look at them and add to them."""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterator, Sequence
from typing import Any

from torch_mlir import ir
from torch_mlir.dialects import bufferization, func
from torch_mlir.dialects.ext import partition_fields

from patc.dialects.attributes import i1
from patc.passes.base import fail
from patc.passes.ir.modules import module_of

ENTRY = "pattern.entry"  # marks the functions that `pattern-specialize` made, until their memory is planned
CLOCK = "patc_timestamp"  # returns a time stamp, for profiles; no thread waits for another to take one
RESHAPES = ("tensor.collapse_shape", "tensor.expand_shape")  # of row-major tensors: nothing moves
OUTLINED = "pattern.outlined"  # marks the functions that `pattern-outline` made
OPS = "pattern.ops"  # of their calls: what they compute, in words


def is_stamp(type_: ir.Type) -> bool:
    """Whether a number is a time stamp, among those that a function itself loads and stores."""
    return isinstance(type_, ir.IntegerType) and type_.width == 64


def defined_functions(module: ir.Module) -> list[Any]:
    """Return the `func.func` ops that have a body, without those that are part of others; see `OUTLINED`."""
    functions = [op for op in module.body.operations if op.operation.name == "func.func" and op.regions[0].blocks]
    return [function for function in functions if OUTLINED not in function.attributes]


def erase_outlined(module: ir.Module) -> None:
    """Erase the functions that `pattern-outline` made, when their calls are kernels."""
    for op in list(module.body.operations):
        if OUTLINED in op.attributes:
            op.operation.erase()


def describe_call(op: Any) -> list[str]:
    """Return what a call of an outlined function computes, in words; nothing for other ops.

    Raises:
        PatcError: the attribute is no list of words.
    """
    found = op.attributes.get(OPS, None)
    if found is None:
        return []
    if not isinstance(found, ir.ArrayAttr) or not all(isinstance(word, ir.StringAttr) for word in found):
        raise fail(op, f"{OPS} to be a list of words", found)
    return [word.value for word in found]


def find_callee(op: Any) -> Any:
    """Return the function that a call of an outlined one names, or None."""
    table, name = ir.SymbolTable(module_of(op)), op.callee.value
    return table[name] if name in table and OUTLINED in table[name].attributes else None


def walk_ops(root: Any) -> list[Any]:
    """Return an op, or a module's, and all ops in its regions, in the order of the text."""
    found: list[Any] = []

    def visit(operation: ir.Operation) -> ir.WalkResult:
        found.append(operation.opview)
        return ir.WalkResult.ADVANCE

    root.operation.walk(visit, ir.WalkOrder.PRE_ORDER)
    return found


def top_level_ops(function: Any) -> Any:
    """Return the ops of a function's body, without those in their regions."""
    return function.regions[0].blocks[0].operations


def works_on_tensors(function: Any) -> bool:
    """Return whether any argument or result of a function is a tensor."""
    type_ = function.attributes["function_type"].value
    return any(isinstance(kind, ir.RankedTensorType) for kind in [*type_.inputs, *type_.results])


def through_reshapes(value: ir.Value) -> ir.Value:
    """Return the value whose memory a value is in."""
    while not isinstance(value.owner, ir.Block) and value.owner.name in RESHAPES:
        value = value.owner.operands[0]
    return value


def readers(value: ir.Value) -> Iterator[Any]:
    """Yield the ops that read a value's memory, in whatever shape."""
    for use in value.uses:
        if use.owner.operation.name in RESHAPES:
            yield from readers(use.owner.results[0])
        else:
            yield use.owner.opview


def symbols(module: ir.Module) -> set[str]:
    """Return the names that are taken."""
    return {op.attributes["sym_name"].value for op in module.body.operations if "sym_name" in op.attributes}


def free_name(stem: str, taken: Container[str]) -> str:
    """Return the stem with the first number that makes a name of it which is not taken."""
    return next(name for number in itertools.count() if (name := f"{stem}_{number}") not in taken)


class UniqueFunctions:
    """What a pass adds to a module: functions, or modules of them. Of equal ones the first stays."""

    def __init__(self, module: ir.Module) -> None:
        self._names: dict[str, str] = {}
        self._taken = symbols(module)

    def keep(self, op: Any, stem: str, *inside: Any) -> str:
        """Return the name of a new op or of one equal to it, in whose favour it is erased.

        Args:
            op: has the same provisional name whenever it is made.
            stem: what its name starts with, in kebab case.
            inside: ops in it that get its name too.
        """
        # To verify it would be to verify the module; and without a scope of its own the module's values are numbered.
        text = op.operation.get_asm(assume_verified=True, use_local_scope=True)
        if text in self._names:
            op.operation.erase()
            return self._names[text]
        name = free_name(stem.replace("-", "_"), self._taken)
        self._names[text] = name
        self._taken.add(name)
        for renamed in (op, *inside):
            renamed.attributes["sym_name"] = ir.StringAttr.get(name)
        return name


def declare_function(module: ir.Module, name: str, result: str, arguments: Sequence[str] = ()) -> None:
    """Declare a function, once; types are texts, and a `result` of "" is none."""
    if name in symbols(module):
        return
    with ir.InsertionPoint.at_block_begin(module.body), ir.Location.unknown(module.context):
        types = [ir.Type.parse(text) for text in arguments], [ir.Type.parse(result)] if result else []
        function = func.FuncOp(name, types, visibility="private")
        # Or LLVM writes tables for stacks to be unwound.
        function.attributes["llvm.no_unwind"] = ir.UnitAttr.get()


def erase_dead(block: ir.Block) -> None:
    """Erase the ops of a block that compute tensors or numbers which nothing uses."""
    for op in reversed([op.operation for op in block.operations]):
        is_pure = op.name.split(".")[0] in ("arith", "linalg", "pattern", "tensor")
        if is_pure and all(next(iter(result.uses), None) is None for result in op.results):
            op.erase()


def rebuild(layer: Any, op: type | None = None, **changes: Any) -> Any:
    """Replace a pattern op by one at the insertion point that has other operands or attributes.

    Args:
        op: class of the new op, which takes those of the old one that it has a field for; None for the old one's class.
        changes: fields of the new op.
    """
    made, own = op or type(layer), _fields(type(layer))
    kept = {name: getattr(layer, name) for name in own if name in _fields(made)}
    kept |= {name: i1(value.value) for name, value in kept.items() if isinstance(value, ir.BoolAttr)}
    rebuilt = made(**{**kept, "result": layer.result.type, **changes}, loc=layer.location)
    for name in layer.attributes:  # what others noted about the layer
        if name not in own and name not in rebuilt.attributes:
            rebuilt.attributes[name] = layer.attributes[name]
    layer.result.replace_all_uses_with(rebuilt.result)
    layer.operation.erase()
    return rebuilt


def _fields(op: Any) -> list[str]:
    """Return the names of the operands and attributes of a pattern op's class."""
    operands, attributes, _, _ = partition_fields(op._fields)
    return [field.name for field in (*operands, *attributes)]


def return_into_arguments(function: Any) -> None:
    """Let a function on tensors write its results into memory of the caller, given after its arguments, which are only
    read: an op may name one of them as its destination."""
    block = function.regions[0].blocks[0]
    given = len(block.arguments)
    terminator = block.operations[len(block.operations) - 1]
    with ir.InsertionPoint(terminator):
        for value in list(terminator.operands):
            kind = ir.MemRefType.get(value.type.shape, value.type.element_type)
            memory = block.add_argument(kind, function.location)
            bufferization.materialize_in_destination(None, value, memory, restrict=True, writable=True)
        ir.Operation.create("func.return")
    terminator.operation.erase()
    types = [argument.type for argument in block.arguments]
    function.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(types, []))
    read_only = ir.DictAttr.get({"bufferization.writable": ir.BoolAttr.get(False)})
    attributes = [read_only] * given + [ir.DictAttr.get({})] * (len(types) - given)
    function.attributes["arg_attrs"] = ir.ArrayAttr.get(attributes)
