"""`pattern-to-spirv`: a SPIR-V module for every kernel, as Vulkan 1.1 devices accept it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch_mlir import ir
from torch_mlir.dialects import arith, memref, spirv
from torch_mlir.passmanager import PassManager

from patc.capabilities import DOT, USERS, needed_by
from patc.passes.base import Pass, PassState, fail
from patc.passes.ir.elements import element_bytes
from patc.passes.ir.functions import defined_functions, top_level_ops
from patc.passes.kernels.dots import PACKED
from patc.passes.kernels.gpu.kernel import EXACT

_VERSION = "v1.3"  # of SPIR-V: what Vulkan 1.1 takes, and the last one for which MLIR lists interfaces rightly
_CAPABILITIES, _EXTENSIONS = ("Shader",), ("SPV_KHR_storage_buffer_storage_class",)  # that every kernel needs
_CONTRACTED = ("spirv.FAdd", "spirv.FSub", "spirv.FMul")
_PREPARE = (
    "builtin.module(affine-expand-index-ops,lower-affine,canonicalize,cse,loop-invariant-code-motion,map-memref-spirv-storage-class{client-api=vulkan},"
    "arith-expand,canonicalize,cse)"
)
_CONVERT = (
    "builtin.module(gpu.module(convert-math-to-spirv),convert-gpu-to-spirv{use-64bit-index=false},"
    "spirv.module(canonicalize,cse,spirv-lower-abi-attrs,spirv-update-vce))"
)


@dataclass(frozen=True)
class PatternToSpirv(Pass):
    """Convert every gpu kernel to a SPIR-V module of its own, in front of it.

    Requires: kernels (`pattern-map-to-gpu`) whose arguments are one-dimensional memrefs and indices, each launched from
        a function whose arguments are the buffers.
    Ensures: each `gpu.module` has a `spirv.module` with its entry point in front of it, of SPIR-V 1.3 and for Vulkan
        1.1. The n-th argument of the launching function is binding n of set 0, seen as all the types that a kernel
        loads; what a kernel never stores to is NonWritable. Indices are push constants, 32 bits each, in order. Kernels
        of f16 ask for the capabilities Float16 and StorageBuffer16BitAccess, those of f64 and i64 for Float64 and
        Int64, those with dot products of integers for DotProduct and DotProductInput4x8BitPacked
        (`patc.capabilities`), others for Shader alone.

        gpu.func @k(%a: memref<?xvector<4xf32>>, %n: index) kernel
      becomes
        spirv.GlobalVariable @k_arg_0 bind(0, 0) : !spirv.ptr<!spirv.struct<(!spirv.rtarray<vector<4xf32>, ...
        spirv.GlobalVariable @k_arg_1 : !spirv.ptr<!spirv.struct<(!spirv.array<1 x i32, stride=4> [0])>, PushConstant>
        spirv.func @k() ...
        spirv.EntryPoint "GLCompute" @k, ...

    Idempotent: a kernel that has a SPIR-V module keeps it.

    The limits that kernels are checked against are by default those that every device of Vulkan 1.1 has. There are no
    specialization constants: sizes are numbers of a launch, and what a kernel is made for (taps, rows, threads) is the
    shape of its code.

    Raises:
        PatcError: a kernel is never launched, has arguments of other types, or needs more than the limits.
    """

    name: ClassVar[str] = "pattern-to-spirv"

    push_bytes: int = field(default=128, metadata={"help": "most bytes of push constants", "minimum": 128})
    workgroup_bytes: int = field(default=16384, metadata={"help": "most workgroup memory", "minimum": 16384})
    workgroup_threads: int = field(default=128, metadata={"help": "most threads of a workgroup", "minimum": 128})

    def run(self, module: ir.Module, state: PassState) -> None:
        done = {_symbol(op) for op in module.body.operations if op.operation.name == "spirv.module"}
        bindings = _bindings(module)
        for op in list(module.body.operations):
            if op.operation.name == "gpu.module" and spirv_name(_symbol(op)) not in done:
                _convert(op, bindings, self)


def spirv_name(kernel: str) -> str:
    """Return the name of the SPIR-V module of a gpu module."""
    return f"__spv__{kernel}"


def _symbol(op: Any) -> str:
    name: str = op.attributes["sym_name"].value
    return name


def _bindings(module: ir.Module) -> dict[str, list[int]]:
    """Return for each launched kernel which argument of the launching function each of its buffers is."""
    found: dict[str, list[int]] = {}
    for function in defined_functions(module):
        for op in top_level_ops(function):
            if op.operation.name != "gpu.launch_func":
                continue
            kernel = next(iter(op.attributes["kernel"].value))
            buffers = [value for value in op.kernelOperands if isinstance(value.type, ir.MemRefType)]
            numbers = [_argument(op, value) for value in buffers]
            if found.setdefault(kernel, numbers) != numbers:
                raise fail(op, f"the buffers {found[kernel]} of the first launch of this kernel", numbers)
    return found


def _argument(launch: Any, value: ir.Value) -> int:
    while not isinstance(value.owner, ir.Block) and value.owner.name == "memref.view":
        value = value.owner.operands[0]
    if not isinstance(value.owner, ir.Block):
        raise fail(launch, "buffers that are arguments of the function, or views of them", value.owner.name)
    return ir.BlockArgument(value).arg_number


def _convert(module: Any, bindings: dict[str, list[int]], limits: PatternToSpirv) -> None:
    name = _symbol(module)
    if name not in bindings:
        raise fail(module, "a kernel that is launched", f"@{name}, which is not")
    with module.location:
        alone = ir.Module.create()
        with ir.InsertionPoint(alone.body):
            kernel = module.operation.clone()
    function = _kernel_function(kernel)
    numbers = bindings[name]
    written = _written(function, numbers)
    shared = {number for number in written if numbers.count(number) > 1}
    _check_limits(function, limits)
    _make_entry_point(function, numbers)
    capabilities, extensions = target_environment(str(kernel))
    environment = ir.Attribute.parse(
        f"#spirv.target_env<#spirv.vce<{_VERSION}, [{', '.join(capabilities)}], [{', '.join(extensions)}]>, "
        "api=Vulkan, #spirv.resource_limits<>>"
    )
    alone.operation.attributes["spirv.target_env"] = environment
    kernel.attributes["targets"] = ir.ArrayAttr.get([environment])
    PassManager.parse(_PREPARE).run(alone.operation)
    has_dots = _hide_dots(alone)
    PassManager.parse(_CONVERT).run(alone.operation)
    converted = next(op for op in alone.body.operations if op.operation.name == "spirv.module")
    if has_dots:
        _show_dots(converted)
    for op in converted.regions[0].blocks[0].operations:
        if op.operation.name == "spirv.GlobalVariable" and "binding" in op.attributes:
            _decorate(op, written, shared)
    if EXACT in module.attributes:
        _forbid_contraction(converted)
    with ir.InsertionPoint(module):
        converted.operation.clone()


def _kernel_function(module: Any) -> Any:
    """Return the only function of a gpu module.

    Raises:
        PatcError: there are none or several, or it has what the conversion would not survive.
    """
    functions = [op for op in module.regions[0].blocks[0].operations if op.operation.name == "gpu.func"]
    if len(functions) != 1:
        raise fail(module, "one gpu.func", len(functions))
    function = functions[0]
    if "known_block_size" not in function.attributes:
        raise fail(function, "the attribute 'known_block_size'", "none")
    if "workgroup_attributions" in function.attributes:  # which the conversion would end the process for
        raise fail(function, "no workgroup attributions", function.attributes["workgroup_attributions"].value)
    for argument in function.regions[0].blocks[0].arguments:
        type_ = argument.type
        is_buffer = isinstance(type_, ir.MemRefType) and type_.rank == 1 and type_.memory_space is None
        if not is_buffer and not isinstance(type_, ir.IndexType):
            raise fail(function, "arguments that are one-dimensional memrefs and indices", type_)
    return function


def _written(function: Any, bindings: list[int]) -> set[int]:
    """Return the bindings that a kernel stores to."""
    buffers = [value for value in function.regions[0].blocks[0].arguments if isinstance(value.type, ir.MemRefType)]
    return {
        binding
        for value, binding in zip(buffers, bindings, strict=True)
        if any(use.owner.name == "memref.store" for use in value.uses)
    }


def _decorate(variable: Any, written: set[int], shared: set[int]) -> None:
    """Say of a buffer that it is only read, which lets drivers load it once for many threads, or that it is written and
    seen as several types; take the binding from push constants, which have none: the conversion gives one to all."""
    if "PushConstant" in str(variable.attributes["type"]):
        for attribute in ("binding", "descriptor_set"):
            del variable.attributes[attribute]
        return
    binding = variable.attributes["binding"].value
    if binding not in written:
        variable.attributes["non_writable"] = ir.UnitAttr.get()
    if binding in shared:
        variable.attributes["aliased"] = ir.UnitAttr.get()


# The conversion refuses dot products whatever the environment has: it asks for one of no extensions. Meanwhile another
# op is in their place, that nothing else is converted to.
_STAND_IN = "spirv.BitFieldUExtract"


def _hide_dots(module: ir.Module) -> bool:
    """Put other ops in the place of the dot products of a module; return whether there are any."""
    found = _ops_named(module.operation, DOT)
    for op in found:
        with ir.InsertionPoint(op), op.location:
            data, weights = op.operands
            made = ir.Operation.create(_STAND_IN, [data.type], [data, weights, weights])
        op.results[0].replace_all_uses_with(made.results[0])
        op.erase()
    return bool(found)


def _show_dots(converted: Any) -> None:
    """Put the dot products of a SPIR-V module back, and tell what they need."""
    for op in _ops_named(converted.operation, _STAND_IN):
        with ir.InsertionPoint(op), op.location:
            data, weights, _ = op.operands
            made = spirv.SDotOp(op.results[0].type, data, weights, format=ir.Attribute.parse(PACKED))
        op.results[0].replace_all_uses_with(made.result)
        op.erase()
    found = re.fullmatch(r"#spirv\.vce<(\S+), \[(.*)\], \[(.*)\]>", str(converted.attributes["vce_triple"]))
    assert found is not None, "what modules need is known"
    version, *known = found.groups()
    more = [item.name for item in needed_by(DOT)], dict.fromkeys(item.extension for item in needed_by(DOT))
    lists = (", ".join(filter(None, (part, *added))) for part, added in zip(known, more, strict=True))
    needed = f"#spirv.vce<{version}, " + ", ".join(f"[{names}]" for names in lists) + ">"
    converted.attributes["vce_triple"] = ir.Attribute.parse(needed)


def _ops_named(root: ir.Operation, name: str) -> list[ir.Operation]:
    found: list[ir.Operation] = []

    def visit(op: ir.Operation) -> ir.WalkResult:
        if op.name == name:
            found.append(op)
        return ir.WalkResult.ADVANCE

    root.walk(visit)
    return found


def _forbid_contraction(converted: Any) -> None:
    """Let no driver compute sums and products otherwise than written, as (a + b) - b without rounding."""
    for name in _CONTRACTED:
        for op in _ops_named(converted.operation, name):
            op.attributes["no_contraction"] = ir.UnitAttr.get()


def target_environment(kernel: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the capabilities and extensions that a kernel, as text, may use. Without both of those of f16 MLIR would
    silently make buffers of f16 ones of f32."""
    users = [user for user in USERS if re.search(rf"\b\d*x?{re.escape(user)}\b", kernel)]
    needed = [item for user in users for item in needed_by(user)]
    extensions = dict.fromkeys(item.extension for item in needed if item.extension)
    return (*_CAPABILITIES, *(item.name for item in needed)), (*_EXTENSIONS, *extensions)


def _make_entry_point(function: Any, bindings: list[int]) -> None:
    """Give a kernel the interface that Vulkan knows: buffers with their bindings, and one block of push constants."""
    block = function.regions[0].blocks[0]
    numbers = [argument for argument in block.arguments if isinstance(argument.type, ir.IndexType)]
    threads = list(function.attributes["known_block_size"])
    with function.location:
        if numbers:
            _push(block, numbers)
        interface = [f"#spirv.interface_var_abi<(0, {number})>" for number in bindings]
        # Push constants have no binding; the conversion wants one for every argument.
        interface += ["#spirv.interface_var_abi<(0, 0)>"] * bool(numbers)
        types = [argument.type for argument in block.arguments]
        function.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(types, []))
        function.attributes["arg_attrs"] = ir.ArrayAttr.get(
            [ir.DictAttr.get({"spirv.interface_var_abi": ir.Attribute.parse(text)}) for text in interface]
        )
        abi = f"#spirv.entry_point_abi<workgroup_size = {threads}>"
        function.attributes["spirv.entry_point_abi"] = ir.Attribute.parse(abi)
        space = ir.Attribute.parse("#spirv.storage_class<Workgroup>")
        for op in block.operations:
            if op.operation.name == "memref.alloc":
                type_ = op.results[0].type
                op.results[0].set_type(ir.MemRefType.get(type_.shape, type_.element_type, memory_space=space))


def _push(block: ir.Block, numbers: list[ir.Value]) -> None:
    """Replace index arguments by loads of push constants."""
    i32, index = ir.IntegerType.get_signless(32), ir.IndexType.get()
    space = ir.Attribute.parse("#spirv.storage_class<PushConstant>")
    type_ = ir.MemRefType.get([len(numbers)], i32, memory_space=space)
    constants = block.add_argument(type_, ir.Location.unknown())
    with ir.InsertionPoint.at_block_begin(block):
        for place, argument in enumerate(numbers):
            loaded = memref.LoadOp(constants, [arith.ConstantOp(index, place).result]).result
            argument.replace_all_uses_with(arith.IndexCastOp(index, loaded).result)
    for place in reversed(range(len(block.arguments))):
        if isinstance(block.arguments[place].type, ir.IndexType):
            block.erase_argument(place)


def _check_limits(function: Any, limits: PatternToSpirv) -> None:
    """Refuse what the device may not have."""
    arguments = function.regions[0].blocks[0].arguments
    pushed = 4 * sum(isinstance(argument.type, ir.IndexType) for argument in arguments)
    needs = [
        ("bytes of push constants", pushed, limits.push_bytes),
        ("bytes of workgroup memory", shared_bytes(function), limits.workgroup_bytes),
        ("threads of a workgroup", math.prod(function.attributes["known_block_size"]), limits.workgroup_threads),
    ]
    for what, needed, allowed in needs:
        if needed > allowed:
            raise fail(function, f"at most {allowed} {what}", needed)


def shared_bytes(function: Any) -> int:
    """Return the workgroup memory of a gpu kernel, in bytes."""
    ops = function.regions[0].blocks[0].operations
    return sum(_bytes(op.results[0].type) for op in ops if op.operation.name == "memref.alloc")


def _bytes(type_: Any) -> int:
    element, count = type_.element_type, type_.shape[0]
    lanes = element.shape[0] if isinstance(element, ir.VectorType) else 1
    return int(count * lanes * element_bytes(element))
