"""Passes of MLIR and torch-mlir: known by name and option text only, run by the bindings' pass manager."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from torch_mlir import ir
from torch_mlir._mlir_libs import _torchMlir  # loading it registers the passes of torch-mlir
from torch_mlir.passmanager import PassManager

from patc.diagnostics import PatcError, nearest
from patc.ir_diagnostics import mlir_errors, one_line
from patc.locks import compiling

# The bindings cannot list their passes; these are the ones a misspelt name is compared with.
_NAMES = """
affine-loop-fusion affine-loop-tile affine-scalrep affine-super-vectorize arith-expand
arith-int-range-narrowing buffer-deallocation-pipeline buffer-hoisting buffer-loop-hoisting
buffer-results-to-out-params canonicalize control-flow-sink convert-arith-to-llvm
convert-arith-to-spirv convert-bufferization-to-memref convert-cf-to-llvm convert-cf-to-spirv
convert-elementwise-to-linalg convert-func-to-llvm convert-func-to-spirv convert-gpu-to-spirv
convert-index-to-llvm convert-index-to-spirv convert-linalg-to-affine-loops convert-linalg-to-loops
convert-linalg-to-parallel-loops convert-math-to-libm convert-math-to-llvm convert-math-to-spirv
convert-memref-to-spirv convert-openmp-to-llvm convert-parallel-loops-to-gpu convert-scf-to-cf
convert-scf-to-openmp convert-scf-to-spirv convert-tensor-to-linalg convert-tensor-to-spirv
convert-to-llvm convert-ub-to-llvm convert-vector-to-llvm convert-vector-to-scf
convert-vector-to-spirv cse drop-equivalent-buffer-results duplicate-function-elimination
eliminate-empty-tensors empty-tensor-to-alloc-tensor expand-realloc expand-strided-metadata
finalize-memref-to-llvm flatten-memref fold-tensor-subset-ops generate-runtime-verification
gpu-kernel-outlining gpu-map-parallel-loops inline int-range-optimizations linalg-block-pack-matmul
linalg-fold-unit-extent-dims linalg-fuse-elementwise-ops linalg-generalize-named-ops
linalg-inline-scalar-operands linalg-morph-ops linalg-specialize-generic-ops llvm-request-c-wrappers
loop-invariant-code-motion loop-invariant-subset-hoisting lower-affine lower-vector-mask
lower-vector-multi-reduction math-expand-ops math-uplift-to-fma mem2reg memref-expand
normalize-memrefs one-shot-bufferize optimize-allocation-liveness
ownership-based-buffer-deallocation print-ir print-op-stats promote-buffers-to-stack
reconcile-unrealized-casts remove-dead-values reify-result-shapes
resolve-ranked-shaped-type-result-dims sccp scf-for-loop-canonicalization scf-for-loop-peeling
scf-for-loop-range-folding scf-for-loop-specialization scf-forall-to-for scf-forall-to-parallel
scf-parallel-for-to-nested-fors scf-parallel-loop-fusion scf-parallel-loop-tiling
set-llvm-module-datalayout simplify-depthwise-conv spirv-attach-target spirv-lower-abi-attrs
spirv-update-vce sroa strip-debuginfo symbol-dce symbol-privatize topological-sort
torch-backend-to-linalg-on-tensors-backend-pipeline torch-decompose-complex-ops
torch-function-to-torch-backend-pipeline torch-onnx-to-torch-backend-pipeline
torchdynamo-export-to-torch-backend-pipeline tosa-to-arith tosa-to-linalg tosa-to-linalg-named
tosa-to-tensor transform-interpreter trivial-dce view-op-graph
"""
COMMON_PASSES = tuple(_NAMES.split())
_LOADS_TM_TENSOR = "convert-torch-to-tmtensor"


_RESTRICTION = re.compile(r"restricted to '(\S+)' on a PassManager intended to run on '(\S+)'")


def load_torch_dialects(context: ir.Context) -> None:
    """Make a context know the dialects of torch-mlir, those among them that only its passes load."""
    _torchMlir.register_dialect(context)
    manager = PassManager.parse(f"builtin.module(func.func({_LOADS_TM_TENSOR}))", context=context)
    manager.run(ir.Module.create(ir.Location.unknown(context)).operation)


@dataclass(frozen=True)
class UpstreamPass:
    """A pass or pipeline that the bindings know.

    Attributes:
        name: the name alone.
        options: its options as text, without the braces.
        anchors: the ops between the module and the pass, outermost first: ("func.func",).
    """

    name: str
    options: str = ""
    anchors: tuple[str, ...] = ()

    def run(self, module: ir.Module) -> None:
        """Run the pass on a valid module.

        Raises:
            PatcError: the pass failed.
        """
        manager = PassManager.parse(self._pipeline, context=module.context)
        with mlir_errors(lambda message: f"{message} (in pass '{self.name}')"):
            manager.run(module.operation)

    def check(self, candidates: Iterable[str] = COMMON_PASSES) -> None:
        """Raise a `PatcError` where the bindings know no such pass, options, or place for it.

        What is wrong with the value of an option is told by LLVM alone, on the standard error of the process.

        Args:
            candidates: names that an unknown one may be meant for.
        """
        if not _is_text(self._pipeline):
            raise PatcError(f"expected the name and options of a pass as text, got '{self}'")
        reason = _rejection(self._pipeline)
        if f"'{self.name}' does not refer to a registered pass" in reason:
            raise PatcError(f"unknown pass '{self.name}'{nearest(self.name, candidates)}")
        if option := re.search(r"no such option (\S+)", reason):
            raise PatcError(f"pass '{self.name}' has no option '{option[1]}'")
        if place := _RESTRICTION.search(reason):
            raise PatcError(f"pass '{self.name}' expected to run on {place[1]}, got {place[2]}")
        if reason:
            why = "" if reason.startswith("failed to add") else f" ({reason})"
            raise PatcError(f"pass '{self.name}' expected legal options, got '{self.options}'{why}")

    def nested(self) -> UpstreamPass:
        """Return the pass inside the op that it is restricted to, if any, as flags of mlir-opt nest it."""
        place = _RESTRICTION.search(_rejection(self._pipeline)) if _is_text(self._pipeline) else None
        return replace(self, anchors=(*self.anchors, place[1])) if place else self

    @property
    def _pipeline(self) -> str:
        text = str(self)
        for anchor in reversed(("builtin.module", *self.anchors)):
            text = f"{anchor}({text})"
        return text

    def __str__(self) -> str:
        """Return name and options, without the anchors."""
        return f"{self.name}{{{self.options}}}" if self.options else self.name


def is_upstream(name: str) -> bool:
    """Return whether the bindings know a pass or pipeline of this name."""
    return _is_text(name) and "does not refer to a registered pass" not in _rejection(f"builtin.module({name})")


def _is_text(text: str) -> bool:
    """Return whether the bindings take `text`, which a word of a command line with bytes that are no UTF-8 is not."""
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False


@functools.cache
@compiling()
def _rejection(pipeline: str) -> str:
    """Return why the bindings do not take a pipeline, or ""."""
    try:
        # Pass names are global: any context will do, and an empty one is cheap.
        PassManager.parse(pipeline, context=ir.Context(load_on_create_dialects=[]))
    except ValueError as error:
        return one_line(str(error))
    return ""
