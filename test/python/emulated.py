"""Compile `pattern` nets for AArch64 and call them in an emulator, as `native` does for this machine."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from native import NAN_BYTE, Memories, run_passes
from torch_mlir import ir

from patc.bench.emulator import PAGE, Emulator
from patc.codegen.program import compile_code
from patc.parameters import ParameterStore
from patc.targets import get_target

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
    """Compile a module for an AArch64 target. See `native.run_passes` for the arguments."""
    memories = run_passes(module, parameters, target=target, **how)
    return Emulated(compile_code(module, get_target(target)), memories)


@dataclass(frozen=True)
class Emulated:
    """A compiled `@main`: an object file, and what it takes."""

    code: bytes
    memories: Memories

    def __call__(self, *inputs: np.ndarray, fenced: bool = True) -> list[np.ndarray]:
        """Return the outputs as float32 arrays. Memory starts full of NaN, and a page without memory follows each.

        Raises:
            AssertionError: the code changed its inputs or weights, or wrote in front of a buffer.
            PatcError: it fails, or touches what is behind a buffer.
        """
        emulator, sizes = Emulator(self.code), self.memories.sizes
        places = [_reserve(emulator, size) for size in sizes]
        given = [*zip(places, inputs, strict=False), (places[-1], self.memories.weights)]
        for place, array in given:
            emulator.engine.mem_write(place, np.ascontiguousarray(array).tobytes())
        emulator.call("main", *places)
        for place, array in given:
            np.testing.assert_array_equal(emulator.get(place, array.shape, array.dtype), array)
        for number, place in enumerate(places):
            front = emulator.get(place - place % PAGE, (place % PAGE,), np.uint8)
            assert (front == NAN_BYTE).all(), f"wrote in front of the memory of argument {number}"
        outputs = places[len(inputs) :]
        return [emulator.get(place, shape) for place, shape in zip(outputs, self.memories.shapes, strict=False)]


def _reserve(emulator: Emulator, size: int) -> int:
    """Return the address of new memory whose page is full of NaN from its start on."""
    place = emulator.reserve(size)
    start = place - place % PAGE
    emulator.engine.mem_write(start, bytes([NAN_BYTE]) * (place + size - start))
    return place
