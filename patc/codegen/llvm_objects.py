"""Code for any CPU on any machine: LLVM IR of the torch-mlir wheel, machine code from llvmlite's LLVM.

The wheel's own LLVM generates code for one architecture only, that of the machine it is made for, and knows no library.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Sequence
from typing import Any

import llvmlite.binding as llvm
from torch_mlir import ir
from torch_mlir.dialects.llvm import translate_module_to_llvmir

from patc.codegen.float_literals import respell
from patc.codegen.host import READ_TIMER, lower_to_llvm
from patc.runtime.program import ENTRY
from patc.targets import Target

_TIMER_ASSEMBLY = f'asm sideeffect "{READ_TIMER}", "=r"()'
_TIMER_INTRINSIC = '@llvm.read_volatile_register.i64(metadata !{!"cntvct_el0"})'
# LLVM's models of these order loads so early that accumulators have to go to memory.
_SCHEDULED_AS = {"cortex-a53": "cortex-a55"} | dict.fromkeys(
    ("cortex-x1", "cortex-x2", "cortex-x3", "cortex-x4"), "cortex-a76"
)


def lower_to_llvm_ir(module: ir.Module, target: Target) -> str:
    """Lower a module of loops, vectors and memrefs, in place, and return it as LLVM IR text that llvmlite reads."""
    lower_to_llvm(module, target)
    _set_attributes(module, target)
    text = respell(translate_module_to_llvmir(module.operation))
    # llvmlite ends the process on assembly in the text.
    return text.replace(_TIMER_ASSEMBLY, _TIMER_INTRINSIC)


def _set_attributes(module: ir.Module, target: Target) -> None:
    """Say in every function how code is generated."""
    with module.context:
        # Or loops that clear memory become calls of memset: code is to need no C library.
        words: list[ir.Attribute] = [ir.StringAttr.get("no-builtins")]
        if target.cpu in _SCHEDULED_AS:
            pair = ("tune-cpu", _SCHEDULED_AS[target.cpu])
            words.append(ir.ArrayAttr.get([ir.StringAttr.get(word) for word in pair]))
        attributes = ir.ArrayAttr.get(words)
    for function in module.body.operations:
        if function.operation.name == "llvm.func" and function.regions[0].blocks:
            function.attributes["passthrough"] = attributes


def link_texts(text: str, others: Sequence[str], symbols: Sequence[str], runtime: str = "") -> str:
    """Return LLVM IR text of one module for several.

    Args:
        others: texts whose functions and constants become the module's own.
        symbols: what the function `main` of each of them is called then.
        runtime: a text that defines what all of them call.
    """
    module = llvm.parse_assembly(text)
    for other, symbol in zip(others, symbols, strict=True):
        part = llvm.parse_assembly(other)
        for value in (*part.global_variables, *part.functions):
            if value.name == ENTRY:
                value.name = symbol
            elif not value.is_declaration:
                value.name, value.linkage = f"{value.name}.{symbol}", "internal"
        module.link_in(part)
    module.link_in(llvm.parse_assembly(runtime))
    return str(module)


def optimize(text: str, target: Target, exported: Collection[str] = ()) -> Any:
    """Return LLVM IR text as an optimized llvmlite module.

    If `exported` names functions, all others are for the module alone; they stay functions of their own.
    """
    machine = _machine(target)
    module = llvm.parse_assembly(text)
    module.triple, module.data_layout = target.triple, str(machine.target_data)
    module.verify()
    for variable in module.global_variables if exported else ():
        if not variable.is_declaration and variable.linkage == llvm.Linkage.external:
            variable.linkage = "internal"
    for function in module.functions:
        if exported and not function.is_declaration and function.name not in exported:
            function.linkage = "internal"
            # Each is called once, which would make one function of a whole net.
            function.add_function_attribute("noinline")
    options = llvm.PipelineTuningOptions(speed_level=3)
    # The loop nests are unrolled and vectorized already.
    options.loop_unrolling = options.loop_vectorization = options.slp_vectorization = options.loop_interleaving = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return module


def emit_object(module: Any, target: Target) -> bytes:
    """Return an optimized module as a relocatable ELF file of position-independent code."""
    return bytes(_machine(target).emit_object(module))


def emit_assembly(module: Any, target: Target) -> str:
    """Return an optimized module as assembly text."""
    return str(_machine(target).emit_assembly(module))


def cpu_of(target: Target) -> str:
    """Return LLVM's name of the CPU that code is for."""
    return target.cpu or str(llvm.get_host_cpu_name())


@functools.cache
def _machine(target: Target) -> Any:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    kind = llvm.Target.from_triple(target.triple)
    features = ",".join(f"+{name}" for name in target.features)
    return kind.create_target_machine(cpu=cpu_of(target), features=features, opt=3, reloc="pic", codemodel="default")


def with_fixed_arguments(text: str) -> str:
    """Return LLVM IR whose calls of `__kmpc_fork_call` take no variable arguments, which few CPUs' code can read."""
    text = re.sub(r"^declare .*@__kmpc_fork_call\(.*$", "", text, flags=re.MULTILINE)
    return f"{text.replace('(ptr, i32, ptr, ...) @__kmpc_fork_call', '@__kmpc_fork_call')}\n{_DECLARATION}"


# As `patc.runtime.team` defines it.
_DECLARATION = "declare void @__kmpc_fork_call(ptr, i32, ptr, ptr)\n"
