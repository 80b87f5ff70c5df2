"""Native code for this machine: LLVM dialect, LLVM IR and an object file from the torch-mlir wheel's own LLVM."""

from __future__ import annotations

import ctypes
import os
import tempfile
from pathlib import Path

from torch_mlir import ir, passmanager
from torch_mlir.dialects import func, llvm
from torch_mlir.execution_engine import ExecutionEngine

from patc.diagnostics import PatcError
from patc.runtime.team import ENTRY_POINTS
from patc.targets import Target

LOWERING = (
    "builtin.module(canonicalize,cse,convert-scf-to-cf,convert-vector-to-llvm,expand-strided-metadata,lower-affine,"
    "convert-math-to-llvm,finalize-memref-to-llvm,convert-arith-to-llvm,convert-index-to-llvm,convert-ub-to-llvm,"
    "convert-func-to-llvm{use-bare-ptr-memref-call-conv=true},convert-openmp-to-llvm,convert-cf-to-llvm,"
    "reconcile-unrealized-casts)"
)
READ_TIMER = "mrs $0, cntvct_el0"
_ALLOWED = ("llvm.", "omp.", "builtin.module")


def lower_to_llvm(module: ir.Module, target: Target) -> None:
    """Lower a module of loops, vectors and memrefs to the LLVM dialect, in place."""
    _define_timestamp(module, target)
    with module.context:
        manager = passmanager.PassManager.parse(LOWERING)
        manager.enable_verifier(False)  # to verify after each pass takes as long as the passes
        manager.run(module.operation)
        module.operation.verify()
    _set_target(module, target)
    _require_lowered(module)


def _define_timestamp(module: ir.Module, target: Target) -> None:
    """Give `patc_timestamp` its body: it reads the cycle counter, or a timer that programs may read."""
    for function in module.body.operations:
        name = function.attributes["sym_name"].value if "sym_name" in function.attributes else ""
        if name == "patc_timestamp" and not function.regions[0].blocks:
            with module.context, function.location:
                block = function.regions[0].blocks.append()
                with ir.InsertionPoint(block):
                    func.ReturnOp([_TIMERS.get(target.architecture, _read_cycle_counter)()])


def _read_timer() -> ir.Value:
    i64 = ir.IntegerType.get_signless(64)
    return llvm.InlineAsmOp(i64, [], READ_TIMER, "=r", has_side_effects=True).result


def _read_cycle_counter() -> ir.Value:
    attributes = {
        "intrin": ir.StringAttr.get("llvm.readcyclecounter"),
        "op_bundle_sizes": ir.DenseI32ArrayAttr.get([]),
        "operandSegmentSizes": ir.DenseI32ArrayAttr.get([0, 0]),
    }
    results = [ir.IntegerType.get_signless(64)]
    return ir.Operation.create("llvm.call_intrinsic", results=results, operands=[], attributes=attributes).result


_TIMERS = {"aarch64": _read_timer}  # where programs may not read the cycle counter


def _set_target(module: ir.Module, target: Target) -> None:
    """Name CPU and features in every function where they are not those of this machine."""
    if not target.cpu:
        return
    with module.context:
        cpu = ir.StringAttr.get(target.cpu)
        # Without a list of its own a function would get all features of this machine, whatever its CPU.
        names = ", ".join(f'"+{name}"' for name in target.features)
        features = ir.Attribute.parse(f"#llvm.target_features<[{names}]>")
        for function in module.body.operations:
            if function.operation.name == "llvm.func" and function.regions[0].blocks:
                function.attributes["target_cpu"] = cpu
                function.attributes["target_features"] = features


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
    engine = ExecutionEngine(module, opt_level=3, enable_object_dump=True)
    # The engine wants to know every function before it shows the object; nothing of this is called.
    anything = ctypes.cast(_nothing, ctypes.c_void_p)
    for name in ENTRY_POINTS:
        engine.raw_register_runtime(name, anything)
    engine.raw_lookup("main")
    return _dump(engine)


def _dump(engine: ExecutionEngine) -> bytes:
    """Return the object file of an engine, which can only write it to a file, and ends the process where it cannot."""
    if hasattr(os, "memfd_create"):
        with open(os.memfd_create("object"), "rb") as file:
            engine.dump_to_object_file(f"/proc/self/fd/{file.fileno()}")
            return file.read()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "module.o"
        engine.dump_to_object_file(os.fspath(path))
        return path.read_bytes()


@ctypes.CFUNCTYPE(None)
def _nothing() -> None:
    pass
