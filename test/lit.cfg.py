"""lit configuration: `.mlir` files whose RUN lines call `patc-opt`, `patc`, `filecheck` and `not`.

    lit -v test

The tools are those of the Python environment that runs lit. Features for REQUIRES and UNSUPPORTED lines:
x86-64-host, aarch64-host, avx2, avx512.
"""

import platform
import sysconfig
from pathlib import Path

import lit.formats

from patc.targets import host_features

config = globals()["config"]  # lit puts it there
config.name = "patc"
config.test_format = lit.formats.ShTest(execute_external=False)
config.suffixes = [".mlir"]
config.excludes = ["Inputs"]
config.test_source_root = str(Path(__file__).parent)
config.test_exec_root = str(Path(__file__).parents[1] / "build" / "lit")

scripts = sysconfig.get_path("scripts")
config.environment["PATH"] = f"{scripts}:{config.environment['PATH']}"
# A tool runs for a fraction of a second: starting numpy's threads would take a good part of it.
config.environment["OPENBLAS_NUM_THREADS"] = "1"

architecture = {"amd64": "x86-64", "x86_64": "x86-64", "arm64": "aarch64"}.get(
    platform.machine().lower(), platform.machine().lower()
)
config.available_features.add(f"{architecture}-host")
if {"avx2", "fma"} <= host_features():
    config.available_features.add("avx2")
if {"avx512f", "avx512vl", "avx512dq", "avx512bw"} <= host_features():
    config.available_features.add("avx512")
