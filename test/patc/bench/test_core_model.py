"""The scheduling model: instructions are read as the architecture defines them, and loops take what widths, latencies
and chains of results say. All cycles here are modelled."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from emulated import needs_arm
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from patc.bench.core_model import Simulation, last_cycles, prepare
from patc.bench.cores import CORES, KINDS, find_core
from patc.bench.cycles import CycleModel, CycleResult, model_cycles
from patc.bench.emulator import EmulatedProgram
from patc.bench.execution import trace_layers
from patc.bench.instructions import FIRST_VECTOR, FLAGS, STACK_POINTER, Decoder
from patc.bench.workload import Workload
from patc.compiler import compile_model
from patc.diagnostics import PatcError
from patc.targets import AARCH64_CPUS, get_target
from patc.tools.patc import main

pytestmark = needs_arm


def fmla(total: int, vector: int, weights: int, lane: int) -> int:
    """Return `fmla v<total>.4s, v<vector>.4s, v<weights>.s[lane]`."""
    return 0x4F801000 | (lane & 1) << 21 | (lane >> 1) << 11 | weights << 16 | vector << 5 | total


def load(vector: int, base: int, offset: int = 0) -> int:
    """Return `ldr q<vector>, [x<base>, #offset]`."""
    return 0x3DC00000 | offset // 16 << 10 | base << 5 | vector


def store(vector: int, base: int) -> int:
    """Return `str q<vector>, [x<base>]`."""
    return 0x3D800000 | base << 5 | vector


def add(result: int, base: int, number: int = 1) -> int:
    """Return `add x<result>, x<base>, #number`."""
    return 0x91000000 | number << 10 | base << 5 | result


def fadd(result: int, one: int, other: int) -> int:
    """Return `fadd v<result>.4s, v<one>.4s, v<other>.4s`."""
    return 0x4E20D400 | other << 16 | one << 5 | result


def sdot(total: int, one: int, other: int) -> int:
    """Return `sdot v<total>.4s, v<one>.16b, v<other>.16b`."""
    return 0x4E809400 | other << 16 | one << 5 | total


FMUL, REPEAT, LOOP = 0x6E20DC00, 0xF1000400, 0x54000001  # fmul v0, v0, v0; subs x0, x0, #1; b.ne
LOAD_NEXT = 0xF9400000  # ldr x0, [x0]


def loop_cycles(words: Sequence[int], cpu: str = "cortex-a76") -> float:
    """Return what each round of a loop takes."""
    core = find_core(cpu)
    steps = prepare(Decoder().decode(struct.pack(f"<{len(words)}I", *words)), core)
    return last_cycles([steps, steps], core)


# Instructions

V = FIRST_VECTOR
INSTRUCTIONS = [
    (0x4F8A119F, "fmla v31.4s, v12.4s, v10.s[0]", "fma", (V + 12, V + 10), V + 31, (V + 31,), None),
    (0x1F031041, "fmadd s1, s2, s3, s4", "fma", (V + 2, V + 3), V + 4, (V + 1,), None),
    (0x4E23EC41, "fmlal v1.4s, v2.4h, v3.4h", "fma-long", (V + 2, V + 3), V + 1, (V + 1,), None),
    (0x3CC10420, "ldr q0, [x1], #0x10", "vector-load", (1,), None, (V,), 1),
    (0xADC10440, "ldp q0, q1, [x2, #0x20]!", "quad-load-pair", (2,), None, (V, V + 1), 2),
    (0x4D40C864, "ld1r {v4.4s}, [x3]", "vector-load-lane", (3,), None, (V + 4,), None),
    (0x4CDFA864, "ld1 {v4.4s, v5.4s}, [x3], #32", "vector-load-2", (3,), None, (V + 4, V + 5), 3),
    (0x4C408821, "ld2 {v1.4s, v2.4s}, [x1]", "vector-load-2-mixed", (1,), None, (V + 1, V + 2), None),
    (0x69400861, "ldpsw x1, x2, [x3]", "load-pair-signed", (3,), None, (1, 2), None),
    (0x78A37841, "ldrsh x1, [x2, x3, lsl #1]", "load", (2, 3), None, (1,), None),
    (0xF9802020, "prfm pldl1keep, [x1, #0x40]", "prefetch", (1,), None, (), None),
    (0x3CA57883, "str q3, [x4, x5, lsl #4]", "quad-store", (V + 3, 4, 5), None, (), None),
    (0xADBF93E3, "stp q3, q4, [sp, #-0x10]!", "quad-store-pair", (V + 3, V + 4, 31), None, (), STACK_POINTER),
    (0x4D008061, "st1 {v1.s}[2], [x3]", "vector-store", (V + 1, 3), None, (), None),
    (0x9B231041, "smaddl x1, w2, w3, x4", "mul", (2, 3, 4), None, (1,), None),
    (0x9B031041, "madd x1, x2, x3, x4", "mul64", (2, 3, 4), None, (1,), None),
    (0xF1000441, "subs x1, x2, #1", "alu", (2,), None, (1, FLAGS), None),
    (0xEB02003F, "cmp x1, x2", "alu", (1, 2), None, (FLAGS,), None),
    (0xFA431820, "ccmp x1, #3, #0, ne", "alu", (1, FLAGS), None, (FLAGS,), None),
    (0x9A83A041, "csel x1, x2, x3, ge", "alu", (2, 3, FLAGS), None, (1,), None),
    (0xF2A00061, "movk x1, #3, lsl #16", "alu", (1,), None, (1,), None),
    (0x8B031C41, "add x1, x2, x3, lsl #7", "shifted-alu", (2, 3), None, (1,), None),
    (0x54000001, "b.ne #0", "branch", (FLAGS,), None, (), None),
    (0xB4000043, "cbz x3, #8", "branch", (3,), None, (), None),
    (0xD65F03C0, "ret", "branch", (30,), None, (), None),
    (0x94000004, "bl #0x10", "call", (), None, (30,), None),
    (0x6E140461, "mov v1.s[2], v3.s[0]", "simd", (V + 3, V + 1), None, (V + 1,), None),
    (0x6EA31C41, "bit v1.16b, v2.16b, v3.16b", "simd", (V + 2, V + 3, V + 1), None, (V + 1,), None),
    (0x4EA0E841, "fcmlt v1.4s, v2.4s, #0.0", "simd", (V + 2,), None, (V + 1,), None),
    (0x4FA39041, "fmul v1.4s, v2.4s, v3.s[1]", "fmul", (V + 2, V + 3), None, (V + 1,), None),
    (0x4E216841, "fcvtn2 v1.8h, v2.4s", "fconvert", (V + 2, V + 1), None, (V + 1,), None),
    (0x4E040C61, "dup v1.4s, w3", "from-integer", (3,), None, (V + 1,), None),
    (0x4E181C61, "mov v1.d[1], x3", "insert-integer", (3, V + 1), None, (V + 1,), None),
    (0x4E829420, "sdot v0.4s, v1.16b, v2.16b", "dot", (V + 1, V + 2), V, (V,), None),
    (0x4F82E020, "sdot v0.4s, v1.16b, v2.4b[0]", "dot", (V + 1, V + 2), V, (V,), None),
    (0x0E628020, "smlal v0.4s, v1.4h, v2.4h", "long-mul", (V + 1, V + 2), V, (V,), None),
    (0x4EA29420, "mla v0.4s, v1.4s, v2.4s", "simd-mul", (V + 1, V + 2), V, (V,), None),
    (0x4E614820, "sqxtn2 v0.8h, v1.4s", "shift", (V + 1, V), None, (V,), None),
    (0x4E21A820, "fcvtns v0.4s, v1.4s", "fconvert", (V + 1,), None, (V,), None),
    (0xD503201F, "nop", "nothing", (), None, (), None),
]


@pytest.mark.parametrize("case", INSTRUCTIONS, ids=lambda case: case[1])
def test_instructions(case: tuple) -> None:
    word, *wanted = case
    (found,) = Decoder().decode(struct.pack("<I", word))
    assert [found.text, found.kind, found.reads, found.added_to, found.writes, found.moved] == wanted
    assert found.kind in KINDS


# Loops whose cycles follow from widths and latencies

TILE = [fmla(8 + 4 * row + lane, 4 + tap, row % 4, lane) for tap in range(4) for row in range(6) for lane in range(4)]


def test_tile_of_six_rows_and_four_filters_reaches_the_peak() -> None:
    loads = [load(number % 8, 1, 16 * number) for number in range(28)]
    body = [word for pair in zip(TILE, [*loads, *[None] * 68], strict=True) for word in pair if word is not None]
    assert len(body) == 96 + 28
    assert loop_cycles([*body, add(1, 1, 64), REPEAT, LOOP]) == pytest.approx(48, abs=0.2)


@pytest.mark.parametrize(
    ("body", "cpu", "cycles"),
    [
        ([fmla(0, 1, 2, 0)], "cortex-a76", 2),  # sums are forwarded late
        ([fmla(0, 1, 2, 0)], "cortex-a55", 4),
        ([fmla(0, 1, 2, 0)], "cortex-a53", 4),
        ([fmla(0, 1, 2, 0)], "apple-m1", 4),
        ([fmla(0, 0, 2, 0)], "cortex-a76", 4),  # products are not
        ([fadd(0, 0, 1)], "cortex-a76", 2),
        ([fadd(0, 0, 1), fmla(0, 1, 2, 0)], "cortex-a76", 2 + 4),  # nor sums of another kind
        ([sdot(0, 1, 2)], "cortex-a76", 1),
        ([sdot(0, 0, 2)], "cortex-a76", 2),
        ([sdot(number, 30, 31) for number in range(16)], "cortex-a76", 8),
        ([sdot(number, 30, 31) for number in range(16)], "cortex-a55", 16),
        ([sdot(number, 30, 31) for number in range(16)], "cortex-x1", 4),
        ([sdot(0, 1, 2)], "apple-m1", 3),
        ([0x4E21A820] * 4, "cortex-a76", 8),  # conversions take two slots of one pipe
        ([FMUL], "cortex-a76", 3),
        ([LOAD_NEXT], "cortex-a76", 4),
        ([add(1, 1)], "cortex-a76", 1),
        ([load(number, 1) for number in range(12)], "cortex-a76", 6),  # two loads a cycle
        ([load(number, 1) for number in range(12)], "cortex-x1", 4),
        ([load(number, 1) for number in range(12)], "cortex-a55", 24),  # 64 bits a cycle
        ([store(number, 1) for number in range(12)], "cortex-a76", 12),
        ([store(number, 1) for number in range(12)], "apple-m1", 6),
        ([fmla(number, 30, 31, 0) for number in range(16)], "cortex-a76", 8),
        ([fmla(number, 30, 31, 0) for number in range(16)], "cortex-a55", 16),
        ([fmla(number, 30, 31, 0) for number in range(16)], "cortex-a72", 16),
        ([fmla(number, 30, 31, 0) for number in range(16)], "apple-m1", 4),
        ([add(number, 20) for number in range(12)], "cortex-a76", 4),  # three integer pipes
        (
            [load(number, 20) for number in range(4)] + [fmla(number + 8, 4, 5, 0) for number in range(4)],
            "cortex-a76",
            2,
        ),
        ([0xD503201F] * 16, "cortex-a76", 4),  # nothing but decoding
        ([0xD503201F] * 16, "apple-m1", 2),
    ],
)
def test_loops(body: list[int], cpu: str, cycles: float) -> None:
    assert loop_cycles(body, cpu) == pytest.approx(cycles, rel=0.03)


def test_core_that_runs_in_order_waits_where_another_looks_ahead() -> None:
    body = [load(0, 1), fmla(8, 0, 2, 0), load(1, 1), fmla(9, 1, 2, 0)]
    assert loop_cycles(body, "cortex-a76") < 0.5 * loop_cycles(body, "cortex-a55")
    sorted_body = [load(0, 1), load(1, 1), fmla(8, 0, 2, 0), fmla(9, 1, 2, 0)]
    assert loop_cycles(sorted_body, "cortex-a55") < loop_cycles(body, "cortex-a55")


def test_loops_of_two_blocks_take_as_long_as_one_of_both() -> None:
    core = find_core("cortex-a76")
    first, second = (
        prepare(Decoder().decode(struct.pack(f"<{len(half)}I", *half)), core) for half in (TILE[:48], TILE[48:])
    )
    path = [first, second] * 3
    assert last_cycles(path, core) + last_cycles(path[1:], core) == pytest.approx(48, abs=0.2)


WORDS = st.one_of(
    st.builds(fmla, st.integers(0, 31), st.integers(0, 31), st.integers(0, 31), st.integers(0, 3)),
    st.builds(load, st.integers(0, 31), st.integers(0, 3)),
    st.builds(store, st.integers(0, 31), st.integers(0, 3)),
    st.builds(add, st.integers(4, 20), st.integers(0, 20)),
    st.builds(fadd, st.integers(0, 31), st.integers(0, 31), st.integers(0, 31)),
)


@given(st.lists(WORDS, min_size=1, max_size=60), st.sampled_from(sorted(CORES)))
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
def test_nothing_is_faster_than_the_core_is_wide(words: list[int], cpu: str) -> None:
    core = find_core(cpu)
    instructions = Decoder().decode(struct.pack(f"<{len(words)}I", *words))
    cycles = loop_cycles(words, cpu)
    multiply_adds = sum(item.is_vector_fma for item in instructions)
    loads = sum(item.is_load for item in instructions)
    slack = 0.02 * cycles + 1e-9
    assert cycles + slack >= len(words) / core.decoded
    assert cycles + slack >= multiply_adds / core.fma_peak
    assert cycles + slack >= loads / core.pipes["L"]
    # Nor slower than one instruction after the other.
    assert cycles <= sum(core.kind(item.kind).latency * (1 + item.is_wide) + 1 for item in instructions)


@pytest.mark.parametrize("cpu", sorted(CORES))
def test_cores_are_as_wide_as_their_targets(cpu: str) -> None:
    core, target = CORES[cpu], AARCH64_CPUS[cpu]
    assert core.decoded == target.decoded
    assert core.fma_peak == target.fma_lanes / target.lanes
    assert core.pipes["L"] * core.load_bits == 8 * target.load_bytes


def test_every_target_has_a_model() -> None:
    assert set(CORES) == set(AARCH64_CPUS)
    with pytest.raises(PatcError, match=r"^expected a CPU that has a model \(cortex-a76, .*\), got 'cortex-x9'$"):
        find_core("cortex-x9")


# Whole models


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(8, 16, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    path = tmp_path_factory.mktemp("cycles") / "tiny.pt2"
    torch.export.save(torch.export.export(net.eval(), (torch.randn(1, 8, 24, 32),)), path)
    return path


@pytest.fixture(scope="module")
def result(tiny_model: Path) -> CycleResult:
    return model_cycles(Workload(str(tiny_model)), get_target("aarch64-linux"))


def test_multiply_adds_of_whole_tiles_are_counted_exactly(result: CycleResult) -> None:
    """Rows of 32 pixels are whole vectors: each multiply-add of the 1x1 layer is one of four lanes."""
    item = next(item for item in result.layers if item.layer.algorithm == "dense-direct")
    assert item.multiply_adds == item.layer.flops / 2 / 4
    assert item.instructions > item.multiply_adds + item.loads
    assert item.cycles >= item.multiply_adds / result.fma_peak
    assert result.error < 1e-5 and not result.is_wrong


def test_sums_are_those_of_the_layers(result: CycleResult) -> None:
    values = result.to_json()
    for total in ("instructions", "fmla", "loads"):
        assert values[total] == sum(item[total] for item in values["layers"])
    assert values["modelled_cycles"] == pytest.approx(sum(item["modelled_cycles"] for item in values["layers"]), abs=5)
    assert "modelled, not measured" in values["method"]


@pytest.mark.parametrize("cpu", ["cortex-a76", "cortex-a55", "apple-m1"])
def test_paths_add_up_to_the_whole_execution(cpu: str) -> None:
    """Cycles of counted paths are those of one simulation of all that is executed, block after block."""
    import unicorn

    torch.manual_seed(0)
    net, x = nn.Conv2d(5, 12, 3, padding=1).eval(), np.ones((1, 5, 13, 30), np.float32)
    compiled = compile_model(net, (torch.from_numpy(x),), target="aarch64-linux", threads=1)
    program = EmulatedProgram(compiled.program)
    model = CycleModel(program.emulator, cpu)
    core, executed = find_core(cpu), []
    _, traces = trace_layers(program, [x], len(compiled.layers))
    engine = program.emulator.engine
    hook = engine.hook_add(unicorn.UC_HOOK_BLOCK, lambda _, address, size, data: executed.append((address, size)))
    program(x)
    engine.hook_del(hook)
    simulation = Simulation(core)
    inside = {block for trace in traces for block in trace.blocks()}
    for block in executed:
        if block in inside:
            simulation.run(prepare(model.instructions(block), core))
    assert sum(map(model.cycles, traces)) == pytest.approx(simulation.time, rel=0.05)


# The command


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Return the status of a command and what it prints on either stream."""
    status = main(["bench", *words])
    return status, "".join(capsys.readouterr())


def test_command_prints_and_writes(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cycles.json"
    options = ["--target", "aarch64-linux", "--cpu", "cortex-a55", "--model-cycles", "--json", str(path)]
    status, text = run(capsys, str(tiny_model), *options)
    assert status == 0
    assert "cortex-a55, f32, 1 thread: modelled, not measured; assumes all data in L1" in text
    assert "the peak is 1 FMLA a cycle" in text and "all together" in text
    values = json.loads(path.read_text())
    assert values["target"] == "aarch64-linux:cortex-a55" and len(values["layers"]) >= 3


def test_wrong_outputs_are_reported(
    result: CycleResult, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("patc.bench.cycles.model_cycles", lambda *_: replace(result, error=0.5))
    status, text = run(capsys, "resnet18", "--target", "aarch64-linux", "--model-cycles")
    assert status == 1 and "wrong: the error is 5.0e-01, above 0.0001" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--model-cycles", "expected a target such as aarch64-linux together with --model-cycles, got 'host'"),
        (
            "--model-cycles --target x86-64-v3",
            "expected a target such as aarch64-linux together with --model-cycles, got 'x",
        ),
        ("--target aarch64-linux", "expected --model-cycles together with --target aarch64-linux: timing needs such a"),
        (
            "--cpu cortex-a55",
            "expected a target of x86-64-v3, x86-64-v4, aarch64-linux, aarch64-android together with a CPU, got 'host'",
        ),
        (
            "--model-cycles --target aarch64-linux --peers torch",
            "expected --model-cycles without --peers: it models all layers",
        ),
        (
            "--model-cycles --target aarch64-linux --threads 2",
            "expected --model-cycles without --threads: it models all layers",
        ),
        (
            "--model-cycles --target aarch64-linux --layers",
            "expected --model-cycles without --layers: it models all layers",
        ),
        ("--dtype f16", "expected --model-cycles together with --dtype f16: this machine is timed with f32"),
        (
            "--model-cycles --target aarch64-linux --cpu cortex-a72 --dtype f16",
            "expected a CPU with fullfp16 or avx512fp16 for dtype f16, got cortex-a72, which lacks it: choose one of cortex-a55",
        ),
        ("--model-cycles --target aarch64-linux --tune measure", "expected target 'host' together with tune 'measure'"),
    ],
)
def test_combinations_are_refused(options: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, text = run(capsys, "resnet18", *options.split())
    assert status == 1 and text.startswith(f"patc: error: {message}") and text.count("\n") == 1


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "unicorn", None)
    status, text = run(capsys, "resnet18", "--target", "aarch64-linux", "--model-cycles")
    expected = "expected the package 'unicorn', which is not installed (pip install 'patc[arm]')"
    assert (status, text) == (1, f"patc: error: {expected}\n")
