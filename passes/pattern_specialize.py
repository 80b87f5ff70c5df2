"""`pattern-specialize`: turn every scheduled pattern op into a specialised loop nest on memory.

Each op becomes a call of a kernel function; ops that differ only in their weights share one. Tensors become flat
memrefs in their layout, weights become `memref.global`s that hold exactly the arrays the kernels read. Here functions
are rewritten; the algorithm that an op's schedule names writes its kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch_mlir import ir
from torch_mlir.dialects import arith, func, memref

from patc.dialects.attributes import Layout
from patc.dialects.schedules import FILTERS, IMAGES, ROWS, Schedule
from patc.passes.algorithms.base import find_algorithm, require_limits
from patc.passes.algorithms.host.buffers import count_elements, first_of, flat_type, slack
from patc.passes.algorithms.host.functions import KernelFunctions
from patc.passes.algorithms.host.image_runs import ImageRun
from patc.passes.algorithms.host.images import Images, Reach, uncounted
from patc.passes.algorithms.host.memory import Memory
from patc.passes.algorithms.host.site import HostSite
from patc.passes.algorithms.host.streams import Stream, StreamEmission
from patc.passes.base import Pass, PassState, fail
from patc.passes.ir.constants import CONSTANTS
from patc.passes.ir.functions import (
    CLOCK,
    ENTRY,
    RESHAPES,
    declare_function,
    defined_functions,
    describe_call,
    erase_outlined,
    readers,
    through_reshapes,
    top_level_ops,
    works_on_tensors,
)
from patc.passes.ir.modules import keep_signature, most_images
from patc.passes.ir.records import read_record
from patc.passes.ir.targets import OVERRIDE, target_of
from patc.passes.ir.views import find_parts, is_view
from patc.passes.layers.base import LayerKind
from patc.passes.layers.image_runs import images_alone, reads_of
from patc.passes.layers.registry import kind_of
from patc.passes.layers.streams import find_streams
from patc.targets import Target


@dataclass(frozen=True)
class PatternSpecialize(Pass):
    """Lower scheduled pattern ops to loop nests over vectors, one branch-free loop a pattern.

    Requires: ops with schedules (`pattern-schedule`) and constant weights.
    Ensures: no pattern op is left. `@main(inputs..., outputs..., timestamps)` works on flat memrefs; it allocates
        one buffer a tensor, or for all that a concatenation joins (see `pattern-plan-memory`), and calls one kernel a
        layer, in `scf.parallel` over the parts of a layer that is divided among threads. Layers on large planes run
        band by band: an `scf.for` over bands calls the kernels of each, and what lies between them is in rings of rows.
        In a module with `pattern.images = N`, `@main` has one more argument, behind the others: the images that a call
        has, up to N; unless a layer keeps it from that, as a remark says.

        %y = "pattern.sparse_conv2d"(%x, ...) {schedule = #pattern.schedule<{rows = 4, columns = 64, ...}>}
      becomes
        %y = memref.alloc() : memref<237632xf32>
        func.call @pattern_direct_0(%x, ..., %y, ...)
      with
        scf.for tiles { scf.for filters { per pattern: scf.for kernels { vector.load, math.fma } ; vector.store } }

    Idempotent: a module without pattern ops is left alone.
    """

    name: ClassVar[str] = "pattern-specialize"

    target: str = field(default="", metadata={"help": OVERRIDE})

    def run(self, module: ir.Module, state: PassState) -> None:
        kernels = KernelFunctions(module, state, target_of(module, self.target))
        for function in defined_functions(module):
            if works_on_tensors(function):
                keep_signature(module, function)
                _specialize(module, function, kernels)
        erase_outlined(module)


def _specialize(module: ir.Module, function: Any, kernels: KernelFunctions) -> None:
    """Build the new function before the old one and erase that."""
    declare_function(module, CLOCK, "i64")
    arguments, results = function.regions[0].blocks[0].arguments, list(top_level_ops(function))[-1].operands
    layers = sum(kind_of(op) is not None for op in top_level_ops(function))
    types = [_boundary_type(value) for value in [*arguments, *results]]
    types.append(flat_type(layers + 1, ir.IntegerType.get_signless(64)))
    most = _images_of_a_call(module, function, kernels.state)
    for op in top_level_ops(function):
        kind = kind_of(op)
        if kind is not None:
            _check(op, kind, kernels.target)
    if most:
        types.append(ir.IndexType.get())
    name = function.attributes["sym_name"].value
    with ir.InsertionPoint(function), function.location:
        specialized = func.FuncOp(f"{name}.specialized", (types, []))
        specialized.attributes[ENTRY] = ir.UnitAttr.get()
        block = specialized.add_entry_block()
    with ir.InsertionPoint(block), function.location:
        places = iter(block.arguments)
        given, made = ([next(places) for _ in values] for values in (arguments, results))
        ticks = next(places)
        images = Images(next(places), most) if most else None
        memory = Memory(block, kernels, find_parts(function.regions[0].blocks[0]), images)
        for argument, place in zip(arguments, given, strict=True):
            memory.place(argument, _own_copy(argument, place, memory))
        _choose_outputs(results, made, memory)
        runs = [op for op in top_level_ops(function) if _is_by_image(op)]
        memory.cut = {*reads_of(runs), *(op.result for op in runs)}
        _convert_ops(function, memory, ticks)
        _copy_outputs(results, made, memory)
        func.ReturnOp([])
    function.operation.erase()
    specialized.attributes["sym_name"] = ir.StringAttr.get(name)


def _images_of_a_call(module: ir.Module, function: Any, state: PassState) -> int:
    """Return the images of a function's tensors, of which a call says how many it has; 0 where all are computed."""
    most = most_images(module)
    found = uncounted(function, most, lambda op: _reach(op, most)) if most else None
    if found is None:
        return most
    op, why = found
    what = ", ".join(describe_call(op)) or op.operation.name
    state.remark(op, f"images are computed in blocks of {most}, whatever their number: {what} {why}")
    return 0


def _reach(op: Any, most: int) -> Reach | None:
    """Return how many images the algorithm of a layer goes through; None for an op that is no layer."""
    kind = kind_of(op)
    return None if kind is None else find_algorithm(op, kind.host_algorithms(op))[0].reach(op, most)


def _goes_behind(op: Any, images: Images) -> bool:
    """Whether a layer reads and writes images behind those of the call: the caller's memory does not have them."""
    return _reach(op, images.most) is not Reach.OWN


def _own_copy(argument: ir.Value, place: ir.Value, memory: Memory) -> ir.Value:
    """Return where an argument is: in memory of the function's own where images behind it are read."""
    images, layers = memory.images, [op for op in readers(argument) if kind_of(op) is not None]
    if images is None or not any(_goes_behind(op, images) for op in layers):
        return place
    own = memory.allocate(place.type.shape[0] + slack(argument), place.type.element_type)
    _copy_images(memory, place, own)
    return own


def _copy_images(memory: Memory, source: ir.Value, target: ir.Value) -> None:
    """Copy the images of a call, or all."""
    size, images = min(source.type.shape[0], target.type.shape[0]), memory.images
    count = size if images is None else images.times(size // images.most)
    memref.CopyOp(first_of(source, count), first_of(target, count))


def _boundary_type(value: ir.Value) -> ir.MemRefType:
    """Return the type of an argument or result of a function: they are row-major."""
    return flat_type(count_elements(value.type.shape, None), value.type.element_type)


def _choose_outputs(results: Sequence[ir.Value], made: Sequence[ir.Value], memory: Memory) -> None:
    """Let the layer that makes a result write it straight to the caller's memory."""
    for result, place in zip(results, made, strict=True):
        source = through_reshapes(result)
        # What other layers read needs room behind it, which the caller's memory does not have.
        is_read = any(kind_of(op) is not None for op in readers(source))
        is_given = isinstance(source.owner, ir.Block) or source.owner.operation.name in CONSTANTS
        is_own = not is_given and source not in memory.parts
        if is_own and memory.images is not None:
            is_own = not _goes_behind(source.owner.opview, memory.images)
        if is_own and memory.reserved(source) is None and not is_read:
            memory.reserve(source, place)


def _copy_outputs(results: Sequence[ir.Value], made: Sequence[ir.Value], memory: Memory) -> None:
    """Copy results that were not made in the caller's memory."""
    for result, place in zip(results, made, strict=True):
        source = through_reshapes(result)
        reserved = memory.reserved(source)
        if reserved is None or reserved != place:
            _copy_images(memory, memory.buffer(source).memory, place)


def _convert_ops(function: Any, memory: Memory, ticks: ir.Value) -> None:
    """Compute all layers, and store the time before the first and after each of them, for profiles."""

    def store_time(position: int) -> None:
        now = func.CallOp([ir.IntegerType.get_signless(64)], CLOCK, []).result
        memory.builder.store(now, ticks, position, 0)

    store_time(0)
    done = 0
    streams = {stream.layers[0][1].operation: stream for stream in find_streams(function, memory.kernels.target)}
    streamed = [op.operation for stream in streams.values() for _, op, _ in stream.layers]
    run: list[Any] = []
    for op in top_level_ops(function):
        kind = kind_of(op)
        is_next = _is_by_image(op) and (not run or op.result.type.shape[0] == run[0].result.type.shape[0])
        if run and not is_next and not (op.operation.name in CONSTANTS or is_view(op)):
            done += _compute_by_image(run, memory, ticks, done, store_time)
            run = []
        if _is_by_image(op):
            run.append(op)
        elif op.operation in streams:
            done += _compute_stream(streams[op.operation], memory, ticks, done, store_time)
        elif op.operation in streamed:
            continue
        elif kind is not None:
            _compute(op, kind, memory)
            done += 1
            store_time(done)
        elif op.operation.name in RESHAPES:
            memory.reshape(op.operands[0], op.results[0])
        elif op.operation.name not in (*CONSTANTS, "func.return") and not is_view(op):
            raise fail(op, "a pattern op, a constant or a reshape", op.operation.name)


def _compute(op: Any, kind: LayerKind, memory: Memory) -> None:
    """Let the algorithm of an op's schedule write its kernels and the calls of them."""
    algorithm, schedule = find_algorithm(op, kind.host_algorithms(op))
    site = HostSite(op, schedule, memory)
    if memory.images is not None and algorithm.reach(op, memory.images.most) is Reach.WHOLE:
        site = site.of_all_images()
    with op.location:
        algorithm.emit(site)


def _compute_stream(
    stream: Stream, memory: Memory, ticks: ir.Value, done: int, store_time: Callable[[int], None]
) -> int:
    """Compute layers band by band, and return how many they are. Their times are sums, as if one had followed the
    other."""
    with stream.layers[0][1].location:
        spent = StreamEmission(stream, memory).emit()
    return _store_times(spent, len(stream.layers), memory, ticks, done, store_time)


def _is_by_image(op: Any) -> bool:
    is_scheduled = kind_of(op) is not None and "schedule" in op.attributes
    return is_scheduled and read_record(op, Schedule).split == IMAGES


def _compute_by_image(
    ops: Sequence[Any], memory: Memory, ticks: ir.Value, done: int, store_time: Callable[[int], None]
) -> int:
    """Compute layers image by image, and return how many they are; their times are as of `_compute_stream`."""
    layers = []
    for op in ops:
        kind = kind_of(op)
        assert kind is not None, "what computes image by image is a layer"
        layers.append((*find_algorithm(op, kind.host_algorithms(op)), op))
    with ops[0].location:
        spent = ImageRun([(algorithm, op, schedule) for algorithm, schedule, op in layers], memory).emit()
    return _store_times(spent, len(ops), memory, ticks, done, store_time)


def _store_times(
    spent: ir.Value, count: int, memory: Memory, ticks: ir.Value, done: int, store_time: Callable[[int], None]
) -> int:
    """Store times as if one layer had followed the other, and return how many they are."""
    for number in range(1, count + 1):
        store_time(done + number)
    b = memory.builder
    now = memref.LoadOp(ticks, [b.index(done)]).result
    for number in range(count - 1):
        now = arith.AddIOp(now, memref.LoadOp(spent, [b.index(number)]).result).result
        b.store(now, ticks, done + 1 + number, 0)
    return count


def _check(op: Any, kind: LayerKind, target: Target) -> None:
    """Refuse a layer that no algorithm computes as its schedule says."""
    kind.check_elements(op)
    algorithm, schedule = find_algorithm(op, kind.host_algorithms(op))
    require_limits(op, algorithm, schedule, target)
    if schedule.split == IMAGES and not images_alone(op, kind):
        raise fail(op, f"a schedule with split of {ROWS} or {FILTERS}", IMAGES)
    _require_halo(op)


def _require_halo(op: Any) -> None:
    """Refuse a window that would read around its input where no halo is."""
    if "pads" not in op.attributes:
        return
    pads, layout = list(op.pads), Layout.of(op.input.type)
    if any(pad > side for pad, side in zip(pads, (layout.top, layout.left, layout.bottom, layout.right), strict=True)):
        raise fail(op, f"an input with a halo of at least {pads} (run pattern-layout first)", op.input.type)
