"""Shared libraries for AArch64, by a linker that is found at run time: no compiler and no system library takes part."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from patc.diagnostics import PatcError
from patc.files import cache_folder

# Android 15 and some Linux kernels have pages of 16 KB; a library for those loads where pages are smaller, too.
PAGE_BYTES = 16384
_MISSING = "expected a linker for AArch64, found none: pip install 'patc[arm]' (ziglang), or install lld"


def link_shared(code: bytes, soname: str) -> bytes:
    """Return a shared library of one relocatable AArch64 file; equal files give equal libraries.

    It needs no other library. Symbols that `code` leaves open stay open.

    Args:
        code: the object file.
        soname: the name that the library is loaded by, such as "libnet.so".

    Raises:
        PatcError: there is no linker, or it fails.
    """
    command = find_linker()
    # Everything is bound when the library is loaded, and read-only from then on.
    keywords = (f"max-page-size={PAGE_BYTES}", "relro", "now", "noexecstack")
    options = ["-m", "aarch64elf", "-shared", "-soname", soname, "--hash-style=both", "--build-id=none"]
    options += [word for keyword in keywords for word in ("-z", keyword)]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "net.o").write_bytes(code)
        environment = os.environ | {"ZIG_GLOBAL_CACHE_DIR": str(cache_folder("zig"))}
        words = [*command, *options, "-o", "net.so", "net.o"]
        try:
            run = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
        except OSError as error:
            raise PatcError(f"cannot run the linker: {error.strerror or error}", command[0]) from None
        if run.returncode != 0:
            reason = next(iter(run.stderr.splitlines()), f"exit status {run.returncode}")
            raise PatcError(f"the linker failed: {reason}", command[0])
        return (Path(folder) / "net.so").read_bytes()


@functools.cache
def find_linker() -> tuple[str, ...]:
    """Return the words that start a linker for AArch64: that of the package ziglang, else one on the PATH.

    Raises:
        PatcError: there is none.
    """
    if importlib.util.find_spec("ziglang") is not None:
        return (sys.executable, "-m", "ziglang", "ld.lld")
    for name in ("ld.lld", "aarch64-linux-gnu-ld"):
        path = shutil.which(name)
        if path is not None:
            return (path,)
    path = shutil.which("lld")
    if path is not None:
        return (path, "-flavor", "gnu")
    raise PatcError(_MISSING)
