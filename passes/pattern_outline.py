"""`pattern-outline`: what no pattern op stands for becomes functions that a net calls like its layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch_mlir import ir
from torch_mlir.dialects import func

from patc.diagnostics import PatcError, describe_location, describe_origin
from patc.passes.base import Pass, PassState
from patc.passes.functions.expand import has_lowering
from patc.passes.generic.fusion import fuse
from patc.passes.ir.bodies import constant_number
from patc.passes.ir.constants import read_constant
from patc.passes.ir.elements import numpy_type
from patc.passes.ir.functions import (
    OPS,
    OUTLINED,
    RESHAPES,
    defined_functions,
    erase_dead,
    free_name,
    readers,
    symbols,
    through_reshapes,
    top_level_ops,
    walk_ops,
    works_on_tensors,
)
from patc.passes.ir.groups import find_groups, is_copied, outer_operands, owner_in, sort_block, users_outside
from patc.passes.ir.views import is_concat, is_view
from patc.passes.layers.base import Access, LayerKind
from patc.passes.layers.reference import replace_results
from patc.passes.layers.registry import kind_of

_DIALECTS = ("linalg", "tensor", "arith", "math", "scf", "tm_tensor")
_STAY = ("func.return", "arith.constant")
_CONSTANTS = ("arith.constant", "pattern.parameter")
_WITH_HALO = (Access.WINDOW, Access.PLANES)


@dataclass(frozen=True)
class PatternOutline(Pass):
    """Move what is no pattern op into private functions on tensors, one a connected group, and call them.

    Layers of the dialect whose weights are computed at run time count as linalg, as do sums between linalg ops.

    A group is as large as it can be: linalg that hands tensors to linalg is in one group, unless a pattern op between
    them needs one and feeds the other. Its named ops become `linalg.generic`, and elementwise ones are fused with what
    reads them once; products read what was transposed, broadcast or reshaped where it was before.

    Requires: `pattern-raise`.
    Ensures: functions hold pattern ops, constants, reshapes, calls, and concatenations and slices of one image's
        channels (see `views`) only. A call says in
        `pattern.ops` what it stands for; its callee has the attribute `pattern.outlined`, and other passes leave it
        alone.

        %y = "pattern.conv2d"(%x, ...) ...
        %s = linalg.generic ins(%y) { math.exp, ... }
        %z = "pattern.conv2d"(%s, ...) ...
      becomes
        %y = "pattern.conv2d"(%x, ...) ...
        %s = func.call @generic_0(%y) {pattern.ops = ["aten.silu.default (act (net.py:12))"]}
        %z = "pattern.conv2d"(%s, ...) ...

    Idempotent: a function of pattern ops and calls of such functions is left alone.

    Raises:
        PatcError: names all ops that cannot be compiled, with their layers and source lines.
    """

    name: ClassVar[str] = "pattern-outline"

    def run(self, module: ir.Module, state: PassState) -> None:
        functions = [function for function in defined_functions(module) if works_on_tensors(function)]
        for function in functions:
            _lower_layers(function, state)
            erase_dead(function.entry_block)
        left = {function: [op for op in top_level_ops(function) if _is_left(op)] for function in functions}
        _require_known([op for ops in left.values() for op in ops])
        taken = symbols(module)
        for function, ops in left.items():
            if ops:
                ops = _with_views(function, ops)
                for group in find_groups(function, ops):
                    _outline(module, group, taken)
                for op in reversed(ops):
                    op.operation.erase()
                sort_block(function.regions[0].blocks[0])
                erase_dead(function.entry_block)


def _lower_layers(function: Any, state: PassState) -> None:
    """Turn layers into linalg again whose weights are computed at run time or whose planes are not, and sums and
    activations that only linalg hands tensors to and reads: it is fused with them."""
    for op in list(top_level_ops(function)):
        kind = kind_of(op)
        if kind is None or not (
            _has_computed_weights(op, kind, state) or _has_constant_planes(op, kind) or _is_among_left(op, kind)
        ):
            continue
        with op.location, ir.InsertionPoint(op):
            computed = kind.reference(op, state)
            if computed is None:
                continue
            replace_results(op, computed)
        op.operation.erase()


def _has_computed_weights(op: Any, kind: LayerKind, state: PassState) -> bool:
    accesses = {operand.number: operand.access for operand in kind.operands(op)}
    if Access.INDICES in accesses.values():
        return False  # a sparse layer, which only pattern-encode makes
    weights = [op.operands[number] for number, access in accesses.items() if access is Access.WEIGHTS]
    return any(read_constant(weight, state) is None for weight in weights)


def _has_constant_planes(op: Any, kind: LayerKind) -> bool:
    """Whether a layer reads planes that no layer makes: nobody gives these a halo."""
    read = [op.operands[operand.number] for operand in kind.operands(op) if operand.access in _WITH_HALO]
    owners = [through_reshapes(value).owner for value in read]
    return any(not isinstance(owner, ir.Block) and owner.operation.name in _CONSTANTS for owner in owners)


def _is_among_left(op: Any, kind: LayerKind) -> bool:
    if any(operand.access is not Access.ELEMENTS for operand in kind.operands(op)):
        return False
    given = [through_reshapes(value).owner for value in op.operands]
    users = list(readers(op.result))
    if any(isinstance(owner, ir.Block) for owner in given) or not users:
        return False
    neighbours = [*(owner.opview for owner in given), *users]
    return all(_is_left(other) or other.operation.name == "func.return" for other in neighbours)


def _is_left(op: Any) -> bool:
    name = op.operation.name
    is_call = name == "func.call" and OPS in op.attributes
    return not (name.startswith("pattern.") or name in _STAY or is_call or name in RESHAPES or is_view(op))


def _with_views(function: Any, left: list[Any]) -> list[Any]:
    """Return ops in their order, with the reshapes and slices that only they read and the concatenations of what only
    they make: those cost nothing where they are."""
    names = {op.operation for op in left}
    for op in top_level_ops(function):
        makers = [through_reshapes(value).owner for value in op.operands] if is_concat(op) else []
        if makers and all(not isinstance(maker, ir.Block) and maker.operation in names for maker in makers):
            names.add(op.operation)
    for op in reversed(list(top_level_ops(function))):
        may_join = op.operation.name in RESHAPES or (is_view(op) and not is_concat(op))
        users = [owner_in(use.owner, op.operation.block) for use in op.results[0].uses] if may_join else []
        if users and all(user in names for user in users):
            names.add(op.operation)
    return [op for op in top_level_ops(function) if op.operation in names]


# What cannot be compiled.


def _require_known(left: Sequence[Any]) -> None:
    """Raise one error that names every op that cannot become loops."""
    places: dict[str, list[str]] = {}
    first = None
    for op in left:
        for what in _find_unknown(op):
            first = first or op
            places.setdefault(what, []).append(describe_location(op.location))
    if first is None:
        return
    listed = ", ".join(f"{what}{_count(where)}{_list_places(where)}" for what, where in places.items())
    raise PatcError(f"cannot compile: {listed}", first.location)


def _find_unknown(op: Any) -> list[str]:
    """Return what of an op has no loops, in words; the ops in its regions count."""
    found: dict[str, None] = {}

    def visit(inner: ir.Operation) -> ir.WalkResult:
        wrong = next((type_ for type_ in _types(inner) if not _is_known_type(type_)), None)
        if inner.name == "cf.assert":
            if constant_number(inner.operands[0]) == 0:  # how torch-mlir says what it cannot lower
                found[f"{_operation_name(op)}: {inner.attributes['msg'].value}"] = None
        elif inner.name.split(".")[0] not in _DIALECTS:
            found[inner.name] = None
        elif wrong is not None:
            found[f"{inner.name} of {wrong}"] = None
        elif not has_lowering(inner) or _is_undefined(inner):
            found[inner.name] = None
        return ir.WalkResult.ADVANCE

    op.operation.walk(visit)
    return list(found)


def _is_undefined(op: ir.Operation) -> bool:
    """Whether a function returns the tensor without values that an op makes."""
    return op.name == "tensor.empty" and any(use.owner.operation.name == "func.return" for use in op.results[0].uses)


def _types(op: ir.Operation) -> list[ir.Type]:
    return [value.type for value in (*op.operands, *op.results)]


def _is_known_type(type_: ir.Type) -> bool:
    if isinstance(type_, ir.RankedTensorType):
        return type_.has_static_shape and _is_known_type(type_.element_type)
    return isinstance(type_, ir.IndexType) or numpy_type(type_) is not None


def _count(places: list[str]) -> str:
    return f" x{len(places)}" if len(places) > 1 else ""


def _list_places(places: list[str]) -> str:
    distinct = [place for place in dict.fromkeys(places) if place]
    return f" ({', '.join(distinct)})" if distinct else ""


# From a group to a function.


def _outline(module: ir.Module, group: list[Any], taken: set[str]) -> None:
    """Replace a group of ops by a call of a function that computes the same."""
    members, block = {op.operation for op in group}, group[0].operation.block
    made = [result for op in group for result in op.results if isinstance(result.type, ir.RankedTensorType)]
    results = [result for result in made if users_outside(result, members, block)]
    copy = _Copy(group)
    name = free_name("generic", taken)
    taken.add(name)
    with module.context, group[-1].location:
        scratch = copy.as_module(results)
        _simplify(scratch)
        function = scratch.body.operations[0].operation.clone(ir.InsertionPoint(module.body))
        function.attributes["sym_name"] = ir.StringAttr.get(name)
        function.attributes[OUTLINED] = ir.UnitAttr.get()
        function.attributes["sym_visibility"] = ir.StringAttr.get("private")
        operands = _drop_unread(function, copy.inputs)
        # Where the last op of the group is, all that it reads has been computed.
        with ir.InsertionPoint(group[-1]), _place(group):
            call = func.CallOp([result.type for result in results], name, operands)
            call.attributes[OPS] = ir.ArrayAttr.get([ir.StringAttr.get(word) for word in _describe(group)])
    for old, new in zip(results, call.results, strict=True):
        old.replace_all_uses_with(new)


class _Copy:
    """A group's ops in a function of their own; constants of few elements, empty tensors and reshapes are copied with
    them."""

    def __init__(self, group: list[Any]) -> None:
        self._group = group
        self.inputs: list[ir.Value] = []

    def as_module(self, results: list[ir.Value]) -> ir.Module:
        """Return a module of one function, whose arguments are `inputs` and whose results are those given."""
        module = ir.Module.create()
        made = [result.type for result in results]
        with ir.InsertionPoint(module.body):
            function = func.FuncOp("generic", ([], made))
        self._block = function.add_entry_block()
        self._values: dict[ir.Value, ir.Value] = {}
        with ir.InsertionPoint(self._block):
            for op in self._group:
                self._clone(op.operation)
            func.ReturnOp([self._values[result] for result in results])
        types = [value.type for value in self.inputs]
        function.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(types, made))
        return module

    def _clone(self, op: ir.Operation) -> None:
        for value in outer_operands(op):
            if value not in self._values:
                self._fetch(value)
        copy = op.clone()

        def rewire(inner: ir.Operation) -> ir.WalkResult:
            for number, value in enumerate(inner.operands):
                if value in self._values:
                    inner.operands[number] = self._values[value]
            return ir.WalkResult.ADVANCE

        copy.operation.walk(rewire)
        self._values.update(zip(op.results, copy.operation.results, strict=True))

    def _fetch(self, value: ir.Value) -> None:
        """Make a value from outside available: a tensor as an argument, the rest as a copy."""
        is_view = not isinstance(value.owner, ir.Block) and value.owner.operation.name in RESHAPES
        if isinstance(value.type, ir.RankedTensorType) and not is_copied(value) and not is_view:
            self._values[value] = self._block.add_argument(value.type, ir.Location.unknown())
            self.inputs.append(value)
        else:
            self._clone(value.owner.operation)


def _simplify(module: ir.Module) -> None:
    """Fuse the ops of a group."""
    _erase_assertions(module)
    fuse(module)


def _erase_assertions(module: ir.Module) -> None:
    """Erase checks at run time: loads are kept inside their tensors where the loops are written."""
    for op in walk_ops(module):
        if op.operation.name == "cf.assert":
            op.operation.erase()


def _drop_unread(function: ir.Operation, inputs: list[ir.Value]) -> list[ir.Value]:
    """Remove the arguments that nothing reads; return the operands for those that stay."""
    block = function.regions[0].blocks[0]
    read = [any(True for _ in argument.uses) for argument in block.arguments]
    for number in reversed(range(len(read))):
        if not read[number]:
            block.erase_argument(number)
    made = function.attributes["function_type"].value.results
    types = [argument.type for argument in block.arguments]
    function.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(types, made))
    return [value for value, kept in zip(inputs, read, strict=True) if kept]


def _place(group: list[Any]) -> ir.Location:
    """Return the location of the first op that says which layer it is of."""
    return next((op.location for op in group if describe_location(op.location)), group[-1].location)


def _describe(group: list[Any]) -> list[str]:
    """Return what a group computes, and for which layers: "aten.silu.default (act (net.py:12))"."""
    words: dict[str, None] = {}
    for op in group:
        place = describe_origin(op.location)
        words[f"{_operation_name(op)} ({place})" if place else _operation_name(op)] = None
    return list(words)


def _operation_name(op: Any) -> str:
    """Return the name that the front end gave an op's origin, or the op's own."""
    attr = op.location.metadata if isinstance(op.location, ir.FusedLoc) else None
    metadata = None if attr is None else attr.maybe_downcast()
    return metadata.value if isinstance(metadata, ir.StringAttr) else op.operation.name
