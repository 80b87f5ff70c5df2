"""Libraries for C: a net for AArch64 as a shared library or an object file, with a header and its weights.

    from patc.library import compile_library

    library = compile_library(model, (x,), name="resnet18", target="aarch64-android")
    library.write("out")  # out/libresnet18.so and out/resnet18.h

The code needs no operating system service, allocates nothing and keeps no state but the address of weights from a file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch_mlir import ir

from patc.backends.base import Options
from patc.backends.native import NativeBackend
from patc.backends.registry import find_backend
from patc.codegen import link, llvm_objects
from patc.codegen.c_interface import (
    Interface,
    c_identifier,
    describe_interface,
    entry_symbol,
    header,
    padded_weights,
)
from patc.codegen.entry_points import entry_points, weights_section
from patc.compiler import Report, compile_program, find_counter, take_states
from patc.diagnostics import Diagnostic, PatcError
from patc.files import AnyPath, Data, atomic_write_all, write_folder
from patc.frontend import ExampleInputs
from patc.instruments import SaveIr
from patc.numerics import Numerics
from patc.options import make_options, require_emits
from patc.pipeline import Pipeline
from patc.quantisation.quantised import Quantised
from patc.runtime import elf
from patc.runtime.program import Program
from patc.runtime.team import LIBRARY_FUNCTIONS, team_text
from patc.targets import Target

WEIGHTS_PLACES = ("embed", "file")


@dataclass(frozen=True)
class Library:
    """A net with its C functions.

    Attributes:
        interface: names and sizes.
        program: what was compiled; `code` is LLVM IR text of the net alone, for each of its shapes.
        target: what it was compiled for.
        diagnostics: what the passes remarked.
    """

    interface: Interface
    program: Program
    target: Target
    diagnostics: list[Diagnostic]

    def write(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write `lib<name>.so`, `<name>.h` and, if they are not embedded, `<name>.weights`; return their paths.

        The folder is made if it is missing. Equal libraries give equal files.

        Raises:
            PatcError: there is no linker, none for the target, or a file cannot be written; nothing is left behind.
        """
        require_emits(self.target, "so", "for a shared library")
        name = f"lib{self.interface.name}.so"
        calls = LIBRARY_FUNCTIONS if self.interface.threads > 1 else ()
        return write_folder(folder, self._files(name, link.link_shared(self.object_file(), name, self.target, calls)))

    def write_object(self, path: str | os.PathLike[str]) -> list[Path]:
        """Write an object file and, beside it, header and weights as `write` does; return the paths.

        Raises:
            PatcError: a file cannot be written, or the name is that of another file; nothing is left behind.
        """
        require_object_name(path)
        place = Path(path)
        files: dict[AnyPath, Data] = {
            place.with_name(name): data for name, data in self._files(place.name, self.object_file()).items()
        }
        atomic_write_all(files)
        return [Path(path) for path in files]

    def _files(self, code_name: str, code: bytes) -> dict[str, Data]:
        files: dict[str, Data] = {code_name: code, f"{self.interface.name}.h": header(self.interface)}
        if not self.interface.embedded:
            files[f"{self.interface.name}.weights"] = padded_weights(self.program.weights).data
        return files

    def object_file(self) -> bytes:
        """Return a relocatable ELF file that offers `interface.functions`."""
        image = llvm_objects.emit_object(self._optimized(), self.target)
        if self.interface.embedded and self.interface.weights_bytes:
            weights = padded_weights(self.program.weights).data
            image = elf.fill_section(image, weights_section(self.interface), weights)
        return image

    def assembly(self) -> str:
        """Return the code as assembly text; embedded weights are zeros there."""
        return llvm_objects.emit_assembly(self._optimized(), self.target)

    def llvm_ir(self) -> str:
        """Return the code as optimized LLVM IR text; embedded weights are zeros there."""
        return str(self._optimized())

    def _optimized(self) -> Any:
        net, *others = (entry.code.decode() for entry in self.program.entries)
        symbols = [entry_symbol(number) for number in range(1, len(others) + 1)]
        runtime = team_text(self.target.architecture) if self.interface.threads > 1 else ""
        text = llvm_objects.link_texts(f"{net}\n{entry_points(self.interface, self.target)}", others, symbols, runtime)
        return llvm_objects.optimize(text, self.target, self.interface.functions)


def compile_library(
    model: Any,
    example_inputs: ExampleInputs = None,
    *,
    name: str,
    target: str | Target = "aarch64-linux",
    threads: int = 1,
    tune: str = "cost",
    dtype: str = "f32",
    weights: str = "embed",
    dynamic_batch: bool = False,
    streaming: bool = False,
    shapes: Sequence[Any] = (),
    zeros: Any = None,
    quantised: Quantised | None = None,
    report: Report | None = None,
    save_ir: str | os.PathLike[str] | None = None,
) -> Library:
    """Compile a model to a library for C.

    Args:
        model, example_inputs, tune, dtype, streaming, shapes, zeros, report, save_ir: as for `patc.compile`.
        name: what the model is called; functions, constants and files get the C identifier that is made of it.
        target: "host", "x86-64-v3", "x86-64-v4", "aarch64-linux" or "aarch64-android"; where it is not the default
            one, the CPU that schedules are chosen for behind a colon, as in "aarch64-linux:cortex-a55".
        threads: among which each layer is divided; the library starts them.
        dynamic_batch: whether the function takes the number of images, a multiple of that of the example inputs; see
            `patc.compile`.
        weights: "embed" for weights in the library, "file" for a file that the program reads or maps.
        quantised: how layers, or weights alone, become integers, as by `patc.quantize`; None for a library in floats.

    Raises:
        PatcError: as for `patc.compile`, or another target or place of the weights.
    """
    options = make_options(target, threads, dtype, tune)
    require_library(options.target)
    if weights not in WEIGHTS_PLACES:
        raise PatcError(f"expected weights to be embed or file, got '{weights}'")
    if quantised is not None:
        quantised.check(options.target)
        if zeros is not None or dtype != "f32":
            other = "zeros" if zeros is not None else f"dtype {dtype}"
            raise PatcError(f"expected quantised or {other}, got both")
        if quantised.weights_only is None and (dynamic_batch or shapes):
            other = "dynamic_batch" if dynamic_batch else "shapes"
            raise PatcError(f"expected samples or {other}, got both: samples are of one shape")
    counter = find_counter(zeros, dynamic_batch, shapes) if quantised is None else quantised.calibrate
    if streaming:
        model, example_inputs = take_states(model, example_inputs, dynamic_batch)
    backend = _LibraryBackend()
    instruments = SaveIr.into(save_ir)
    program, diagnostics = compile_program(
        model, example_inputs, options, report, backend, dynamic_batch, shapes, instruments, counter
    )
    machine = options.target
    interface = describe_interface(
        program, name, c_identifier(name), llvm_objects.cpu_of(machine), embed=weights == "embed"
    )
    return Library(interface, program, machine, diagnostics)


def require_library(target: Target) -> None:
    """Refuse a target that there are no libraries for.

    Raises:
        PatcError: its backend writes none, or its system is not Linux.
    """
    require_emits(target, "obj", "for a library")
    if "linux" not in target.triple:
        raise PatcError(f"expected a target of Linux for a library, got '{target.name}' ({target.triple})")


def require_object_name(path: str | os.PathLike[str]) -> None:
    """Refuse a name that the header or the weights beside an object file may have."""
    if Path(path).suffix in (".h", ".weights"):
        raise PatcError(
            "expected the name of an object file, whose header and weights get names of their own", str(path)
        )


class _LibraryBackend(NativeBackend):
    """Has the passes of the target's own backend and stops at LLVM IR text, to which the C functions are added."""

    name = ""

    def describe_lacking(self, target: Target, numerics: Numerics) -> str:
        return target.name

    def pipeline(self, options: Options) -> Pipeline:
        return find_backend(options.target.backend).pipeline(options)

    def emit(self, module: ir.Module, target: Target) -> bytes:
        return llvm_objects.with_fixed_arguments(llvm_objects.lower_to_llvm_ir(module, target)).encode()
