"""Modules on disk: MLIR text, and the arrays behind its `pattern.parameter` ops beside it.

    module attributes {pattern.parameters = "resnet18.safetensors"} { ... }

The attribute names a safetensors file relative to the text. A file without it may still have
`pattern.parameter` ops: they parse and print, but have no data.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch_mlir import ir

from patc.diagnostics import PatcError
from patc.dialects.pattern import ParameterOp
from patc.files import atomic_write, atomic_write_all, is_stream, note_read
from patc.ir_diagnostics import verifier_errors
from patc.locks import compiling
from patc.mlir_limits import MOST_ELEMENTS, check_text
from patc.mlir_resources import take_resources
from patc.parameters import ParameterStore

SIDECAR_ATTRIBUTE = "pattern.parameters"
SPLIT_MARKER = "// -----"
MOST_BYTES = 1 << 30  # devices never end

# What the bindings call a text that does not come from a file.
TEXT_NAME = "-"


@compiling()
def read_module(path: str | os.PathLike[str], context: ir.Context) -> tuple[ir.Module, ParameterStore]:
    """Read a module and its parameters; its locations carry the file's name.

    Raises:
        PatcError: the file is missing, unreadable or not valid MLIR, or its parameters do not fit.
    """
    text = _read(path)
    check_text(text, os.fspath(path))
    with context, verifier_errors():
        if _is_utf8(path) and os.path.isfile(path):
            module = ir.Module.parseFile(os.fspath(path), context)
        else:  # a pipe, which can be read once, or a name that the bindings do not take
            module = ir.Module.parse(text.decode(errors="replace"), context)
    return module, _load_parameters(module, Path(path).parent)


@compiling()
def parse_module(
    text: str, context: ir.Context, first_line: int = 1, folder: str | os.PathLike[str] = "."
) -> tuple[ir.Module, ParameterStore]:
    """Parse a module and read its parameters; its locations carry the name "-".

    Args:
        text: MLIR text; functions need no module around them.
        context: where the module lives.
        first_line: the line number of the first line, for a text that is part of a file.
        folder: what the name of the parameter file is relative to.

    Raises:
        PatcError: the text is not valid MLIR, or its parameters do not fit.
    """
    check_text(text.encode(errors="replace"), TEXT_NAME)
    with context, verifier_errors():
        module = ir.Module.parse("\n" * (first_line - 1) + text, context)
    return module, _load_parameters(module, Path(folder))


def read_text(path: str | os.PathLike[str]) -> str:
    """Return the text of a file; bytes that are no UTF-8 become what the parser rejects.

    Raises:
        PatcError: the file is missing or unreadable.
    """
    return _read(path).decode(errors="replace")


def split_text(text: str) -> list[tuple[int, str]]:
    """Return the parts between `// -----` lines, each with the number of its first line."""
    parts, start, first_line = [], 0, 1
    for marker in re.finditer(rf"^[ \t]*{SPLIT_MARKER}[ \t]*$\n?", text, re.MULTILINE):
        parts.append((first_line, text[start : marker.start()]))
        first_line += text.count("\n", start, marker.end())
        start = marker.end()
    return [*parts, (first_line, text[start:])]


@compiling()
def print_modules(modules: Sequence[ir.Module], **print_options: Any) -> str:
    """Return the text of valid modules, with `// -----` lines between them.

    Args:
        modules: what to print.
        print_options: arguments of `Operation.get_asm`.
    """
    texts = (module.operation.get_asm(assume_verified=True, **print_options) for module in modules)
    return f"{SPLIT_MARKER}\n".join(text.rstrip("\n") + "\n" for text in texts)


def sidecar_path(path: str | os.PathLike[str], index: int = 0) -> Path:
    """Return where the parameters of part `index` of an MLIR file lie."""
    return Path(path).with_suffix(f".{index}.safetensors" if index else ".safetensors")


def write_module(
    module: ir.Module, store: ParameterStore, path: str | os.PathLike[str], **print_options: Any
) -> list[str]:
    """Write a module to `path` and the parameters it still uses to a `.safetensors` file of the same name.

    The module gets, or loses, the attribute that names the file. Nothing lies beside a device or pipe: it gets the text
    alone.

    Returns:
        The names of parameters that were not written.

    Raises:
        PatcError: a file cannot be written, or some parameters have data and others have none.
    """
    return write_modules([(module, store)], path, **print_options)


@compiling()
def write_modules(
    modules: Sequence[tuple[ir.Module, ParameterStore]], path: str | os.PathLike[str], **print_options: Any
) -> list[str]:
    """As `write_module`, for the parts of a split file; part n > 0 has parameters in `.<n>.safetensors`."""
    target = Path(path)
    if is_stream(path):
        atomic_write(path, print_modules([module for module, _ in modules], **print_options))
        return [name for module, store in modules for name in used_parameters(module, store)]
    sidecars: dict[Path, ParameterStore] = {}
    for index, (module, store) in enumerate(modules):
        sidecar = sidecar_path(target, index)
        used = used_parameters(module, store)
        _check_complete(module, used)
        if len(used) and not _is_utf8(sidecar.name):
            raise PatcError("expected a name in UTF-8, since the text has that of its parameters", os.fspath(path))
        _name_sidecar(module, sidecar.name if len(used) else None)
        if len(used):
            sidecars[sidecar] = used
    if target in sidecars:
        raise PatcError("expected the name of an MLIR file, got that of its parameters", os.fspath(path))
    text = print_modules([module for module, _ in modules], **print_options)
    atomic_write_all({**{sidecar: used.to_bytes() for sidecar, used in sidecars.items()}, target: text})
    return []


def used_parameters(module: ir.Module, store: ParameterStore) -> ParameterStore:
    """Return the parameters that a module uses: as ops, as globals, or as the blob of planned memory."""
    if not len(store):
        return ParameterStore()
    from torch_mlir.dialects import memref  # takes longer to load than most files to process

    from patc.passes.ir.arena import WEIGHTS

    names = [op.attributes["name"].value for op in ir.get_ops_of_type(module, ParameterOp)]
    names += [op.sym_name.value for op in ir.get_ops_of_type(module, memref.GlobalOp)]
    return ParameterStore({name: store[name] for name in [*names, WEIGHTS] if name in store})


def _read(path: str | os.PathLike[str]) -> bytes:
    place = os.fspath(path)
    try:
        note_read(path)
        with open(path, "rb") as file:
            text = file.read(MOST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise PatcError("expected an MLIR file, found none", place) from None
    except IsADirectoryError:
        raise PatcError("expected an MLIR file, found a folder", place) from None
    except ValueError:
        raise PatcError("expected a name without null characters", place.replace("\0", "\\0")) from None
    except OSError as error:
        raise PatcError(f"cannot read the file: {error.strerror or error}", place) from None
    if len(text) > MOST_BYTES:
        raise PatcError(f"expected an MLIR file of at most {MOST_BYTES >> 20} MB, found more", place)
    return text


def _is_utf8(path: str | os.PathLike[str]) -> bool:
    """Return whether a path can be part of a text, which one of a command line need not be."""
    try:
        return bool(os.fspath(path).encode())
    except UnicodeEncodeError:
        return False


def _load_parameters(module: ir.Module, folder: Path) -> ParameterStore:
    _check_sizes(module)
    store = _load_sidecar(module, folder)
    take_resources(module, store)
    return store


def _check_sizes(module: ir.Module) -> None:
    """Refuse tensors whose bytes passes could not count in 64 bits."""
    large: list[tuple[ir.Operation, ir.Type]] = []

    def visit(op: ir.Operation) -> ir.WalkResult:
        arguments = (value for region in op.regions for block in region for value in block.arguments)
        types = (value.type for value in (*op.results, *arguments))
        large.extend((op, type_) for type_ in types if _count_elements(type_) > MOST_ELEMENTS)
        return ir.WalkResult.INTERRUPT if large else ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    for op, type_ in large:
        raise PatcError(f"'{op.name}' op expected at most {MOST_ELEMENTS} elements, got {type_}", op.location)


def _count_elements(type_: ir.Type) -> int:
    is_known = isinstance(type_, ir.ShapedType) and type_.has_rank and type_.has_static_shape
    return math.prod(type_.shape) if is_known else 0


def _load_sidecar(module: ir.Module, folder: Path) -> ParameterStore:
    attributes = module.operation.attributes
    if SIDECAR_ATTRIBUTE not in attributes:
        return ParameterStore()
    name = attributes[SIDECAR_ATTRIBUTE]
    if not isinstance(name, ir.StringAttr):
        raise PatcError(f"expected '{SIDECAR_ATTRIBUTE}' to be a file name, got {name}", module.operation.location)
    if os.path.basename(name.value) != name.value or name.value in ("", os.curdir, os.pardir) or "\0" in name.value:
        expected = f"expected '{SIDECAR_ATTRIBUTE}' to be the name of a file beside this one"
        raise PatcError(f"{expected}, got {name.value!a}", module.operation.location)
    store = ParameterStore.load(folder / name.value)
    for op in ir.get_ops_of_type(module, ParameterOp):
        _check_parameter(op, store, name.value)
    return store


def _check_parameter(op: ParameterOp, store: ParameterStore, file: str) -> None:
    name, type_ = op.attributes["name"].value, op.result.type
    if name not in store:
        raise PatcError(f"'pattern.parameter' op expected '{name}' in {file}, found none", op.location)
    array = store[name]
    if list(array.shape) != list(type_.shape) or str(type_.element_type) not in _element_names(array.dtype):
        found = f"{list(array.shape)} of {array.dtype}"
        raise PatcError(f"'pattern.parameter' op expected '{name}' to be {type_}, got {found}", op.location)


def _element_names(dtype: np.dtype) -> tuple[str, ...]:
    """Return the MLIR element types that an array of `dtype` can be the data of."""
    bits = 8 * dtype.itemsize
    if dtype.name == "bfloat16":
        return ("bf16",)
    return {
        "f": (f"f{bits}",),
        "i": (f"i{bits}", f"si{bits}"),
        "u": (f"i{bits}", f"ui{bits}"),
        "b": ("i1",),
    }.get(dtype.kind, ())


def _check_complete(module: ir.Module, used: ParameterStore) -> None:
    """Refuse to write some parameters when others have no data: nothing could read the file again."""
    for op in ir.get_ops_of_type(module, ParameterOp) if len(used) else ():
        name = op.attributes["name"].value
        if name not in used:
            raise PatcError(f"'pattern.parameter' op expected data for '{name}', found none", op.location)


def _name_sidecar(module: ir.Module, name: str | None) -> None:
    attributes = module.operation.attributes
    if name is not None:
        attributes[SIDECAR_ATTRIBUTE] = ir.StringAttr.get(name, context=module.context)
    elif SIDECAR_ATTRIBUTE in attributes:
        del attributes[SIDECAR_ATTRIBUTE]
