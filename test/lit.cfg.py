"""lit configuration: `.mlir` files whose RUN lines call `patc-opt`, `patc`, `filecheck` and `not`.

    lit -v test

The tools are those of the Python environment that runs lit. Features for REQUIRES and UNSUPPORTED lines:
x86-64-host, aarch64-host, avx2, avx512, ziglang (the package: linker and C compiler), qemu-aarch64,
vulkan (a device), spirv-val.
"""

import atexit
import contextlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import lit.formats

from patc.diagnostics import PatcError
from patc.runtime.vulkan import find_device
from patc.targets import host_features

config = globals()["config"]  # lit puts it there
config.name = "patc"
config.test_format = lit.formats.ShTest(execute_external=False)
config.suffixes = [".mlir"]
config.excludes = ["Inputs"]
config.test_source_root = str(Path(__file__).parent)
config.test_exec_root = str(Path(__file__).parents[1] / "build" / "lit")

# Threads of OpenBLAS take time to start, and those of a process that forks are not there in its children.
alone = {"OPENBLAS_NUM_THREADS": "1"}
config.environment.update(alone)
# To load a tool takes many times as long as to run it: calls are forked from one process that ends with this one.
server = [sys.executable, Path(__file__).parent / "support" / "tool_server.py"]
tools = subprocess.Popen(server, env=os.environ | alone, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
folder = tools.stdout.readline().strip()
if not folder:
    raise SystemExit("tools cannot be loaded")
atexit.register(tools.wait, 10)
atexit.register(tools.stdin.close)
scripts = sysconfig.get_path("scripts")
config.environment["PATH"] = f"{folder}:{scripts}:{config.environment['PATH']}"
config.environment["PATC_NO_CACHE"] = "1"

architecture = {"amd64": "x86-64", "x86_64": "x86-64", "arm64": "aarch64"}.get(
    platform.machine().lower(), platform.machine().lower()
)
config.available_features.add(f"{architecture}-host")
if {"avx2", "fma"} <= host_features():
    config.available_features.add("avx2")
if {"avx512f", "avx512vl", "avx512dq", "avx512bw"} <= host_features():
    config.available_features.add("avx512")
if importlib.util.find_spec("ziglang") is not None:
    config.available_features.add("ziglang")
if shutil.which("qemu-aarch64") is not None:
    config.available_features.add("qemu-aarch64")
if shutil.which("spirv-val") is not None:
    config.available_features.add("spirv-val")
with contextlib.suppress(PatcError):
    find_device()
    config.available_features.add("vulkan")
# Which checkout is tested where several share an environment, where drivers are found, and where they keep what they
# compiled.
for name in ("PYTHONPATH", "VK_DRIVER_FILES", "VK_ICD_FILENAMES", "PATC_VULKAN_DEVICE"):
    if name in os.environ:
        config.environment[name] = os.environ[name]
config.environment["MESA_SHADER_CACHE_DIR"] = str(Path(config.test_exec_root) / "shaders")
