"""Programs of .pt2 files, read as data: `torch.export.load` unpickles parts of a file, which can run anything.

    program = load_program("model.pt2")

The graph is JSON that is checked before torch's deserializer gets it (see `pt2_graph`), weights and constants are raw
bytes with their shapes, and sample inputs, a pickle, are left alone.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping
from typing import Any

import torch
from torch._export.serde import schema
from torch._export.serde.serialize import ExportedProgramDeserializer, _dict_to_dataclass
from torch.export import ExportedProgram

from patc.diagnostics import PatcError, first_line
from patc.frontend.json_schema import Mismatch, check_value, parse_json, quote
from patc.frontend.pt2_graph import check_tensor_meta, count_elements, scalar_type
from patc.frontend.pt2_program import check_program
from patc.frontend.pt2_shapes import open_batch, set_shapes
from patc.frontend.shapes import Shapes
from patc.torch_archives import TorchArchive
from patc.torch_files import describe, find_fault, refused_class

WHAT = "a .pt2 file"
TRUST = "--trust-pickle, or torch.export.load, reads it and runs what code it may hold"

_MODEL = "models/model.json"
_CONFIGS = {
    "weights": "data/weights/model_weights_config.json",
    "constants": "data/constants/model_constants_config.json",
}
_FORMAT = "archive_format"
# What a tensor may take that says more elements than the file has, as one that is expanded does.
_EXPANDED_BYTES = 1 << 30
# What a layer or tensor cannot be called: what every module has.
_BARE = torch.nn.Module()
# Before PyTorch 2.8: the state dict and the constants are files of `torch.save`.
_OLD_PROGRAM = "serialized_exported_program.json"
_OLD_TENSORS = ("serialized_state_dict", "serialized_constants")


def load_program(
    path: str | os.PathLike[str], trust_pickle: bool = False, shapes: Shapes | None = None
) -> ExportedProgram:
    """Return the program that `torch.export.save` wrote, without its sample inputs.

    Args:
        trust_pickle: read it with `torch.export.load`, which runs code that the file may hold.
        shapes: of the inputs of a program that leaves sizes open, in order or by name.

    Raises:
        PatcError: the file is missing, damaged, or has parts that only a pickle or other code can make; or shapes are
            not known, or contradict the file.
    """
    place = os.fspath(path)
    with TorchArchive(path, WHAT) as archive:
        _check_kind(archive)
        archive.check_stored()
        if trust_pickle:
            return _load_trusted(place)
        if _OLD_PROGRAM in archive.sizes:
            name = _OLD_PROGRAM
            weights, constants = (_read_old_tensors(archive, entry) for entry in _OLD_TENSORS)
        else:
            name = _MODEL
            weights, constants = (_read_tensors(archive, kind) for kind in ("weights", "constants"))
        program = _read_schema(archive, name, schema.ExportedProgram)
    try:
        set_shapes(program, shapes)
        check_program(program, weights, constants)
    except Mismatch as error:
        raise PatcError(f"'{name}': {error}{_advice(error)}", place) from None
    except PatcError as error:
        raise PatcError(error.message, place) from None
    try:
        return ExportedProgramDeserializer().deserialize(program, weights, constants, None)
    except Exception as error:  # what torch's deserializer and verifier raise is not documented
        reason = first_line(error.__cause__ or error)
        raise PatcError(f"expected a program that torch {torch.__version__} reads, found: {reason}", place) from None


def open_shapes(path: str | os.PathLike[str], given: Shapes | None) -> dict[str, tuple[int, ...]]:
    """Return shapes of a file's inputs for any batch; see `patc.frontend.pt2_shapes.open_batch`."""
    with TorchArchive(path, WHAT) as archive:
        _check_kind(archive)
        archive.check_stored()
        name = _OLD_PROGRAM if _OLD_PROGRAM in archive.sizes else _MODEL
        program = _read_schema(archive, name, schema.ExportedProgram)
    try:
        return open_batch(program, given)
    except (Mismatch, PatcError) as error:
        raise PatcError(f"'{name}': {error}" if isinstance(error, Mismatch) else error.message, archive.path) from None


def _load_trusted(place: str) -> ExportedProgram:
    try:
        return torch.export.load(place)
    except Exception as error:  # whatever the file's own code raises
        raise PatcError(f"torch.export.load cannot read the file: {first_line(error)}", place) from error


def _check_kind(archive: TorchArchive) -> None:
    """Refuse other archives of torch than those of one exported program."""
    if _MODEL in archive.sizes or _OLD_PROGRAM in archive.sizes:
        return
    names = archive.sizes
    if any(name.startswith("models/") for name in names):
        found = "programs of other names than 'model'; save one with torch.export.save"
    elif any(name.startswith("data/aotinductor/") for name in names):
        found = "code compiled by AOTInductor; save the program with torch.export.save"
    elif "constants.pkl" in names:
        found = "a TorchScript archive; export the module it was made of with torch.export"
    elif "data.pkl" in names:
        found = "a file of torch.save; write the program with torch.export.save"
    else:
        found = "a zip file without 'models/model.json'"
    raise PatcError(f"expected a .pt2 file of torch.export.save, found {found}", archive.path)


def _advice(error: Mismatch) -> str:
    """Return what to do about what patc refuses though torch reads it."""
    refused = error.place[-1:] in (["target"], ["custom_obj_values"]) or error.found in ("operator", "custom obj")
    return f"; {TRUST}" if refused else ""


def _read_schema(archive: TorchArchive, name: str, cls: type) -> Any:
    value = parse_json(archive.read(name), name, archive.path)
    try:
        check_value(cls, value, lambda kind: issubclass(kind, schema._Union))
    except Mismatch as error:
        raise PatcError(f"'{name}': {error}", archive.path) from None
    except RecursionError:
        raise PatcError(f"expected '{name}' to be a program, found one nested too deeply", archive.path) from None
    return _dict_to_dataclass(cls, value)


# -- Tensors -----------------------------------------------------------------------------------------------


def _read_tensors(archive: TorchArchive, kind: str) -> dict[str, torch.Tensor]:
    """Return the weights or constants by name; those of one entry share their memory."""
    old = f"data/{kind}/model.pt"
    if old in archive.sizes:
        return _unpickle_tensors(archive, old)
    config = _read_schema(archive, _CONFIGS[kind], schema.PayloadConfig).config
    storages: dict[str, torch.Tensor] = {}
    tensors = {}
    for name, payload in config.items():
        try:
            _check_path(name)
            tensors[name] = _read_tensor(archive, f"data/{kind}/{payload.path_name}", payload, storages)
        except Mismatch as error:
            error.place[:0] = ["config", name]
            raise PatcError(f"'{_CONFIGS[kind]}': {error}", archive.path) from None
    return tensors


def _read_tensor(
    archive: TorchArchive, entry: str, payload: schema.PayloadMeta, storages: dict[str, torch.Tensor]
) -> torch.Tensor:
    if payload.use_pickle or payload.tensor_meta is None:
        raise Mismatch(f"false: '{entry}' is a pickle, which can run code; {TRUST}", quote(True), "use_pickle")
    meta = payload.tensor_meta
    try:
        check_tensor_meta(meta)
    except Mismatch as error:
        error.place.insert(0, "tensor_meta")
        raise
    if entry not in archive.sizes:
        raise Mismatch(f"the name of an entry in '{os.path.dirname(entry)}'", quote(payload.path_name), "path_name")
    dtype, available = scalar_type(meta), archive.sizes[entry]
    _check_extent(meta, dtype.itemsize, available)
    if entry not in storages:
        storages[entry] = torch.empty(available, dtype=torch.uint8)
        archive.read_into(entry, memoryview(storages[entry].numpy()))
    sizes, strides = ([size.value for size in field] for field in (meta.sizes, meta.strides))
    base = torch.empty(0, dtype=dtype)
    tensor = base.set_(storages[entry].untyped_storage(), meta.storage_offset.value, sizes, strides)
    if dtype == torch.bool and tensor.numel() and int(tensor.view(torch.uint8).max()) > 1:
        raise Mismatch("bytes of 0 and 1", quote(int(tensor.view(torch.uint8).max())), "values")
    if meta.requires_grad and not (dtype.is_floating_point or dtype.is_complex):
        raise Mismatch(f"false for {dtype}", quote(True), "tensor_meta", "requires_grad")
    if payload.is_param:
        return torch.nn.Parameter(tensor, requires_grad=meta.requires_grad)
    return tensor.requires_grad_(meta.requires_grad)


def _check_extent(meta: schema.TensorMeta, itemsize: int, available: int) -> None:
    """Require that a tensor lies inside its storage, and takes no more memory than the file when it is copied."""
    count = count_elements(meta)
    steps = zip(meta.sizes, meta.strides, strict=True)
    last = meta.storage_offset.value + sum((size.value - 1) * stride.value for size, stride in steps)
    needed = (last + 1) * itemsize if count else 0
    if needed > available:
        raise Mismatch(f"inside of the {available} bytes of the entry", f"one of {needed} bytes", "tensor_meta")
    if count * itemsize > max(available, _EXPANDED_BYTES):
        raise Mismatch("about as large as the entry", f"{count} elements of {available} bytes", "tensor_meta")


def _check_path(name: str) -> None:
    """Require a name of a tensor that a module can have: torch makes source of it, and sets attributes by it."""
    plain = name.isprintable() and not any(letter in "\"'\\" for letter in name)
    if not plain or any(not part or hasattr(_BARE, part) for part in name.split(".")):
        raise Mismatch("the name of a tensor", quote(name))


def _read_old_tensors(archive: TorchArchive, stem: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a file before PyTorch 2.8, which has none where there are no constants."""
    found = [name for name in (f"{stem}.pt", f"{stem}.json") if name in archive.sizes]
    return _unpickle_tensors(archive, found[0]) if found and archive.sizes[found[0]] else {}


def _unpickle_tensors(archive: TorchArchive, name: str) -> dict[str, torch.Tensor]:
    """Return the tensors by name of an entry that `torch.save` made, which torch reads without running code."""
    data = archive.read(name)
    if zipfile.is_zipfile(io.BytesIO(data)):
        with TorchArchive(archive.path, f"'{name}' to be tensors", data) as inner:
            inner.check_stored()
    try:
        tensors = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle makes the reader raise nearly anything
        refused = refused_class(error)
        found = f"a pickled '{refused}'" if refused is not None else describe(error)
        raise PatcError(f"expected '{name}' to be tensors alone, found {found}; {TRUST}", archive.path) from None
    if not isinstance(tensors, dict) or not _are_tensors(tensors):
        raise PatcError(f"expected '{name}' to be tensors by name, found other objects; {TRUST}", archive.path)
    try:
        for key, tensor in tensors.items():
            _check_path(key)
            if (fault := find_fault(key, tensor)) is not None:
                raise PatcError(f"expected '{name}' to be tensors, found {fault}", archive.path)
    except Mismatch as error:
        raise PatcError(f"'{name}': {error}", archive.path) from None
    return tensors


def _are_tensors(found: Mapping[Any, Any]) -> bool:
    return all(isinstance(key, str) for key in found) and all(
        type(value) in (torch.Tensor, torch.nn.Parameter) and value.layout == torch.strided for value in found.values()
    )
