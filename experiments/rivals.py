"""Pruned nets and their dense counterparts beside the rivals of `patc bench`, all in one run: that of docs/speed.md;
of the nets of `experiments/sequences.py`, that of docs/pruning.md.

    python experiments/rivals.py prepare --folder F                  # compiles and exports; once
    python experiments/rivals.py measure --folder F --threads 1      # and again with --threads 2
    python experiments/rivals.py table --folder F

`--target x86-64-v3` compiles for CPUs with AVX2 and keeps the rivals to it that can be; the others are measured as they
are, and are not in the ratios. Names of nets restrict a step to these. What was measured stays in the folder until it
is measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from contest import Contest
from sequences import RATES as SEQUENCES
from trials import require_nets, run_main

import patc
from patc.bench.environments import make_interpreter
from patc.bench.machine import this_machine
from patc.bench.peers import PEERS, find_peer
from patc.bench.remote import Worker
from patc.bench.sharing import Watch
from patc.bench.worker import INPUTS, REFERENCE, write_arrays
from patc.bench.workload import Kind, Workload, reference
from patc.diagnostics import PatcError
from patc.versions import versions

PRUNING: dict[str, dict[str, Any]] = {
    "resnet18": {"compression": 8.0},
    "resnet50": {"compression": 5.8, "pointwise": "groups"},
    "vgg16": {"compression": 12.0},
    "mobilenet_v2": {"compression": 2.25, "pointwise": "groups"},
}
# Rivals that read the files of nets on sequences.
ON_SEQUENCES = ("torch", "onnxruntime", "openvino", "deepsparse")
SPARSE = ("deepsparse", "mnn")  # rivals that skip zero weights
KINDS: tuple[Kind, ...] = ("dense", "pruned")
OURS = ("patc pruned", "patc dense")


def workload_of(name: str, kind: str, peer: str = "") -> Workload:
    if name in SEQUENCES:
        prefix = "pruned_" if kind == "pruned" else ""
        if (peer, name) == ("deepsparse", "minilm"):
            prefix = f"plain_{prefix}"
        return Workload(f"{Path(__file__).resolve().parent / 'sequences.py'}:{prefix}{name}")
    return Workload(name, pruning=PRUNING[name])


def contestants(name: str, rivals: Sequence[str]) -> list[tuple[str, str]]:
    """Return each rival with the kind of weights that it runs on."""
    able = [peer for peer in rivals if name not in SEQUENCES or peer in ON_SEQUENCES]
    return [(peer, kind) for peer in able for kind in KINDS if kind == "dense" or peer in SPARSE]


def prepare(name: str, root: Path, args: argparse.Namespace) -> None:
    """Write inputs, what has to come out, models for the rivals and, for each number of threads, compiled ones; what
    is there stays, but for the compiled ones."""
    import torch

    inputs = workload_of(name, "dense").make_inputs()
    tensors = tuple(torch.from_numpy(array) for array in inputs)
    root.mkdir(parents=True, exist_ok=True)
    write_arrays(root / INPUTS, inputs)
    for kind in KINDS:
        model, folder = workload_of(name, kind).build(kind), root / kind
        folder.mkdir(exist_ok=True)
        for threads in args.threads:
            compiled = patc.compile(model, tensors, threads=threads, target=args.target)
            compiled.save(folder / f"{args.target}-{threads}.patc")
        if not (folder / REFERENCE).exists():
            write_arrays(folder / REFERENCE, reference(model, inputs))
        for peer in [peer for peer, wanted in contestants(name, args.rivals) if wanted == kind]:
            exporter = find_peer(peer).exporter
            done = folder / f"{getattr(exporter, '__name__', '')}.done"
            if exporter is not None and not done.exists() and export(workload_of(name, kind, peer), peer, kind, root):
                done.touch()


def export(workload: Workload, peer: str, kind: str, root: Path) -> bool:
    """Write the files of a rival; return whether it can do it."""
    own = find_peer(peer).own
    python = make_interpreter(own) if own is not None and own.has_torch else None
    try:
        with Worker(peer, root, {"OMP_NUM_THREADS": "2"}, python) as worker:
            worker.request(do="export", peer=peer, kind=kind, workload=asdict(workload), folder=str(root))
    except PatcError as error:
        print(f"{root.name}, {kind}: {error}", flush=True)
        return False
    return True


def measure(name: str, root: Path, target: str, threads: int, args: argparse.Namespace) -> dict[str, Any]:
    """Time all contestants in turns for about so many seconds; return medians and errors by name."""
    watch = Watch()
    with Contest(root, threads) as contest:
        for kind in ("pruned", "dense"):
            contest.add_compiled(f"patc {kind}", root / kind / f"{target}-{threads}.patc", kind)
            contest.found[f"patc {kind}"]["kept"] = True
        for peer, kind in contestants(name, args.rivals):
            try:
                contest.add_rival(f"{peer} {kind}", peer, workload_of(name, kind, peer), kind, target)
            except PatcError as error:
                print(f"{name}, {kind}: {error}", file=sys.stderr)
                continue
            contest.found[f"{peer} {kind}"]["kept"] = target == "host" or target in find_peer(peer).kept_to
        contest.run(args.seconds, most=100)
    return {"contestants": contest.found, "others": watch.others()}


def fastest(found: dict[str, Any], kind: str) -> tuple[str, float] | None:
    """Return the fastest rival on a kind of weights, and its seconds; None where there is none."""
    times = {key: entry["median"] for key, entry in found.items() if entry["kept"] and key not in OURS}
    key = min((key for key in times if key.endswith(kind)), key=times.__getitem__, default="")
    return (key.partition(" ")[0], times[key]) if key else None


def milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.2f}" if seconds >= 1e-3 else f"{1e3 * seconds:.4f}"


def describe_rival(rival: tuple[str, float] | None) -> str:
    return f"{rival[0]} {milliseconds(rival[1])}" if rival else ""


def describe_ratio(rival: tuple[str, float] | None, ours: float) -> str:
    return f"{rival[1] / ours:.2f}" if rival else ""


HEAD = """\
Machine: {machine}; patc's code for {target}. {versions}.

| net | threads | patc pruned | patc dense | fastest dense rival | fastest sparse one | over dense | over sparse | \
dense over dense |
| --- | ---: | ---: | ---: | --- | --- | ---: | ---: | ---: |
"""


def make_table(names: Sequence[str], folder: Path, target: str) -> str:
    """Return what was measured as Markdown; below it the time of each contestant."""
    rows, all_of_them, known = [], [], {}
    for name in names:
        for threads in (1, 2):
            file = folder / name / f"{target}-{threads}.json"
            if not file.exists():
                continue
            found = json.loads(file.read_text())["contestants"]
            pruned, dense = (found[key]["median"] for key in OURS)
            rivals = [fastest(found, kind) for kind in KINDS]
            times = " | ".join([milliseconds(pruned), milliseconds(dense), *map(describe_rival, rivals)])
            ratios = [*(describe_ratio(rival, pruned) for rival in rivals), describe_ratio(rivals[0], dense)]
            rate = SEQUENCES[name] if name in SEQUENCES else PRUNING[name]["compression"]
            row = f"| {name} {rate:g}x | {threads} | {times} | {' | '.join(ratios)} |\n"
            rows.append(row)
            each = (
                f"{key}{'' if entry['kept'] else ' (all of the CPU)'} {milliseconds(entry['median'])}"
                for key, entry in found.items()
            )
            worst = max(entry["error"] for key, entry in found.items() if key in OURS)
            all_of_them.append(f"- {name}, {threads}: {', '.join(each)}; patc's error {worst:.1e}\n")
            known |= {key.partition(" ")[0]: entry["version"] for key, entry in found.items() if "version" in entry}
    machine = this_machine()
    words = f"{machine.cpu}, {machine.cores} cores, {machine.caches}"
    text = ", ".join(f"{name} {version}" for name, version in {**versions(()), **known}.items())
    return HEAD.format(machine=words, target=target, versions=text) + "".join([*rows, "\n", *all_of_them])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("prepare", "measure", "table"))
    parser.add_argument("nets", nargs="*", default=[])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--target", default="host")
    parser.add_argument("--threads", type=int, nargs="+", default=(1, 2))
    parser.add_argument("--rivals", nargs="+", default=list(PEERS))
    parser.add_argument("--seconds", type=float, default=15.0, help="to measure a net, about")
    args = parser.parse_intermixed_args()
    require_nets(args.nets, [*PRUNING, *SEQUENCES])
    names = args.nets or list(PRUNING)
    if args.step == "table":
        print(make_table(names, args.folder, args.target), end="")
    for name in names if args.step == "prepare" else ():
        started = time.perf_counter()
        prepare(name, args.folder / name, args)
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
    for name in names if args.step == "measure" else ():
        for threads in args.threads:
            found = measure(name, args.folder / name, args.target, threads, args)
            (args.folder / name / f"{args.target}-{threads}.json").write_text(json.dumps(found, indent=1))
            print(name, threads, f"others {found['others']:.1f}", flush=True)


if __name__ == "__main__":
    run_main(main)
