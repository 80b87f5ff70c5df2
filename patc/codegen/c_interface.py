"""The C interface of a compiled net: its names and sizes, the header, and what its error codes mean."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from patc import __version__
from patc.integers import ceil_div
from patc.runtime.program import ENTRY, Program, TensorInfo

WORKSPACE_ALIGNMENT = 64
WEIGHTS_ALIGNMENT = 64

# Name, value and meaning of each status that a function returns.
STATUSES = (
    ("OK", 0, "no error"),
    ("ERROR_NULL", 1, "a pointer is null"),
    ("ERROR_ALIGNMENT", 2, "a pointer is not aligned as the header says"),
    ("ERROR_NO_WEIGHTS", 3, "the weights are not set"),
    ("ERROR_WRONG_WEIGHTS", 4, "these are not the weights of this library, or they are damaged"),
    ("ERROR_BATCH", 5, "the batch is 0, or no multiple of the images that are computed at once"),
    ("ERROR_CPU", 6, "the processor, or its system, lacks instructions that the library is made of"),
)
UNKNOWN_STATUS = "unknown error"
_BLOCK = 1 << 20  # words whose checksum is taken at once


class Block(NamedTuple):
    """A function of the net.

    Attributes:
        symbol: its name.
        images: how many it computes at once; 0 where the batch is fixed.
        counts: whether it takes how many images there are, and computes no others.
    """

    symbol: str
    images: int
    counts: bool


@dataclass(frozen=True)
class Entry:
    """The C function for inputs of some shapes.

    Attributes:
        suffix: of its name, and in capitals of its constants: nothing for the first.
        inputs, outputs: the tensors, in the order of the pointers; of a dynamic batch those of the smallest block.
        blocks: functions of the net that it calls, the most images first.
        dynamic_batch: whether a call says how many images there are.
    """

    suffix: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    blocks: tuple[Block, ...]
    dynamic_batch: bool

    @property
    def takes_any(self) -> bool:
        """Whether a call may have any number of images; else it has whole blocks."""
        return all(block.counts or block.images == 1 for block in self.blocks)


@dataclass(frozen=True)
class Interface:
    """What the C functions of a net are called and take.

    Attributes:
        name: prefix of the functions; in capitals, of the constants.
        title: what the user calls the model.
        entries: the functions that compute, for the shapes of the example and for others.
        arena_bytes: memory for activations, a multiple of the workspace's alignment.
        layers: how many, of the entry with the most; the workspace ends with a time stamp before each and one after
            the last.
        weights_bytes: size of the weights, with the zeros that `padded_weights` adds.
        weights_checksum: `checksum` of the same.
        embedded: whether the weights are part of the code; else `<name>_set_weights` takes them.
        threads: threads that share the work of a call.
        target, cpu: system and CPU that the code is for.
    """

    name: str
    title: str
    entries: tuple[Entry, ...]
    arena_bytes: int
    layers: int
    weights_bytes: int
    weights_checksum: int
    embedded: bool
    threads: int
    target: str
    cpu: str

    @property
    def workspace_bytes(self) -> int:
        """Size of the memory that a call works in."""
        return _round_up(self.arena_bytes + 8 * (self.layers + 1), WORKSPACE_ALIGNMENT)

    @property
    def functions(self) -> tuple[str, ...]:
        """The symbols that a library offers."""
        names = (
            *(f"run{entry.suffix}" for entry in self.entries),
            "workspace_bytes",
            "error",
            *(() if self.embedded else ("set_weights",)),
        )
        return tuple(f"{self.name}_{name}" for name in names)


def describe_interface(program: Program, title: str, name: str, cpu: str, embed: bool) -> Interface:
    """Return the interface of a program; a net without weights has none to set."""
    weights = padded_weights(program.weights)
    return Interface(
        name=name,
        title=title,
        entries=_describe_entries(program),
        arena_bytes=_round_up(max(entry.arena_bytes for entry in program.entries), WORKSPACE_ALIGNMENT),
        layers=max(len(entry.layers) for entry in program.entries),
        weights_bytes=weights.nbytes,
        weights_checksum=checksum(weights),
        embedded=embed or weights.nbytes == 0,
        threads=program.threads,
        target=program.target.partition(":")[0],
        cpu=cpu,
    )


def _describe_entries(program: Program) -> tuple[Entry, ...]:
    groups: dict[Any, list[tuple[Program, str]]] = {}
    for number, entry in enumerate(program.entries):
        groups.setdefault(entry.key, []).append((entry, entry_symbol(number)))
    found = []
    for number, group in enumerate(groups.values()):
        blocks = sorted(group, key=lambda item: -item[0].block)
        smallest = blocks[-1][0]
        sizes = tuple(Block(symbol, entry.block, entry.counts_images) for entry, symbol in blocks)
        suffix = f"_{number}" if number else ""
        found.append(Entry(suffix, smallest.inputs, smallest.outputs, sizes, program.dynamic_batch))
    return tuple(found)


def entry_symbol(number: int) -> str:
    """Return what an entry's function of the net is called in a library."""
    return f"{ENTRY}.{number}" if number else ENTRY


def c_identifier(text: str) -> str:
    """Return a name for C made of `text`: `my-net` becomes my_net, `3d` becomes net_3d."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", text).strip("_")
    return name if name and not name[0].isdigit() else f"net_{name}".rstrip("_")


def padded_weights(weights: np.ndarray) -> np.ndarray:
    """Return bytes followed by zeros up to a multiple of their alignment, as files of weights have them; the array
    itself where that adds nothing."""
    missing = -weights.nbytes % WEIGHTS_ALIGNMENT
    return np.pad(weights, (0, missing)) if missing else weights


def checksum(data: np.ndarray) -> int:
    """Return the sum of the i-th word of 8 bytes times 2i + 1, modulo 2^64: one changed word changes it for sure."""
    words, total = data.view("<u8"), 0
    for start in range(0, len(words), _BLOCK):
        block = words[start : start + _BLOCK]
        factors = 2 * np.arange(start, start + len(block), dtype=np.uint64) + np.uint64(1)
        total += int(np.sum(block * factors, dtype=np.uint64))
    return total % 2**64


def _round_up(size: int, unit: int) -> int:
    return ceil_div(size, unit) * unit


def header(interface: Interface) -> str:
    """Return the text of the C header."""
    name, prefix = interface.name, interface.name.upper()
    guard = f"{prefix}_H"
    parts = [
        f"/* {_comment(interface.title)}, compiled by patc {__version__} for {interface.target} ({interface.cpu}).",
        *_usage(interface),
        " */",
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        "#include <stddef.h>",
        "#include <stdint.h>",
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        f'#define {prefix}_VERSION "{__version__}" /* of the compiler */',
        f"#define {prefix}_THREADS {interface.threads}",
        f"#define {prefix}_WORKSPACE_BYTES {interface.workspace_bytes}",
        f"#define {prefix}_WORKSPACE_ALIGNMENT {WORKSPACE_ALIGNMENT}",
        f"#define {prefix}_WEIGHTS_BYTES {0 if interface.embedded else interface.weights_bytes}"
        f"{' /* they are part of the library */' if interface.embedded else ''}",
        f"#define {prefix}_WEIGHTS_ALIGNMENT {WEIGHTS_ALIGNMENT}",
        "",
        *(line for entry in interface.entries for line in _tensors(interface, entry)),
        "/* What the functions return. */",
        f"enum {name}_status {{",
        *(f"  {prefix}_{status} = {value}, /* {meaning} */" for status, value, meaning in STATUSES),
        "};",
        "",
        "/* Computes the outputs. Tensors are dense, in C order, and aligned to their elements; outputs overlap",
        f"   nothing else. `workspace` has {prefix}_WORKSPACE_BYTES bytes, aligned to {WORKSPACE_ALIGNMENT}; what is",
        "   in it does not matter, before or after. Any thread may call, several at the same time as well if each has",
        f"   a workspace and outputs of its own{_turns(interface)}. */",
        *(f"int {name}_run{entry.suffix}({_arguments(entry)});" for entry in interface.entries),
        "",
        f"/* Returns {prefix}_WORKSPACE_BYTES of the library that is loaded, which may not be that of this header. */",
        f"size_t {name}_workspace_bytes(void);",
        "",
        "/* Returns what a status means, in one line. */",
        f"const char *{name}_error(int status);",
        "",
        *_set_weights(interface),
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "",
        f"#endif /* {guard} */",
    ]
    return "\n".join(parts) + "\n"


def _turns(interface: Interface) -> str:
    return "" if interface.threads == 1 else "; they take turns, as each computes with all threads"


def _usage(interface: Interface) -> list[str]:
    if interface.threads == 1:
        return ["   One thread computes, that of the caller; link with nothing else."]
    return [
        f"   {interface.threads} threads share each layer: that of the caller, and others that the first call starts",
        "   and that sleep between calls: POSIX threads, so link with -pthread where the C library does not have them.",
    ]


def _arguments(entry: Entry) -> str:
    parameters = ["size_t batch"] if entry.dynamic_batch else []
    parameters += [f"const {info.element.c} *input{i}" for i, info in enumerate(entry.inputs)]
    parameters += [f"{info.element.c} *output{i}" for i, info in enumerate(entry.outputs)]
    return ", ".join([*parameters, "void *workspace"])


def _tensors(interface: Interface, entry: Entry) -> list[str]:
    """Return the constants of an entry."""
    prefix = f"{interface.name}{entry.suffix}".upper()
    lines = [f"/* For {interface.name}_run{entry.suffix}: */"] if len(interface.entries) > 1 else []
    if entry.dynamic_batch:
        sizes = [block.images for block in entry.blocks]
        together = f"; {sizes[0]} are computed at once where there are as many" if len(sizes) > 1 else ""
        multiple = "any number from 1" if entry.takes_any else f"a multiple of {prefix}_BLOCK"
        lines += [
            f"/* {interface.name}_run{entry.suffix} takes `batch` images, the first dimension of all tensors:",
            f"   {multiple}{together}. The shapes below are those of a block. */",
            f"#define {prefix}_BLOCK {sizes[-1]}",
            "",
        ]
    return [*lines, *_constants(prefix, "INPUT", entry.inputs), *_constants(prefix, "OUTPUT", entry.outputs)]


def _constants(prefix: str, kind: str, infos: Sequence[TensorInfo]) -> list[str]:
    lines = []
    for i, info in enumerate(infos):
        macro = f"{prefix}_{kind}{i}"
        size = " x ".join(map(str, info.shape)) or "1"
        lines.append(f"/* {kind.lower()}{i}: '{_comment(info.name)}', {size} of {info.dtype} */")
        lines.append(f"#define {macro}_DIMENSIONS {len(info.shape)}")
        if info.shape:
            lines.append(f"#define {macro}_SHAPE {{{', '.join(map(str, info.shape))}}}")
        lines += [f"#define {macro}_ELEMENTS {math.prod(info.shape)}", ""]
    return lines


def _set_weights(interface: Interface) -> list[str]:
    if interface.embedded:
        return []
    name, prefix = interface.name, interface.name.upper()
    return [
        f"/* Takes the bytes of the file {name}.weights, {prefix}_WEIGHTS_BYTES at an address aligned to",
        f"   {WEIGHTS_ALIGNMENT}; any others are refused. They are used in place: keep them while",
        f"   {name}_run may be called. A file that is mapped by mmap will do. */",
        f"int {name}_set_weights(const void *data, size_t bytes);",
        "",
    ]


def _comment(text: str) -> str:
    """Return text that neither ends a comment nor starts another one."""
    return re.sub(r"[^\x20-\x7e]|[*\\?]", "_", text)
