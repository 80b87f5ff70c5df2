"""Records of the dialect as attributes: numbers, texts, and tuples and records of them."""

from __future__ import annotations

import functools
import math
from dataclasses import fields
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from torch_mlir import ir

from patc.dialects.attributes import ExplanationAttr, ScheduleAttr, i64
from patc.dialects.schedules import AnyRecord, Choice, Schedule

_RECORDS: dict[type, Any] = {Schedule: ScheduleAttr, Choice: ExplanationAttr}


def encode_record(record: Any) -> ir.Attribute:
    """Return the attribute that holds a record."""
    return _RECORDS[type(record)].get(_encode(record))


def decode_record(kind: type[AnyRecord], attr: Any) -> AnyRecord:
    """Return the record that an attribute holds.

    Raises:
        ValueError: the attribute is none that `encode_record` makes.
    """
    if not isinstance(attr, _RECORDS[kind]):
        raise ValueError
    record: AnyRecord = _decode(kind, attr.fields.maybe_downcast())
    return record


def _encode(value: Any) -> ir.Attribute:
    """Return a number, a text, a tuple or a record as an attribute; a record's fields that are None are left out."""
    if isinstance(value, str):
        return ir.StringAttr.get(value)
    if isinstance(value, int):
        return i64(value)
    if isinstance(value, float):
        return ir.FloatAttr.get(ir.F64Type.get(), value)
    if isinstance(value, tuple):
        return ir.ArrayAttr.get([_encode(item) for item in value])
    found = {field.name: getattr(value, field.name) for field in fields(value)}
    return ir.DictAttr.get({name: _encode(item) for name, item in found.items() if item is not None})


def _decode(kind: Any, attr: Any) -> Any:
    """Return what `_encode` made an attribute of; finite numbers of 0 or more.

    Raises:
        ValueError: it is of another kind.
    """
    scalars = {str: ir.StringAttr, int: ir.IntegerAttr, float: ir.FloatAttr}
    if kind in scalars:
        if not isinstance(attr, scalars[kind]) or not (kind is str or 0 <= attr.value < math.inf):
            raise ValueError
        return attr.value
    if get_origin(kind) is tuple:
        if not isinstance(attr, ir.ArrayAttr):
            raise ValueError
        return tuple(_decode(get_args(kind)[0], item) for item in attr)
    if not isinstance(attr, ir.DictAttr):
        raise ValueError
    types, needed = _types(kind)
    values = {item.name: item.attr for item in attr}
    if not needed <= values.keys() <= types.keys():
        raise ValueError
    return kind(**{name: _decode(types[name], value) for name, value in values.items()})


@functools.cache
def _types(record: type) -> tuple[dict[str, Any], set[str]]:
    """Return the types of a record's fields, and the names of those that are never None."""
    hints = get_type_hints(record)
    types = {name: get_args(hint)[0] if isinstance(hint, UnionType) else hint for name, hint in hints.items()}
    return types, {name for name, hint in hints.items() if not isinstance(hint, UnionType)}
