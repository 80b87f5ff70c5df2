"""Integers of eight bits beside f32 and beside rivals on the same net, quantised: the figures of docs/int8.md.

    python experiments/int8_speed.py prepare --folder F    # compiles, exports and quantises; once
    python experiments/int8_speed.py measure --folder F    # all of a net in turns
    python experiments/int8_speed.py table --folder F
    python experiments/int8_speed.py cycles --folder F     # modelled ones of a Cortex-A76, in an emulator

Weights are random. Rivals run dense weights, as ONNX files that ONNX Runtime's tools quantised: u8 activations, s8
weights, one scale a filter. Nets of "blocks" keep as many weights as "pruned" ones, in 2x2 blocks in the place of
patterns. Names of nets restrict a step to these; `--target x86-64-v3` compiles for CPUs with AVX2 and keeps those
rivals to it that can be; `--threads 2` compiles for so many threads.
"""

from __future__ import annotations

import argparse
import json
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from contest import Contest
from rivals import PRUNING
from trials import require_nets, run_main

import patc
from patc.bench.machine import this_machine
from patc.bench.peers import find_peer
from patc.bench.worker import INPUTS, REFERENCE, read_arrays, write_arrays
from patc.bench.workload import Workload, reference, relative_error
from patc.diagnostics import PatcError
from patc.pruning import KernelBlocks, Plan, prune_
from patc.versions import versions

NETS = ("resnet18", "mobilenet_v2", "resnet50")
PRUNED = ("resnet18",)
BLOCKS = Plan([("*conv*", KernelBlocks()), ("*downsample.0", KernelBlocks())], compression=8.0)
PEERS = ("onnxruntime", "openvino")
PHONE = "aarch64-linux"  # a Cortex-A76


def workload_of(name: str) -> Workload:
    return Workload(name, pruning=PRUNING[name])


def kinds(name: str) -> tuple[str, ...]:
    """Return the kinds of weights that patc runs a net with."""
    return ("dense", "pruned", "blocks") if name in PRUNED else ("dense",)


def ways(name: str) -> list[tuple[str, str]]:
    """Return these and the types of numbers."""
    return [(kind, numbers) for kind in kinds(name) for numbers in ("f32", "int8")]


def build(workload: Workload, kind: str) -> Any:
    """Return a net with weights of a kind."""
    model = workload.build("pruned" if kind == "pruned" else "dense")
    if kind == "blocks":
        prune_(model, BLOCKS)
    return model


def prepare(name: str, root: Path, target: str, threads: int) -> None:
    """Write inputs, what has to come out, compiled nets and a quantised file; what is there stays, but for our code."""
    import torch

    workload = workload_of(name)
    inputs = workload.make_inputs()
    tensors = tuple(torch.from_numpy(array) for array in inputs)
    root.mkdir(parents=True, exist_ok=True)
    write_arrays(root / INPUTS, inputs)
    for kind, numbers in ways(name):
        model, folder = build(workload, kind), root / kind
        folder.mkdir(exist_ok=True)
        if not (folder / REFERENCE).exists():
            write_arrays(folder / REFERENCE, reference(model, inputs))
        compile_net(model, tensors, numbers, target, threads).save(folder / f"{numbers}-{target}-{threads}.patc")
        print(name, kind, numbers, flush=True)
    if not (root / "dense" / "model.onnx").exists():
        write_quantised(workload.build("dense"), inputs, root / "dense")


def compile_net(
    model: Any, tensors: tuple[Any, ...], numbers: str, target: str, threads: int = 1
) -> patc.CompiledModel:
    if numbers == "f32":
        return patc.compile(model, tensors, threads=threads, target=target)
    return patc.quantize(model, tensors[0], threads=threads, target=target)


def write_quantised(model: Any, inputs: list[np.ndarray], folder: Path) -> None:
    """Write the net as ONNX Runtime's tools quantise it, with the ranges of its input."""
    import onnx
    from onnxruntime import quantization

    plain = folder / "f32"
    plain.mkdir(exist_ok=True)
    find_peer("onnxruntime").exporter(model, inputs, plain)
    (value,) = onnx.load(plain / "model.onnx").graph.input

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._given: Iterator[dict[str, np.ndarray]] = iter([{value.name: inputs[0]}])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._given, None)

    quantization.quantize_static(
        plain / "model.onnx",
        folder / "model.onnx",
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
    )


def measure(name: str, root: Path, target: str, threads: int, seconds: float) -> dict[str, Any]:
    """Time all contestants in turns for about so many seconds; return medians and errors by name."""
    with Contest(root, threads) as contest:
        for kind, numbers in ways(name):
            contest.add_compiled(f"patc {numbers} {kind}", root / kind / f"{numbers}-{target}-{threads}.patc", kind)
        for peer in PEERS:
            workload = Workload(str(root / "dense" / "model.onnx"))
            try:
                contest.add_rival(f"{peer} int8 dense", peer, workload, target=target)
            except PatcError as error:
                print(name, error, file=sys.stderr)
        contest.run(seconds)
    return contest.found


def make_table(names: list[str], folder: Path, target: str, threads: int) -> str:
    """Return what was measured as Markdown."""
    machine = this_machine()
    known = ", ".join(f"{name} {version}" for name, version in versions(PEERS).items())
    lines = [f"Machine: {machine.cpu}; patc's code for {target}; threads: {threads}; ms. {known}.", ""]
    lines += ["| net | with | ms | error |", "| --- | --- | ---: | ---: |"]
    for name in names:
        file = folder / name / f"{target}-{threads}.json"
        found = json.loads(file.read_text()) if file.exists() else {}
        lines += [f"| {name} | {key} | {1e3 * it['median']:.2f} | {it['error']:.1e} |" for key, it in found.items()]
    return "\n".join(lines) + "\n"


def model_cycles(name: str, kind: str, root: Path) -> None:
    """Print the modelled cycles of int8 code on a phone's core, by layer."""
    import torch

    from patc.bench.cycles import CycleModel
    from patc.bench.emulator import EmulatedProgram
    from patc.bench.execution import trace_layers
    from patc.targets import get_target

    workload = workload_of(name)
    inputs, file = workload.make_inputs(), root / f"{kind}-{PHONE}.pickle"
    if not file.exists():
        tensors = tuple(torch.from_numpy(array) for array in inputs)
        file.write_bytes(pickle.dumps(compile_net(build(workload, kind), tensors, "int8", PHONE).program))
    program = pickle.loads(file.read_bytes())
    emulated = EmulatedProgram(program)
    outputs, traces = trace_layers(emulated, inputs, len(program.layers))
    modeller = CycleModel(emulated.emulator, get_target(PHONE).cpu)
    layers = [modeller.layer(*each) for each in zip(program.layers, traces, strict=True)]
    for item in layers:
        words = f"{item.layer.name:28s}{item.layer.algorithm:14s}{item.cycles / 1e6:8.3f} million cycles"
        print(f"{words}, predicted {item.layer.predicted_cycles / 1e6:.3f}, {16 * item.rate:.1f} products a cycle")
    error = relative_error(outputs, read_arrays(root / kind / REFERENCE))
    print(f"{name}, {kind}: {sum(item.cycles for item in layers) / 1e6:.1f} million cycles; error {error:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("prepare", "measure", "table", "cycles"))
    parser.add_argument("nets", nargs="*", default=[])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--target", default="host")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=8.0, help="to measure a net, about")
    args = parser.parse_intermixed_args()
    require_nets(args.nets, NETS)
    names = list(args.nets or NETS)
    if args.step == "table":
        print(make_table(names, args.folder, args.target, args.threads), end="")
    for name in names if args.step == "prepare" else ():
        prepare(name, args.folder / name, args.target, args.threads)
    for name in names if args.step == "measure" else ():
        found = measure(name, args.folder / name, args.target, args.threads, args.seconds)
        (args.folder / name / f"{args.target}-{args.threads}.json").write_text(json.dumps(found, indent=1))
        print(name, {key: f"{1e3 * item['median']:.2f}" for key, item in found.items()}, flush=True)
    for name in names if args.step == "cycles" else ():
        for kind in kinds(name)[1:] or kinds(name):
            model_cycles(name, kind, args.folder / name)


if __name__ == "__main__":
    run_main(main)
