"""AArch64 code on any machine: object files run in the Unicorn emulator.

What it computes is what an AArch64 CPU computes. How long it takes says nothing about one.
"""

from __future__ import annotations

import importlib
import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from patc.diagnostics import PatcError
from patc.runtime.image import ObjectFile, read_object
from patc.runtime.object_code import AARCH64
from patc.runtime.program import ENTRY, Program

INSTALL = "pip install 'patc[arm]'"
PAGE = 4096
_IMAGE, _DATA, _STACK_TOP, _RETURN = 0x1000_0000, 0x4000_0000, 0x7F00_0000_0000, 0x7E00_0000_0000
_STACK_BYTES = 1 << 20
_RET = 0xD65F03C0
_STUB_BYTES = 4
_VECTORS_ALLOWED = 3 << 20  # of CPACR_EL1
_SAVED_INTEGERS, _SAVED_VECTORS = range(19, 29), range(8, 16)

_UNARY: dict[str, Callable[[float], float]] = {
    "exp": math.exp,
    "log": math.log,
    "tanh": math.tanh,
    "erf": math.erf,
    "sin": math.sin,
    "cos": math.cos,
}


class Emulator:
    """An AArch64 core with one object file in its memory.

    Arrays lie in memory of their own, up to 63 bytes before a page that cannot be touched, so that code that reads
    or writes far outside ends with an error.

    Args:
        code: a relocatable AArch64 ELF file. The mathematical functions and memory operations of the C library that
            it leaves undefined are computed here.

    Attributes:
        engine: the `unicorn.Uc`, for hooks.
        object: what is in the file.

    Raises:
        PatcError: Unicorn is not installed, the file is no such object, or it needs a function that is not known here.
    """

    def __init__(self, code: bytes) -> None:
        self._unicorn = import_arm("unicorn")
        self._registers = importlib.import_module("unicorn.arm64_const")
        self.object: ObjectFile = read_object(code, AARCH64)
        unicorn = self._unicorn
        self.engine = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
        self.engine.ctl_set_cpu_model(self._registers.UC_CPU_ARM64_MAX)
        self._free = _DATA
        self._fault = ""
        self._place_image()
        self.engine.mem_map(_STACK_TOP - _STACK_BYTES, _STACK_BYTES)
        self.engine.mem_map(_RETURN, PAGE)
        self.engine.reg_write(self._registers.UC_ARM64_REG_CPACR_EL1, _VECTORS_ALLOWED)
        self.engine.hook_add(unicorn.UC_HOOK_MEM_INVALID, self._on_fault)

    def put(self, array: np.ndarray) -> int:
        """Copy an array into new memory and return its address."""
        data = np.ascontiguousarray(array).tobytes()
        address = self.reserve(len(data))
        self.engine.mem_write(address, data)
        return address

    def reserve(self, size: int) -> int:
        """Return the address of `size` new bytes, a multiple of 64."""
        mapped = max(PAGE, size + -size % PAGE)
        start = self._free
        self.engine.mem_map(start, mapped)
        self._free = start + mapped + PAGE
        return start + mapped - size - (mapped - size) % 64

    def get(self, address: int, shape: Sequence[int], dtype: Any = np.float32) -> np.ndarray:
        """Return a copy of an array in memory."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        return np.frombuffer(bytes(self.engine.mem_read(address, size)), dtype).reshape(tuple(shape))

    def read_code(self, address: int, size: int) -> bytes:
        """Return the bytes of instructions."""
        return bytes(self.engine.mem_read(address, size))

    def address_of(self, function: str) -> int:
        """Return where a function of the object starts.

        Raises:
            PatcError: it has no such function.
        """
        for symbol in self.object.symbols:
            if symbol.name == function and symbol.offset is not None:
                return _IMAGE + symbol.offset
        raise PatcError(f"expected code with a function '{function}', found none")

    def call(self, function: str, *arguments: int) -> int:
        """Call a function with integers and addresses, and return what it leaves in x0.

        Raises:
            PatcError: it has no such function, the code touches memory that it was not given or is no instruction,
                or a register that calls must keep has changed.
        """
        start, registers = self.address_of(function), self._registers
        stack = _STACK_TOP - 256 - 16 * (len(arguments) // 2)
        for number, value in enumerate(arguments):
            if number < 8:
                self.engine.reg_write(registers.UC_ARM64_REG_X0 + number, value)
            else:
                self.engine.mem_write(stack + 8 * (number - 8), struct.pack("<Q", value & 0xFFFFFFFFFFFFFFFF))
        self.engine.reg_write(registers.UC_ARM64_REG_SP, stack)
        self.engine.reg_write(registers.UC_ARM64_REG_X30, _RETURN)
        before = self._saved_registers()
        self._fault = ""
        try:
            self.engine.emu_start(start, _RETURN)
        except self._unicorn.UcError as error:
            place = self.describe(self.engine.reg_read(registers.UC_ARM64_REG_PC))
            raise PatcError(f"emulated code failed at {place}: {self._fault or error}") from None
        for name, value in self._saved_registers().items():
            if before[name] != value:
                raise PatcError(f"expected '{function}' to keep register {name}, found it changed")
        return int(self.engine.reg_read(registers.UC_ARM64_REG_X0))

    def describe(self, address: int) -> str:
        """Return an address of code as `function+0x10`."""
        functions = [
            (_IMAGE + symbol.offset, symbol.name)
            for symbol in self.object.symbols
            if symbol.is_function and symbol.offset is not None
        ]
        before = [item for item in functions if item[0] <= address]
        if not before or address >= _IMAGE + self.object.size:
            return f"{address:#x}"
        start, name = max(before)
        return f"{name}+{address - start:#x}"

    def _place_image(self) -> None:
        """Put the object into memory; each function that it does not define returns at once, and a hook computes it."""
        names = self.object.undefined
        stubs = _IMAGE + self.object.size + -self.object.size % 16
        outside = {name: stubs + _STUB_BYTES * number for number, name in enumerate(names)}
        table = stubs + _STUB_BYTES * len(names) + -(_STUB_BYTES * len(names)) % 16
        content = self.object.address_table(_IMAGE, outside)
        end = table + len(content)
        self.engine.mem_map(_IMAGE, end - _IMAGE + -(end - _IMAGE) % PAGE)
        self.engine.mem_write(_IMAGE, bytes(self.object.load(_IMAGE, outside, table)))
        self.engine.mem_write(table, content)
        for name, address in outside.items():
            self.engine.mem_write(address, struct.pack("<I", _RET))
            compute = self._find_function(name)
            self.engine.hook_add(
                self._unicorn.UC_HOOK_CODE, lambda *_, compute=compute: compute(), begin=address, end=address
            )

    def _find_function(self, name: str) -> Callable[[], None]:
        """Return what computes a function of the C library from and into the registers."""
        registers = self._registers
        if name in ("memcpy", "memmove"):
            return self._copy
        if name == "memset":
            return self._fill
        if name in _UNARY:
            return lambda: self._compute(_UNARY[name], registers.UC_ARM64_REG_D0, "d")
        if name.removesuffix("f") in _UNARY:
            return lambda: self._compute(_UNARY[name.removesuffix("f")], registers.UC_ARM64_REG_S0, "f")
        raise PatcError(f"expected code that can be emulated, found a call of '{name}'")

    def _compute(self, function: Callable[[float], float], register: int, kind: str) -> None:
        integer = "I" if kind == "f" else "Q"
        bits = struct.pack(f"<{integer}", self.engine.reg_read(register))
        result = struct.pack(f"<{kind}", _total(function, struct.unpack(f"<{kind}", bits)[0]))
        self.engine.reg_write(register, struct.unpack(f"<{integer}", result)[0])

    def _copy(self) -> None:
        target, source, size = self._integers(3)
        self.engine.mem_write(target, bytes(self.engine.mem_read(source, size)))

    def _fill(self) -> None:
        target, value, size = self._integers(3)
        self.engine.mem_write(target, bytes([value & 255]) * size)

    def _integers(self, count: int) -> list[int]:
        first = self._registers.UC_ARM64_REG_X0
        return [int(self.engine.reg_read(first + number)) for number in range(count)]

    def _saved_registers(self) -> dict[str, int]:
        registers = self._registers
        numbers = {"sp": registers.UC_ARM64_REG_SP}
        numbers |= {f"x{number}": registers.UC_ARM64_REG_X0 + number for number in _SAVED_INTEGERS}
        numbers |= {f"d{number}": registers.UC_ARM64_REG_D0 + number for number in _SAVED_VECTORS}
        return {name: int(self.engine.reg_read(number)) for name, number in numbers.items()}

    def _on_fault(self, engine: Any, access: int, address: int, size: int, value: int, data: Any) -> bool:
        unicorn = self._unicorn
        writes = (unicorn.UC_MEM_WRITE_UNMAPPED, unicorn.UC_MEM_WRITE_PROT)
        fetches = (unicorn.UC_MEM_FETCH_UNMAPPED, unicorn.UC_MEM_FETCH_PROT)
        what = "writes" if access in writes else "runs" if access in fetches else "reads"
        self._fault = f"it {what} {size} bytes at {address:#x}, where it has no memory"
        return False


class EmulatedProgram:
    """A compiled program in an emulator, to be called with arrays.

    Attributes:
        emulator: for hooks.
        stamps: addresses of the time stamps that the program writes.

    Raises:
        PatcError: as `Emulator`, or the program divides its layers among threads.
    """

    def __init__(self, program: Program) -> None:
        if program.threads != 1:
            raise PatcError(f"expected a program of 1 thread to emulate, got one of {program.threads}")
        self.emulator = Emulator(program.code)
        self._program = program
        put, reserve = self.emulator.put, self.emulator.reserve
        stamps = len(program.layers) + 1
        first = reserve(8 * stamps)
        self.stamps = range(first, first + 8 * stamps, 8)
        self._weights, self._arena = put(program.weights), reserve(program.arena_bytes)

    def __call__(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Return the outputs for inputs of the compiled shapes, which become what the model takes.

        Raises:
            PatcError: other inputs, or the code fails.
        """
        program, emulator = self._program, self.emulator
        shapes = [array.shape for array in inputs]
        if shapes != [info.shape for info in program.inputs]:
            raise PatcError(f"expected inputs {', '.join(map(str, program.inputs))}, got shapes {shapes}")
        arrays = [np.asarray(array, info.dtype) for array, info in zip(inputs, program.inputs, strict=True)]
        addresses = [emulator.put(array) for array in arrays]
        outputs = [emulator.reserve(info.nbytes) for info in program.outputs]
        count = [program.inputs[0].shape[0]] if program.counts_images else []
        emulator.call(ENTRY, *addresses, *outputs, self.stamps[0], *count, self._arena, self._weights)
        return [
            emulator.get(place, info.shape, info.dtype) for place, info in zip(outputs, program.outputs, strict=True)
        ]


def run_program(program: Program, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the outputs of a program for AArch64, run in the emulator. Raises what `EmulatedProgram` raises."""
    return EmulatedProgram(program)(*inputs)


def import_arm(name: str) -> Any:
    """Return a package of the extra `arm`.

    Raises:
        PatcError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise PatcError(f"expected the package '{name}', which is not installed ({INSTALL})") from None


def _total(function: Callable[[float], float], value: float) -> float:
    """Return what C returns where Python raises."""
    try:
        return function(value)
    except OverflowError:
        return math.inf
    except ValueError:
        return -math.inf if value == 0 else math.nan
