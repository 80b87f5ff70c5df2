"""`pattern-parallelize`: run a whole net in one parallel region, with a barrier after each layer.

Forking and joining a team costs more than a barrier; a net has twenty layers and more. A layer that one thread
computes alone (a copy, a time stamp) is left to thread 0. A net of hundreds of layers takes several regions: each
becomes a function, and LLVM's time for one grows with the square of its length.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch_mlir import ir
from torch_mlir.dialects import arith, func, scf

from patc.passes.base import Pass, PassState
from patc.passes.ir.bodies import constant_number
from patc.passes.ir.functions import CLOCK, declare_function, defined_functions, is_stamp, top_level_ops

_THREAD_FUNCTIONS = ("omp_get_thread_num", "omp_get_num_threads")
_LONGEST = 128  # layers of a region


@dataclass(frozen=True)
class PatternParallelize(Pass):
    """Merge the top-level `scf.parallel` loops of a function into one OpenMP region, or one for each 128 of them.

    Requires: loops over 0 .. N - 1 whose turns may run at the same time (`pattern-specialize`); such loops may be
        in the turns of an `scf.for`, as the steps of a recurrent layer are: threads then wait for each other in each
        turn, in which thread 0 runs the sequential ops between them.
    Ensures: one `omp.parallel` of N threads; thread t runs the turns t, t + T, ... of each loop, where T is the
        number of threads that the runtime gives; the sequential ops between the loops run on thread 0.

        scf.parallel (%i) = (%c0) to (%c2) step (%c1) { A }
        scf.parallel (%i) = (%c0) to (%c2) step (%c1) { B }
      becomes
        omp.parallel num_threads(%c2) {
          scf.for %i = %thread to %c2 step %threads { A }
          omp.barrier
          scf.for %i = %thread to %c2 step %threads { B }
          omp.barrier
        }

    Idempotent. No-op on functions without parallel loops.
    """

    name: ClassVar[str] = "pattern-parallelize"

    def run(self, module: ir.Module, state: PassState) -> None:
        for function in defined_functions(module):
            loops = [op for op in top_level_ops(function) if _is_shared(op)]
            if loops:
                for name in _THREAD_FUNCTIONS:
                    declare_function(module, name, "i32")
                _merge(function, loops)


def _merge(function: Any, loops: list[Any]) -> None:
    block = function.regions[0].blocks[0]
    ops = list(block.operations)
    first = ops.index(loops[0])
    last = len(ops) - 1  # the return stays outside
    hoisted, left = _cut_free(ops[first:last], _is_pure)
    for op in hoisted:
        op.operation.move_before(loops[0].operation)
    stages = _stages(left)
    with ir.InsertionPoint(loops[0]), function.location:
        bound = max(
            (_shared_loops(loop)[0].operands[1] for loop in loops), key=lambda value: constant_number(value) or 0
        )
        count = arith.IndexCastOp(ir.IntegerType.get_signless(32), bound).result
    for begin in range(0, len(stages), 2 * _LONGEST):  # each layer may have its time stamp behind it
        part = stages[begin : begin + 2 * _LONGEST]
        with ir.InsertionPoint(part[0][0]), function.location:
            region = _make_region(count)
        with ir.InsertionPoint(region), function.location:
            _fill_region(part)


def _fill_region(stages: list[list[Any]]) -> None:
    number, count = (_call_number(name) for name in _THREAD_FUNCTIONS)
    _divide_stages(stages, *(arith.IndexCastOp(ir.IndexType.get(), each).result for each in (number, count)))
    ir.Operation.create("omp.terminator")


def _divide_stages(stages: list[list[Any]], thread: ir.Value, threads: ir.Value) -> None:
    """Move stages to the insertion point, each with a barrier behind it where others wait for it."""
    for stage in stages:
        others_wait = not _only_takes_time(stage)
        if stage[0].operation.name == "scf.parallel":
            _share(stage[0], thread, threads)
        elif _is_shared(stage[0]):
            _divide_turns(stage[0], thread, threads)
            others_wait = False  # they did so in the last turn
        else:
            _alone(stage, thread)
        if others_wait:
            ir.Operation.create("omp.barrier")


def _divide_turns(loop: Any, thread: ir.Value, threads: ir.Value) -> None:
    """Move a loop to the insertion point, in each turn of which threads compute together."""
    ir.InsertionPoint.current.insert(loop.operation.detach_from_parent())
    ops = list(loop.regions[0].blocks[0].operations)
    _, stages = _cut_free(ops[:-1], _is_pure_in_turn)  # free ones stay where they are
    with ir.InsertionPoint(ops[-1]):
        _divide_stages(_stages(stages), thread, threads)


def _cut_free(ops: list[Any], is_pure: Callable[[Any], bool]) -> tuple[list[Any], list[Any]]:
    """Return those of some ops that every thread may run, which are pure and need no others, and the others."""
    free: list[Any] = []
    left: list[Any] = []
    made: set[ir.Operation] = set()
    for op in ops:
        owners = [value.owner for value in op.operands if not isinstance(value.owner, ir.Block)]
        is_known = not any(owner.operation in made for owner in owners)
        if is_known and is_pure(op):
            free.append(op)
        else:
            left.append(op)
            made.add(op.operation)
    return free, left


def _is_pure(op: Any) -> bool:
    """Whether the op computes an address, a constant or a number."""
    name = op.operation.name
    return name.startswith("arith.") or name in (
        "memref.view",
        "memref.get_global",
        "memref.reinterpret_cast",
        "memref.alloc",
    )


def _is_pure_in_turn(op: Any) -> bool:
    """Whether the op is pure where it stands: it may read a table of the turns' numbers, too."""
    return _is_pure(op) or (op.operation.name == "memref.load" and not is_stamp(op.results[0].type))


def _stages(ops: list[Any]) -> list[list[Any]]:
    """Group ops between barriers: each loop alone, sequential ops together."""
    stages: list[list[Any]] = []
    for op in ops:
        sequential = not _is_shared(op)
        if sequential and stages and not _is_shared(stages[-1][0]):
            stages[-1].append(op)
        else:
            stages.append([op])
    return stages


def _only_takes_time(stage: list[Any]) -> bool:
    """Whether a stage only takes and stores time stamps, which no other thread waits for."""
    return all(_is_of_time(op) for op in stage)


def _is_of_time(op: Any) -> bool:
    if op.operation.name == "func.call":
        return str(op.callee.value) == CLOCK
    if op.operation.name == "memref.store":
        return is_stamp(op.operands[0].type)
    is_number = op.operation.name == "memref.load" or op.operation.name.startswith("arith.")
    return is_number and is_stamp(op.results[0].type)


def _make_region(threads: ir.Value) -> ir.Block:
    segments = ir.DenseI32ArrayAttr.get([0, 0, 0, 1, 0, 0])
    attributes = {"operandSegmentSizes": segments}
    op = ir.Operation.create("omp.parallel", operands=[threads], regions=1, attributes=attributes)
    return op.regions[0].blocks.append()


def _call_number(name: str) -> ir.Value:
    return func.CallOp([ir.IntegerType.get_signless(32)], name, []).result


def _is_shared(op: Any) -> bool:
    """Whether threads compute an op together: a parallel loop, or a loop of parallel ones."""
    return bool(_shared_loops(op))


def _shared_loops(op: Any) -> list[Any]:
    """Return the parallel loop that an op is, or those that are the turns of a loop."""
    if op.operation.name == "scf.parallel":
        return [op]
    inner = list(op.regions[0].blocks[0].operations) if op.operation.name == "scf.for" else []
    return [each for each in inner if each.operation.name == "scf.parallel"]


def _share(loop: Any, thread: ir.Value, threads: ir.Value) -> None:
    """Replace a parallel loop by this thread's turns of it."""
    turns = scf.ForOp(thread, loop.operands[1], threads)
    body = loop.regions[0].blocks[0]
    with ir.InsertionPoint(turns.body):
        end = scf.YieldOp([])
    for op in list(body.operations)[:-1]:
        op.operation.move_before(end.operation)
    body.arguments[0].replace_all_uses_with(turns.induction_variable)
    loop.operation.erase()


def _alone(ops: list[Any], thread: ir.Value) -> None:
    """Let thread 0 run sequential ops."""
    zero = arith.ConstantOp(ir.IndexType.get(), 0).result
    choice = scf.IfOp(arith.CmpIOp(arith.CmpIPredicate.eq, thread, zero).result)
    with ir.InsertionPoint(choice.then_block):
        end = scf.YieldOp([])
    for op in ops:
        op.operation.move_before(end.operation)
