"""Native code for this machine: LLVM dialect, LLVM IR and an object file from the torch-mlir wheel's own LLVM."""

from __future__ import annotations

import ctypes
import os
import tempfile
from pathlib import Path

from torch_mlir import ir, passmanager
from torch_mlir.dialects import func
from torch_mlir.execution_engine import ExecutionEngine

from patc.diagnostics import PatcError
from patc.targets import Target

LOWERING = (
    "builtin.module(canonicalize,cse,convert-scf-to-cf,convert-vector-to-llvm,expand-strided-metadata,lower-affine,"
    "convert-math-to-llvm,finalize-memref-to-llvm,convert-arith-to-llvm,convert-index-to-llvm,convert-ub-to-llvm,"
    "convert-func-to-llvm{use-bare-ptr-memref-call-conv=true},convert-openmp-to-llvm,convert-cf-to-llvm,"
    "reconcile-unrealized-casts)"
)
_ALLOWED = ("llvm.", "omp.", "builtin.module")


def lower_to_llvm(module: ir.Module, target: Target) -> None:
    """Lower a module of loops, vectors and memrefs to the LLVM dialect, in place."""
    _define_timestamp(module)
    with module.context:
        passmanager.PassManager.parse(LOWERING).run(module.operation)
    _set_target(module, target)
    _require_lowered(module)


def _define_timestamp(module: ir.Module) -> None:
    """Give `patc_timestamp` its body: the cycle counter."""
    for function in module.body.operations:
        name = function.attributes["sym_name"].value if "sym_name" in function.attributes else ""
        if name == "patc_timestamp" and not function.regions[0].blocks:
            with module.context, function.location:
                block = function.regions[0].blocks.append()
                with ir.InsertionPoint(block):
                    i64 = ir.IntegerType.get_signless(64)
                    now = ir.Operation.create(
                        "llvm.call_intrinsic",
                        results=[i64],
                        operands=[],
                        attributes={
                            "intrin": ir.StringAttr.get("llvm.readcyclecounter"),
                            "op_bundle_sizes": ir.DenseI32ArrayAttr.get([]),
                            "operandSegmentSizes": ir.DenseI32ArrayAttr.get([0, 0]),
                        },
                    )
                    func.ReturnOp([now.result])


def _set_target(module: ir.Module, target: Target) -> None:
    """Name the CPU in every function where it is not the CPU of this machine."""
    if not target.cpu:
        return
    with module.context:
        entry = ir.ArrayAttr.get([ir.StringAttr.get("target-cpu"), ir.StringAttr.get(target.cpu)])
        for function in module.body.operations:
            if function.operation.name == "llvm.func" and function.regions[0].blocks:
                function.attributes["passthrough"] = ir.ArrayAttr.get([entry])


def _require_lowered(module: ir.Module) -> None:
    """Refuse what the translation to LLVM IR would abort the process for."""

    left: list[ir.Operation] = []

    def check(op: ir.Operation) -> ir.WalkResult:
        if not op.name.startswith(_ALLOWED):
            left.append(op)
        return ir.WalkResult.ADVANCE

    module.operation.walk(check)
    if left:
        raise PatcError(f"'{left[0].name}' op expected to be lowered to the llvm dialect", left[0].location)


def compile_object(module: ir.Module) -> bytes:
    """Compile a module in the LLVM dialect and return an object file for this machine."""
    load_openmp()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "module.o"
        engine = ExecutionEngine(module, opt_level=3, enable_object_dump=True)
        engine.raw_lookup("main")
        engine.dump_to_object_file(os.fspath(path))
        return path.read_bytes()


def load_openmp() -> None:
    """Load the OpenMP runtime into the process, where its symbols are found by compiled code."""
    from patc.runtime.openmp import load

    load()


__all__ = ["compile_object", "ctypes", "load_openmp", "lower_to_llvm"]
