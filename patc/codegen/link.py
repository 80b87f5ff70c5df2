"""Shared libraries, by a linker that is found at run time: no compiler and no system library takes part."""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from patc.codegen.llvm_objects import emit_object, optimize
from patc.diagnostics import PatcError
from patc.files import cache_folder
from patc.targets import Target

# By architecture: the linker's name for it, the largest pages (Android 15 and some Linux kernels for AArch64 have pages
# of 16 KB; a library for those loads where pages are smaller, too), and the GNU linker that is for it alone.
_MACHINES = {
    "aarch64": ("aarch64elf", 16384, "aarch64-linux-gnu-ld"),
    "x86_64": ("elf_x86_64", 4096, "x86_64-linux-gnu-ld"),
}
# Everything is bound when a library is loaded, and read-only from then on.
_KEYWORDS = ("relro", "now", "noexecstack")


def link_shared(code: bytes, soname: str, target: Target, calls: Sequence[str] = ()) -> bytes:
    """Return a shared library of one relocatable file; equal files give equal libraries.

    It needs no other library than, on Android, the C library that has `calls`. Symbols that `code` leaves open stay
    open.

    Args:
        code: the object file.
        soname: the name that the library is loaded by, such as "libnet.so".
        target: what the code is for.
        calls: functions of the C library, for threads that run the library's code from then on.

    Raises:
        PatcError: there is no linker, or it fails.
    """
    command = find_linker(target.architecture)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "net.o").write_bytes(code)
        words = ["net.o"]
        if calls and "android" in target.triple:  # whose loader looks for symbols nowhere else
            names = "\n".join(f"define void @{name}() {{\n  ret void\n}}" for name in calls)
            (Path(folder) / "c.o").write_bytes(emit_object(optimize(names, target), target))
            _link(command, folder, target, ["-soname", "libc.so", "-o", "libc.so", "c.o"])
            words.append("libc.so")
        keep = ["-z", "nodelete"] if calls else []
        _link(command, folder, target, [*keep, "-soname", soname, "-o", "net.so", *words])
        return (Path(folder) / "net.so").read_bytes()


def _link(command: Sequence[str], folder: str, target: Target, words: Sequence[str]) -> None:
    emulation, page_bytes, _ = _MACHINES[target.architecture]
    options = ["-m", emulation, "-shared", "--hash-style=both", "--build-id=none"]
    options += [word for keyword in (f"max-page-size={page_bytes}", *_KEYWORDS) for word in ("-z", keyword)]
    environment = os.environ | {"ZIG_GLOBAL_CACHE_DIR": str(cache_folder("zig"))}
    try:
        run = subprocess.run([*command, *options, *words], cwd=folder, env=environment, capture_output=True, text=True)
    except OSError as error:
        raise PatcError(f"cannot run the linker: {error.strerror or error}", command[0]) from None
    if run.returncode != 0:
        reason = next(iter(run.stderr.splitlines()), f"exit status {run.returncode}")
        raise PatcError(f"the linker failed: {reason}", command[0])


@functools.cache
def find_linker(architecture: str) -> tuple[str, ...]:
    """Return the words that start a linker for an architecture: that of the package ziglang, else one on the PATH.

    Raises:
        PatcError: there is none.
    """
    if importlib.util.find_spec("ziglang") is not None:
        return (sys.executable, "-m", "ziglang", "ld.lld")
    own = ("ld",) if sys.platform == "linux" and platform.machine() == architecture else ()
    for name in ("ld.lld", _MACHINES[architecture][2], *own):
        path = shutil.which(name)
        if path is not None:
            return (path,)
    path = shutil.which("lld")
    if path is not None:
        return (path, "-flavor", "gnu")
    installed = "binutils or lld" if own else "lld"
    raise PatcError(
        f"expected a linker for {architecture}, found none: pip install 'patc[arm]' (ziglang), or install {installed}"
    )
