"""Files of torch: what `torch.save` wrote is read as data, nothing of it runs as code; programs become bytes."""

from __future__ import annotations

import io
import os
import pickle
import re
import zipfile
from typing import Any

import torch

from patc.diagnostics import PatcError, first_line
from patc.files import check_regular
from patc.torch_archives import TorchArchive

# A tensor may say that it has more elements than are stored, as one that is expanded does; up to here.
_EXPANDED_BYTES = 1 << 20
# Of what is no tensor; a run of 1,000 epochs keeps 9,000 numbers.
_MOST_VALUES, _DEEPEST = 1 << 20, 32
_REFUSED = re.compile(r"GLOBAL (\S+) (was not an allowed|whose module)")
_UNREADABLE = re.compile(r"WeightsUnpickler error: *(\S.*)")


def program_bytes(program: torch.export.ExportedProgram) -> bytes:
    """Return the content of a .pt2 file."""
    stream = io.BytesIO()
    torch.export.save(program, stream)
    return stream.getvalue()


def load_data(path: str | os.PathLike[str], kind: str, advice: str = "") -> Any:
    """Return what a file of `torch.save` holds, on the CPU.

    Args:
        kind: of file that is expected, as in "state dict".
        advice: what to do about a file with objects that only code can make.

    Raises:
        PatcError: the file is missing, damaged, of another kind, or has such objects.
    """
    check_regular(path, f"a {kind} file")
    if zipfile.is_zipfile(path):
        with TorchArchive(path, f"a {kind} file") as archive:
            if "constants.pkl" in archive.sizes:
                raise PatcError(f"expected a {kind}, found a TorchScript archive{advice}", archive.path)
            archive.check_stored()
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes the unpickler raise nearly anything
        refused = refused_class(error)
        if refused is not None:
            raise PatcError(f"expected a {kind}, found a pickled '{refused}'{advice}", str(path)) from None
        raise PatcError(f"expected a readable {kind}, found: {describe(error)}", str(path)) from None
    excess = _find_excess(loaded)
    if excess is not None:
        raise PatcError(f"expected a {kind}, found {excess}", str(path))
    return loaded


def _find_excess(loaded: Any) -> str | None:
    """Return what is too much to be looked at: a small pickle can say that a list has itself, or another a thousand
    times, and each of these another. None where all is."""
    count, pending = 1, [(loaded, 0)]
    while pending:
        value, depth = pending.pop()
        if isinstance(value, int) and value.bit_length() > 64:
            return "a number of more than 64 bits"
        if not isinstance(value, (dict, list, tuple, set, frozenset)):
            continue
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        count += len(parts)
        if count > _MOST_VALUES:
            return f"more than {_MOST_VALUES} values"
        if depth == _DEEPEST:
            return f"containers more than {_DEEPEST} deep"
        pending += [(part, depth + 1) for part in parts]
    return None


def refused_class(error: Exception) -> str | None:
    """Return the class or function for which `torch.load` refused a file; None where it did for another reason."""
    refused = _REFUSED.search(str(error))
    return refused[1] if refused else None


def describe(error: Exception) -> str:
    """Return in a few words why `torch.load` could not read a file."""
    if not isinstance(error, (RuntimeError, pickle.UnpicklingError)):  # of what it met, and nothing that helps
        return "damaged data, or another format"
    known = _UNREADABLE.search(str(error))
    return (known[1] if known else first_line(error)).split(". ")[0].rstrip(".")


def find_fault(name: Any, value: Any) -> str | None:
    """Return what is wrong with a tensor from a file that is to be copied into a model's; None where nothing is."""
    if not isinstance(name, str):
        return f"{name!r} as a name"
    if not isinstance(value, torch.Tensor):
        return f"{name!r} holding {type(value).__name__}"
    if value.layout != torch.strided:
        return f"{name!r} sparse: save its to_dense()"
    if value.device.type == "meta":
        return f"{name!r} without values, on the meta device"
    if value.is_quantized or value.is_nested or value.is_complex():
        return f"{name!r} of {str(value.dtype).removeprefix('torch.')}" + (", nested" if value.is_nested else "")
    if value.numel() * value.itemsize > max(value.untyped_storage().nbytes(), _EXPANDED_BYTES):
        return f"{name!r} with more elements than the file has"
    return None
