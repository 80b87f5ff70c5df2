"""Reports that `patc report -o report.json` wrote, read again: as a side of another one, or to be drawn."""

from __future__ import annotations

import functools
import math
import os
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from patc.bench.machine import Machine
from patc.bench.peak import Peak
from patc.diagnostics import PatcError
from patc.dialects.schedules import KeptKernels
from patc.explain import report
from patc.explain.report import FORMAT, Net, Report
from patc.files import check_regular
from patc.numerics import ELEMENT_TYPES
from patc.runtime.json_values import JsonValue, read_json
from patc.runtime.program import TensorInfo

Record = TypeVar("Record")

_LARGEST = 1 << 62
_MOST_ITEMS = 1 << 20
_LONGEST_FILE = 1 << 28  # bytes


def read_report(path: str | os.PathLike[str]) -> Report:
    """Return the report in a file.

    Raises:
        PatcError: the file is missing, no report, or of another version; in one line.
    """
    place = os.fspath(path)
    check_regular(place, "a report of patc")
    try:
        if os.path.getsize(place) > _LONGEST_FILE:
            raise ValueError(f"it is larger than {_LONGEST_FILE >> 20} MiB")
        value = read_json(Path(place).read_bytes())
        if not isinstance(value, dict) or value.pop("format", None) != FORMAT:
            raise ValueError(f"expected format {FORMAT}")
        found = _decode(Report, JsonValue(value, ""))
        for model in found.models:
            for net in model.nets:
                _check_net(net)
    except ValueError as error:
        raise PatcError(f"expected what patc report -o FILE.json writes, found other data ({error})", place) from None
    except OSError as error:
        raise PatcError(f"cannot read the file: {error.strerror}", place) from None
    return found


def _decode(kind: type[Record], value: JsonValue) -> Record:
    """Return the record that JSON values stand for."""
    types = _types(kind)  # type: ignore[arg-type] # classes are hashable
    values = zip(types.items(), value.fields(*types), strict=True)
    found = kind(**{name: _value(of, item) for (name, of), item in values})
    if isinstance(found, TensorInfo) and found.dtype not in ELEMENT_TYPES:
        value.refuse(f"a tensor of {', '.join(ELEMENT_TYPES)}")
    if isinstance(found, KeptKernels):
        _check_kernels(found, value)
    return found


def _value(kind: Any, value: JsonValue) -> Any:
    if isinstance(kind, UnionType):
        return None if value.value is None else _value(get_args(kind)[0], value)
    if is_dataclass(kind):
        return _decode(kind, value)  # type: ignore[arg-type] # a class
    if get_origin(kind) is tuple:
        *kinds, last = get_args(kind)
        items = value.items(0, _MOST_ITEMS) if last is ... else value.items(len(kinds) + 1, len(kinds) + 1)
        of = kinds * len(items) if last is ... else [*kinds, last]
        return tuple(_value(each, item) for each, item in zip(of, items, strict=True))
    if kind is float:
        if type(value.value) not in (int, float) or not math.isfinite(value.value):
            value.refuse("a number")
        return float(value.value)
    if kind is int:
        return value.integer(-_LARGEST, _LARGEST)
    return value.text() if kind is str else value.truth()


@functools.cache
def _types(record: type) -> dict[str, Any]:
    """Return the types of a record's fields by their names; those that are imported for type checkers only, too."""
    hints = get_type_hints(
        record, vars(report) | {"Machine": Machine, "Peak": Peak} | vars(sys.modules[record.__module__])
    )
    return {field.name: hints[field.name] for field in fields(record)}


def _check_kernels(kept: KeptKernels, value: JsonValue) -> None:
    widths, letters = {*map(len, kept.picture)}, {*"".join(kept.picture)}
    sizes = len(kept.size) == 3 and min(kept.size) > 0 and len(kept.masks) == len(kept.counts)
    if (
        not sizes
        or min(kept.masks, default=0) < 0
        or len(widths) != 1
        or 0 in widths
        or letters - {*"0123456789abcdef"}
    ):
        value.refuse("kernels as patc describes them")


def _check_net(net: Net) -> None:
    """Refuse numbers of layers that there are not."""
    count = len(net.layers)
    for number, item in enumerate(net.layers):
        if any(read >= number for read in item.layer.reads):
            raise ValueError(f"layers[{number}]: expected it to read from layers before it")
    if any(advice.layer is not None and not 0 <= advice.layer < count for advice in net.advice):
        raise ValueError(f"advice: expected one of {count} layers")
    if any(not 0 <= each.first <= each.last < count for each in net.buffers):
        raise ValueError(f"buffers: expected them while {count} layers run")
