"""The C functions of a net as LLVM IR text that goes behind the net's own.

They check what they are given and call the net. Weights are never text: embedded ones are a section of zeros, which
`elf.fill_section` fills once there is an object file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from patc.codegen.c_interface import (
    STATUSES,
    UNKNOWN_STATUS,
    WEIGHTS_ALIGNMENT,
    WORKSPACE_ALIGNMENT,
    Block,
    Entry,
    Interface,
)
from patc.codegen.cpu_check import ANY_CPU, cpu_check
from patc.runtime.program import ENTRY
from patc.targets import Target

_STATUS = {name: value for name, value, _ in STATUSES}


def weights_section(interface: Interface) -> str:
    """Return the name of the section that holds embedded weights."""
    return f".rodata.{interface.name}.weights"


def entry_points(interface: Interface, target: Target) -> str:
    """Return the definitions of `interface.functions`, all of which any CPU of the target's architecture runs."""
    check = cpu_check(target)
    kept = ANY_CPU if check else ""
    runs = [_run(interface, entry, kept) for entry in interface.entries]
    parts = [*_declarations(interface), _weights(interface), check, *runs]
    parts += [_workspace_bytes(interface, kept), _error(interface, kept)]
    if not interface.embedded:
        parts.append(_set_weights(interface, kept))
    return "\n".join(parts)


def _declarations(interface: Interface) -> list[str]:
    """Return declarations of the functions of all shapes but the first, which come from other modules."""
    types = {
        block.symbol: [
            *["ptr"] * (len(entry.inputs) + len(entry.outputs) + 1),
            *["i64"] * block.counts,
            *["ptr"] * (2 if interface.weights_bytes else 0),
        ]
        for entry in interface.entries
        for block in entry.blocks
    }
    return [f"declare void @{symbol}({', '.join(each)})\n" for symbol, each in types.items() if symbol != ENTRY]


def _weights(interface: Interface) -> str:
    name, size = interface.name, interface.weights_bytes
    if not interface.embedded:
        return f"@{name}.weights = internal global ptr null, align 8\n"
    if not size:
        return ""
    # Initialized externally: the optimizer must not take the zeros for granted. Used: nor drop those that no op reads.
    return (
        f"@{name}.weights = internal externally_initialized constant [{size} x i8] zeroinitializer, "
        f'section "{weights_section(interface)}", align {WEIGHTS_ALIGNMENT}\n'
        f'@llvm.compiler.used = appending global [1 x ptr] [ptr @{name}.weights], section "llvm.metadata"\n'
    )


def _run(interface: Interface, entry: Entry, kept: str) -> str:
    """Return the function of an entry.

    Args:
        kept: attributes that keep it to what any CPU has; where it is not empty, the CPU is asked whether it fits.
    """
    sizes = {f"%input{i}": info.element.bytes for i, info in enumerate(entry.inputs)}
    sizes |= {f"%output{i}": info.element.bytes for i, info in enumerate(entry.outputs)}
    tensors = list(sizes)
    arguments = [*tensors, "%workspace"]
    batch = "i64 %batch, " if entry.dynamic_batch else ""
    asked = "  %fit = call i1 @cpu.fits()\n  br i1 %fit, label %usable, label %unfit\nusable:\n" if kept else ""
    unfit = f"unfit:\n  ret i32 {_STATUS['ERROR_CPU']}\n" if kept else ""
    return f"""\
define i32 @{interface.name}_run{entry.suffix}({batch}{_pointers(arguments)}) {kept} {{
start:
{asked}{_check_null(arguments)}
aligned:
{_misalignment({**sizes, "%workspace": WORKSPACE_ALIGNMENT}, "low")}
  %crooked = icmp ne i64 %low, 0
  br i1 %crooked, label %alignment, label %loaded
loaded:
{_load_weights(interface)}
compute:
  %stamps = getelementptr i8, ptr %workspace, i64 {interface.arena_bytes}
{_compute(interface, entry, tensors)}
missing:
  ret i32 {_STATUS["ERROR_NULL"]}
alignment:
  ret i32 {_STATUS["ERROR_ALIGNMENT"]}
unset:
  ret i32 {_STATUS["ERROR_NO_WEIGHTS"]}
{unfit}}}
"""


def _compute(interface: Interface, entry: Entry, tensors: Sequence[str]) -> str:
    """Return instructions that call the net, once or for each block of images, and return."""
    # What needs neither arena nor weights takes neither.
    rest = ["ptr %workspace", "ptr %weights"] if interface.weights_bytes else []
    if not entry.dynamic_batch:
        arguments = ", ".join([_pointers([*tensors, "%stamps"]), *rest])
        return f"  call void @{entry.blocks[0].symbol}({arguments})\n  ret i32 {_STATUS['OK']}"
    steps = {
        name: info.nbytes // info.shape[0] for name, info in zip(tensors, (*entry.inputs, *entry.outputs), strict=True)
    }
    smallest = entry.blocks[-1].images
    multiple = 1 if entry.takes_any else smallest
    make = _parts if entry.takes_any else _loop
    loops = [make(number, entry.blocks, steps, rest) for number in range(len(entry.blocks))]
    return f"""\
  %left = urem i64 %batch, {multiple}
  %whole = icmp eq i64 %left, 0
  %some = icmp ne i64 %batch, 0
  %fits = and i1 %whole, %some
  %first0 = add i64 0, 0
  %rest0 = add i64 %batch, 0
  br i1 %fits, label %check0, label %size
{"".join(loops)}check{len(loops)}:
  ret i32 {_STATUS["OK"]}
size:
  ret i32 {_STATUS["ERROR_BATCH"]}"""


def _loop(number: int, blocks: Sequence[Block], steps: Mapping[str, int], rest: Sequence[str]) -> str:
    """Return instructions that compute as many whole blocks as the rest of the batch has, and go on to the next loop.

    Args:
        number: of the block.
        steps: bytes of an image, by tensor.
        rest: what functions of the net take behind the tensors and the time stamps.
    """
    block, k = blocks[number], number
    count = f"i64 {block.images}" if block.counts else ""
    return f"""\
check{k}:
  %count{k} = udiv i64 %rest{k}, {block.images}
  %covered{k} = mul i64 %count{k}, {block.images}
  %first{k + 1} = add i64 %first{k}, %covered{k}
  %rest{k + 1} = sub i64 %rest{k}, %covered{k}
  %none{k} = icmp eq i64 %count{k}, 0
  br i1 %none{k}, label %check{k + 1}, label %block{k}
block{k}:
  %i{k} = phi i64 [ 0, %check{k} ], [ %i{k}.next, %block{k} ]
  %before{k} = mul i64 %i{k}, {block.images}
  %image{k} = add i64 %first{k}, %before{k}
{_call(block, k, steps, [count] if count else [], rest)}
  %i{k}.next = add i64 %i{k}, 1
  %end{k} = icmp eq i64 %i{k}.next, %count{k}
  br i1 %end{k}, label %check{k + 1}, label %block{k}
"""


def _parts(number: int, blocks: Sequence[Block], steps: Mapping[str, int], rest: Sequence[str]) -> str:
    """Return instructions that compute the batch in nearly equal parts and return, if no smaller block takes all of it;
    else they go on to the next. See `_loop`."""
    block, k = blocks[number], number
    smaller = blocks[number + 1].images if number + 1 < len(blocks) else 0
    return f"""\
check{k}:
  %small{k} = icmp ule i64 %batch, {smaller}
  br i1 %small{k}, label %check{k + 1}, label %cut{k}
cut{k}:
  %above{k} = add i64 %batch, {block.images - 1}
  %count{k} = udiv i64 %above{k}, {block.images}
  br label %block{k}
block{k}:
  %i{k} = phi i64 [ 0, %cut{k} ], [ %i{k}.next, %block{k} ]
  %i{k}.next = add i64 %i{k}, 1
  %before{k} = mul i64 %i{k}, %batch
  %until{k} = mul i64 %i{k}.next, %batch
  %image{k} = udiv i64 %before{k}, %count{k}
  %behind{k} = udiv i64 %until{k}, %count{k}
  %own{k} = sub i64 %behind{k}, %image{k}
{_call(block, k, steps, [f"i64 %own{k}"] if block.counts else [], rest)}
  %end{k} = icmp eq i64 %i{k}.next, %count{k}
  br i1 %end{k}, label %check{len(blocks)}, label %block{k}
"""


def _call(block: Block, k: int, steps: Mapping[str, int], count: Sequence[str], rest: Sequence[str]) -> str:
    """Return the call of a function of the net for the images from %image on."""
    lines = []
    for name, step in steps.items():
        lines.append(f"  {name}.offset{k} = mul i64 %image{k}, {step}")
        lines.append(f"  {name}.block{k} = getelementptr i8, ptr {name}, i64 {name}.offset{k}")
    pointers = _pointers([*(f"{name}.block{k}" for name in steps), "%stamps"])
    lines.append(f"  call void @{block.symbol}({', '.join([pointers, *count, *rest])})")
    return "\n".join(lines)


def _load_weights(interface: Interface) -> str:
    """Return instructions that leave the address of the weights in %weights and go on to %compute, or to %unset."""
    symbol = f"@{interface.name}.weights"
    if interface.embedded:
        address = symbol if interface.weights_bytes else "null"
        return f"  %weights = getelementptr i8, ptr {address}, i64 0\n  br i1 false, label %unset, label %compute"
    return f"""\
  %weights = load atomic ptr, ptr {symbol} acquire, align 8
  %none = icmp eq ptr %weights, null
  br i1 %none, label %unset, label %compute"""


def _set_weights(interface: Interface, kept: str) -> str:
    return f"""\
define i32 @{interface.name}_set_weights(ptr %data, i64 %bytes) {kept} {{
start:
{_check_null(["%data"])}
aligned:
  %bits = ptrtoint ptr %data to i64
  %low = and i64 %bits, {WEIGHTS_ALIGNMENT - 1}
  %crooked = icmp ne i64 %low, 0
  br i1 %crooked, label %alignment, label %sized
sized:
  %fits = icmp eq i64 %bytes, {interface.weights_bytes}
  br i1 %fits, label %word, label %wrong
word:
  %i = phi i64 [ 0, %sized ], [ %i.next, %word ]
  %sum = phi i64 [ 0, %sized ], [ %sum.next, %word ]
  %address = getelementptr i64, ptr %data, i64 %i
  %value = load i64, ptr %address, align 8
  %twice = shl i64 %i, 1
  %factor = or i64 %twice, 1
  %product = mul i64 %value, %factor
  %sum.next = add i64 %sum, %product
  %i.next = add i64 %i, 1
  %end = icmp eq i64 %i.next, {interface.weights_bytes // 8}
  br i1 %end, label %summed, label %word
summed:
  %right = icmp eq i64 %sum.next, {interface.weights_checksum}
  br i1 %right, label %take, label %wrong
take:
  store atomic ptr %data, ptr @{interface.name}.weights release, align 8
  ret i32 {_STATUS["OK"]}
missing:
  ret i32 {_STATUS["ERROR_NULL"]}
alignment:
  ret i32 {_STATUS["ERROR_ALIGNMENT"]}
wrong:
  ret i32 {_STATUS["ERROR_WRONG_WEIGHTS"]}
}}
"""


def _workspace_bytes(interface: Interface, kept: str) -> str:
    return f"""\
define i64 @{interface.name}_workspace_bytes() {kept} {{
  ret i64 {interface.workspace_bytes}
}}
"""


def _error(interface: Interface, kept: str) -> str:
    name = interface.name
    texts = [(value, text) for _, value, text in STATUSES]
    lines = [_string(f"{name}.text.{value}", text) for value, text in texts]
    lines.append(_string(f"{name}.text.unknown", UNKNOWN_STATUS))
    cases = " ".join(f"i32 {value}, label %case{value}" for value, _ in texts)
    lines += [f"define ptr @{name}_error(i32 %status) {kept} {{", f"  switch i32 %status, label %unknown [ {cases} ]"]
    for value, _ in texts:
        lines += [f"case{value}:", f"  ret ptr @{name}.text.{value}"]
    return "\n".join([*lines, "unknown:", f"  ret ptr @{name}.text.unknown", "}", ""])


def _string(symbol: str, text: str) -> str:
    return f'@{symbol} = private unnamed_addr constant [{len(text) + 1} x i8] c"{text}\\00", align 1'


def _pointers(names: Sequence[str]) -> str:
    return ", ".join(f"ptr {name}" for name in names)


def _check_null(names: Sequence[str]) -> str:
    """Return instructions that go on to %missing if one of the pointers is null, else to %aligned."""
    lines = [f"  {name}.null = icmp eq ptr {name}, null" for name in names]
    total = f"{names[0]}.null"
    for name in names[1:]:
        lines.append(f"  {name}.any = or i1 {total}, {name}.null")
        total = f"{name}.any"
    return "\n".join([*lines, f"  br i1 {total}, label %missing, label %aligned"])


def _misalignment(alignments: Mapping[str, int], result: str) -> str:
    """Return instructions that leave 0 in %result if each address is a multiple of its alignment."""
    lines, total = [], "0"
    for name, alignment in alignments.items():
        lines.append(f"  {name}.bits = ptrtoint ptr {name} to i64")
        lines.append(f"  {name}.low = and i64 {name}.bits, {alignment - 1}")
        lines.append(f"  {name}.union = or i64 {total}, {name}.low")
        total = f"{name}.union"
    return "\n".join([*lines, f"  %{result} = or i64 {total}, 0"])
