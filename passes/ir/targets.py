"""The machine that a module is compiled for: its attribute `pattern.target`, and what passes read there."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any, get_args, get_type_hints

from torch_mlir import ir

from patc.costs import CoreCosts, GpuCosts
from patc.diagnostics import PatcError, nearest
from patc.dialects.attributes import TargetAttr, i64
from patc.passes.base import fail
from patc.targets import Target, get_target

TARGET = "pattern.target"
OVERRIDE = "target to take instead of the module's, or of this machine if it has none"  # what passes' options say
_COSTS: dict[str, type[Any]] = {"core_costs": CoreCosts, "gpu_costs": GpuCosts}


def target_of(module: ir.Module, override: str = "") -> Target:
    """Return the target called `override` or, if that is "", the module's; that of this machine if it has none.

    Raises:
        PatcError: an unknown name, or the module's attribute is no target.
    """
    attributes = module.operation.attributes
    if override or TARGET not in attributes:
        return get_target(override or "host")
    attr = attributes[TARGET]
    values = attr.fields.maybe_downcast() if isinstance(attr, TargetAttr) else None
    if not isinstance(values, ir.DictAttr):
        raise fail(module.operation, f"{TARGET} to be #pattern.target<{{...}}>", attr)
    try:
        return _read_target(values)
    except PatcError as error:
        raise fail(module.operation, f"{TARGET} to be a target", f"one where {error.message}") from None


def set_target(module: ir.Module, target: Target) -> None:
    """Give a module the attribute `pattern.target`."""
    with module.context:
        values = _changed_fields(target)
        costs = values.pop("costs", None)
        for key, kind in _COSTS.items():
            if isinstance(target.costs, kind) and costs is not None:
                values[key] = ir.DictAttr.get(_changed_fields(target.costs))
        module.operation.attributes[TARGET] = TargetAttr.get(ir.DictAttr.get(values))


def _changed_fields(item: Any) -> dict[str, Any]:
    """Return the fields of a dataclass that differ from their defaults, as attributes; costs stay what they are."""
    found = {}
    for part in fields(item):
        value = getattr(item, part.name)
        default = part.default if part.default_factory is MISSING else part.default_factory()
        if value != default:
            found[part.name] = value if part.name == "costs" else _to_attr(value, part.type == "float")
    return found


def _to_attr(value: Any, is_float: bool = False) -> ir.Attribute:
    if isinstance(value, tuple):
        return ir.ArrayAttr.get([_to_attr(part) for part in value])
    if isinstance(value, str):
        return ir.StringAttr.get(value)
    if isinstance(value, bool):
        return ir.BoolAttr.get(value)
    return ir.FloatAttr.get_f64(value) if is_float else i64(value)


def _read_target(attr: ir.DictAttr) -> Target:
    values = {item.name: item.attr for item in attr}
    costs = [_read(kind, key, _items(key, values.pop(key))) for key, kind in _COSTS.items() if key in values]
    if len(costs) > 1:
        raise PatcError(f"either {' or '.join(_COSTS)} is expected, got both")
    return _read(Target, "the target", values, **({"costs": costs[0]} if costs else {}))


def _items(what: str, attr: Any) -> dict[str, Any]:
    if not isinstance(attr, ir.DictAttr):
        raise PatcError(f"{what} is expected to be a dictionary, got {attr}")
    return {item.name: item.attr for item in attr}


def _read(kind: type[Any], what: str, attributes: dict[str, Any], **given: Any) -> Any:
    """Return the dataclass that has the fields of a dictionary, and those that are `given`."""
    hints, known = get_type_hints(kind), [part.name for part in fields(kind) if part.name != "costs"]
    if unknown := [name for name in attributes if name not in known]:
        raise PatcError(f"{what} has no field '{unknown[0]}'{nearest(unknown[0], known)}")
    values = given | {name: _from_attr(f"{name} of {what}", attr, hints[name]) for name, attr in attributes.items()}
    required = [part.name for part in fields(kind) if part.default is part.default_factory is MISSING]
    if missing := [name for name in required if name not in values]:
        raise PatcError(f"{what} is expected to have {', '.join(missing)}, got none")
    return kind(**values)


def _from_attr(what: str, attr: Any, kind: Any) -> Any:
    """Return the value of an attribute as a field's type."""
    if isinstance(attr, ir.ArrayAttr) and kind in (tuple[str, ...], tuple[int, ...]):
        return tuple(_from_attr(what, part, get_args(kind)[0]) for part in attr)
    takes = {str: ir.StringAttr, bool: ir.BoolAttr, int: ir.IntegerAttr, float: ir.FloatAttr}
    if kind not in takes or not isinstance(attr, takes[kind]):
        raise PatcError(f"{what} is expected to be {getattr(kind, '__name__', kind)}, got {attr}")
    return attr.value
