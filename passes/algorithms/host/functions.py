"""The kernel functions of a module, and the constant arrays that they read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch_mlir import ir
from torch_mlir.dialects import func, memref

from patc.costs import CoreCosts
from patc.passes.algorithms.host.buffers import flat_type
from patc.passes.base import PassState
from patc.passes.ir.elements import mlir_type
from patc.passes.ir.functions import UniqueFunctions
from patc.targets import Target


class KernelFunctions:
    """The kernel functions of a module; of equal ones the first stays.

    Attributes:
        target: that they are compiled for.
    """

    def __init__(self, module: ir.Module, state: PassState, target: Target) -> None:
        self.state = state
        self.target = target
        self._module = module
        self._functions = UniqueFunctions(module)
        self._globals: set[str] = set()

    @property
    def costs(self) -> CoreCosts:
        """Those of the core that runs the kernels."""
        return self.target.core_costs()

    def add(
        self, name: str, types: Sequence[ir.Type], emit: Callable[[ir.Block], None], *, is_small: bool = False
    ) -> str:
        """Return the name of the function of these arguments whose body `emit(block)` writes.

        Args:
            name: what its name begins with, in kebab case.
            is_small: compile it for little code rather than for little time.
        """
        with ir.InsertionPoint(self._module.body), ir.Location.name(name):
            function = func.FuncOp("kernel", (list(types), []), visibility="private")
            function.attributes["llvm.no_inline"] = ir.UnitAttr.get()
            if is_small:
                function.attributes["llvm.minsize"] = ir.UnitAttr.get()
            block = function.add_entry_block()
            with ir.InsertionPoint(block):
                emit(block)
                func.ReturnOp([])
        return self._functions.keep(function, name)

    def add_global(self, name: str, array: np.ndarray, inline: bool) -> tuple[str, ir.MemRefType]:
        """Add a flat constant array; its values go into the text or into the parameter store."""
        flat = np.ascontiguousarray(array).reshape(-1)
        type_ = flat_type(len(flat), mlir_type(flat.dtype))
        if not inline:
            name = self.state.parameters.add(name, flat)
        else:
            while name in self._globals:
                name += "_"
        self._globals.add(name)
        value = ir.DenseElementsAttr.get(flat, type=type_.element_type, shape=[len(flat)]) if inline else None
        with ir.InsertionPoint.at_block_begin(self._module.body):
            memref.GlobalOp(name, type_, sym_visibility="private", initial_value=value, constant=inline or None)
        return name, type_
