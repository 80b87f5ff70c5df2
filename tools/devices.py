"""`patc devices`: the Vulkan devices of this machine."""

from __future__ import annotations

import argparse
from typing import Any

from patc.tools import arguments

_DESCRIPTION = """\
List the Vulkan devices of this machine: what `patc run --device` and PATC_VULKAN_DEVICE take, and which of them is used
without. Exit status 1 if there is none.
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the sub-command to what `ArgumentParser.add_subparsers` returned."""
    parser = arguments.add_command(subparsers, "devices", "list the Vulkan devices", _DESCRIPTION)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the sub-command and return its exit status.

    Raises:
        PatcError: no Vulkan loader, driver or device that patc can use.
    """
    from patc.capabilities import DOT, needed_by
    from patc.numerics import FLOAT16
    from patc.runtime.vulkan import devices, find_device
    from patc.tools.console import describe_bytes, make_console, make_table

    chosen = find_device()
    table = make_table(("", "index", "name", "kind", "Vulkan", "f16", "dotprod", "largest buffer", "notes"), 4)
    for device in devices():
        has = (device.capabilities.issuperset(item.name for item in needed_by(user)) for user in (FLOAT16.mlir, DOT))
        table.add_row(
            "*" if device == chosen else "",
            str(device.index),
            device.name,
            device.kind,
            ".".join(map(str, device.version)),
            *("yes" if able else "no" for able in has),
            describe_bytes(device.limits.storage_range),
            device.shortcoming,
        )
    make_console().print(table)
    return 0
