"""`patc.load`: from the file of a compiled model to the model, without torch and MLIR."""

from __future__ import annotations

import os

from patc.backends.registry import find_backend
from patc.diagnostics import PatcError
from patc.files import check_regular
from patc.runtime import artefact
from patc.runtime.artefact import Parts
from patc.runtime.json_values import printable
from patc.runtime.model import CompiledModel, check_parts
from patc.torch_archives import describe_content


def load(
    path: str | os.PathLike[str], device: int | str | None = None, key: str | os.PathLike[str] | None = None
) -> CompiledModel:
    """Return the model that `CompiledModel.save` wrote.

    The file holds machine code, which calls of the model run: load what you trust. See docs/security.md for what is
    checked.

    Args:
        device: of a model for Vulkan: index or name; None for the best one.
        key: file with the public key that has to have signed the model; None takes signed and other ones.

    Raises:
        PatcError: the file is missing, damaged, no saved model, of another version, not signed with the key, or for
            another architecture, a CPU with extensions that this one lacks or a backend that is not registered.
    """
    place = os.fspath(path)
    parts = read_parts(place)
    if key is not None:
        from patc.runtime.signature import verify

        verify(parts, key, place)
    try:
        program = check_parts(parts, lambda backend: find_backend(backend).model_class())
        return find_backend(program.backend).load(program, device=device)
    except ValueError as error:
        found = printable(str(error))
        raise PatcError(f"expected a compiled model, found damaged data ({found})", place) from None
    except PatcError as error:
        raise PatcError(error.message, place) from None


def read_parts(place: str) -> Parts:
    """Return the parts of a file.

    Raises:
        PatcError: the file is missing, damaged, no saved model, of another version, or too large for the memory.
    """
    check_regular(place, "a compiled model")
    try:
        with open(place, "rb") as stream:
            return artefact.read(stream)
    except ValueError as error:
        of_torch = describe_content(place)
        message = str(error) if of_torch is None else f"expected a compiled model, found {of_torch}"
        raise PatcError(message, place) from None
    except (OSError, MemoryError) as error:
        raise PatcError(f"cannot read the file: {getattr(error, 'strerror', None) or 'out of memory'}", place) from None
