"""Operations that torch-mlir does not know or cannot lower: listed all at once, with layers and source lines."""

from __future__ import annotations

from torch_mlir import ir
from torch_mlir.dialects import func

from patc.diagnostics import PatcError, describe_location
from patc.frontend.lowering import TO_LINALG, run_torch_passes, set_type

_PASSES = ("torchdynamo-export-to-torch-backend-pipeline{extra-library=}", TO_LINALG)
_EXPLAINS_NOTHING = "failed to legalize"
_PREFIX = "torch."


class UnsupportedOperations(PatcError):
    """Operations of a model that patc cannot compile.

    Attributes:
        places: where torch-mlir's ops for them are, in MLIR's notation; empty where the graph was refused.
        calls: the calls in the user's graph, where it was marked with them; see `patc.frontend.operations.call_of`.
    """

    def __init__(self, listed: str, places: frozenset[str] = frozenset(), calls: frozenset[str] = frozenset()) -> None:
        super().__init__(f"model has operations patc cannot compile: {listed}")
        self.places, self.calls = places, calls


def is_torch(module: ir.Module) -> bool:
    """Return whether a module has a function that works on tensors of torch-mlir."""
    return any(
        op.operation.name == "func.func" and any(map(_is_tensor, op.type.inputs + op.type.results))
        for op in module.body.operations
    )


def require_known_operations(module: ir.Module) -> None:
    """Refuse operations that torch-mlir does not know.

    Raises:
        UnsupportedOperations: all of them.
    """
    found: list[tuple[str, ir.Location]] = []

    def visit(op: ir.Operation) -> ir.WalkResult:
        if op.name == "torch.operator":
            found.append((op.attributes["name"].value.removeprefix(_PREFIX), op.location))
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    if found:
        raise _unsupported(found)


def lower_to_linalg(module: ir.Module) -> None:
    """Lower a module of torch ops to linalg on tensors, in place.

    Raises:
        UnsupportedOperations: those that torch-mlir cannot lower, each on its own.
        PatcError: it cannot lower them together.
    """
    before = _copy_main(module)
    try:
        run_torch_passes(module, _PASSES)
    except PatcError:
        found = _lower_each(before)
        if not found:
            raise
        raise _unsupported(found) from None


def _unsupported(found: list[tuple[str, ir.Location]]) -> UnsupportedOperations:
    uses: dict[str, list[str]] = {}
    for name, location in found:
        uses.setdefault(name, []).append(describe_location(location))
    listed = []
    for name, where in uses.items():
        places = ", ".join(dict.fromkeys(filter(None, where)))
        listed.append(f"{name} x{len(where)} ({places})" if places else f"{name} x{len(where)}")
    return UnsupportedOperations(", ".join(listed), frozenset(str(location) for _, location in found))


def _copy_main(module: ir.Module) -> ir.Operation:
    return module.body.operations[0].operation.clone(ip=False)


def _lower_each(main: ir.Operation) -> list[tuple[str, ir.Location]]:
    """Return names and places of the ops of a function that torch-mlir cannot lower, each alone in a module."""
    reasons: dict[str, str | None] = {}
    found = []
    for op in main.regions[0].blocks[0].operations:
        if op.operation.name.startswith(_PREFIX) and any(_is_tensor(result.type) for result in op.results):
            with main.context:
                alone = _alone(op.operation)
            key = str(alone)
            if key not in reasons:
                reasons[key] = _error_of(alone)
            reason = reasons[key]
            if reason is not None:
                why = "" if _EXPLAINS_NOTHING in reason else f" ({reason})"
                found.append((op.operation.name.removeprefix(_PREFIX) + why, op.location))
    return found


def _error_of(module: ir.Module) -> str | None:
    try:
        run_torch_passes(module, _PASSES)
    except PatcError as error:
        return error.message.partition(": ")[2]
    return None


def _alone(op: ir.Operation) -> ir.Module:
    """Return a module of one op; its tensors are arguments of @main, what else it takes is made as before."""
    module = ir.Module.create(ir.Location.unknown(op.context))
    with ir.InsertionPoint(module.body), op.location:
        main = func.FuncOp("main", ([], []))
    block = main.add_entry_block()
    values: dict[ir.Value, ir.Value] = {}

    def copy(one: ir.Operation) -> ir.Operation:
        operands = [take(value) for value in one.operands]
        with ir.InsertionPoint(block):
            twin = one.clone()
        for place, value in enumerate(operands):
            twin.operands[place] = value
        return twin

    def take(value: ir.Value) -> ir.Value:
        if value not in values:
            if _is_tensor(value.type):
                values[value] = block.add_argument(value.type, op.location)
            else:
                maker = value.owner
                copied = copy(maker)
                values.update(zip(maker.results, copied.results, strict=True))
        return values[value]

    results = [result for result in copy(op).results if _is_tensor(result.type)]
    with ir.InsertionPoint(block), op.location:
        func.ReturnOp(results)
    set_type(main)
    return module


def _is_tensor(type_: ir.Type) -> bool:
    return str(type_).startswith("!torch.vtensor")
