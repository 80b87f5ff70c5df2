"""What was measured of this machine, as a file in the user's cache folder: one for each CPU and version of patc."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from patc.code_cache import is_disabled
from patc.costs import CoreCosts
from patc.diagnostics import PatcError
from patc.files import atomic_write, cache_folder, make_folder
from patc.versions import versions

FORMAT = 1
_LARGEST = 1e12  # of a value; what is no number is not less
OF_TARGET = ("fma_lanes", "load_bytes")  # the others are costs
_INTEGERS = {item.name for item in fields(CoreCosts) if item.type == "int"} | {*OF_TARGET}
_KNOWN = {item.name for item in fields(CoreCosts)} | {*OF_TARGET}


@dataclass(frozen=True)
class Calibration:
    """What was measured.

    Attributes:
        values: by the names of fields of `Target` and `CoreCosts`.
        shared: others used the machine meanwhile, so that times may be too long.
    """

    values: Mapping[str, float]
    shared: bool

    def apply(self, target: Any) -> Any:
        """Return a `Target` with the values in place of its own.

        Raises:
            PatcError: a value that no model can compute with.
        """
        given = {name: round(value) if name in _INTEGERS else value for name, value in self.values.items()}
        own = {name: given.pop(name) for name in OF_TARGET if name in given}
        return replace(target, costs=replace(target.costs, **given), **own)


def calibration_file(cpu: str, lanes: int) -> Path:
    """Return where the calibration of a CPU, whose vectors have so many lanes, is kept for this version of patc."""
    key = json.dumps([cpu, lanes, versions(())["patc"]])
    return cache_folder("calibration") / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def store(path: Path, calibration: Calibration) -> None:
    """Keep a calibration.

    Raises:
        PatcError: the folder cannot be made or written to.
    """
    make_folder(path.parent)
    entry = {"format": FORMAT, "values": dict(calibration.values), "shared": calibration.shared}
    atomic_write(path, json.dumps(entry, indent=1) + "\n")


def load(path: Path) -> Calibration | None:
    """Return the calibration in a file; None if there is none.

    Raises:
        PatcError: the file holds something else.
    """
    try:
        if not path.is_file():  # a pipe would never end
            return None
        entry = json.loads(path.read_bytes())
        values = {name: entry["values"][name] for name in entry["values"]}
        whole = entry["format"] == FORMAT and type(entry["shared"]) is bool and values.keys() <= _KNOWN
        numbers = all(type(value) in (int, float) and abs(value) < _LARGEST for value in values.values())
        if not whole or not numbers:
            raise ValueError
        return Calibration(values, entry["shared"])
    except OSError:
        return None
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        expected = "expected what patc calibrate measured, found damaged data, which is ignored"
        raise PatcError(f"{expected}: --renew measures again", str(path)) from None


def calibrated(target: Any, cpu: str) -> Any:
    """Return a `Target` for this machine as it was calibrated, if it was; a damaged file is one line on standard error.

    Args:
        cpu: model name of this machine's CPU.
    """
    if is_disabled():
        return target
    path = calibration_file(cpu, target.lanes)
    try:
        found = load(path)
        return target if found is None else found.apply(target)
    except PatcError as error:
        location = error.location or os.fspath(path)
        print(f"patc: warning: {location}: {error.message}", file=sys.stderr)
        return target
