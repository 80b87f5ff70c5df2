"""Addresses of the loads of a loop nest, as base + constant, and the constants to make others with."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch_mlir import ir
from torch_mlir.dialects import arith

_CONSTANTS = ("arith.constant", "vector.constant_mask")
_STORES = {"vector.store": 1, "memref.store": 1, "vector.maskedstore": 0}  # which operand is the memory
_WITHOUT_STORES = (
    "arith.", "math.", "memref.load", "memref.prefetch", "vector.load", "vector.maskedload", "vector.shuffle",
    "vector.bitcast", "vector.broadcast", "vector.extract", "llvm.call_intrinsic",
)  # fmt: skip


class Offsets:
    """The index constants at the start of a function, each made once."""

    def __init__(self, function: Any) -> None:
        self._function = function
        self._values: dict[int, ir.Value] = {}

    def get(self, offset: int) -> ir.Value:
        """Return a constant that every op of the function may use."""
        if not self._values:
            # Those behind other ops may come too late for a loop.
            ops = self._function.regions[0].blocks[0].operations
            for op in itertools.takewhile(lambda op: op.operation.name in _CONSTANTS, ops):
                value = constant(op.results[0])
                if value is not None:
                    self._values.setdefault(value, op.results[0])
        if offset not in self._values:
            with ir.InsertionPoint.at_block_begin(self._function.regions[0].blocks[0]), self._function.location:
                self._values[offset] = arith.ConstantOp(ir.IndexType.get(), offset).result
        return self._values[offset]


@dataclass(frozen=True)
class Load:
    """A load of one or more elements at base + offset."""

    op: Any
    memory: ir.Value
    base: ir.Value
    offset: int
    lanes: int


Groups: TypeAlias = dict[tuple[int, int, ir.Value, ir.Value], list[Load]]


def group_loads(block: ir.Block, wanted: Callable[[Any], bool]) -> Groups:
    """Return the loads of a block that may be replaced together: those of one memory and one base, without a store to
    that memory between them.

    Args:
        wanted: whether a `vector.load` or `memref.load` is looked for.
    """
    groups: Groups = defaultdict(list)
    stores: Counter[ir.Value] = Counter()  # loads on both sides of a store may differ
    others = 0
    for op in block.operations:
        name = op.operation.name
        if name in ("vector.load", "memref.load") and wanted(op):
            load = split_address(op)
            groups[others, stores[load.memory], load.memory, load.base].append(load)
        elif name in _STORES:
            stores[op.operands[_STORES[name]]] += 1
        elif not name.startswith(_WITHOUT_STORES):
            others += 1
    return groups


def split_address(op: Any) -> Load:
    """Write the address of a load as base + constant."""
    memory, index, kind = op.operands[0], op.operands[1], op.results[0].type
    lanes = kind.shape[0] if isinstance(kind, ir.VectorType) else 1
    if not isinstance(index.owner, ir.Block) and index.owner.name == "arith.addi":
        base, addend = index.owner.operands
        offset = constant(addend)
        if offset is not None:
            return Load(op, memory, base, offset, lanes)
    return Load(op, memory, index, 0, lanes)


def constant(value: ir.Value) -> int | None:
    """Return what an index constant is; None for another value."""
    is_constant = not isinstance(value.owner, ir.Block) and value.owner.name == "arith.constant"
    return int(value.owner.attributes["value"].value) if is_constant and value.type == ir.IndexType.get() else None


def address(base: ir.Value, offset: int, offsets: Offsets) -> ir.Value:
    """Return base + offset, made at the current insertion point."""
    return arith.AddIOp(base, offsets.get(offset)).result if offset else base


def replace_load(load: Load, value: ir.Value) -> None:
    """Let the users of a load have another value, and erase it with its address."""
    index = load.op.operands[1]
    load.op.results[0].replace_all_uses_with(value)
    load.op.operation.erase()
    if index != load.base and next(iter(index.uses), None) is None:
        index.owner.erase()
