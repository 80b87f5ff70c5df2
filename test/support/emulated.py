"""Compile `pattern` nets for AArch64 and call them in an emulator, as `native` does for this machine."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from native import NAN_BYTE, lower, memory_sizes
from torch_mlir import ir

from patc.bench.emulator import PAGE, Emulator
from patc.execution import compile_module
from patc.parameters import ParameterStore
from patc.runtime.program import ENTRY, Program

MISSING = [name for name in ("unicorn", "capstone") if importlib.util.find_spec(name) is None]
HAS_ZIG = importlib.util.find_spec("ziglang") is not None
needs_linker = pytest.mark.skipif(
    not HAS_ZIG and not any(map(shutil.which, ("ld.lld", "lld", "aarch64-linux-gnu-ld"))),
    reason="needs a linker for AArch64: pip install 'patc[arm]'",
)
needs_arm = pytest.mark.skipif(bool(MISSING), reason=f"needs {' and '.join(MISSING)}: pip install 'patc[arm]'")


def compile_emulated(
    module: ir.Module, parameters: ParameterStore, *, target: str = "aarch64-linux", **how: Any
) -> Emulated:
    """Compile a module for an AArch64 target. See `native.lower` for the arguments."""
    state = lower(module, parameters, target=target, **how)
    return Emulated(compile_module(module, state.parameters, target=target, threads=1, stage="parallelize"))


@dataclass(frozen=True)
class Emulated:
    """A compiled `@main`."""

    program: Program

    def __call__(self, *inputs: np.ndarray, fenced: bool = True) -> list[np.ndarray]:
        """Return the outputs. Memory starts full of NaN, and a page without memory follows each.

        Raises:
            AssertionError: the code changed its inputs or weights, or wrote in front of a buffer.
            PatcError: it fails, or touches what is behind a buffer.
        """
        emulator = Emulator(self.program.code)
        places = [_reserve(emulator, size) for size in memory_sizes(self.program)]
        given = [*zip(places, inputs, strict=False), (places[-1], self.program.weights)]
        for place, array in given:
            emulator.engine.mem_write(place, np.ascontiguousarray(array).tobytes())
        emulator.call(ENTRY, *places)
        for place, array in given:
            np.testing.assert_array_equal(emulator.get(place, array.shape, array.dtype), array)
        for number, place in enumerate(places):
            front = emulator.get(place - place % PAGE, (place % PAGE,), np.uint8)
            assert (front == NAN_BYTE).all(), f"wrote in front of the memory of argument {number}"
        outputs = places[len(inputs) :]
        infos = self.program.outputs
        return [emulator.get(place, info.shape, info.dtype) for place, info in zip(outputs, infos, strict=False)]


def _reserve(emulator: Emulator, size: int) -> int:
    """Return the address of new memory whose page is full of NaN from its start on."""
    place = emulator.reserve(size)
    start = place - place % PAGE
    emulator.engine.mem_write(start, bytes([NAN_BYTE]) * (place + size - start))
    return place
