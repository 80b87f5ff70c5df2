"""The inner loops of pattern layers on NEON: weights by element, nothing spilled, and as fast as the core multiplies."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import pytest
import torch

pytest.importorskip("capstone", reason="decoding AArch64 code needs capstone")
pytest.importorskip("unicorn", reason="the emulator's modules need unicorn")

from patc.bench.core_model import last_cycles, prepare
from patc.bench.cores import find_core
from patc.bench.cycles import CycleModel
from patc.bench.emulator import EmulatedProgram
from patc.bench.execution import trace_layers
from patc.bench.instructions import Decoder, Instruction
from patc.compiler import compile_model
from patc.pruning import PatternSpec, prune_
from patc.runtime.image import read_object
from patc.runtime.model import CompiledModel
from patc.runtime.object_code import AARCH64
from patc.targets import AARCH64_CPUS

BY_ELEMENT = re.compile(r"fmla v\d+\.(4s, v\d+\.4s, v\d+\.s|8h, v\d+\.8h, v\d+\.h)\[\d\]")
SIZES = {56: 64, 28: 128, 14: 256, 7: 512}  # height and width: channels, as in ResNet-18
ROUNDS = 40


def loops(code: bytes, reads: str = "ldrsh") -> Iterator[list[Instruction]]:
    """Yield the bodies of the loops over kept kernels, branch included: innermost ones that multiply and load the
    kernel's 16-bit channel, or read something else."""
    decoder = Decoder()
    for section in read_object(code, AARCH64).sections:
        found = decoder.decode(bytes(section.data))
        for end, instruction in enumerate(found):
            target = re.search(r"#(0x[0-9a-f]+)$", instruction.text)
            if not instruction.mnemonic.startswith("b.") or target is None:
                continue
            start = int(target.group(1), 16) // 4
            body = found[start : end + 1]
            inner = any(one.kind in ("branch", "call") for one in body[:-1])
            if not inner and {"fmla", reads} <= {one.mnemonic for one in body}:
                yield body


def compile_layer(size: int, stride: int, cpu: str) -> CompiledModel:
    """Compile a net whose last layer is a pruned 3x3 one with all eight patterns."""
    torch.manual_seed(size)
    channels = SIZES[size]
    # The first convolution keeps all kernels.
    first, second = torch.nn.Conv2d(1, channels, 1), torch.nn.Conv2d(channels, channels, 3, stride, 1)
    model = torch.nn.Sequential(first, second, torch.nn.ReLU()).eval()
    prune_(model, PatternSpec(connectivity=4.02))
    inputs = (torch.zeros(1, 1, size * stride, size * stride),)
    compiled = compile_model(model, inputs, threads=1, target=f"aarch64-linux:{cpu}")
    assert compiled.layers[-1].algorithm in ("pattern-direct", "input-stationary"), compiled.layers[-1].explanation
    return compiled


def modelled_rate(body: Sequence[Instruction], cpu: str) -> float:
    """Return the multiply-adds of a cycle that a loop reaches when it runs for long."""
    core = find_core(cpu)
    steps = prepare(body, core)
    return sum(one.is_vector_fma for one in body) / last_cycles([steps] * ROUNDS, core)


@pytest.mark.parametrize("size", sorted(SIZES))
def test_loops_of_all_patterns_reach_the_peak(size: int) -> None:
    """At least 1.7 of the 2 multiply-adds that a Cortex-A76 starts in a cycle, 1.5 at 7x7. Modelled."""
    bodies = list(loops(compile_layer(size, 1, "cortex-a76").program.code))
    assert len(bodies) >= 8, "a loop for each pattern"
    for body in bodies:
        text = "\n".join(one.text for one in body)
        products = [one.text for one in body if one.mnemonic == "fmla"]
        assert all(BY_ELEMENT.fullmatch(product) for product in products), text
        assert not re.search(r"^dup|\[sp", text, re.MULTILINE), f"a broadcast or a spill:\n{text}"
        assert modelled_rate(body, "cortex-a76") >= (1.5 if size == 7 else 1.7), text


@pytest.mark.parametrize("cpu", sorted(AARCH64_CPUS))
@pytest.mark.parametrize(("size", "stride"), [(14, 1), (28, 2)])
def test_loops_fit_the_registers(cpu: str, size: int, stride: int) -> None:
    """On every CPU, with either algorithm."""
    bodies = list(loops(compile_layer(size, stride, cpu).program.code))
    assert len(bodies) >= 8
    for body in bodies:
        text = "\n".join(one.text for one in body)
        assert not re.search(r"^dup|\[sp", text, re.MULTILINE), f"a broadcast or a spill:\n{text}"


@pytest.mark.parametrize("cpu", sorted(AARCH64_CPUS))
def test_schedules_are_chosen_for_the_modelled_core(cpu: str) -> None:
    target, core = AARCH64_CPUS[cpu], find_core(cpu)
    assert target.decoded == core.decoded
    assert target.fma_lanes == 4 * core.fma_peak
    assert target.load_bytes == core.pipes["L"] * core.load_bits // 8


@pytest.mark.parametrize(("size", "stride"), [(56, 1), (28, 1), (14, 1), (7, 1), (14, 2)])
def test_chosen_layers_take_the_cycles_that_were_expected(size: int, stride: int) -> None:
    """What chose the schedule counts as the model of the finished code does, within a fifth."""
    compiled = compile_layer(size, stride, "cortex-a76")
    program = EmulatedProgram(compiled.program)
    _, traces = trace_layers(program, compiled.random_inputs(), len(compiled.layers))
    modelled = CycleModel(program.emulator, "cortex-a76").cycles(traces[-1])
    assert modelled == pytest.approx(compiled.layers[-1].predicted_cycles, rel=0.2)


def test_taps_of_1x1_patterns_spill_nothing() -> None:
    """Of 20 vectors of sums, whose inputs would take as many registers again if all were loaded before they are used."""
    torch.manual_seed(0)
    expansion, depthwise = torch.nn.Conv2d(64, 384, 1), torch.nn.Conv2d(384, 384, 3, padding=1, groups=384)
    model = torch.nn.Sequential(expansion, torch.nn.ReLU(), depthwise).eval()
    prune_(model, PatternSpec(connectivity=1.0, pointwise="groups", first_layer="prune"))
    compiled = compile_model(model, (torch.zeros(1, 64, 14, 14),), threads=1, target="aarch64-linux:cortex-a76")
    assert "tap-direct" in [layer.algorithm for layer in compiled.layers]
    bodies = list(loops(compiled.program.code, "ldrsw"))
    assert bodies
    for body in bodies:
        assert not [one.text for one in body if one.mnemonic.startswith("st") or "sp" in one.text]
