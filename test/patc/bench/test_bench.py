"""`patc bench`: the rule of the limits, turns, peers in processes of their own, and what is printed and written.

Nothing here asserts how fast anything is.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

import patc
from patc import models
from patc.backends.host import available_threads
from patc.bench import limits, machine, peers, timing
from patc.bench.environments import find_interpreter
from patc.bench.limits import MeasuredLayer, layer_limit, measure_layers
from patc.bench.machine import KIB, MIB, Caches
from patc.bench.peak import Peak, measure_peak
from patc.bench.peers import deepsparse_cpu, litert_cpu, mnn_cpu
from patc.bench.peers.base import Peer, count_in_file, describe_kernels
from patc.bench.peers.torch_eager import onednn_convolutions
from patc.bench.remote import Worker, worker_environment
from patc.bench.results import BenchResult, Entry, Missing, Run, count
from patc.bench.timing import Ratio, Times, Together, split_rounds, take_turns
from patc.bench.worker import INPUTS, REFERENCE, Server, write_arrays
from patc.bench.workload import Workload, reference, relative_error
from patc.diagnostics import PatcError
from patc.dialects.schedules import Schedule
from patc.layers import LayerReport
from patc.pruning import PatternSpec, prune_
from patc.runtime.model import LayerTime
from patc.tools.bench_tables import make_console, render
from patc.tools.patc import main
from patc.versions import versions

# Round numbers: a second is 1e9 operations, 1e9 bytes from L2, 1e8 from L3, 1e7 from memory.
PEAK = Peak(threads=1, gflops=1.0, l2_gbs=1.0, l3_gbs=0.1, read_gbs=0.01, lanes=16)
CACHES = Caches(level1=32_000, level2=1_000_000, level3=10_000_000)
SMALL_NET = 1_000_000


def layer(**changes: Any) -> LayerReport:
    values: dict[str, Any] = {
        "name": "conv",
        "source": "net.py:1",
        "op": "sparse_conv2d",
        "shape": (1, 8, 4, 4),
        "kernel": (3, 3),
        "strides": (1, 1),
        "schedule": Schedule("pattern-direct", rows=4),
        "explanation": None,
        "weights": 900,
        "kept_weights": 100,
        "flops": 3200,
        "moved_bytes": 1000,
        "predicted_cycles": 500,
    }
    return LayerReport(**{**values, **changes})


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    )
    path = tmp_path_factory.mktemp("bench") / "tiny.pt2"
    torch.export.save(torch.export.export(net.eval(), (torch.randn(1, 3, 12, 16),)), path)
    return path


# The limit rule -----------------------------------------------------------------------------------


def test_layer_with_little_data_is_bound_by_multiply_adds() -> None:
    limit = layer_limit(layer(flops=5000, moved_bytes=1000), PEAK, CACHES, SMALL_NET)
    assert (limit.bound, limit.seconds) == ("FMA", pytest.approx(5e-6))


def test_instructions_multiply_more_halves_and_bytes_than_floats_at_once() -> None:
    for dtype, seconds in (("f32", 8e-6), ("f16", 4e-6), ("i8", 2e-6)):
        limit = layer_limit(layer(flops=8000, moved_bytes=1000, dtype=dtype), PEAK, CACHES, SMALL_NET)
        assert (limit.bound, limit.seconds) == ("FMA", pytest.approx(seconds))


def test_weights_in_bytes_take_a_quarter_of_the_memory() -> None:
    fully_connected = layer(op="linear", kept_weights=2_000_000, flops=0, moved_bytes=2_000_000, dtype="i8")
    limit = layer_limit(fully_connected, PEAK, CACHES, footprint_bytes=4_000_000)
    assert (limit.bound, limit.seconds) == ("L3", pytest.approx(2e6 * 0.75 / 1e8))


def test_layer_without_arithmetic_is_bound_by_the_second_level_cache() -> None:
    limit = layer_limit(layer(flops=0, kept_weights=0, moved_bytes=1000), PEAK, CACHES, SMALL_NET)
    assert (limit.bound, limit.seconds) == ("L2", pytest.approx(1e-6))


def test_activations_beyond_the_second_level_come_from_the_third() -> None:
    pool = layer(flops=0, kept_weights=0, moved_bytes=3_000_000)
    limit = layer_limit(pool, PEAK, CACHES, SMALL_NET)
    assert (limit.bound, limit.seconds) == ("L3", pytest.approx((3e6 - 1e6) / 1e8))


def test_weights_come_from_the_third_level_where_the_whole_net_fits_into_it() -> None:
    fully_connected = layer(op="linear", kept_weights=500_000, flops=1_000_000, moved_bytes=2_000_000)
    limit = layer_limit(fully_connected, PEAK, CACHES, footprint_bytes=4_000_000)
    # Of 4 MB that a call touches, 1 MB can still be in L2: a quarter of these weights.
    assert (limit.bound, limit.seconds) == ("L3", pytest.approx(2e6 * 0.75 / 1e8))


def test_weights_come_from_memory_where_the_net_does_not_fit_into_a_cache() -> None:
    fully_connected = layer(op="linear", kept_weights=5_000_000, flops=10_000_000, moved_bytes=20_000_000)
    limit = layer_limit(fully_connected, PEAK, CACHES, footprint_bytes=100_000_000)
    assert (limit.bound, limit.seconds) == ("memory", pytest.approx(2e7 * 0.9 / 1e7))


def test_each_thread_brings_a_second_level_cache() -> None:
    pool = layer(flops=0, kept_weights=0, moved_bytes=3_000_000)
    two = Peak(threads=2, gflops=2.0, l2_gbs=2.0, l3_gbs=0.1, read_gbs=0.01, lanes=16)
    assert layer_limit(pool, two, CACHES, SMALL_NET).seconds == pytest.approx((3e6 - 2e6) / 1e8)


def test_measured_layer_compares_with_limit_and_prediction() -> None:
    two = Peak(threads=2, gflops=4.0, l2_gbs=2.0, l3_gbs=0.1, read_gbs=0.01, lanes=16)
    (item,) = measure_layers([LayerTime(layer(flops=8000), 4e-6)], two, CACHES, SMALL_NET, fma_lanes=1)
    assert item.gflops == pytest.approx(2.0)
    assert item.share == pytest.approx(0.5)
    assert item.lost_seconds == pytest.approx(2e-6)
    # One core reaches 2e9 operations a second with one multiply-add a cycle: 1 GHz. Two threads share 500 cycles.
    assert item.predicted_seconds == pytest.approx(250e-9)


def test_time_of_zero_has_a_finite_share() -> None:
    (item,) = measure_layers([LayerTime(layer(), 0.0)], PEAK, CACHES, SMALL_NET, fma_lanes=1)
    assert np.isfinite(item.share) and np.isfinite(item.gflops)


def measured(seconds: float, **changes: Any) -> MeasuredLayer:
    return measure_layers([LayerTime(layer(**changes), seconds)], PEAK, CACHES, SMALL_NET, fma_lanes=1)[0]


def test_peak_share_counts_plain_3x3_layers_only() -> None:
    layers = [
        measured(2e-6, name="a", flops=1000),
        measured(2e-6, name="b", flops=500),
        measured(1.0, name="strided", strides=(2, 2)),
        measured(1.0, name="pointwise", kernel=(1, 1)),
        measured(1.0, name="depthwise", op="conv2d", schedule=Schedule("depthwise-direct")),
        measured(1.0, name="pool", op="max_pool2d", flops=0),
    ]
    share = limits.peak_share(layers, PEAK)
    assert share is not None
    assert (share.layers, share.lowest_name) == (2, "b")
    assert share.together == pytest.approx(1500 / 4e-6 / 1e9)
    assert share.lowest == pytest.approx(0.25)
    assert limits.peak_share(layers[2:], PEAK) is None


def test_worst_layers_are_named_worst_first() -> None:
    layers = [measured(seconds, name=str(seconds)) for seconds in (4e-6, 8e-6, 5e-6, 6e-6)]
    assert [item.layer.name for item in limits.furthest_from_limit(layers)] == ["8e-06", "6e-06", "5e-06"]
    assert [item.layer.name for item in limits.most_time_lost(layers)] == ["8e-06", "6e-06", "5e-06"]


# Turns and statistics -----------------------------------------------------------------------------


class Scripted:
    """A contestant that writes its name into a log; it fails in the round `fails`."""

    def __init__(self, name: str, log: list[str], fails: int | None = None) -> None:
        self.name, self.log, self.fails, self.round = name, log, fails, 0

    def run(self, calls: int) -> list[float]:
        self.log.append(f"{self.name}{calls}")
        self.round += 1
        if self.round == self.fails:
            raise PatcError(f"{self.name} fell over")
        return [float(self.round)] * calls


def test_contestants_take_turns() -> None:
    log: list[str] = []
    one, other = take_turns([Scripted("a", log), Scripted("b", log)], 6)
    assert log == ["a4", "b4", "a2", "b2"]
    assert isinstance(one, Times) and isinstance(other, Times)
    assert one.samples == [1.0] * 4 + [2.0] * 2


def test_contestant_that_fails_is_left_out_from_then_on() -> None:
    log: list[str] = []
    one, other = take_turns([Scripted("a", log), Scripted("b", log, fails=1)], 8)
    assert log == ["a4", "b4", "a4"]
    assert isinstance(one, Times) and "b fell over" in str(other)


@pytest.mark.parametrize(("repetitions", "rounds"), [(1, [1]), (4, [4]), (9, [4, 4, 1])])
def test_rounds_add_up_to_the_repetitions(repetitions: int, rounds: list[int]) -> None:
    assert split_rounds(repetitions) == rounds


def test_statistics_of_times() -> None:
    times = Times(((1.0, 2.0, 3.0), (4.0, 5.0)))
    assert times.median == 3.0
    assert times.quartiles == (2.0, 4.0)
    assert times.spread == pytest.approx(2 / 3)
    assert times.to_json()["minimum_seconds"] == 1.0


def test_ratio_pairs_rounds() -> None:
    ratio = Ratio.of(Times(((2.0,), (30.0,))), Times(((1.0,), (10.0,))))
    assert ratio.median == pytest.approx(16 / 5.5)
    assert (ratio.lower, ratio.upper) == (pytest.approx(2.25), pytest.approx(2.75))


def test_copies_share_the_time_of_a_call() -> None:
    class Copy:
        def __init__(self, seconds: float) -> None:
            self.seconds, self.calls = seconds, 0

        def run(self, calls: int) -> list[float]:
            self.calls = calls
            return [self.seconds] * calls

    copies = [Copy(0.001), Copy(0.003)]
    assert Together(copies).run(2) == pytest.approx([0.00075, 0.00075])
    assert [copy.calls for copy in copies] == [20, 20]  # of which ten take TOGETHER_SECONDS


def test_time_calls_warms_up_first() -> None:
    calls: list[int] = []
    assert len(timing.time_calls(lambda: calls.append(1), 3)) == 3
    assert len(calls) == 4


# The machine --------------------------------------------------------------------------------------


def write_cache(folder: Path, kind: str, level: int, size: str) -> None:
    folder.mkdir(parents=True)
    for name, value in (("type", kind), ("level", str(level)), ("size", size)):
        (folder / name).write_text(f"{value}\n")


def test_caches_are_read_from_sysfs(tmp_path: Path) -> None:
    write_cache(tmp_path / "index0", "Data", 1, "32K")
    write_cache(tmp_path / "index1", "Instruction", 1, "64K")
    write_cache(tmp_path / "index2", "Unified", 2, "1M")
    write_cache(tmp_path / "index3", "Unified", 3, "unknown")
    assert machine._linux_caches(tmp_path) == {1: 32 * KIB, 2: MIB}


def test_caches_print_their_sizes() -> None:
    assert str(Caches(32 * KIB, MIB, 32 * MIB)) == "L1 32 KiB, L2 1 MiB, L3 32 MiB"
    assert str(machine.TYPICAL).endswith("(assumed)")


def test_this_machine_is_described() -> None:
    found = machine.this_machine()
    assert found.cpu and found.cores >= 1 and found.caches.level2 > found.caches.level1
    json.dumps(found.to_json())


def test_versions_leave_out_what_is_not_installed() -> None:
    found = versions(["torch", "no-such-package"])
    assert found["torch"] == torch.__version__ and "no-such-package" not in found


def test_peak_is_measured_for_all_levels() -> None:
    peak = measure_peak()
    assert min(peak.gflops, peak.l2_gbs, peak.l3_gbs, peak.read_gbs) > 0
    assert peak.best(PEAK).gflops == max(peak.gflops, PEAK.gflops)


def test_peak_needs_a_thread() -> None:
    with pytest.raises(PatcError, match="expected threads of 1 or more, got 0"):
        measure_peak(0)


# Workloads ----------------------------------------------------------------------------------------


def build_tiny(weights: str | None = None, *, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)).eval()


def test_workload_builds_equal_weights_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models.MODELS, "tiny", models.ModelInfo(build_tiny, (1, 3, 12, 16)))
    workload = Workload("tiny", pruning={"compression": 4.0})
    one, other, dense = workload.build("pruned"), workload.build("pruned"), workload.build("dense")
    assert torch.equal(one[2].weight, other[2].weight)
    assert (one[2].weight == 0).float().mean() > 0.7 and (dense[2].weight == 0).sum() == 0
    assert workload.kinds == ("dense", "pruned")


def test_programs_are_pruned_as_modules_are(tmp_path: Path) -> None:
    path = tmp_path / "tiny.pt2"
    torch.export.save(torch.export.export(build_tiny(), (torch.zeros(1, 3, 12, 16),)), path)
    workload = Workload(str(path), pruning={"compression": 4.0})
    pruned = build_tiny()
    prune_(pruned, workload.spec())
    x = torch.randn(1, 3, 12, 16)
    wanted = {"dense": build_tiny()(x), "pruned": pruned(x)}
    assert all(torch.equal(workload.build(kind)(x), wanted[kind]) for kind in workload.kinds)
    assert torch.equal(workload.source(None).module()(x), wanted["pruned"])
    assert Workload(str(path)).source(None) == str(path)


def test_workload_without_pruning_has_dense_weights_only() -> None:
    workload = Workload("resnet18_cifar", batch=3)
    assert workload.kinds == ("dense",) and workload.measured_kind == "dense"
    assert workload.input_shapes() == [(3, 3, 32, 32)]


def test_integers_are_those_of_the_function_that_builds_a_model(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text(
        "import torch\n\ndef build():\n    words, place = torch.arange(3)[None], torch.zeros(1, 2)\n"
        "    return torch.nn.Embedding(3, 2), (words, place)\n\ndef build_double():\n"
        "    return torch.nn.Linear(2, 2), torch.zeros(1, 2, dtype=torch.float64)\n"
    )
    words, place = Workload(f"{path}:build", batch=2).make_inputs()
    assert words.tolist() == [[0, 1, 2]] * 2 and words.dtype == np.int64
    assert place.shape == (2, 2) and place.dtype == np.float32 and place.all()
    with pytest.raises(PatcError, match="expected float32 inputs to measure with, found float64"):
        Workload(f"{path}:build_double").make_inputs()


def test_paths_of_a_workload_become_absolute() -> None:
    workload = Workload("net.pt2", weights="w.pth").absolute()
    assert Path(workload.model).is_absolute() and Path(workload.weights or "").is_absolute()
    assert Workload("resnet18").absolute() == Workload("resnet18")


def test_reference_leaves_the_model_in_float32() -> None:
    model = nn.Linear(3, 2)
    (output,) = reference(model, [np.ones((1, 3), np.float32)])
    assert output.dtype == np.float64 and model.weight.dtype == torch.float32


def test_relative_error_is_over_the_largest_magnitude() -> None:
    wanted = [np.array([[1.0, -4.0]])]
    assert relative_error([np.array([1.0, -3.0], np.float32)], wanted) == pytest.approx(0.25)
    assert relative_error([np.array([1.0, np.nan], np.float32)], wanted) == float("inf")
    with pytest.raises(PatcError, match=r"expected outputs of \[2\] elements, got \[3\]"):
        relative_error([np.zeros(3, np.float32)], wanted)


# Peers and their processes ------------------------------------------------------------------------


class Absent(Peer):
    """A peer whose package nobody has."""

    name: ClassVar[str] = "Absent"
    distribution: ClassVar[str] = "absent"
    modules: ClassVar[tuple[str, ...]] = ("no_such_module",)

    def load(self, *arguments: Any) -> None: ...

    def run(self) -> Any: ...

    def arrays(self, outputs: Any) -> list[np.ndarray]:
        return []

    def algorithm(self) -> str:
        return ""


@pytest.mark.parametrize("name", peers.PEERS)
def test_every_peer_is_complete(name: str) -> None:
    peer = peers.find_peer(name)
    assert peer.name and peer.distribution and peer.modules
    assert not getattr(peer, "__abstractmethods__", None)


def test_importing_peers_does_not_import_what_they_measure() -> None:
    script = (
        "import sys; from patc.bench import peers; [peers.find_peer(name) for name in peers.PEERS]; "
        "from patc.tools import bench; "
        "print(*{'torch', 'onnxruntime', 'openvino', 'ncnn', 'MNN', '_tools', 'torch_mlir'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


def test_ncnn_takes_single_images() -> None:
    ncnn = peers.find_peer("ncnn")
    assert ncnn.refusal(Workload("resnet18")) is None
    assert ncnn.refusal(Workload("resnet18", batch=2)) == "it takes one image at a time, not 2"


class FakeConverter:
    """MNN's native module: it writes a file with as many sparse layers as it is told."""

    def __init__(self, sparse_layers: int | None) -> None:
        self.sparse_layers = sparse_layers
        self.arguments: list[str] = []

    def mnnconvert(self, arguments: list[str]) -> None:
        self.arguments = arguments
        if self.sparse_layers is not None:
            target = Path(arguments[arguments.index("--MNNModel") + 1])
            target.write_bytes(b"net" + b"..sparseBlockOC.." * self.sparse_layers)


def test_mnn_is_allowed_sparse_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    converter = FakeConverter(sparse_layers=2)
    monkeypatch.setitem(sys.modules, "_tools", converter)
    mnn_cpu.convert_to_mnn(tmp_path / "model.onnx", tmp_path / "model.mnn")
    assert "--detectSparseSpeedUp" in converter.arguments
    assert count_in_file(tmp_path / "model.mnn", b"sparseBlockOC") == 2


def test_mnn_tells_that_it_could_not_convert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "_tools", FakeConverter(sparse_layers=None))
    with pytest.raises(PatcError, match="MNN could not convert the model"):
        mnn_cpu.convert_to_mnn(tmp_path / "model.onnx", tmp_path / "model.mnn")


def test_mnn_names_its_sparse_layers(tmp_path: Path) -> None:
    runner = mnn_cpu.Mnn(Workload("resnet18"), tmp_path)
    runner._sparse_layers = 0
    assert runner.algorithm() == "Winograd or tiled GEMM as its cost model chooses"
    runner._sparse_layers = 16
    assert runner.algorithm().startswith("sparse GEMM that skips zero weights (x16), ")


def test_litert_names_its_delegate(tmp_path: Path) -> None:
    runner = litert_cpu.LiteRt(Workload("resnet18"), tmp_path)
    for last, words in (("DELEGATE", "XNNPACK indirect GEMM, NHWC"), ("ADD", "im2col and GEMM, NHWC")):
        nodes = [{"op_name": "CONV_2D"}, {"op_name": last}]
        runner._net = SimpleNamespace(_get_ops_details=lambda nodes=nodes: nodes)
        assert runner.algorithm() == words


def test_deepsparse_takes_no_more_threads_than_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = SimpleNamespace(cpu_architecture=lambda: SimpleNamespace(num_available_physical_cores=2))
    monkeypatch.setitem(sys.modules, "deepsparse", SimpleNamespace(cpu=cpu))
    runner = deepsparse_cpu.DeepSparse(Workload("resnet18"), tmp_path)
    with pytest.raises(PatcError, match="it runs one thread on each physical core, and there are 2, not 3"):
        runner.load(3, [np.zeros((1, 3, 8, 8), np.float32)], "dense")


def test_deepsparse_gets_files_that_it_can_read(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    deepsparse_cpu.export_old_onnx(build_tiny(), [np.zeros((2, 3, 12, 16), np.float32)], tmp_path)
    found = onnx.load(tmp_path / "old.onnx")
    assert found.ir_version <= 9 and found.opset_import[0].version == 13
    assert [node.op_type for node in found.graph.node] == ["Conv", "Relu", "Conv"]


@pytest.mark.parametrize("name", [name for name in peers.PEERS if peers.find_peer(name).own is not None])
def test_packages_of_other_environments_are_pinned(name: str) -> None:
    own = peers.find_peer(name).own
    assert own is not None and own.modules
    assert all("==" in package or "<" in package for package in own.packages)
    # patc itself has to be importable there.
    assert all((3, 10) <= version <= (3, 13) for version in own.pythons)


def test_onednn_names_its_convolutions() -> None:
    prefix = "onednn_verbose,v1,primitive,exec,cpu"
    lines = [
        "onednn_verbose,v1,info,oneDNN v3.12.0",
        f"{prefix},reorder,jit:uni,undef,src:f32",
        f"{prefix},convolution,jit:avx512_core,forward_training,src:f32",
        f"{prefix},convolution,jit:avx512_core,forward_training,src:f32",
        f"{prefix},convolution,jit_wino_4x3:avx512_core,forward_training,src:f32",
    ]
    names = onednn_convolutions(lines)
    assert describe_kernels("oneDNN", names) == (
        "oneDNN direct and Winograd (jit:avx512_core x2, jit_wino_4x3:avx512_core)"
    )


def test_server_answers_failures_in_one_line() -> None:
    server = Server()
    assert server.answer({"do": "run", "calls": 1})["failure"].startswith("RuntimeError: expected a request to load")
    values = {"kind": "dense", "workload": {"model": "resnet18"}, "folder": "/nowhere", "threads": 1}
    assert "expected a peer out of" in server.answer({"do": "load", "peer": "no", **values})["failure"]


def test_worker_has_another_home(tmp_path: Path) -> None:
    environment = worker_environment(tmp_path, {"ORT_DISABLE_TELEMETRY": "1"})
    assert environment["HOME"] == environment["XDG_CACHE_HOME"] == str(tmp_path)
    assert environment["DO_NOT_TRACK"] == environment["ORT_DISABLE_TELEMETRY"] == "1"


def test_worker_reports_failures_and_its_end(tmp_path: Path) -> None:
    with Worker("rival", tmp_path) as worker:
        with pytest.raises(PatcError, match="rival: RuntimeError: expected a request to load"):
            worker.request(do="run", calls=1)
        worker._process.kill()
        with pytest.raises(PatcError, match="rival: its process ended with status"):
            worker.request(do="run", calls=1)


@pytest.mark.parametrize("name", [name for name in peers.PEERS if name != peers.BASELINE])
def test_installed_rival_computes_the_same(name: str, tiny_model: Path, tmp_path: Path) -> None:
    rival = peers.find_peer(name)
    for module in rival.modules:
        pytest.importorskip(module)
    python = None if rival.own is None else find_interpreter(rival.own)
    if rival.own is not None and python is None:
        pytest.skip(f"its environment was not made yet: patc bench resnet18 --peers {name}")
    workload = Workload(str(tiny_model))
    (tmp_path / "dense").mkdir()
    (tmp_path / "home").mkdir()
    inputs = workload.make_inputs()
    write_arrays(tmp_path / INPUTS, inputs)
    write_arrays(tmp_path / "dense" / REFERENCE, reference(workload.build("dense"), inputs))
    request = {"peer": name, "kind": "dense", "workload": asdict(workload), "folder": str(tmp_path)}
    exporting = python if rival.own is not None and rival.own.has_torch else None
    for values, interpreter in (({"do": "export"}, exporting), ({"do": "load", "threads": 1}, python)):
        with Worker(name, tmp_path / "home", rival.environment, interpreter) as worker:
            answer = worker.request(**values, **request)
    assert answer["error"] < 1e-5 and answer["algorithm"] and answer["version"]


# Results and tables -------------------------------------------------------------------------------


def entry(name: str, seconds: float, algorithm: str = "oneDNN direct (jit x2)", error: float = 1e-7) -> Entry:
    times = Times(((seconds, seconds), (seconds, seconds)))
    return Entry(name, "pruned" if name == "patc" else "dense", "1.0", algorithm, error, times)


def bench_result(error: float = 1e-7, throughput: bool = False) -> BenchResult:
    layers = tuple(measured(5e-6, name=f"layer{number}") for number in range(4))
    runs = tuple(
        Run(threads, PEAK, 10 * MIB, 11_700_000, 1_910_000, entries, layers)
        for threads, entries in (
            (1, (entry("patc", 0.01, error=error), entry("PyTorch eager", 0.05))),
            (2, (entry("patc", 0.005), entry("PyTorch eager", 0.03))),
        )
    )
    return BenchResult(
        workload=Workload("resnet18", pruning={"compression": 8.0}),
        throughput=throughput,
        images=8,
        repetitions=4,
        machine=machine.this_machine(),
        versions={"patc": "0.1.0"},
        runs=runs,
        missing=(Missing("ncnn", "dense", None, "not installed: ncnn"),),
    )


def printed(result: BenchResult) -> str:
    console = make_console()
    with console.capture() as capture:
        console.print(render(result))
    return capture.get()


def test_text_names_everything_a_figure_needs() -> None:
    text = printed(bench_result())
    for words in (
        "resnet18, batch 1, pruned to compression 8.0: 11.7M weights, 1.91M kept",
        "1 thread: milliseconds, 4 calls of each in turns of 4",
        "PyTorch eager: oneDNN direct (jit x2)",
        "1 thread: 5.00x as fast as PyTorch eager (oneDNN direct) on dense weights",
        "2 threads: 2.00x as fast as patc with 1 thread",
        "4 3x3 stride-1 layers: 64% of the FMA peak together",
        "furthest from their limits: layer0 64% of FMA",
        "Pattern-only (2.25x) removes as much arithmetic as Winograd F(2x2,3x3)",
        "missing: ncnn on dense weights: not installed: ncnn",
    ):
        assert words in text
    assert max(map(len, text.splitlines())) <= 110


def test_throughput_is_told_in_images_a_second() -> None:
    text = printed(bench_result(throughput=True))
    for words in (
        "1 core: images a second, 4 calls of each in turns of 4",
        "2 cores: 6.00x as fast as PyTorch eager",
        "2 cores: 2.00x as fast as patc with 1 core",
    ):
        assert words in text
    assert re.search(r"patc 1.0 +pruned +800.0 +800.0-800.0", text)


def test_wrong_outputs_are_told() -> None:
    assert "wrong: with 1 thread the error is 1.0e-03, above 0.0001" in printed(bench_result(error=1e-3))


def test_noise_is_told() -> None:
    result = bench_result()
    noisy = Entry("patc", "pruned", "1.0", "", 0.0, Times(((1.0, 2.0, 3.0, 4.0),)))
    run = Run(1, PEAK, 1, 1, 1, (noisy, entry("PyTorch eager", 1.0)), ())
    assert BenchResult(**{**vars(result), "runs": (run,)}).noise()[0].startswith("half of patc's times with 1 thread")
    assert result.noise() == []


def test_json_holds_statistics_summaries_and_method() -> None:
    values = json.loads(json.dumps(bench_result().to_json()))
    assert values["format"] == 1 and {"timing", "error", "peak", "layers", "limit"} <= values["method"].keys()
    assert values["scaling"][0] == {
        "from_threads": 1,
        "to_threads": 2,
        **dict.fromkeys(("median", "lower_quartile", "upper_quartile"), pytest.approx(2.0)),
    }
    run = values["runs"][0]
    assert run["speedups"][0]["over"] == "PyTorch eager" and run["speedups"][0]["median"] == pytest.approx(5.0)
    assert run["summary"]["stride1_3x3_share_of_fma_peak"]["layers"] == 4
    assert len(run["summary"]["furthest_from_limit"]) == 3


# The command --------------------------------------------------------------------------------------


def test_bench_prints_and_writes_everything(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(peers.PEERS, "absent", (__name__, "Absent"))
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Absent.__module__])
    output = tmp_path / "bench.json"
    arguments = [str(tiny_model), "--repetitions", "2", "--layers", "--peers", "absent", "--json", str(output)]
    assert main(["bench", *arguments]) == 0
    text = capsys.readouterr().out
    assert "PyTorch eager" in text and "missing: Absent on dense weights: not installed: no_such_module" in text
    values = json.loads(output.read_text())
    (run,) = values["runs"]
    assert [item["name"] for item in run["contestants"]] == ["patc", "PyTorch eager"]
    assert all(item["error"] < 1e-5 and item["times"]["count"] == 2 for item in run["contestants"])
    assert all(item["algorithm"] and item["version"] for item in run["contestants"])
    assert {item["bound"] for item in run["layers"]} <= {"FMA", "L2", "L3", "memory"}
    assert run["peak"]["gflops"] > 0 and values["machine"]["caches"]["level2"] > 0
    assert values["missing"][0]["name"] == "Absent"


def test_a_program_is_pruned_for_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, output = tmp_path / "tiny.pt2", tmp_path / "bench.json"
    torch.export.save(torch.export.export(build_tiny(), (torch.zeros(1, 3, 12, 16),)), path)
    assert main(["bench", str(path), "--compression", "4", "--repetitions", "1", "--json", str(output)]) == 0
    assert "tiny.pt2, pruned to compression 4.0" in " ".join(capsys.readouterr().out.split())
    (run,) = json.loads(output.read_text())["runs"]
    found = {item["name"]: (item["weights"], item["error"]) for item in run["contestants"]}
    assert found["patc"][0] == "pruned" and found["PyTorch eager"][0] == "dense"
    assert all(error < 1e-5 for _, error in found.values())


@pytest.mark.skipif(platform.machine() != "x86_64", reason="needs an x86-64 machine")
def test_bench_times_code_of_a_level(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "bench.json"
    arguments = ["--target", "x86-64-v3:haswell", "--repetitions", "1", "--layers", "--json", str(output)]
    assert main(["bench", str(tiny_model), *arguments]) == 0
    assert ", code for x86-64-v3:haswell" in " ".join(capsys.readouterr().out.split())
    values = json.loads(output.read_text())
    assert values["target"] == "x86-64-v3:haswell" and values["runs"][0]["peak"]["lanes"] == 8
    torch_eager = peers.find_peer("torch")
    assert torch_eager.variables(values["target"], 2)["ATEN_CPU_CAPABILITY"] == "avx2"
    assert torch_eager.variables("host", 2) == {"OMP_NUM_THREADS": "2"}


def test_bench_measures_throughput_on_all_cores(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "bench.json"
    assert main(["bench", str(tiny_model), "--repetitions", "1", "--throughput", "--json", str(output)]) == 0
    cores = count(available_threads(), "core")
    assert f"{cores}: images a second" in capsys.readouterr().out
    values = json.loads(output.read_text())
    assert values["throughput"] and values["images"] == 1 and values["runs"][0]["threads"] == available_threads()


def test_a_compiled_file_is_timed_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All its weights count, and they are pruned though no option says so."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 64, 5)).eval()
    prune_(net, PatternSpec(connectivity=4.0))
    path, output = str(tmp_path / "net.patc"), tmp_path / "bench.json"
    patc.compile(net, (torch.zeros(1, 16, 8, 8),), threads=1).save(path)
    assert main(["bench", path, "--repetitions", "2", "--peers", "torch", "--json", str(output)]) == 0
    text = capsys.readouterr().out
    assert "missing: PyTorch eager: needs a model, not what patc compiled" in text and "as fast as" not in text
    (run,) = json.loads(output.read_text())["runs"]
    assert (run["threads"], run["weights"]) == (1, 16 * 16 * 9 + 16 * 64 * 5)
    ((name, weights, error),) = ((item["name"], item["weights"], item["error"]) for item in run["contestants"])
    assert (name, weights, error) == ("patc", "pruned", None)
    for option in (["--threads", "1"], ["--tune", "cost"], ["--target", "x86-64-v3"]):
        assert main(["bench", path, *option]) == 1
        assert f"expected a model to compile together with {option[0]}, got a compiled one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("nosuch", "expected a model out of"),
        ("resnet18 --throughput --layers", "expected --throughput without --layers"),
        ("resnet18 --threads 0", "expected threads from 1 to"),
        ("resnet18 --threads one", "expected --threads to be numbers such as 1,2, got 'one'"),
        ("resnet18 --threads 4096", "the cores of this machine, got 4096"),
        ("resnet18 --repetitions 0", "expected repetitions of 1 or more, got 0"),
        ("resnet18 --batch 0", "expected a batch of 1 or more, got 0"),
        (
            "resnet18 --peers ncn",
            "expected a peer out of torch, onnxruntime, openvino, ncnn, mnn, litert, deepsparse, got 'ncn'",
        ),
        ("resnet18 --library phase2", "expected --compression or --connectivity together with --library"),
        ("resnet18 --compression 0.5", "expected compression to be a finite rate of at least 1, found 0.5"),
        ("resnet18 --json /no/such/folder/x.json", "expected a file in a folder that exists"),
        ("missing.pt2", "expected a .pt2 file, found no such file"),
        ("net.pth", "net.pth: expected a .pt2 or .onnx file, which others run too, or a .patc file"),
        ("net.mlir", "expected a .pt2 or .onnx file, which others run too, or a .patc file"),
        ("net.onnx", "net.onnx: expected an .onnx file, found no such file"),
        ("net.onnx --compression 8", "expected the name of a model or a .pt2 file together with pruning, got a file"),
        ("net.pt2 --batch 2", "expected the name of a model together with --batch, got a file"),
        ("net.pt2 --weights w.pth", "expected the name of a model together with --weights, got a file"),
    ],
)
def test_wrong_arguments_give_one_line(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments.split()]) == 1
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and captured.out == ""


def test_onnx_files_that_onnx_runtime_refuses_give_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, path = onnx.helper, tmp_path / "net.onnx"
    for kind, other in (("Add", [2, 4]), ("Conv", [1, 4, 1, 1])):
        shapes = {"x": [1, 5, 2, 3] if kind == "Conv" else [2, 3], "w": other}
        inputs = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes.items()]
        outputs = [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)]
        graph = helper.make_graph([helper.make_node(kind, ["x", "w"], ["y"], name="wrong")], "graph", inputs, outputs)
        opsets = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
        assert main(["bench", str(path)]) == 1
        error = capfd.readouterr().err
        assert f"{path}: ONNX Runtime, which computes the reference, fails: " in error and error.count("\n") == 1


def test_damaged_file_gives_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "damaged.pt2"
    path.write_bytes(b"nothing")
    assert main(["bench", str(path)]) == 1
    assert "expected a .pt2 file, found damaged data or another format" in capsys.readouterr().err
