"""Samples of inputs, as users name them on the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from patc.diagnostics import PatcError

if TYPE_CHECKING:
    from patc.runtime.program import TensorInfo
    from patc.samples import Sample

DATA_HELP = "a folder of pictures, an .npy or .npz file, or FILE.py:function or module:function that returns samples"


def find_samples(data: str, limit: int | None = None) -> Callable[[Sequence[TensorInfo]], Sequence[Sample]]:
    """Return what makes samples for a net's inputs.

    Raises:
        PatcError: there is no such data.
    """
    from patc.factories import call, is_factory
    from patc.samples import as_samples, check, cut
    from patc.tools.arrays import read_arrays
    from patc.tools.images import find_pictures, picture_input

    if is_factory(data) and not Path(data).exists():
        given = list(as_samples(list(call(data, "the code of samples"))))[:limit]
        return lambda infos: check(given, infos)
    if Path(data).is_dir():
        paths = find_pictures([data])[:limit]

        def pictures(infos: Sequence[TensorInfo]) -> Sequence[Sample]:
            if len(infos) != 1 or infos[0].dtype not in ("float32", "uint8"):
                found = ", ".join(map(str, infos))
                raise PatcError(
                    f"expected a model of one input of images to calibrate with pictures, got {found}", data
                )
            is_bytes = infos[0].dtype == "uint8"
            return check(([picture_input(path, infos[0].shape, is_bytes)] for path in paths), infos)

        return pictures
    if Path(data).suffix.lower() not in (".npy", ".npz"):
        found = "another file" if Path(data).exists() else "none"
        raise PatcError(
            f"expected a folder of pictures, an .npy or .npz file, or FILE.py:function, found {found}", data
        )
    arrays, named = read_arrays([data])

    def cut_arrays(infos: Sequence[TensorInfo]) -> Sequence[Sample]:
        by_name = len(infos) > 1 and {info.name for info in infos} == set(named)
        ordered = [named[info.name] for info in infos] if by_name else [*arrays, *named.values()]
        return check(list(cut(ordered, infos))[:limit], infos)

    return cut_arrays
