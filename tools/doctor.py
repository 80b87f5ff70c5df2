"""`patc doctor`: what patc can do on this machine, with which packages, and what it keeps on the disk."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from patc.diagnostics import PatcError
from patc.files import cache_folder
from patc.tools import arguments
from patc.versions import versions

# Packages beside those that the project needs, with what installs them and what they are for.
_OPTIONAL = (
    ("onnx", "onnx", ".onnx files"),
    ("ziglang", "arm", "shared libraries for ARM"),
    ("unicorn", "arm", "running code for ARM CPUs"),
    ("capstone", "arm", "modelled cycles of ARM CPUs"),
    ("scikit-learn", "train", "the data set digits"),
    ("matplotlib", "train", "plots"),
    ("captum", "train", "attributions"),
    ("optuna", "search", "patc search"),
    ("torchao", "pt2e", "quantised programs of torch"),
    ("cryptography", "sign", "signatures"),
    ("onnxruntime", "bench", "a rival of patc bench"),
    ("openvino", "bench", "a rival of patc bench"),
    ("ncnn", "bench", "a rival of patc bench"),
    ("MNN", "bench", "a rival of patc bench"),
)
_REQUIRED = (
    *("torch", "torch-mlir", "numpy", "ml_dtypes", "llvmlite", "safetensors", "xxhash"),
    *("rich", "pillow", "jinja2", "platformdirs", "shtab"),
)
# What is in the cache folder, by the names of folders there.
_CACHES = {
    "code": "models compiled before, of which the last ones used stay: 2 GB",
    "calibration": "what patc calibrate measured",
    "tuning": "measured times of --tune measure",
    "bench": "environments of rivals of patc bench",
    "zig": "the linker's own cache",
    "failures": "what the last faults of patc can be reported with",
}

_DESCRIPTION = """\
Say what patc can do on this machine: its CPU, Vulkan devices, linker and emulator, the versions of packages and those
that are missing, and what is kept in the cache folder. Exit status 1 if something is missing that patc itself needs.
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the sub-command to what `ArgumentParser.add_subparsers` returned."""
    parser = arguments.add_command(subparsers, "doctor", "say what patc can do on this machine", _DESCRIPTION)
    parser.add_argument(
        "--clear-caches", action="store_true", help="remove what is kept in the cache folder, and say so"
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the sub-command and return its exit status.

    Raises:
        PatcError: a cache cannot be removed.
    """
    if args.clear_caches:
        _clear_caches()
        return 0
    print("\n".join(f"{name:10s} {text}".rstrip() for name, text in (*_describe_system(), *_describe_machine())))
    found = versions([*_REQUIRED, *(name for name, _, _ in _OPTIONAL)])
    print("\npackages")
    for name in _REQUIRED:
        print(f"  {name:14s} {found.get(name, 'missing: pip install patc')}")
    for name, extra, purpose in _OPTIONAL:
        print(f"  {name:14s} {found.get(name, f'missing: pip install patc[{extra}], for {purpose}')}")
    print(f"\ncaches in {cache_folder('')}; --clear-caches removes them")
    for name, purpose in _CACHES.items():
        print(f"  {name:14s} {_describe_size(cache_folder(name))}: {purpose}")
    return 0 if found.keys() >= {*_REQUIRED} else 1


def _describe_system() -> Iterator[tuple[str, str]]:
    from patc import __version__

    yield "patc", f"{__version__}, in {Path(__file__).resolve().parent.parent}"
    yield "Python", f"{platform.python_version()}, {platform.python_implementation()}"
    yield "system", f"{platform.system()} {platform.release()} {platform.machine()}"


def _describe_machine() -> Iterator[tuple[str, str]]:
    """Yield the CPU, and whether each kind of target can be used here."""
    from patc.bench.machine import this_machine
    from patc.targets import host, uncalibrated_host

    machine = this_machine()
    yield "CPU", f"{machine.cpu}; {machine.cores} cores for this process"
    yield "memory", f"{machine.memory_bytes / 1e9:.1f} GB; caches {machine.caches}"
    target = host()
    yield "host", f"{target.registers} vectors of {target.lanes} floats; {', '.join(machine.features)}"
    costs = "as patc calibrate measured them" if target != uncalibrated_host() else "built in; patc calibrate measures"
    yield "costs", costs
    yield "Vulkan", _describe_vulkan()
    yield "linker", _describe_linker()
    yield "emulator", _describe_emulator()


def _describe_vulkan() -> str:
    from patc.runtime.vulkan import devices, find_device

    try:
        chosen = find_device()
        others = [device.name for device in devices() if device != chosen]
    except PatcError as error:
        return f"none: {error}"
    return f"{chosen.name} ({chosen.kind})" + (f"; also {', '.join(others)}" if others else "")


def _describe_linker() -> str:
    from patc.codegen.link import find_linker

    try:
        return " ".join(find_linker("aarch64"))
    except PatcError as error:
        return f"none for shared libraries for ARM: {error}"


def _describe_emulator() -> str:
    from patc.bench.emulator import import_arm

    try:
        return f"Unicorn {import_arm('unicorn').__version__}: runs code for ARM CPUs, and models its cycles"
    except PatcError as error:
        return f"none for code for ARM CPUs: {error}"


def _describe_size(folder: Path) -> str:
    from patc.tools.console import describe_bytes, plural

    sizes = [path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()]
    return f"{plural(len(sizes), 'file')}, {describe_bytes(sum(sizes))}" if sizes else "empty"


def _clear_caches() -> None:
    for name in _CACHES:
        folder = cache_folder(name)
        if not os.path.lexists(folder):
            continue
        size = _describe_size(folder)
        try:
            if folder.is_symlink():
                folder.unlink()
            else:
                shutil.rmtree(folder)
        except OSError as error:
            raise PatcError(f"cannot remove the cache: {error.strerror or error}", str(folder)) from None
        print(f"removed {folder}: {size}")
