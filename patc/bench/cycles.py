"""`patc bench --model-cycles`: a model compiled for AArch64, run in an emulator, and its cycles modelled.

How often each block of code runs is counted, which is exact. What a block takes is modelled (`patc.bench.core_model`),
so cycles are never measured ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from patc.bench.core_model import Step, last_cycles, prepare
from patc.bench.cores import find_core
from patc.bench.emulator import EmulatedProgram, Emulator, import_arm
from patc.bench.execution import Block, LayerTrace, trace_layers
from patc.bench.instructions import Decoder, Instruction
from patc.bench.workload import Workload, reference, relative_error
from patc.compiler import compile_model
from patc.diagnostics import PatcError
from patc.layers import LayerReport
from patc.numerics import NUMERICS
from patc.targets import Target

FORMAT = 1
WORST = 3  # layers that a summary names
METHOD = (
    "modelled, not measured: executed blocks are counted in an emulator, and each takes what a scheduling model of the "
    "core says; all data is in the first-level cache and every branch is predicted; of layers that take turns band by "
    "band, the first one has what all of them take; see patc/bench/core_model.py"
)


@dataclass(frozen=True)
class ModelledLayer:
    """A layer and what it takes.

    Attributes:
        layer: what it computes and how.
        instructions: executed ones.
        multiply_adds: vector instructions that multiply and add floats, FMLA and FMLS.
        loads: instructions that load, a pair being one.
        cycles: modelled.
    """

    layer: LayerReport
    instructions: int
    multiply_adds: int
    loads: int
    cycles: float

    @property
    def rate(self) -> float:
        """Multiply-add instructions in a cycle."""
        return self.multiply_adds / max(self.cycles, 1)

    def to_json(self, fma_peak: float) -> dict[str, Any]:
        """Return the layer and its counts as JSON values."""
        return {
            **self.layer.to_json(),
            "instructions": self.instructions,
            "fmla": self.multiply_adds,
            "loads": self.loads,
            "modelled_cycles": round(self.cycles),
            "fmla_per_cycle": self.rate,
            "share_of_peak": self.rate / fma_peak,
        }


@dataclass(frozen=True)
class CycleResult:
    """What was modelled.

    Attributes:
        workload: network, weights and inputs.
        target: name of the target.
        cpu: whose model was used.
        dtype: of activations and weights, "f32" or "f16".
        fma_peak: vector multiply-adds that can start in one cycle of it.
        error: of the emulated outputs, relative to PyTorch in float64.
        layers: in the order in which they run.
    """

    workload: Workload
    target: str
    cpu: str
    dtype: str
    fma_peak: float
    error: float
    layers: tuple[ModelledLayer, ...]

    @property
    def is_wrong(self) -> bool:
        """Whether the error is above what patc promises."""
        return not self.error <= self.error_bound

    @property
    def error_bound(self) -> float:
        return NUMERICS[self.dtype].error_bound

    @property
    def instructions(self) -> int:
        return sum(item.instructions for item in self.layers)

    @property
    def multiply_adds(self) -> int:
        return sum(item.multiply_adds for item in self.layers)

    @property
    def loads(self) -> int:
        return sum(item.loads for item in self.layers)

    @property
    def cycles(self) -> float:
        return sum(item.cycles for item in self.layers)

    @property
    def rate(self) -> float:
        """Multiply-add instructions in a cycle, of all layers together."""
        return self.multiply_adds / max(self.cycles, 1)

    def lost_cycles(self, item: ModelledLayer) -> float:
        """Return the cycles that a layer takes beyond those in which its multiply-adds could start."""
        return item.cycles - item.multiply_adds / self.fma_peak

    def most_cycles_lost(self) -> list[ModelledLayer]:
        """Return the layers that take the most cycles beyond those of their multiply-adds."""
        return sorted(self.layers, key=self.lost_cycles, reverse=True)[:WORST]

    def furthest_from_peak(self) -> list[ModelledLayer]:
        """Return the layers that multiply the least in a cycle, of those that multiply at all."""
        multiplying = [item for item in self.layers if item.layer.kept_weights]
        return sorted(multiplying, key=lambda item: item.rate)[:WORST]

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "format": FORMAT,
            "method": METHOD,
            "workload": asdict(self.workload),
            "target": self.target,
            "cpu": self.cpu,
            "dtype": self.dtype,
            "fmla_per_cycle_peak": self.fma_peak,
            "error": self.error,
            "instructions": self.instructions,
            "fmla": self.multiply_adds,
            "loads": self.loads,
            "modelled_cycles": round(self.cycles),
            "fmla_per_cycle": self.rate,
            "share_of_peak": self.rate / self.fma_peak,
            "layers": [item.to_json(self.fma_peak) for item in self.layers],
        }


def check_target(target: Target) -> None:
    """Refuse what cannot be modelled, before anything takes time.

    Raises:
        PatcError: the target is no AArch64 CPU that has a model, or a package is missing.
    """
    if target.architecture != "aarch64" or not target.cpu:
        raise PatcError(f"expected a target such as aarch64-linux together with --model-cycles, got '{target.name}'")
    find_core(target.cpu)
    for package in ("unicorn", "capstone"):
        import_arm(package)


def model_cycles(
    workload: Workload,
    target: Target,
    tune: str = "cost",
    dtype: str = "f32",
    notify: Callable[[str], None] = lambda _: None,
    save_ir: str | None = None,
) -> CycleResult:
    """Compile a network for an AArch64 target, run it in an emulator and model its cycles.

    Args:
        tune, dtype, save_ir: see `patc.compile`.
        notify: told in a few words what is going on.

    Raises:
        PatcError: `check_target` refuses the target, or the model cannot be read, compiled or run.
    """
    import torch

    check_target(target)
    workload.check()
    notify("computing the reference in float64")
    model, inputs = workload.build(workload.measured_kind), workload.make_inputs()
    wanted = reference(model, inputs)
    notify(f"compiling for {target.name}")
    tensors = tuple(torch.from_numpy(array) for array in inputs)
    source = workload.source(model)
    compiled = compile_model(source, tensors, target=target.name, threads=1, tune=tune, dtype=dtype, save_ir=save_ir)
    notify("running it in an emulator")
    program = EmulatedProgram(compiled.program)
    outputs, traces = trace_layers(program, inputs, len(compiled.layers))
    notify(f"modelling {target.cpu}")
    modeller = CycleModel(program.emulator, target.cpu)
    return CycleResult(
        workload=workload,
        target=target.name,
        cpu=target.cpu,
        dtype=dtype,
        fma_peak=find_core(target.cpu).fma_peak,
        error=relative_error(outputs, wanted),
        layers=tuple(modeller.layer(*item) for item in zip(compiled.layers, traces, strict=True)),
    )


class CycleModel:
    """Models the cycles of code in an emulator's memory on one CPU."""

    def __init__(self, emulator: Emulator, cpu: str) -> None:
        self._emulator = emulator
        self._core = find_core(cpu)
        self._decoder = Decoder()
        self._instructions: dict[Block, list[Instruction]] = {}
        self._steps: dict[Block, list[Step]] = {}
        self._cycles: dict[Sequence[Block], float] = {}  # layers that share a kernel share its paths

    def layer(self, layer: LayerReport, trace: LayerTrace) -> ModelledLayer:
        """Return what a layer took."""
        counts = [(self.instructions(block), count) for block, count in trace.blocks().items()]
        instructions = sum(count * len(block) for block, count in counts)
        return ModelledLayer(
            layer=layer,
            instructions=instructions,
            multiply_adds=sum(count * sum(item.is_vector_fma for item in block) for block, count in counts),
            loads=sum(count * sum(item.is_load for item in block) for block, count in counts),
            # Contexts that are cut off can add up to a little less.
            cycles=max(self.cycles(trace), instructions / self._core.decoded),
        )

    def cycles(self, trace: LayerTrace) -> float:
        """Return the cycles of everything in a trace."""
        return sum(count * self._path_cycles(path) for path, count in trace.paths.items())

    def instructions(self, block: Block) -> list[Instruction]:
        """Return the instructions of a block."""
        if block not in self._instructions:
            address, size = block
            self._instructions[block] = self._decoder.decode(self._emulator.read_code(address, size), address)
        return self._instructions[block]

    def _path_cycles(self, path: Sequence[Block]) -> float:
        if path not in self._cycles:
            self._cycles[path] = last_cycles([self._prepared(block) for block in path], self._core)
        return self._cycles[path]

    def _prepared(self, block: Block) -> list[Step]:
        if block not in self._steps:
            self._steps[block] = prepare(self.instructions(block), self._core)
        return self._steps[block]
